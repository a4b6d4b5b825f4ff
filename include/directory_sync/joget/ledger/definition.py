"""The ledger: our tables beside Joget's, and the locks by which writers and readers take turns.

`links` reads the links, `runs` what was applied, `reviews` what a person was asked and answered.
`recording` writes what a run changes in the ledger.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from directory_sync import __version__
from directory_sync.errors import PermanentError
from directory_sync.joget.database import Database
from directory_sync.joget.schema import JogetTables

log = logging.getLogger(__name__)


ASCII_COLUMN = "CHARACTER SET ascii COLLATE ascii_bin"


def make_table_statements(tables: JogetTables) -> dict[str, str]:
    """CREATE TABLE statements by table.

    A link with NULL in `*_sha256` is history: its Joget row has another link now, or none. These
    tables, and the contents of the columns `counted` and `rules`, are version LEDGER_VERSION: each
    change of them needs a step in UPGRADES.
    """
    # When Joget starts, it converts every table of its schema to the schema's collation. Keys in
    # ASCII (a sub, a hash) mean the same after that.
    token, sync, pool, text = (
        f"VARCHAR(128) {ASCII_COLUMN}",
        f"VARCHAR(40) {ASCII_COLUMN}",
        f"VARCHAR(55) {ASCII_COLUMN}",
        tables.text,
    )
    # UNIQUE keys ignore NULLs: a Joget row has one live link, and any number that are history.
    columns = {
        "directory_sync_lock": f"""
            id INT NOT NULL, revision BIGINT NOT NULL, holder VARCHAR(255) {ASCII_COLUMN},
            since DATETIME(6),
            version INT NOT NULL DEFAULT 0, written_by {token},
            PRIMARY KEY (id)""",
        "directory_sync_user_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, sub {token} NOT NULL,
            user_id {text} NOT NULL, user_id_sha256 {token}, origin {token} NOT NULL,
            state {token} NOT NULL,
            misses INT NOT NULL, linked_at DATETIME(6) NOT NULL, changed_at DATETIME(6) NOT NULL,
            changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, sub), UNIQUE KEY user_once (user_id_sha256),
            KEY by_user_id (user_id)""",
        "directory_sync_group_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, group_name_sha256 {token} NOT NULL,
            group_name {text} NOT NULL, group_id {text} NOT NULL, group_id_sha256 {token},
            origin {token} NOT NULL,
            misses INT NOT NULL, linked_at DATETIME(6) NOT NULL, changed_at DATETIME(6) NOT NULL,
            changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, group_name_sha256),
            UNIQUE KEY group_once (group_id_sha256)""",
        "directory_sync_local_membership": f"""
            sync {sync} NOT NULL, user_id_sha256 {token} NOT NULL, group_id_sha256 {token} NOT NULL,
            PRIMARY KEY (user_id_sha256, group_id_sha256)""",
        "directory_sync_retired_login": f"""
            user_id_sha256 {token} NOT NULL, user_id {text} NOT NULL, sync {sync} NOT NULL,
            user_pool_id {pool} NOT NULL, sub {token} NOT NULL, retired_at DATETIME(6) NOT NULL,
            PRIMARY KEY (user_id_sha256)""",
        "directory_sync_decision": f"""
            sync {sync} NOT NULL, decision_sha256 {token} NOT NULL, verdict {token} NOT NULL,
            about {token}, decided_by {token} NOT NULL, decided_at DATETIME(6) NOT NULL,
            PRIMARY KEY (sync, decision_sha256)""",
        "directory_sync_review": f"""
            review_id {token} NOT NULL, sync {sync} NOT NULL, asked_by {token} NOT NULL,
            plan_url TEXT NOT NULL,
            plan_sha256 {token} NOT NULL, held_sha256 {token} NOT NULL,
            opened_at DATETIME(6) NOT NULL,
            expires_at DATETIME(6) NOT NULL, answer {token}, answered_at DATETIME(6),
            answered_by {text},
            closed_at DATETIME(6),
            PRIMARY KEY (review_id), KEY open_one (sync, closed_at)""",
        "directory_sync_run": f"""
            run_sha256 {token} NOT NULL, sync {sync} NOT NULL, run_id TEXT {ASCII_COLUMN} NOT NULL,
            user_pool_id {pool} NOT NULL, organization {text} NOT NULL, kind {token} NOT NULL,
            snapshot_at DATETIME(6) NOT NULL, plan_sha256 {token} NOT NULL, held_sha256 {token},
            plan_url TEXT NOT NULL, transformed_url TEXT NOT NULL, counted LONGTEXT NOT NULL,
            rules LONGTEXT NOT NULL,
            committed_at DATETIME(6) NOT NULL,
            PRIMARY KEY (run_sha256), KEY newest (sync, user_pool_id, kind, snapshot_at),
            KEY by_commit (sync, committed_at)""",
        "directory_sync_delay": f"""
            sync {sync} NOT NULL, run_sha256 {token} NOT NULL, sub {token} NOT NULL,
            what {token} NOT NULL, way {token} NOT NULL,
            happened_at DATETIME(6), arrived_at DATETIME(6), committed_at DATETIME(6) NOT NULL,
            PRIMARY KEY (run_sha256, sub), KEY by_commit (sync, committed_at)""",
    }
    return {
        name: f"CREATE TABLE IF NOT EXISTS {name} ({inner}\n) ENGINE=InnoDB"
        for name, inner in columns.items()
    }


TABLES_BY_VERSION = {
    1: (
        "directory_sync_lock",
        "directory_sync_user_link",
        "directory_sync_group_link",
        "directory_sync_local_membership",
        "directory_sync_retired_login",
        "directory_sync_decision",
        "directory_sync_review",
        "directory_sync_run",
    ),
    2: ("directory_sync_delay",),
}
"""The tables by the version that brought them. Plans are made from those of version 1."""

LEDGER_TABLES = tuple(table for tables in TABLES_BY_VERSION.values() for table in tables)


def list_tables(version: int) -> set[str]:
    """The tables of a ledger of this version. The first ledgers, of version 0, have those of
    version 1.
    """
    return {
        table
        for since, tables in TABLES_BY_VERSION.items()
        if since <= max(version, 1)
        for table in tables
    }


@dataclass(frozen=True)
class ColumnStep:
    """One column that an upgrade adds or alters."""

    table: str
    column: str
    data_type: str
    """The column's data_type in information_schema once the step is done. MySQL commits each DDL
    statement by itself, so an upgrade may end halfway. The next one finds by the data type what is
    left to do.
    """
    statement: str

    def is_done(self, database: Database) -> bool:
        """Whether the column has the data type by now."""
        return read_data_type(database, self) == self.data_type


@dataclass(frozen=True)
class IndexStep:
    """One index that an upgrade adds."""

    table: str
    index: str
    statement: str

    def is_done(self, database: Database) -> bool:
        """Whether the table has an index of this name by now."""
        found = database.rows(
            "SELECT COUNT(*) FROM information_schema.statistics WHERE table_schema = DATABASE() "
            "AND table_name = %s AND index_name = %s",
            (self.table, self.index),
            about="information_schema.statistics",
        )
        return bool(found[0][0])


UpgradeStep = ColumnStep | IndexStep


UPGRADES: dict[int, tuple[UpgradeStep, ...]] = {
    1: (
        # 900 groups that lost a member at once overflow a TEXT.
        ColumnStep(
            "directory_sync_run",
            "counted",
            "longtext",
            "ALTER TABLE directory_sync_run MODIFY COLUMN counted LONGTEXT NOT NULL",
        ),
        ColumnStep(
            "directory_sync_lock",
            "version",
            "int",
            "ALTER TABLE directory_sync_lock ADD COLUMN version INT NOT NULL DEFAULT 0",
        ),
        ColumnStep(
            "directory_sync_lock",
            "written_by",
            "varchar",
            f"ALTER TABLE directory_sync_lock ADD COLUMN written_by VARCHAR(128) {ASCII_COLUMN}",
        ),
    ),
    2: (
        # By it, one user's link is found by Joget's collation without reading all links.
        IndexStep(
            "directory_sync_user_link",
            "by_user_id",
            "ALTER TABLE directory_sync_user_link ADD INDEX by_user_id (user_id)",
        ),
        # A live run every few seconds sums up the last day, and nothing deletes a run's row.
        IndexStep(
            "directory_sync_run",
            "by_commit",
            "ALTER TABLE directory_sync_run ADD INDEX by_commit (sync, committed_at)",
        ),
    ),
}
"""Steps by the version to which they bring a ledger; tables that a version brings are made anyway.
The first ledgers have no version.

