"""The load's statements find rows by keys, whatever the database guesses about temporary tables."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from include.directory_sync.joget.database import Database
from tests.company import Company, people

SMALL = {"dir_group", "dir_organization", "dir_role", "dir_department", "columns", "tables"}
SMALL |= {"directory_sync_lock", "directory_sync_group_link", "directory_sync_local_membership"}
"""Tables that don't grow with the users."""

WHOLE = {
    "SELECT COUNT(*) FROM dir_user": "the seats",
    "FROM dir_user u STRAIGHT_JOIN directory_sync_text t ON t.text = u.username": "Joget has no index on username",
    "FROM dir_user_group WHERE groupId IN": "nearly all members are of synchronised groups",
    "FROM directory_sync_retired_login r": "held against the sent texts, which have the index",
    "FROM dir_user_password_history d": "Joget has no index on its username",
    "FROM dir_user_replacement d": "Joget has no index on its usernames",
    "FROM information_schema.": "MySQL's views over tables that don't grow with the users",
}
"""What reads a whole table once, and why."""

WRITTEN = ("INSERT", "REPLACE")
"""The select_type of a table that is only written to: MySQL lists it as scanned."""


@pytest.fixture
def explained(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, str]]]:
    """By statement that ran: tables that it scans, as EXPLAIN says just before it runs."""
    found: dict[str, list[tuple[str, str]]] = {}

    def explain(database: Database, statement: str, parameters: Sequence[Any]) -> None:
        if not re.match(r"\s*(SELECT .* FROM|INSERT INTO .* SELECT|REPLACE INTO .* SELECT|UPDATE|DELETE)", statement):
            return
        with database._connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {statement}", parameters or None)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        rows = [row for row in rows if row["select_type"] not in WRITTEN]
        scanned = [(str(row["table"]), row["type"]) for row in rows if row["type"] in ("ALL", "index") and row["table"]]
        found.setdefault(statement, []).extend(scanned)

    for name in ("execute", "rows", "frame"):
        original = getattr(Database, name)

        def spying(
            self: Database, statement: str, parameters: Sequence[Any] = (), *, original: Any = original, **others: Any
        ) -> Any:
            explain(self, statement, parameters)
            return original(self, statement, parameters, **others)

        monkeypatch.setattr(Database, name, spying)
    return found


def scans(explained: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """Tables that grow with the directory and are scanned, with the statement. Temporary tables are meant to be."""
    found = []
    for statement, tables in explained.items():
        if not any(part in statement for part in WHOLE):
            for alias, _ in tables:
                table = _table(alias, statement)
                if table not in SMALL and not table.endswith(("_change", "_text", ">")):
                    found.append((table, statement))
    return found


def _table(alias: str, statement: str) -> str:
    named = re.search(rf"\b(\w+) {re.escape(alias)}\b(?!\.)", re.sub(r"DELETE d FROM", "DELETE FROM", statement))
    return named[1] if named and len(alias) == 1 else alias


def test_no_statement_of_a_load_scans_a_table_of_joget(
    company: Company, explained: dict[str, list[tuple[str, str]]]
) -> None:
    company.pool.users = people(400)
    company.pool.members = {"Sales": company.pool.users[:300], "Staff": company.pool.users[50:]}
    company.run()
    explained.clear()
    for table in ("dir_user", "dir_user_group", "dir_user_role", "dir_employment", "directory_sync_user_link"):
        company.joget.execute(f"ANALYZE TABLE {table}")
    company.pool.users[7]["Enabled"] = False
    company.pool.users = company.pool.users[:-3]
    company.pool.members["Sales"] = company.pool.users[5:]
    company.configure(policies={"missing_user": "delete", "missing_runs": 1, "renamed_user": "rename"})
    company.run()
    assert len(explained) > 50
    assert scans(explained) == []
