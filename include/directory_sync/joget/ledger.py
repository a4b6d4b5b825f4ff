"""The ledger: our tables beside Joget's. They say what is linked, what we did, and which runs were applied."""

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
from pydantic import ValidationError

from include.directory_sync.errors import PermanentError, TransientError
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.tables import Tables
from include.directory_sync.plan import Plan, Removals
from include.directory_sync.plan.changes import Excess, SettingsChange
from include.directory_sync.run import Run
from include.directory_sync.settings import Rules

log = logging.getLogger(__name__)

LOCK_WAIT = 600
"""Seconds to wait for another run before the task gives up and is retried."""

LOCK_POLL = 10

READING_WAIT = 3 * 3600
"""Seconds that a backfill's run waits for another one's listing: less than its task's execution_timeout."""

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
            decided_by {token} NOT NULL, decided_at DATETIME(6) NOT NULL,
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
            plan_url TEXT NOT NULL, transformed_url TEXT NOT NULL, counted TEXT NOT NULL, rules LONGTEXT NOT NULL,
            committed_at DATETIME(6) NOT NULL,
            PRIMARY KEY (run_sha256), KEY newest (sync, user_pool_id, kind, snapshot_at)""",
    }
    return {name: f"CREATE TABLE IF NOT EXISTS {name} ({inner}\n) ENGINE=InnoDB" for name, inner in columns.items()}


def run_key(run: Run, snapshot_at: datetime) -> str:
    """A run of one snapshot: clearing a whole run reads a new snapshot and may be applied again."""
    return hashlib.sha256(f"{run.sync.name}\0{run.run_id}\0{snapshot_at.isoformat()}".encode()).hexdigest()


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


def exists(database: Database) -> bool:
    """Whether every table of the ledger is there."""
    found = database.rows(
        f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN "
        f"({', '.join(['%s'] * len(TABLES))})",
        TABLES,
        about="information_schema.tables",
    )
    return bool(found[0][0] == len(TABLES))


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

    def holder() -> str:
        name, since = database.rows("SELECT holder, since FROM directory_sync_lock", about="directory_sync_lock")[0]
        return f"run {name}, which has held the lock of this Joget database since {since} UTC"

    name = database.rows("SELECT LEFT(CONCAT('directory_sync:', DATABASE()), 64)", about="the lock")[0][0]
    with _turn(database, name, LOCK_WAIT, holder):
        database.execute(
            "UPDATE directory_sync_lock SET holder = %s, since = UTC_TIMESTAMP(6)",
            (f"{run.sync.name}/{quote(run.run_id)}"[:255],),
            about="directory_sync_lock",
        )
        yield


@contextmanager
def reading_turn(database: Database, run: Run) -> Iterator[None]:
    """Hold the turn at listing this sync's pool: a backfill's runs take turns, so that one of them lists for all."""
    of = hashlib.sha256(f"{run.sync.name}/{run.sync.user_pool_id}".encode()).hexdigest()[:32]
    with _turn(database, f"directory_sync_read:{of}", READING_WAIT, lambda: "the run that lists the pool for all"):
        yield


@contextmanager
def _turn(database: Database, name: str, patience: float, holder: Callable[[], str]) -> Iterator[None]:
    waited_since = time.monotonic()
    while database.rows("SELECT GET_LOCK(%s, %s)", (name, LOCK_POLL), about="the lock")[0][0] != 1:
        whom = holder()
        if time.monotonic() - waited_since > patience:
            raise TransientError(f"Waited too long for {whom}. Retrying later.")
        log.info("waiting for %s", whom)
    try:
        yield
    finally:
        database.rows("SELECT RELEASE_LOCK(%s)", (name,), about="the lock")


@dataclass(frozen=True)
class Counted:
    """What can't be counted from plan.parquet alone."""

    memberships: dict[str, int]
    excesses: dict[str, Excess]
    removals: Removals
    settings_change: SettingsChange | None

    @classmethod
    def of(cls, plan: Plan, *, approved: bool) -> "Counted":
        """A plan's; what a person approved doesn't count among the removals of 24 hours."""
        removals = Removals() if approved else plan.removals
        return cls(plan.memberships, plan.excesses, removals, plan.settings_change)

    def dumps(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> "Counted":
        """From JSON."""
        raw = json.loads(text)
        excesses = {cause: Excess(**excess) for cause, excess in raw["excesses"].items()}
        change = raw["settings_change"]
        if change:
            change = SettingsChange(tuple(change["settings"]), change["adds"], change["spares"])
        return cls(raw["memberships"], excesses, Removals(**raw["removals"]), change)


@dataclass(frozen=True)
class CommittedRun:
    """A run that was applied: where its plan lies and the hash that vouches for it."""

    key: str
    kind: str
    """full, subset, review or undo."""
    plan_url: str
    """The folder with its plan.parquet and directory.parquet."""
    plan_sha256: str
    transformed_url: str
    """The folder of the desired directory that it was planned from."""
    counted: Counted
    user_pool_id: str
    organization: str


RUN_COLUMNS = "run_sha256, kind, plan_url, plan_sha256, transformed_url, counted, user_pool_id, organization"


def _committed(rows: list[tuple[Any, ...]]) -> CommittedRun | None:
    if not rows:
        return None
    key, kind, plan_url, plan_sha256, transformed_url, counted, pool, organization = rows[0]
    return CommittedRun(key, kind, plan_url, plan_sha256, transformed_url, Counted.loads(counted), pool, organization)


def committed_run(database: Database, key: str) -> CommittedRun | None:
    """The run of that key, if it was committed."""
    return _committed(
        database.rows(
            f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE run_sha256 = %s", (key,), about="directory_sync_run"
        )
    )


def newest_run_named(database: Database, sync: str, run_id: str) -> CommittedRun | None:
    """What was committed last under a run id of Airflow's."""
    return _committed(
        database.rows(
            f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE sync = %s AND run_id = %s "
            f"ORDER BY committed_at DESC LIMIT 1",
            (sync, quote(run_id)),
            about="directory_sync_run",
        )
    )


def newest_full_run(database: Database, run: Run) -> CommittedRun | None:
    """The run that applied the newest full snapshot of the sync's pool."""
    return _committed(
        database.rows(
            f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE sync = %s AND user_pool_id = %s AND kind = 'full' "
            f"ORDER BY snapshot_at DESC, committed_at DESC LIMIT 1",
            (run.sync.name, run.sync.user_pool_id),
            about="directory_sync_run",
        )
    )


def newest_rules(database: Database, run: Run) -> Rules | None:
    """Mapping, scope and policies of the sync's newest full run."""
    rows = database.rows(
        "SELECT rules FROM directory_sync_run WHERE sync = %s AND kind = 'full' ORDER BY committed_at DESC LIMIT 1",
        (run.sync.name,),
        about="directory_sync_run",
    )
    if not rows:
        return None
    try:
        return Rules.model_validate_json(rows[0][0])
    except ValidationError:  # settings of an earlier version of ours
        return None


@dataclass(frozen=True)
class RunRow:
    """What the ledger remembers of a run, written in the transaction of its changes."""

    key: str
    run: Run
    snapshot_at: datetime
    plan: Plan
    plan_url: str
    transformed_url: str
    kind: str
    """full, subset, review or undo."""

    @property
    def at(self) -> datetime:
        """The snapshot's time as the database keeps it: UTC without saying so."""
        return self.snapshot_at.astimezone(UTC).replace(tzinfo=None)

    def values(self, organization: str) -> pd.DataFrame:
        """One row for directory_sync_run, without committed_at."""
        counted = Counted.of(self.plan, approved=self.kind in ("review", "undo"))
        return pd.DataFrame(
            [
                {
                    "run_sha256": self.key,
                    "sync": self.run.sync.name,
                    "run_id": quote(self.run.run_id),
                    "user_pool_id": self.run.sync.user_pool_id,
                    "organization": organization,
                    "kind": self.kind,
                    "snapshot_at": self.at,
                    "plan_sha256": self.plan.sha256,
                    "held_sha256": self.plan.held_sha256,
                    "plan_url": self.plan_url,
                    "transformed_url": self.transformed_url,
                    "counted": counted.dumps(),
                    "rules": self.run.sync.rules.model_dump_json(),
                }
            ]
        )


def now(database: Database) -> datetime:
    """The database's time: one clock for all who write the ledger."""
    at: datetime = database.rows("SELECT UTC_TIMESTAMP(6)", about="the clock")[0][0]
    return at.replace(tzinfo=UTC)


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
        f"SELECT sync, user_pool_id, sub, user_id, state, misses, changed_at, "
        f"{tables.key(tables.as_directory('user_id'))} FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_user_link",
    )


