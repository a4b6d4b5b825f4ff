"""The ledger's runs: what was applied, when, from which snapshot, and where its plan is."""

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pandas as pd
from pydantic import ValidationError

from directory_sync.frames import make_empty_frame
from directory_sync.joget.database import Database
from directory_sync.joget.ledger import definition
from directory_sync.plan import Plan, Removals
from directory_sync.plan.changes import Excess, SettingsChange
from directory_sync.plan.deferral import Deferred
from directory_sync.plan.delays import ARRIVALS_SCHEMA
from directory_sync.run import Run
from directory_sync.settings import Rules
from directory_sync.vocabulary import RunKind


def make_run_key(run: Run, snapshot_at: datetime) -> str:
    """The key of one run with one snapshot. A cleared run reads a new snapshot, so its key is new
    and it may be applied again.
    """
    return hashlib.sha256(
        f"{run.sync.name}\0{run.run_id}\0{snapshot_at.isoformat()}".encode()
    ).hexdigest()


@dataclass(frozen=True)
class RunCounts:
    """What can't be counted from plan.parquet alone."""

    memberships: dict[str, int]
    excesses: dict[str, Excess]
    removals: Removals
    settings_change: SettingsChange | None
    deferred: Deferred = field(default_factory=Deferred)
    """What is safe in the published plan, but was left out when the plan was applied."""
    employed_twice: int = 0

    @classmethod
    def of(cls, plan: Plan, deferred: Deferred, *, approved: bool) -> "RunCounts":
        """Count a plan. approved: whether a person approved its changes."""
        # What a person approved doesn't count against the limits of 24 hours.
        removals = Removals() if approved else plan.removals
        return cls(
            plan.memberships,
            plan.excesses,
            removals,
            plan.settings_change,
            deferred,
            plan.employed_twice,
        )

    def dumps(self) -> str:
        """As JSON."""
        # JSON has no sets: those of Deferred become sorted lists.
        return json.dumps(asdict(self), default=sorted)

    @classmethod
    def loads(cls, text: str) -> "RunCounts":
        """From JSON."""
        raw = json.loads(text)
        excesses = {cause: Excess(**excess) for cause, excess in raw["excesses"].items()}
        change = raw["settings_change"]
        if change:
            change = SettingsChange(tuple(change["settings"]), change["adds"], change["spares"])
        # Runs from before release 0.1.0 may lack some counts.
        deferred = Deferred().join(**raw.get("deferred", {}))
        return cls(
            raw["memberships"],
            excesses,
            Removals(**raw["removals"]),
            change,
            deferred,
            raw.get("employed_twice", 0),
        )


@dataclass(frozen=True)
class CommittedRun:
    """A run that was applied: where its plan lies and the hash that vouches for it."""

    key: str
    kind: RunKind
    plan_url: str
    """The folder with its plan.parquet and directory.parquet."""
    plan_sha256: str
    transformed_url: str
    """The folder of the desired directory that it was planned from."""
    counted: RunCounts
    user_pool_id: str
    organization: str


RUN_COLUMNS = (
    "run_sha256, kind, plan_url, plan_sha256, transformed_url, counted, user_pool_id, organization"
)


def _make_committed_run(rows: list[tuple[Any, ...]]) -> CommittedRun | None:
    if not rows:
        return None
    key, kind, plan_url, plan_sha256, transformed_url, counted, pool, organization = rows[0]
    return CommittedRun(
        key,
        RunKind(kind),
        plan_url,
        plan_sha256,
        transformed_url,
        RunCounts.loads(counted),
        pool,
        organization,
    )


def find_committed_run(database: Database, key: str) -> CommittedRun | None:
    """The run of that key, if it was committed."""
    return _make_committed_run(
        database.rows(
            f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE run_sha256 = %s",
            (key,),
            about="directory_sync_run",
        )
    )


def find_known_keys(database: Database, keys: list[str]) -> set[str]:
    """The given keys that the ledger has a run for; none without a ledger."""
    if not definition.is_ledger_complete(database):
        return set()
    rows = database.rows(
        "SELECT run_sha256 FROM directory_sync_run WHERE run_sha256 IN "
        f"({', '.join(['%s'] * len(keys))})",
        keys,
        about="directory_sync_run",
    )
    return {str(row[0]) for row in rows}


def find_runs_named(database: Database, sync: str, run_id: str) -> list[CommittedRun]:
    """The runs that were committed under one of Airflow's run ids, newest first. There may be
    several: a cleared run reads the pool anew, and may be applied again. Runs from before the sync
    was detached are left out.
    """
    # A detached run can't be undone, since the sync manages nothing of it any more.
    rows = database.rows(
        f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE sync = %s AND run_id = %s "
        f"AND kind <> '{RunKind.DETACHED}' ORDER BY committed_at DESC",
        (sync, quote(run_id)),
        about="directory_sync_run",
    )
    return [found for row in rows if (found := _make_committed_run([row]))]


def find_newest_full_run(database: Database, run: Run) -> CommittedRun | None:
    """The run that applied the newest full snapshot of the sync's pool."""
    return _make_committed_run(
        database.rows(
            f"SELECT {RUN_COLUMNS} FROM directory_sync_run WHERE sync = %s AND user_pool_id = %s "
            "AND kind = 'full' "
            f"ORDER BY snapshot_at DESC, committed_at DESC LIMIT 1",
            (run.sync.name, run.sync.user_pool_id),
            about="directory_sync_run",
        )
    )


