"""The load's statements find rows by keys, whatever the database guesses about temporary tables.

conftest.py passes every statement of all tests in this folder to `find_faults`.
"""

from collections.abc import Sequence
from typing import Any

import pytest

from directory_sync.joget.database import Database
from tests.company import Company, people
from tests.stand_in import user
from tests.statements import NOT_IN_SQLGLOT, Statement, find_faults

SMALL_TABLES = {"dir_group", "dir_organization", "dir_role", "dir_department", "columns", "tables"}
SMALL_TABLES |= {
    "directory_sync_lock",
    "directory_sync_group_link",
    "directory_sync_local_membership",
}
"""Tables that don't grow with the users."""

WHOLE_TABLE_READS = {
    "SELECT COUNT(*) FROM dir_user": "the seats",
    "SELECT u.id FROM dir_user u WHERE u.active = 1": "nearly all of them are linked",
    "FROM dir_user u STRAIGHT_JOIN directory_sync_text t ON t.text = "
    "u.username": "Joget has no index on username",
    "FROM dir_user_group WHERE groupId IN": "nearly all members are of synchronised groups",
    "FROM directory_sync_retired_login r": "held against the sent texts, which have the index",
    "FROM dir_user_password_history d": "Joget has no index on its username",
    "FROM dir_user_replacement d": "Joget has no index on its usernames",
    "FROM information_schema.": "MySQL's views over tables that don't grow with the users",
}
"""Parts of statements that read a whole table once, and why."""

WRITTEN_TABLE_TYPES = ("INSERT", "REPLACE")
"""The select_type of a table that is only written to: MySQL lists it as scanned."""


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, str]]]:
    """By statement: the tables that it scans, as EXPLAIN says just before the statement runs."""
    found: dict[str, list[tuple[str, str]]] = {}

    def explain(database: Database, statement: str, parameters: Sequence[Any]) -> None:
        if statement in NOT_IN_SQLGLOT or not Statement(statement).reads_rows:
            return
        with database._connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {statement}", parameters or None)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        rows = [row for row in rows if row["select_type"] not in WRITTEN_TABLE_TYPES]
        scanned = [
            (str(row["table"]), row["type"])
            for row in rows
            if row["type"] in ("ALL", "index") and row["table"]
        ]
        found.setdefault(statement, []).extend(scanned)

    for name in ("execute", "rows", "frame", "frames"):
        original = getattr(Database, name)

        def explain_and_run(
            self: Database,
            statement: str,
            parameters: Sequence[Any] = (),
            *,
            original: Any = original,
            **others: Any,
        ) -> Any:
            explain(self, statement, parameters)
            return original(self, statement, parameters, **others)

        monkeypatch.setattr(Database, name, explain_and_run)
    return found


def find_scans(explained: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Find the tables that are scanned and grow with the directory, each with its statement. Scans
    of temporary tables are intended.
    """
    found = []
    for statement, tables in explained.items():
        if not any(part in statement for part in WHOLE_TABLE_READS):
            for alias, _ in tables:
                table = Statement(statement).tables.get(alias, alias)
                if table not in SMALL_TABLES and not table.endswith(("_change", "_text", ">")):
                    found.append((table, statement))
    return found


def test_no_statement_of_a_load_scans_a_table_of_joget(
    company: Company, explained: dict[str, list[tuple[str, str]]]
) -> None:
    company.pool.users = people(400)
    company.pool.members = {"Sales": company.pool.users[:300], "Staff": company.pool.users[50:]}
    company.run()
    explained.clear()
    for table in (
        "dir_user",
        "dir_user_group",
        "dir_user_role",
        "dir_employment",
        "directory_sync_user_link",
    ):
        company.joget.execute(f"ANALYZE TABLE {table}")
    company.pool.users[7]["Enabled"] = False
    company.pool.users = [*company.pool.users[:-3], user("new@example.org")]
    company.pool.members["Sales"] = company.pool.users[5:]
    company.configure(
        policies={"missing_user": "delete", "missing_runs": 1, "renamed_user": "rename"}
    )
    company.run()
    assert len(explained) > 50
    assert any(
        "SELECT userId, groupId FROM dir_user_group WHERE userId IN" in one for one in explained
    )
    assert find_scans(explained) == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("SELECT id FROM dir_user WHERE id = %s", ""),
        ("DELETE d FROM directory_sync_text t STRAIGHT_JOIN dir_user d ON d.id = t.text WHERE "
         "t.text = %s", ""),
        ("SELECT id FROM dir_user WHERE", "isn't understood"),
        ("SHUTDOWN", "isn't understood"),
        ("DELETE FROM dir_user", "deletes without WHERE"),
        ("UPDATE dir_user SET active = 0", "updates without WHERE"),
        ("UPDATE dir_organization SET name = %s WHERE id = %s", "may not update dir_organization"),
        ("UPDATE dir_user u JOIN dir_role r ON r.id = u.id SET r.name = %s WHERE u.id = "
         "%s", "may not update dir_role"),
        ("DELETE r FROM dir_user u JOIN dir_role r ON r.id = u.id WHERE u.id = "
         "%s", "may not delete dir_role"),
        ("INSERT INTO wf_process (id) SELECT id FROM dir_user", "may not insert wf_process"),
        ("REPLACE INTO dir_user_meta (username) VALUES (%s)", "may not insert dir_user_meta"),
        ("ALTER TABLE dir_user ADD COLUMN sub INT", "may not alter dir_user"),
        ("DROP TABLE dir_user", "may not drop dir_user"),
        ("LOAD DATA LOCAL INFILE '/tmp/x' INTO TABLE dir_organization CHARACTER SET "
         "utf8mb4 (id)", "loads into a table where the sync inserts nothing"),
        ("SELECT id FROM dir_user WHERE id = "
         "'zoe@example.org'", "has a text that stands nowhere in the code"),
    ],
)  # fmt: skip
def test_a_statement_that_the_product_may_not_send_is_noticed(statement: str, fault: str) -> None:
    faults = "; ".join(find_faults(statement))
    assert (fault in faults) if fault else faults == ""
