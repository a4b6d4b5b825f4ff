"""Joget's directory tables as this installation has them: checked, with their charset and
collation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from directory_sync.errors import MissingRightError, PermanentError
from directory_sync.joget.database import Database
from directory_sync.plan.changes import USER_COLUMNS

REQUIRED_COLUMNS = {
    "dir_user": f"id username password {' '.join(USER_COLUMNS)}",
    "dir_group": "id name description organizationId",
    "dir_organization": "id",
    "dir_role": "id",
    "dir_user_group": "groupId userId",
    "dir_user_role": "roleId userId",
    "dir_employment": "id userId organizationId",
}
"""Tables and columns that the sync reads or writes."""

TABLES_BY_USERNAME = (
    ("dir_user_meta", "username"),
    ("dir_user_extra", "username"),
    ("dir_user_password_history", "username"),
    ("dir_user_replacement", "username"),
    ("dir_user_replacement", "replacementUser"),
)
"""Tables, and their columns, that name a user by username, without a foreign key."""

TABLES_WITHOUT_INDEX = ("dir_user_password_history", "dir_user_replacement")
"""The tables of TABLES_BY_USERNAME that have no index on the username."""

TABLES_BY_USER_ID = (
    ("dir_user_group", "userId"),
    ("dir_user_role", "userId"),
    ("dir_employment", "userId"),
)
"""The children of dir_user."""

LEDGER_TEXT_LENGTH = 255
"""Characters that our own temporary tables hold."""

KEY_COLUMNS = {"id", "userid", "groupid", "roleid", "organizationid", "username"}

KNOWN_CHARSETS = {"utf8mb4": True, "utf8mb3": False, "utf8": False}
"""Charsets of DX 8 and DX 7, and whether they hold characters beyond U+FFFF, such as emoji."""


def name_columns(columns: Iterable[str], alias: str) -> str:
    """SQL: the columns of a table that has this alias."""
    return ", ".join(f"{alias}.{column}" for column in columns)


@dataclass(frozen=True)
class JogetTables:
    """How the directory's texts compare."""

    charset: str
    collation: str
    space: str
    """The collation's weight of a space, in hex: the collation ignores trailing spaces."""
    role_user: str
    """ROLE_USER's stored id."""
    organization: str
    """The organization's stored id."""
    user_columns: tuple[str, ...]
    """Every column of dir_user, also those that Joget or somebody else added."""
    column_lengths: dict[str, int]
    """How many characters dir_user's text columns hold, by column."""

    @property
    def stores_all_of_unicode(self) -> bool:
        """Whether emoji can be stored."""
        return KNOWN_CHARSETS[self.charset]

    @property
    def text(self) -> str:
        """The type of our own columns that are compared with directory columns."""
        return f"VARCHAR(255) CHARACTER SET {self.charset} COLLATE {self.collation}"

    def as_directory(self, expression: str) -> str:
        """SQL that puts an expression over our tables into the directory's collation."""
        # Joget converts every table of its schema when it starts (from 8.0.5 and 7.0.44 on), so our
        # collation may have become another than the directory's. To join the two is error 1267.
        return f"CONVERT({expression} USING {self.charset}) COLLATE {self.collation}"

    def key(self, expression: str) -> str:
        """SQL of the comparison key. Two keys are equal if, and only if, the texts are equal by the
        directory's collation; NULL for a text without weight.
        """
        # Unlike the collation, WEIGHT_STRING counts trailing spaces. A text without weight equals
        # the empty one, and gets no key (tests/directory_sync/joget/test_schema.py).
        weight = f"TRIM(TRAILING x'{self.space}' FROM WEIGHT_STRING({expression}))"
        return f"NULLIF(SHA2({weight}, 256), SHA2('', 256))"