def find_newest_folders(database: Database, sync: str) -> list[str]:
    """The folders of plan and desired directory of the newest run for everybody, for each pool of
    the sync: reviews are planned from them.
    """
    rows = database.rows(
        "SELECT plan_url, transformed_url FROM ("
        "SELECT plan_url, transformed_url, ROW_NUMBER() OVER (PARTITION BY user_pool_id "
        "ORDER BY snapshot_at DESC, committed_at DESC) AS age_rank "
        "FROM directory_sync_run WHERE sync = %s AND kind = 'full') AS ranked WHERE age_rank = 1",
        (sync,),
        about="directory_sync_run",
    )
    return [url for row in rows for url in row]


def find_newest_organization(database: Database, run: Run) -> str | None:
    """The organization that the sync's newest run for everybody wrote to."""
    rows = database.rows(
        "SELECT organization FROM directory_sync_run WHERE sync = %s AND kind = 'full' "
        "ORDER BY committed_at DESC LIMIT 1",
        (run.sync.name,),
        about="directory_sync_run",
    )
    return str(rows[0][0]) if rows else None


def find_newest_pool(database: Database, sync: str) -> str | None:
    """The pool of the sync's newest full run; None where there was none."""
    rows = database.rows(
        "SELECT user_pool_id FROM directory_sync_run WHERE sync = %s AND kind = 'full' ORDER BY "
        "committed_at DESC LIMIT 1",
        (sync,),
        about="directory_sync_run",
    )
    return str(rows[0][0]) if rows else None


def find_newest_rules(database: Database, run: Run) -> Rules | None:
    """Mapping, scope and policies of the sync's newest full run."""
    rows = database.rows(
        "SELECT rules FROM directory_sync_run WHERE sync = %s AND kind = 'full' ORDER BY "
        "committed_at DESC LIMIT 1",
        (run.sync.name,),
        about="directory_sync_run",
    )
    if not rows:
        return None
    try:
        return Rules.model_validate_json(rows[0][0])
    except ValidationError:  # written by a version with other settings
        return None


def add_previous_rules(database: Database, run: Run) -> Run:
    """The run with the rules of the sync's newest full run, where they differ from its own. A
    replay is no change of settings.
    """
    if not definition.is_ledger_complete(database) or run.replay_run_id:
        return run
    previous = find_newest_rules(database, run)
    return run.model_copy(update={"previous": previous if previous != run.sync.rules else None})


@dataclass(frozen=True)
class RunRow:
    """What the ledger remembers of a run, written in the transaction of its changes."""

    key: str
    run: Run
    snapshot_at: datetime
    plan: Plan
    plan_url: str
    transformed_url: str
    kind: RunKind
    deferred: Deferred = field(default_factory=Deferred)
    arrivals: pd.DataFrame = field(default_factory=lambda: make_empty_frame(ARRIVALS_SCHEMA))
    """plan.delays.ARRIVALS_SCHEMA: whose changes are timed."""

    @property
    def at(self) -> datetime:
        """The snapshot's time as the database keeps it: UTC, without a time zone."""
        return self.snapshot_at.astimezone(UTC).replace(tzinfo=None)

    def values(self, organization: str) -> pd.DataFrame:
        """One row for directory_sync_run, without committed_at."""
        approved = self.kind in (RunKind.REVIEW, RunKind.UNDO)
        counted = RunCounts.of(self.plan, self.deferred, approved=approved)
        return pd.DataFrame(
            [
                {
                    "run_sha256": self.key,
                    "sync": self.run.sync.name,
                    "run_id": quote(self.run.run_id),
                    "user_pool_id": self.run.sync.user_pool_id,
                    "organization": organization,
                    "kind": str(self.kind),
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


def find_newest_snapshot_time(database: Database, run: Run) -> pd.Timestamp | None:
    """The time of the newest full snapshot applied for the sync's pool."""
    newest = database.rows(
        "SELECT MAX(snapshot_at) FROM directory_sync_run WHERE sync = %s AND user_pool_id = %s AND "
        "kind = 'full'",
        (run.sync.name, run.sync.user_pool_id),
        about="directory_sync_run",
    )[0][0]
    return None if newest is None else pd.Timestamp(newest, tz="UTC")


def count_newest_memberships(database: Database, run: Run) -> int | None:
    """How many of our memberships the newest run for everybody found or added; None before it."""
    newest = find_newest_full_run(database, run)
    counts = newest.counted.memberships if newest else None
    return None if counts is None else counts.get("unchanged", 0) + counts.get("added", 0)


def count_recent_removals(database: Database, run: Run) -> Removals:
    """What the sync's runs took away during the last 24 hours."""
    rows = database.rows(
        "SELECT counted FROM directory_sync_run WHERE sync = %s AND kind IN ('full', 'subset') "
        "AND committed_at > UTC_TIMESTAMP(6) - INTERVAL 24 HOUR",
        (run.sync.name,),
        about="directory_sync_run",
    )
    found = [RunCounts.loads(row[0]).removals for row in rows]
    by_group = sum((Counter(removal.by_group) for removal in found), Counter())
    return Removals(
        users=sum(removal.users for removal in found),
        memberships=sum(removal.memberships for removal in found),
        by_group=dict(by_group),
        disabled=sum(removal.disabled for removal in found),
    )