def group_links(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget group, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, group_name, group_id, misses, changed_at, "
        f"{tables.key(tables.as_directory('group_id'))} "
        f"FROM directory_sync_group_link WHERE group_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_group_link",
    )


def past_links(database: Database, tables: Tables, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's links of this pool that are history, in the schema's columns."""
    return database.frame(
        f"SELECT sub, user_id, state, {tables.key(tables.as_directory('user_id'))} FROM directory_sync_user_link "
        f"WHERE user_id_sha256 IS NULL AND sync = %s AND user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=schema,
        about="directory_sync_user_link",
    )


def retired_logins(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every login that was linked once, in the schema's columns."""
    return database.frame(
        f"SELECT user_pool_id, sub, {tables.key(tables.as_directory('user_id'))} FROM directory_sync_retired_login",
        schema=schema,
        about="directory_sync_retired_login",
    )


def local_memberships(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's memberships that were found at an adoption, in the schema's columns."""
    return database.frame(
        "SELECT u.user_id, g.group_id FROM directory_sync_local_membership m "
        "JOIN directory_sync_user_link u ON u.user_id_sha256 = m.user_id_sha256 "
        "JOIN directory_sync_group_link g ON g.group_id_sha256 = m.group_id_sha256 WHERE m.sync = %s",
        (run.sync.name,),
        schema=schema,
        about="directory_sync_local_membership",
    )


def decisions(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """What was rejected or undone, in the schema's columns."""
    return database.frame(
        "SELECT decision_sha256, verdict FROM directory_sync_decision WHERE sync = %s",
        (run.sync.name,),
        schema=schema,
        about="directory_sync_decision",
    )


def remember_decisions(database: Database, sync: str, hashes: list[str], verdict: str, decided_by: str) -> None:
    """Note changes that a person said no to, or took back. Within a transaction."""
    frame = pd.DataFrame({"sha256": hashes}).assign(sync=sync, verdict=verdict, decided_by=decided_by)
    database.insert(
        "REPLACE INTO directory_sync_decision (sync, decision_sha256, verdict, decided_by, decided_at) "
        "VALUES (%s, %s, %s, %s, UTC_TIMESTAMP(6))",
        frame[["sync", "sha256", "verdict", "decided_by"]],
        about="directory_sync_decision",
    )


def forget_decisions(database: Database, sync: str, hashes: list[str]) -> None:
    """Forget decisions on changes that nobody asks for any more. Within a transaction."""
    for sha256 in hashes:
        database.execute(
            "DELETE FROM directory_sync_decision WHERE sync = %s AND decision_sha256 = %s",
            (sync, sha256),
            about="directory_sync_decision",
        )


def removals(database: Database, run: Run) -> Removals:
    """What the sync's runs took away during the last 24 hours."""
    rows = database.rows(
        "SELECT counted FROM directory_sync_run WHERE sync = %s AND kind IN ('full', 'subset') "
        "AND committed_at > UTC_TIMESTAMP(6) - INTERVAL 24 HOUR",
        (run.sync.name,),
        about="directory_sync_run",
    )
    found = [Counted.loads(row[0]).removals for row in rows]
    by_group = sum((Counter(removal.by_group) for removal in found), Counter())
    return Removals(
        sum(removal.users for removal in found), sum(removal.memberships for removal in found), dict(by_group)
    )


@dataclass(frozen=True)
class Review:
    """A question to a person about what a run held."""

    review_id: str
    sync: str
    asked_by: str
    """The run that asked."""
    plan_url: str
    """Where the plan lies whose held rows were shown."""
    plan_sha256: str
    held_sha256: str
    """Of the rows that were shown."""
    answer: str | None = None
    """approve, reject, or null."""
    answered_at: datetime | None = None
    answered_by: str | None = None
    is_open: bool = True


IS_OPEN = "(closed_at IS NULL AND (expires_at > UTC_TIMESTAMP(6) OR answered_at > UTC_TIMESTAMP(6) - INTERVAL 24 HOUR))"
"""An answer that nobody acts on for a day, or a question that nobody answered in time, bars no other review."""

REVIEW_COLUMNS = (
    f"review_id, sync, asked_by, plan_url, plan_sha256, held_sha256, answer, answered_at, answered_by, {IS_OPEN}"
)


def find_review(database: Database, review_id: str) -> Review | None:
    """The review of that id."""
    rows = database.rows(
        f"SELECT {REVIEW_COLUMNS} FROM directory_sync_review WHERE review_id = %s",
        (review_id,),
        about="directory_sync_review",
    )
    return Review(*rows[0]) if rows else None


def open_review(database: Database, sync: str) -> Review | None:
    """The sync's one open review."""
    rows = database.rows(
        f"SELECT {REVIEW_COLUMNS} FROM directory_sync_review WHERE sync = %s AND {IS_OPEN}",
        (sync,),
        about="directory_sync_review",
    )
    return Review(*rows[0]) if rows else None


def ask(database: Database, review: Review, timeout_hours: float) -> None:
    """Open a review; an hour more than its time-out lets a late answer still be loaded."""
    database.execute(
        "INSERT IGNORE INTO directory_sync_review (review_id, sync, asked_by, plan_url, plan_sha256, held_sha256, "
        "opened_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6), "
        "UTC_TIMESTAMP(6) + INTERVAL %s SECOND)",
        (
            review.review_id,
            review.sync,
            quote(review.asked_by),
            review.plan_url,
            review.plan_sha256,
            review.held_sha256,
            int(timeout_hours * 3600) + 3600,
        ),
        about="directory_sync_review",
    )


def note_answer(database: Database, review_id: str, answer: str, by: str | None) -> None:
    """Note who answered a review and when; the first answer stands."""
    database.execute(
        "UPDATE directory_sync_review SET answer = %s, answered_by = %s, answered_at = UTC_TIMESTAMP(6) "
        "WHERE review_id = %s AND answer IS NULL AND closed_at IS NULL",
        (answer, by, review_id),
        about="directory_sync_review",
    )


def close_review(database: Database, review_id: str) -> None:
    """A review that was acted on, or timed out, is open no more."""
    database.execute(
        "UPDATE directory_sync_review SET closed_at = UTC_TIMESTAMP(6) WHERE review_id = %s AND closed_at IS NULL",
        (review_id,),
        about="directory_sync_review",
    )
