"""The ledger: our tables beside Joget's, and the locks by which writers and readers take turns.

`links` reads who is linked, `runs` what was applied, `reviews` what a person was asked and
answered. `recording` writes what a run changes in the ledger.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from include.directory_sync import __version__
from include.directory_sync.errors import DirectorySyncError, PermanentError, TransientError
from include.directory_sync.joget.database import SHORT_IDLE_SECONDS, Database
from include.directory_sync.joget.tables import Tables
from include.directory_sync.run import Run

log = logging.getLogger(__name__)

LOCK_WAIT = 600
"""Seconds to wait for another run before the task gives up and is retried."""

LOCK_POLL = 10

HEARTBEAT_SECONDS = 30
"""How often a held lock's connection shows that its worker is alive; see SHORT_IDLE_SECONDS."""

READING_WAIT_SHARE = 0.75
"""The part of an extract task's time for which a backfill's run waits for another one's listing.

The rest is for what it does afterwards: it uses the other run's snapshot, which takes minutes.
"""

ASCII = "CHARACTER SET ascii COLLATE ascii_bin"


def ddl(tables: Tables) -> dict[str, str]:
    """CREATE TABLE statements by table.

    Keys are ASCII (a sub, a hash), so that they mean the same after Joget converts its schema's collation at start-up.
    A link whose `*_sha256` is NULL is history: its Joget row has another link now, or none.
    These tables, and the contents of the columns `counted` and `rules`, are version VERSION: each
    change of them needs a step in UPGRADES.
    """
    token, sync, pool, text = f"VARCHAR(128) {ASCII}", f"VARCHAR(40) {ASCII}", f"VARCHAR(55) {ASCII}", tables.text
    columns = {
        "directory_sync_lock": f"""
            id INT NOT NULL, revision BIGINT NOT NULL, holder VARCHAR(255) {ASCII}, since DATETIME(6),
            version INT NOT NULL DEFAULT 0, written_by {token},
            PRIMARY KEY (id)""",
        "directory_sync_user_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, sub {token} NOT NULL,
            user_id {text} NOT NULL, user_id_sha256 {token}, origin {token} NOT NULL, state {token} NOT NULL,
            misses INT NOT NULL, linked_at DATETIME(6) NOT NULL, changed_at DATETIME(6) NOT NULL,
            changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, sub), UNIQUE KEY user_once (user_id_sha256)""",
        "directory_sync_group_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, group_name_sha256 {token} NOT NULL,
            group_name {text} NOT NULL, group_id {text} NOT NULL, group_id_sha256 {token}, origin {token} NOT NULL,
            misses INT NOT NULL, linked_at DATETIME(6) NOT NULL, changed_at DATETIME(6) NOT NULL,
            changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, group_name_sha256), UNIQUE KEY group_once (group_id_sha256)""",
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
            review_id {token} NOT NULL, sync {sync} NOT NULL, asked_by {token} NOT NULL, plan_url TEXT NOT NULL,
            plan_sha256 {token} NOT NULL, held_sha256 {token} NOT NULL, opened_at DATETIME(6) NOT NULL,
            expires_at DATETIME(6) NOT NULL, answer {token}, answered_at DATETIME(6), answered_by {text},
            closed_at DATETIME(6),
            PRIMARY KEY (review_id), KEY open_one (sync, closed_at)""",
        "directory_sync_run": f"""
            run_sha256 {token} NOT NULL, sync {sync} NOT NULL, run_id TEXT {ASCII} NOT NULL,
            user_pool_id {pool} NOT NULL, organization {text} NOT NULL, kind {token} NOT NULL,
            snapshot_at DATETIME(6) NOT NULL, plan_sha256 {token} NOT NULL, held_sha256 {token},
            plan_url TEXT NOT NULL, transformed_url TEXT NOT NULL, counted LONGTEXT NOT NULL, rules LONGTEXT NOT NULL,
            committed_at DATETIME(6) NOT NULL,
            PRIMARY KEY (run_sha256), KEY newest (sync, user_pool_id, kind, snapshot_at)""",
    }
    return {name: f"CREATE TABLE IF NOT EXISTS {name} ({inner}\n) ENGINE=InnoDB" for name, inner in columns.items()}


TABLES = (
    "directory_sync_lock",
    "directory_sync_user_link",
    "directory_sync_group_link",
    "directory_sync_local_membership",
    "directory_sync_retired_login",
    "directory_sync_decision",
    "directory_sync_review",
    "directory_sync_run",
)


@dataclass(frozen=True)
class Step:
    """One column that an upgrade adds or alters."""

    table: str
    column: str
    data_type: str
    """The column's data_type in information_schema once the step is done. MySQL commits each DDL
    statement by itself, so an upgrade may end halfway. The next one finds by the data type what is
    left to do.
    """
    statement: str


UPGRADES: dict[int, tuple[Step, ...]] = {
    1: (
        # 900 groups that lost a member at once overflow a TEXT.
        Step(
            "directory_sync_run",
            "counted",
            "longtext",
            "ALTER TABLE directory_sync_run MODIFY COLUMN counted LONGTEXT NOT NULL",
        ),
        Step(
            "directory_sync_lock",
            "version",
            "int",
            "ALTER TABLE directory_sync_lock ADD COLUMN version INT NOT NULL DEFAULT 0",
        ),
        Step(
            "directory_sync_lock",
            "written_by",
            "varchar",
            f"ALTER TABLE directory_sync_lock ADD COLUMN written_by VARCHAR(128) {ASCII}",
        ),
    ),
}
"""Steps by the version to which they bring a ledger. Ledgers from before release 0.1.0 have no
version; release 0.1.0 writes version 1.