A dry run reads a ledger of an earlier version without upgrading it.
"""

LEDGER_VERSION = max(UPGRADES)
"""The version of the ledger that this release writes."""


def is_ledger_complete(database: Database) -> bool:
    """Whether every table that plans are made from is there, in this or an earlier version.

    Everything that reads or writes the ledger asks this first. Raises PermanentError where a newer
    release wrote the ledger.
    """
    found = find_ledger_tables(database)
    if "directory_sync_lock" in found:
        refuse_newer_ledger(database)
    return found >= list_tables(1)


def find_ledger_tables(database: Database) -> set[str]:
    """Names of the ledger's tables that are there."""
    marks = ", ".join(["%s"] * len(LEDGER_TABLES))
    found = database.rows(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND "
        f"table_name IN ({marks})",
        LEDGER_TABLES,
        about="information_schema.tables",
    )
    return {str(row[0]) for row in found}


def refuse_newer_ledger(database: Database) -> None:
    """Raise PermanentError where a newer release wrote the ledger.

    The table directory_sync_lock must be there.
    """
    version, release = read_ledger_version(database)
    if version > LEDGER_VERSION:
        raise PermanentError(
            f"Release {release} of the sync wrote the ledger in Joget's database, as version "
            f"{version}. This is release {__version__}, which knows version {LEDGER_VERSION}. Run "
            f"release {release} or a newer one; nothing was written."
        )


def read_ledger_version(database: Database) -> tuple[int, str]:
    """The ledger's version, and the release that created the ledger or upgraded it to that version.
    Version 0 where the ledger has none. The table directory_sync_lock must be there.
    """
    if not _has_version(database):
        return 0, ""
    rows = database.rows(
        "SELECT version, written_by FROM directory_sync_lock", about="directory_sync_lock"
    )
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")


def _has_version(database: Database) -> bool:
    kinds = [
        read_data_type(database, step)
        for step in UPGRADES[1]
        if isinstance(step, ColumnStep) and step.table == "directory_sync_lock"
    ]
    return None not in kinds


def read_data_type(database: Database, step: ColumnStep) -> str | None:
    """The data_type of a step's column now; None where there is no such column."""
    kinds = database.rows(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() "
        "AND table_name = %s AND column_name = %s",
        (step.table, step.column),
        about="information_schema.columns",
    )
    return str(kinds[0][0]).lower() if kinds else None


def read_clock(database: Database) -> datetime:
    """The database's time: one clock for everything that writes the ledger."""
    at: datetime = database.rows("SELECT UTC_TIMESTAMP(6)", about="the clock")[0][0]
    return at.replace(tzinfo=UTC)


def read_revision(database: Database) -> int:
    """The ledger's count of writes, by all syncs."""
    return int(
        database.rows("SELECT revision FROM directory_sync_lock", about="directory_sync_lock")[0][0]
    )
