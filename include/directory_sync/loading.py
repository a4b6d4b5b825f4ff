"""Loading: read Joget, plan, apply, and publish, however often the task is retried."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from include.directory_sync import staging
from include.directory_sync.errors import ConflictError, PermanentError, TransientError
from include.directory_sync.frames import TEXT, empty
from include.directory_sync.joget import ledger, runs
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.reading import read_current
from include.directory_sync.joget.tables import Tables
from include.directory_sync.joget.writing import Apply, RefusedRowsError
from include.directory_sync.mapping import Desired
from include.directory_sync.plan import Current, Plan, make_empty_plan
from include.directory_sync.plan.changes import CHANGES, ENTITIES, split_by_entity
from include.directory_sync.plan.current import REMEMBERED
from include.directory_sync.plan.deferral import Deferred, defer
from include.directory_sync.run import Run

log = logging.getLogger(__name__)

PLANNINGS = 4
"""How often one attempt plans when Joget changes under it; from the second planning on, rows that
change again are left out.
"""

NAMES_LOGGED = 10

APPLIED = "applied"
"""Signposts `<time of the commit>.<database>.<key in the ledger>` to the folders of committed runs."""


@dataclass(frozen=True)
class Proposal:
    """What one load would do, whoever asked for it: a snapshot, a person's answer, or an undo."""

    run: Run
    kind: str
    """full, subset, review or undo: how the ledger remembers it."""
    key: str
    """Its key in the ledger: a retry finds by it what an earlier attempt committed."""
    snapshot_at: datetime
    transformed_url: str
    make: Callable[[Current], Plan]
    """Plans against Joget now; pure."""
    desired: tuple[Desired, ...] = ()
    """What is to be looked up in Joget for planning."""
    ids: "pd.Series[str]" = field(default_factory=lambda: pd.Series([], dtype=TEXT))
    """Ids of Joget's that are to be looked up besides."""
    remembered: pd.DataFrame = field(default_factory=lambda: empty(REMEMBERED))
    note: Callable[[Database, Plan], None] = lambda _database, _plan: None
    """What else the ledger is to remember, within the transaction."""


class Loading:
    """One attempt at one proposal, that leaves plan.parquet and directory.parquet in the folder."""

    def __init__(self, database: Database, tables: Tables, folder: staging.Folder) -> None:
        self.database, self.tables, self.folder = database, tables, folder

    def dry(self, proposal: Proposal) -> Plan:
        """Plan and publish; write nothing."""
        plan = proposal.make(self._read(proposal))
        self._publish(plan)
        return plan

    def apply(self, proposal: Proposal) -> tuple[Plan, str]:
        """Plan and apply under the lock, which the caller holds; gives the plan and the report's outcome.

        Raises TransientError where Joget changes under every planning.
        """
        committed = runs.committed_run(self.database, proposal.key)
        if committed:
            log.info("an earlier attempt committed this run; finishing its report")
            return self._finish(proposal, committed)
        deferred = Deferred()
        for planning in range(1, PLANNINGS + 1):
            try:
                return self._apply_once(proposal, deferred, defers=planning > 1)
            except RefusedRowsError as refused:
                deferred = deferred.join(refused.deferred.subs, refused.deferred.groups)
                log.warning(
                    "planning %d of %d: %s Leaving out %d users and %d groups: sub or name %s",
                    planning,
                    PLANNINGS,
                    refused,
                    len(deferred.subs),
                    len(deferred.groups),
                    ", ".join(sorted(deferred.subs | deferred.groups)[:NAMES_LOGGED]),
                )
            except ConflictError as conflict:
                log.info("planning %d of %d: %s", planning, PLANNINGS, conflict)
        raise TransientError(
            f"Joget changed under {PLANNINGS} plannings in a row; nothing was written. Retrying later."
        )

    def _apply_once(self, proposal: Proposal, deferred: Deferred, *, defers: bool) -> tuple[Plan, str]:
        current = self._read(proposal)
        _refuse_a_future(current, ledger.now(self.database))
        if proposal.kind in ("full", "subset") and current.is_newer_than(proposal.snapshot_at):
            self._publish(make_empty_plan())
            return make_empty_plan(), "superseded"
        plan, revision = defer(proposal.make(current), deferred), current.revision
        del current  # what was read of a million users isn't needed beside what is written
        row = runs.RunRow(
            proposal.key,
            proposal.run,
            proposal.snapshot_at,
            plan,
            self.folder.url,
            proposal.transformed_url,
            proposal.kind,
            deferred,
        )
        applied = Apply(
            self.database,
            self.tables,
            row,
            revision,
            publish=lambda: self._publish(plan),
            note=lambda written: proposal.note(self.database, written),
            defers=defers,
        ).run()
        if applied is not plan:
            self._publish(applied)
        self._leave_signpost(proposal, self.folder.url)
        return applied, _outcome(applied)

    def _read(self, proposal: Proposal) -> Current:
        return read_current(
            self.database,
            self.tables,
            proposal.run,
            desired=proposal.desired,
            ids=proposal.ids,
            remembered=proposal.remembered,
        )

    def _publish(self, plan: Plan) -> None:
        self.folder.frames("plan.parquet", CHANGES, (plan.part(entity) for entity in ENTITIES))
        self.folder.frame("directory.parquet", plan.directory)

    def _finish(self, proposal: Proposal, committed: runs.CommittedRun) -> tuple[Plan, str]:
        """The plan of an attempt that ended between COMMIT and its manifest."""
        plan = read_plan(committed)
        self._publish(plan)
        self._leave_signpost(proposal, committed.plan_url)
        return plan, _outcome(plan)

    def _leave_signpost(self, proposal: Proposal, plan_url: str) -> None:
        """After COMMIT: by the newest one a later run notices that the ledger was lost or restored."""
        target = self.database.target
        name = f"{staging.moment(ledger.now(self.database))}.{target}.{proposal.key}"
        staging.note(proposal.run, APPLIED, name, plan_url)


def _refuse_a_future(current: Current, now: datetime) -> None:
    newest = current.newest_snapshot_at
    if newest is not None and newest > pd.Timestamp(now) + pd.Timedelta(minutes=10):
        raise PermanentError(
            f"The newest snapshot that was applied lies in the future ({newest.isoformat()}, and Joget's database says "
            f"{now.isoformat()}): every run would be older than it. The clock of a worker or of the database was or is "
            f"wrong; correct it, and the time in table directory_sync_run."
        )


def read_plan(committed: runs.CommittedRun) -> Plan:
    """The plan that a committed run applied: the ledger's hash vouches for it. Raises PermanentError otherwise."""
    changes, directory = (
        staging.read_parquet(staging.read_bytes(f"{committed.plan_url}/{name}.parquet"))
        for name in ("plan", "directory")
    )
    counted = committed.counted
    plan = Plan(split_by_entity(changes), directory, counted.memberships, counted.excesses, counted.settings_change)
    plan = defer(plan, counted.deferred)
    if plan.sha256 != committed.plan_sha256:
        raise PermanentError(
            f"The plan in {committed.plan_url} isn't the one that its run applied. Joget holds what was applied; look "
            f"for who changed the staged files."
        )
    return plan


def _outcome(plan: Plan) -> str:
    return "applied" if plan.touches_joget else "nothing_to_do"