def inspect_tables(database: Database, organization: str) -> JogetTables:
    """Check the tables, ROLE_USER and the organization; raises PermanentError that says what is
    wrong.
    """
    found = database.rows(
        "SELECT LOWER(table_name), column_name, character_set_name, collation_name, "
        "character_maximum_length "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE "
        "'dir\\_%'",
        about="information_schema.columns",
    )
    columns = {(table, column.lower()) for table, column, *_ in found}
    lacking = [
        f"{table}.{column}"
        for table, names in REQUIRED_COLUMNS.items()
        for column in names.split()
        if (table, column.lower()) not in columns
    ]
    if lacking:
        # information_schema leaves out each table on which the account has no right.
        _require_right_to_read(
            database, {name.partition(".")[0] for name in lacking} - {table for table, *_ in found}
        )
        raise PermanentError(
            f"The database isn't Joget's: {', '.join(lacking)} not found. "
            f"Correct the schema of the Connection in joget_conn_id."
        )
    # A comparison of two collations is error 1267.
    kinds = {
        (charset, collation)
        for table, column, charset, collation, _ in found
        if table in REQUIRED_COLUMNS and charset and column.lower() in KEY_COLUMNS
    }
    if len(kinds) != 1 or next(iter(kinds))[0] not in KNOWN_CHARSETS:
        raise PermanentError(
            "Joget's directory tables have "
            f"{', '.join(sorted(collation for _, collation in kinds))}; their keys must share one "
            "collation of utf8mb4 or utf8, as Joget creates them. Convert them with Joget's own "
            "start-up."
        )
    charset, collation = kinds.pop()
    # A collation can't be a parameter: its name becomes part of the statements.
    if not re.fullmatch(r"\w+", collation):
        raise PermanentError("The collation of Joget's directory tables has an unusable name.")
    space = database.rows(
        f"SELECT HEX(WEIGHT_STRING(CONVERT(' ' USING {charset}) COLLATE {collation}))",
        about="the collation",
    )[0][0]
    user_columns = tuple(column for table, column, *_ in found if table == "dir_user")
    names = {name.lower(): name for name in REQUIRED_COLUMNS["dir_user"].split()}
    # Values of longer columns travel through our own tables too, which hold LEDGER_TEXT_LENGTH.
    lengths = {
        names[column.lower()]: min(int(length), LEDGER_TEXT_LENGTH)
        for table, column, _, _, length in found
        if table == "dir_user" and column.lower() in names and length is not None
    }
    role, stored = _read_role(database), _read_organization(database, organization)
    return JogetTables(charset, collation, space, role, stored, user_columns, lengths)


def has_username_index(database: Database) -> bool:
    """Whether an index of dir_user begins with the username. Joget makes none."""
    return bool(
        database.rows(
            "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() "
            "AND LOWER(table_name) = 'dir_user' AND column_name = 'username' AND seq_in_index = 1",
            about="information_schema.statistics",
        )
    )


def count_users(database: Database) -> int:
    """All rows of dir_user."""
    return int(database.rows("SELECT COUNT(*) FROM dir_user", about="dir_user")[0][0])


def read_server_version(database: Database) -> str:
    """The server's version in its own words, such as `10.11.6-MariaDB`."""
    return str(database.rows("SELECT VERSION()", about="the server")[0][0])


def _require_right_to_read(database: Database, unseen: set[str]) -> None:
    """Raise MissingRightError for a table that exists, and that the account may not read."""
    for table in sorted(unseen):
        try:
            database.rows(f"SELECT 1 FROM {table} LIMIT 0", about=table)
        except MissingRightError:
            raise
        except PermanentError:  # it doesn't exist, which the caller says of all tables at once
            continue


def _read_role(database: Database) -> str:
    roles = database.rows("SELECT id FROM dir_role WHERE id = %s", ("ROLE_USER",), about="dir_role")
    if not roles:
        raise PermanentError(
            "Joget's dir_role has no ROLE_USER, without which nobody can log in. Start Joget once."
        )
    return str(roles[0][0])


def _read_organization(database: Database, organization: str) -> str:
    # Compared here, by bytes: to MySQL an id in other letters is the same, but Hibernate finds
    # nothing by a foreign key that isn't byte-identical to its parent's id.
    stored = [
        str(row[0])
        for row in database.rows("SELECT id FROM dir_organization", about="dir_organization")
    ]
    if organization not in stored:
        raise PermanentError(
            "Joget has no organization with the id that the setting or parameter organization "
            f"gives. It has: {', '.join(sorted(stored)) or 'none'}. Correct organization, or "
            "create it in Joget first."
        )
    return organization
