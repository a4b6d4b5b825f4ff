"""The ledger: our tables beside Joget's. They say what is linked, what we did, and which runs were applied."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import pandas as pd
import pyarrow as pa

from include.directory_sync.errors import PermanentError, TransientError
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.tables import Tables
from include.directory_sync.plan import Plan
from include.directory_sync.run import Run

log = logging.getLogger(__name__)

LOCK_WAIT = 600
"""Seconds to wait for another run before the task gives up and is retried."""

LOCK_POLL = 10

ASCII = "CHARACTER SET ascii COLLATE ascii_bin"


def ddl(tables: Tables) -> dict[str, str]:
    """CREATE TABLE statements by table.

    Keys are ASCII (a sub, a hash), so that they mean the same after Joget converts its schema's collation at start-up.
    A link whose `*_sha256` is NULL is history: its Joget row is another's now, or nobody's.
    """
    token, sync, pool, text = f"VARCHAR(128) {ASCII}", f"VARCHAR(40) {ASCII}", f"VARCHAR(55) {ASCII}", tables.text
    columns = {
        "directory_sync_lock": f"""
            id INT NOT NULL, revision BIGINT NOT NULL, holder VARCHAR(255) {ASCII}, since DATETIME(6),
            PRIMARY KEY (id)""",
        "directory_sync_user_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, sub {token} NOT NULL,
            user_id {text} NOT NULL, user_id_sha256 {token}, origin {token} NOT NULL, state {token} NOT NULL,
            linked_at DATETIME(6) NOT NULL, changed_at DATETIME(6) NOT NULL, changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, sub), UNIQUE KEY user_once (user_id_sha256)""",
        "directory_sync_group_link": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, group_name_sha256 {token} NOT NULL,
            group_name {text} NOT NULL, group_id {text} NOT NULL, group_id_sha256 {token}, origin {token} NOT NULL,
            linked_at DATETIME(6) NOT NULL, changed_by {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, group_name_sha256), UNIQUE KEY group_once (group_id_sha256)""",
        "directory_sync_local_membership": f"""
            sync {sync} NOT NULL, user_pool_id {pool} NOT NULL, sub {token} NOT NULL,
            group_name_sha256 {token} NOT NULL,
            PRIMARY KEY (sync, user_pool_id, sub, group_name_sha256)""",
        "directory_sync_run": f"""
            run_sha256 {token} NOT NULL, sync {sync} NOT NULL, run_id TEXT {ASCII} NOT NULL,
            user_pool_id {pool} NOT NULL, organization {text} NOT NULL, kind {token} NOT NULL,
            snapshot_at DATETIME(6) NOT NULL, plan_sha256 {token} NOT NULL, held_sha256 {token},
            plan_url TEXT NOT NULL, memberships TEXT NOT NULL, committed_at DATETIME(6) NOT NULL,
            PRIMARY KEY (run_sha256), KEY newest (sync, user_pool_id, kind, snapshot_at)""",
    }
    return {name: f"CREATE TABLE IF NOT EXISTS {name} ({inner}\n) ENGINE=InnoDB" for name, inner in columns.items()}


def run_key(run: Run, snapshot_at: datetime) -> str:
    """A run of one snapshot: clearing a whole run reads a new snapshot and may be applied again."""
    return hashlib.sha256(f"{run.sync.name}\0{run.run_id}\0{snapshot_at.isoformat()}".encode()).hexdigest()


def exists(database: Database) -> bool:
    """Whether every table of the ledger is there."""
    found = database.rows(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN "
        "('directory_sync_lock', 'directory_sync_user_link', 'directory_sync_group_link', "
        "'directory_sync_local_membership', 'directory_sync_run')",
        about="information_schema.tables",
    )
    return bool(found[0][0] == 5)  # noqa: PLR2004 - the five tables above


def create(database: Database, tables: Tables) -> None:
    """Create what is missing; raises PermanentError with the DDL for the DBA where the account may not."""
    if not exists(database):
        statements = ddl(tables)
        try:
            for table, statement in statements.items():
                database.execute(statement, about=table)
        except PermanentError as error:
            script = ";\n".join(statements.values())
            raise PermanentError(
                f"The ledger's tables are missing, and can't be created: {error} A DBA may create them in Joget's "
                f"schema, once:\n{script};"
            ) from None
    database.execute("INSERT IGNORE INTO directory_sync_lock (id, revision) VALUES (1, 0)", about="directory_sync_lock")


@contextmanager
def lock(database: Database, run: Run) -> Iterator[None]:
    """Hold the one lock of this Joget database: user and group ids are global, so writers take turns.

    Waits politely and says for whom; raises TransientError after LOCK_WAIT seconds.
    """
    name = database.rows("SELECT LEFT(CONCAT('directory_sync:', DATABASE()), 64)", about="the lock")[0][0]
    waited_since = time.monotonic()
    while database.rows("SELECT GET_LOCK(%s, %s)", (name, LOCK_POLL), about="the lock")[0][0] != 1:
        holder, since = database.rows("SELECT holder, since FROM directory_sync_lock", about="directory_sync_lock")[0]
        if time.monotonic() - waited_since > LOCK_WAIT:
            raise TransientError(f"Run {holder} has held the lock of this Joget database since {since} UTC.")
        log.info("waiting for run %s, which has held the lock since %s UTC", holder, since)
    try:
        database.execute(
            "UPDATE directory_sync_lock SET holder = %s, since = UTC_TIMESTAMP(6)",
            (f"{run.sync.name}/{quote(run.run_id)}"[:255],),
            about="directory_sync_lock",
        )
        yield
    finally:
        database.rows("SELECT RELEASE_LOCK(%s)", (name,), about="the lock")


@dataclass(frozen=True)
class CommittedRun:
    """A run that was applied: where its plan lies and the hash that vouches for it."""

    plan_url: str
    """The folder with its plan.parquet and directory.parquet."""
    plan_sha256: str
    memberships: dict[str, int]
    """The plan's counts of memberships."""


