"""The rights that the sync's account needs (docs/joget-grants.sql), and which of them it has.

Each right is tried by a statement that can change nothing. The servers check rights before anything
else, so any other refusal, such as that there is no such table, shows that the right is there.
"""

from dataclasses import dataclass
from enum import StrEnum

from directory_sync.errors import MissingRightError, PermanentError
from directory_sync.joget.database import Database
from directory_sync.joget.database_errors import TEMPORARY_TABLE
from directory_sync.joget.ledger.definition import LEDGER_TABLES


class Need(StrEnum):
    """The parts of docs/joget-grants.sql: what rights are needed for."""

    DIRECTORY = "directory"
    """Part 1: each sync, on Joget's tables."""
    LEDGER = "ledger"
    """Part 2: each sync, on its own tables."""
    REMOVAL = "removal"
    """Part 3: deleting, renaming and undoing."""


@dataclass(frozen=True)
class Right:
    """A privilege on a table."""

    privilege: str
    table: str

    def __str__(self) -> str:
        return f"{self.privilege} on {self.table}"


def _list_rights(rights: dict[str, str]) -> tuple[Right, ...]:
    return tuple(
        Right(privilege, table)
        for table, privileges in rights.items()
        for privilege in privileges.split()
    )


RIGHTS_BY_NEED = {
    Need.DIRECTORY: _list_rights(
        {
            "dir_user": "SELECT INSERT UPDATE",
            "dir_group": "SELECT INSERT UPDATE",
            "dir_user_group": "SELECT INSERT DELETE",
            "dir_user_role": "SELECT INSERT",
            "dir_employment": "SELECT INSERT",
            "dir_role": "SELECT",
            "dir_organization": "SELECT",
        }
    ),
    Need.LEDGER: _list_rights(
        {
            "directory_sync_lock": "CREATE ALTER SELECT INSERT UPDATE",
            "directory_sync_user_link": "CREATE ALTER SELECT INSERT UPDATE DELETE",
            "directory_sync_group_link": "CREATE SELECT INSERT UPDATE DELETE",
            "directory_sync_local_membership": "CREATE SELECT INSERT UPDATE DELETE",
            "directory_sync_retired_login": "CREATE SELECT INSERT DELETE",
            "directory_sync_decision": "CREATE SELECT INSERT DELETE",
            "directory_sync_review": "CREATE SELECT INSERT UPDATE",
            "directory_sync_run": "CREATE ALTER SELECT INSERT UPDATE",
            "directory_sync_delay": "CREATE SELECT INSERT DELETE",
        }
    ),
    Need.REMOVAL: _list_rights(
        {
            "dir_user": "DELETE",
            "dir_group": "DELETE",
            "dir_user_group": "UPDATE",
            "dir_user_role": "UPDATE DELETE",
            "dir_employment": "UPDATE DELETE",
            "dir_department": "SELECT UPDATE",
            "dir_employment_report_to": "SELECT DELETE",
            "dir_user_meta": "SELECT UPDATE DELETE",
            "dir_user_extra": "SELECT UPDATE DELETE",
            "dir_user_password_history": "SELECT UPDATE DELETE",
            "dir_user_replacement": "SELECT UPDATE DELETE",
        }
    ),
}
"""docs/joget-grants.sql as values; a test compares them. CREATE TEMPORARY TABLES, which is a right
on the whole schema, isn't among them.
"""

TRIED_COLUMNS = {
    "dir_user_group": "userId",
    "dir_user_role": "userId",
    "dir_department": "hod",
    "dir_employment_report_to": "employmentId",
    "dir_user_meta": "username",
    "dir_user_extra": "username",
    "dir_user_password_history": "username",
    "dir_user_replacement": "username",
    **dict.fromkeys(LEDGER_TABLES, "sync"),
    "directory_sync_lock": "id",
    "directory_sync_retired_login": "user_id",
}
"""A column that statements name, where it isn't `id`."""

TRIAL_TABLE = "directory_sync_trial"


def find_missing_rights(database: Database, need: Need) -> list[Right]:
    """The rights of a part of docs/joget-grants.sql that the account lacks.

    Raises TransientError where the server can't be reached or takes no writes.
    """
    return [right for right in RIGHTS_BY_NEED[need] if not _has_right(database, right)]


def _has_right(database: Database, right: Right) -> bool:
    statement, parameters = _make_trial(right)
    try:
        database.execute(statement, parameters, about=right.table)
    except MissingRightError:
        return False
    except PermanentError:  # refused for another reason, once the right was checked
        return True
    return True


def _make_trial(right: Right) -> tuple[str, tuple[str, ...]]:
    """A statement that needs this right and no other, and its parameters.

    No row fits it. CREATE names a column twice, and ALTER drops a column that isn't there: the
    server refuses both once it has checked the right.
    """
    table, column = right.table, TRIED_COLUMNS.get(right.table, "id")
    trials: dict[str, tuple[str, tuple[str, ...]]] = {
        "SELECT": (f"SELECT {column} FROM {table} LIMIT 0", ()),
        "INSERT": (f"INSERT INTO {table} ({column}) SELECT %s FROM DUAL WHERE 1 = 0", ("0",)),
        "UPDATE": (f"UPDATE {table} SET {column} = %s WHERE 1 = 0", ("0",)),
        "DELETE": (f"DELETE FROM {table} WHERE 1 = 0", ()),
        "CREATE": (f"CREATE TABLE {table} (trial INT, trial INT)", ()),
        "ALTER": (f"ALTER TABLE {table} DROP COLUMN {TRIAL_TABLE}", ()),
    }
    return trials[right.privilege]


def require_temporary_tables(database: Database) -> None:
    """Make a temporary table and drop it; raises MissingRightError where the account may not."""
    # A server with sql_require_primary_key refuses a table without one.
    columns = "trial INT PRIMARY KEY"
    database.execute(f"CREATE TEMPORARY TABLE {TRIAL_TABLE} ({columns})", about=TEMPORARY_TABLE)
    database.execute(f"DROP TEMPORARY TABLE {TRIAL_TABLE}", about=TEMPORARY_TABLE)