A dry run reads a ledger of an earlier version without upgrading it.
"""

VERSION = max(UPGRADES)
"""The version of the ledger that this release writes."""


def exists(database: Database) -> bool:
    """Whether every table of the ledger is there.

    Everything that reads or writes the ledger asks this first. Raises PermanentError where a newer
    release wrote the ledger.
    """
    found = _find_tables(database)
    if "directory_sync_lock" in found:
        _refuse_newer(database)
    return len(found) == len(TABLES)


def _find_tables(database: Database) -> set[str]:
    marks = ", ".join(["%s"] * len(TABLES))
    found = database.rows(
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN ({marks})",
        TABLES,
        about="information_schema.tables",
    )
    return {str(row[0]) for row in found}


def _refuse_newer(database: Database) -> None:
    version, release = _read_version(database)
    if version > VERSION:
        raise PermanentError(
            f"Release {release} of the sync wrote the ledger in Joget's database, as version {version}. "
            f"This is release {__version__}, which knows version {VERSION}. Run release {release} or a "
            f"newer one; nothing was written."
        )


def _read_version(database: Database) -> tuple[int, str]:
    """The ledger's version, and the release that made it or upgraded it to that. Version 0 where
    the ledger doesn't tell. The table directory_sync_lock must be there.
    """
    if not _has_version(database):
        return 0, ""
    rows = database.rows("SELECT version, written_by FROM directory_sync_lock", about="directory_sync_lock")
    return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "")


def _has_version(database: Database) -> bool:
    kinds = [_read_data_type(database, step) for step in UPGRADES[1] if step.table == "directory_sync_lock"]
    return None not in kinds


def _read_data_type(database: Database, step: Step) -> str | None:
    kinds = database.rows(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() "
        "AND table_name = %s AND column_name = %s",
        (step.table, step.column),
        about="information_schema.columns",
    )
    return str(kinds[0][0]).lower() if kinds else None


def create(database: Database, tables: Tables) -> None:
    """Create the ledger, or upgrade one that an earlier release wrote, under the lock by which
    writers take turns.

    Raises PermanentError with the statements for a DBA where the account may not do it, and where a
    newer release wrote the ledger.
    """
    if not _find_statements(database, tables):
        return
    with _hold_lock(database, _name_lock(database), LOCK_WAIT, lambda: "another run that writes the ledger"):
        statements = _find_statements(database, tables)  # another run may have executed them meanwhile
        try:
            for table, statement in statements:
                database.execute(statement, about=table)
        except PermanentError as error:
            script = ";\n".join(statement for _, statement in statements)
            raise PermanentError(
                f"The ledger's tables are missing or of an earlier version, and can't be made: {error} "
                f"A DBA may do it in Joget's schema, while no run of the sync is active, once:\n{script};"
            ) from None
    if statements:
        log.info("the ledger is of version %d now, written by release %s", VERSION, __version__)


def _find_statements(database: Database, tables: Tables) -> list[tuple[str, str]]:
    """What is left to do until the ledger is of this version: tables, each with a statement. The
    version is written last.
    """
    exists(database)
    found = _find_tables(database)
    version = _read_version(database)[0] if "directory_sync_lock" in found else 0
    statements = [(table, statement) for table, statement in ddl(tables).items() if table not in found]
    steps = [step for to in sorted(UPGRADES) if to > version for step in UPGRADES[to] if step.table in found]
    statements += [(step.table, step.statement) for step in steps if _read_data_type(database, step) != step.data_type]
    if version < VERSION:
        statements.append(("directory_sync_lock", _write_version()))
    return statements


def _write_version() -> str:
    """SQL that writes the version. It raises the revision: a run that planned before the upgrade plans again."""
    return (
        f"INSERT INTO directory_sync_lock (id, revision, version, written_by) "
        f"VALUES (1, 0, {VERSION}, '{__version__}') ON DUPLICATE KEY UPDATE "
        f"revision = revision + 1, version = {VERSION}, written_by = '{__version__}'"
    )


def _name_lock(database: Database) -> str:
    name = database.rows("SELECT LEFT(CONCAT('directory_sync:', DATABASE()), 64)", about="the lock")[0][0]
    return str(name)


@contextmanager
def lock(database: Database, run: Run) -> Iterator[None]:
    """Hold the one lock of this Joget database: user and group ids are global, so writers take turns.

    Logs for which run it waits; raises TransientError after LOCK_WAIT seconds, and PermanentError
    where a newer release upgraded the ledger meanwhile.
    """

    def holder() -> str:
        name, since = database.rows("SELECT holder, since FROM directory_sync_lock", about="directory_sync_lock")[0]
        return f"run {unquote(name)}, which has held the lock of this Joget database since {since} UTC"

    with _hold_lock(database, _name_lock(database), LOCK_WAIT, holder):
        _refuse_newer(database)
        database.execute(
            "UPDATE directory_sync_lock SET holder = %s, since = UTC_TIMESTAMP(6) WHERE id = 1",
            (f"{run.sync.name}/{quote(run.run_id)}"[:255],),
            about="directory_sync_lock",
        )
        yield


@contextmanager
def reading_turn(database: Database, run: Run) -> Iterator[None]:
    """Hold the turn at listing this sync's pool. A backfill's runs take turns, and the first one
    lists the pool for all of them.
    """
    of = hashlib.sha256(f"{run.sync.name}/{run.sync.user_pool_id}".encode()).hexdigest()[:32]
    name = f"directory_sync_read:{of}"
    patience = READING_WAIT_SHARE * run.sync.extract_timeout_hours * 3600
    with _hold_lock(database, name, patience, lambda: "the run that lists the pool for all"):
        yield


@contextmanager
def _hold_lock(database: Database, name: str, patience: float, describe_holder: Callable[[], str]) -> Iterator[None]:
    """Hold a lock of the server's on a connection of its own, kept busy by a heartbeat.

    The work under the lock may take any time, but if the worker's host vanishes, the lock is free
    after SHORT_IDLE_SECONDS. A lost lock harms nothing: a writer also takes its turn in the
    ledger's lock row (writing.Apply).
    """
    with database.open_another() as connection:
        connection.limit_idle_time(SHORT_IDLE_SECONDS)
        waited_since = time.monotonic()
        while connection.rows("SELECT GET_LOCK(%s, %s)", (name, LOCK_POLL), about="the lock")[0][0] != 1:
            holder = describe_holder()
            if time.monotonic() - waited_since > patience:
                raise TransientError(f"Waited too long for {holder}. Retrying later.")
            log.info("waiting for %s", holder)
        with _heartbeat(connection):
            yield
        with suppress(TransientError):  # a lost connection holds no lock any more
            connection.rows("SELECT RELEASE_LOCK(%s)", (name,), about="the lock")


@contextmanager
def _heartbeat(connection: Database) -> Iterator[None]:
    """Ask the server something every HEARTBEAT_SECONDS, on a connection that nobody else uses."""
    ended = threading.Event()

    def beat() -> None:
        try:
            while not ended.wait(HEARTBEAT_SECONDS):
                connection.execute("DO 0", about="the lock")
        except DirectorySyncError as error:
            log.warning("the lock's connection was lost; another run may begin: %s", error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def now(database: Database) -> datetime:
    """The database's time: one clock for all who write the ledger."""
    at: datetime = database.rows("SELECT UTC_TIMESTAMP(6)", about="the clock")[0][0]
    return at.replace(tzinfo=UTC)


def revision(database: Database) -> int:
    """The ledger's count of writes, by all syncs."""
    return int(database.rows("SELECT revision FROM directory_sync_lock", about="directory_sync_lock")[0][0])