def committed_run(database: Database, key: str) -> CommittedRun | None:
    """The run of that key, if it was committed."""
    rows = database.rows(
        "SELECT plan_url, plan_sha256, memberships FROM directory_sync_run WHERE run_sha256 = %s",
        (key,),
        about="directory_sync_run",
    )
    return CommittedRun(rows[0][0], rows[0][1], json.loads(rows[0][2])) if rows else None


@dataclass(frozen=True)
class RunRow:
    """What the ledger remembers of a run, written in the transaction of its changes."""

    key: str
    run: Run
    snapshot_at: datetime
    plan: Plan
    plan_url: str

    def values(self, organization: str) -> pd.DataFrame:
        """One row for directory_sync_run, without committed_at."""
        return pd.DataFrame(
            [
                {
                    "run_sha256": self.key,
                    "sync": self.run.sync.name,
                    "run_id": quote(self.run.run_id),
                    "user_pool_id": self.run.sync.user_pool_id,
                    "organization": organization,
                    "kind": "subset" if self.run.users else "full",
                    "snapshot_at": self.snapshot_at.replace(tzinfo=None),
                    "plan_sha256": self.plan.sha256,
                    "held_sha256": self.plan.held_sha256,
                    "plan_url": self.plan_url,
                    "memberships": json.dumps(self.plan.memberships),
                }
            ]
        )


def newest_snapshot_at(database: Database, run: Run) -> pd.Timestamp | None:
    """The time of the newest full snapshot applied for the sync's pool."""
    newest = database.rows(
        "SELECT MAX(snapshot_at) FROM directory_sync_run WHERE sync = %s AND user_pool_id = %s AND kind = 'full'",
        (run.sync.name, run.sync.user_pool_id),
        about="directory_sync_run",
    )[0][0]
    return None if newest is None else pd.Timestamp(newest, tz="UTC")


def revision(database: Database) -> int:
    """How often anybody wrote through this ledger."""
    return int(database.rows("SELECT revision FROM directory_sync_lock", about="directory_sync_lock")[0][0])


def user_links(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget user, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, sub, user_id, state, {tables.key(tables.as_directory('user_id'))} "
        f"FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_user_link",
    )


def group_links(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget group, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, group_name, group_id, {tables.key(tables.as_directory('group_id'))} "
        f"FROM directory_sync_group_link WHERE group_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_group_link",
    )


def local_memberships(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's memberships that were found at an adoption, in the schema's columns."""
    return database.frame(
        "SELECT m.sub, l.group_name FROM directory_sync_local_membership m JOIN directory_sync_group_link l "
        "ON l.sync = m.sync AND l.user_pool_id = m.user_pool_id AND l.group_name_sha256 = m.group_name_sha256 "
        "WHERE m.sync = %s AND m.user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=schema,
        about="directory_sync_local_membership",
    )
