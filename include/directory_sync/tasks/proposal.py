"""Loading: read Joget, plan, publish, apply and report.

A plan is proposed by a snapshot (`load`), a person's answer (`review`) or an undo (`undo`).
This module treats all three alike.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

import pandas as pd
import pyarrow as pa

from directory_sync.errors import ConflictError, PermanentError, TransientError
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, locks, runs, upgrade
from directory_sync.joget.ledger.delays import read_clock
from directory_sync.joget.reading import Lookups, read_current
from directory_sync.joget.schema import JogetTables, inspect_tables
from directory_sync.joget.writing import PlanApplication, RefusedRowsError
from directory_sync.plan import Current, Plan, make_empty_plan
from directory_sync.plan.answers import AnswerUpdate
from directory_sync.plan.changes import CHANGES_SCHEMA, ENTITY_ORDER, split_by_entity
from directory_sync.plan.deferral import Deferred, defer_rows
from directory_sync.report import Report
from directory_sync.run import Run
from directory_sync.staging import signposts, store
from directory_sync.staging.manifest import Manifest
from directory_sync.staging.signposts import APPLIED_SIGNPOSTS
from directory_sync.tasks.change_times import date_snapshot_changes
from directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)

MOST_PLANNINGS = 4
"""How often one attempt plans, at most, while others change Joget. From the second planning on,
rows that change again are left out.
"""

MOST_NAMES_LOGGED = 10

CLOCK_TOLERANCE = pd.Timedelta(minutes=10)
"""How far a worker's clock may be ahead of the database's before a snapshot's time counts as wrong.
"""


class Proposal(Protocol):
    """What one load would do: proposed by a snapshot, a person's answer, or an undo."""

    run: Run
    kind: RunKind
    key: str
    """Its key in the ledger, by which a retry finds what an earlier attempt committed."""
    snapshot_at: datetime
    transformed_url: str
    incomplete_reasons: tuple[str, ...]
    """Why its snapshot isn't proven complete."""
    inputs: dict[str, str]
    """URLs of the manifests that it was made from, by task."""
    needs: tuple[str, ...]
    """Folders of other runs' plans that stay in staging as long as this run's files."""
    lookups: Lookups
    arrivals: pd.DataFrame
    """plan.delays.ARRIVALS_SCHEMA: the users that events were about, with the times. Empty without
    events."""

    def make_plan(self, current: Current) -> Plan:
        """Plan against Joget now. Pure."""
        ...

    def update_answers(self, plan: Plan, answers: pd.DataFrame) -> AnswerUpdate:
        """What the plan means for the answers (current.ANSWERS_SCHEMA) that people gave. Pure."""
        ...

    def make_report(self, plan: Plan, outcome: str, seconds: float) -> Report:
        """The report of the plan as it was carried out; seconds: how long the task took."""
        ...


def carry_out_proposal(folder: store.Folder, propose: Callable[[Database], Proposal]) -> Manifest:
    """Plan the proposal, apply its safe part unless the run is a dry one, report, and seal the
    folder.

    Raises TransientError where others change Joget during every planning.
    """
    run = folder.run
    with _open_joget(run) as (database, tables):
        proposal = propose(database)
        attempt = LoadAttempt(database, tables, folder, proposal)
        plan, outcome = (attempt.plan(), "dry_run") if run.dry_run else attempt.apply()
        clock = read_clock(database, run, proposal.key)
    report = proposal.make_report(plan, outcome, folder.seconds)
    report = report.model_copy(update={"clock": clock})
    folder.json("report.json", report.model_dump(mode="json"))
    log.info("%s", report.sentence())
    return folder.seal(
        snapshot_at=proposal.snapshot_at,
        counts=report.flat_counts(),
        complete=not proposal.incomplete_reasons,
        incomplete_reasons=proposal.incomplete_reasons,
        inputs=proposal.inputs,
        needs=proposal.needs,
    )


@contextmanager
def _open_joget(run: Run) -> Iterator[tuple[Database, JogetTables]]:
    """A connection for one load: with the ledger and its lock, unless the run is a dry one."""
    with open_session(run.sync.joget_conn_id) as database:
        tables = inspect_tables(database, run.sync.organization)
        if run.dry_run:
            yield database, tables
        else:
            upgrade.create_or_upgrade_ledger(database, tables)
            with locks.hold_ledger_lock(database, run):
                yield database, tables


class LoadAttempt:
    """One attempt at one proposal. It leaves plan.parquet and directory.parquet in the folder."""

    def __init__(
        self, database: Database, tables: JogetTables, folder: store.Folder, proposal: Proposal
    ) -> None:
        self._database, self._tables, self._folder = database, tables, folder
        self._proposal = proposal

    def plan(self) -> Plan:
        """Plan and publish; write nothing."""
        plan = self._proposal.make_plan(self._read())
        self._publish(plan)
        return plan

    def apply(self) -> tuple[Plan, str]:
        """Plan and apply; returns the plan as it was applied, and the report's outcome. The caller
        must hold the ledger's lock.
        """
        # The key names the run and its snapshot. After a crash that follows the COMMIT, Airflow's
        # retry has the same key, and nothing is applied twice.
        committed = runs.find_committed_run(self._database, self._proposal.key)
        if committed:
            log.info("an earlier attempt committed this run; finishing its report")
            return self._finish(committed)
        deferred = Deferred()
        for planning in range(1, MOST_PLANNINGS + 1):
            try:
                return self._apply_once(deferred, defers=planning > 1)
            except RefusedRowsError as refused:
                deferred = deferred.join_all(refused.deferred)
                log.warning(
                    "planning %d of %d: %s Leaving out %d users, %d groups, and the members of %d: "
                    "%s",
                    planning,
                    MOST_PLANNINGS,
                    refused,
                    len(deferred.subs),
                    len(deferred.groups),
                    len(deferred.members_of),
                    ", ".join(
                        sorted(deferred.subs | deferred.groups | deferred.members_of)[
                            :MOST_NAMES_LOGGED
                        ]
                    ),
                )
            except ConflictError as conflict:
                log.info("planning %d of %d: %s", planning, MOST_PLANNINGS, conflict)
        raise TransientError(
            f"Joget changed, or was locked, during {MOST_PLANNINGS} plannings in a row; nothing "
            "was written. Retrying later."
        )

    def _apply_once(self, deferred: Deferred, *, defers: bool) -> tuple[Plan, str]:
        proposal, current = self._proposal, self._read()
        _refuse_a_future(current, definition.read_clock(self._database))
        # A review plans from the newest snapshot that was applied, and an undo from none, so they
        # can't be superseded.
        if proposal.kind in (RunKind.FULL, RunKind.SUBSET) and current.is_newer_than(
            proposal.snapshot_at
        ):
            self._publish(make_empty_plan())
            return make_empty_plan(), "superseded"
        plan = defer_rows(proposal.make_plan(current), deferred)
        answers, revision, since = current.answers, current.revision, current.newest_snapshot_at
        del current  # frees what was read of a million users before they are written
        arrivals = proposal.arrivals
        if proposal.kind == RunKind.FULL and not proposal.run.is_live:
            arrivals = date_snapshot_changes(proposal.inputs, plan, since)
        row = runs.RunRow(
            proposal.key,
            proposal.run,
            proposal.snapshot_at,
            plan,
            self._folder.url,
            proposal.transformed_url,
            proposal.kind,
            deferred,
            arrivals,
        )
        applied = PlanApplication(
            self._database,
            self._tables,
            row,
            revision,
            publish=lambda: self._publish(plan),
            update_answers=lambda written: proposal.update_answers(written, answers),
            defers=defers,
        ).run()
        if applied is not plan:
            # Rows that somebody changed meanwhile were left out. The folder isn't sealed yet, so
            # its files may still change.
            self._publish(applied)
        self._leave_signpost(self._folder.url)
        return applied, _get_outcome(applied)

    def _read(self) -> Current:
        proposal = self._proposal
        return read_current(self._database, self._tables, proposal.run, proposal.lookups)

    def _publish(self, plan: Plan) -> None:
        self._folder.frames(
            "plan.parquet", CHANGES_SCHEMA, (plan.part(entity) for entity in ENTITY_ORDER)
        )
        self._folder.frame("directory.parquet", plan.directory)

    def _finish(self, committed: runs.CommittedRun) -> tuple[Plan, str]:
        """Return the plan of an earlier attempt that ended between its COMMIT and its manifest."""
        plan = read_plan(committed)
        # This attempt's folder is the one that gets sealed, so it needs the plan too. The ledger
        # names the earlier folder for good, and so does the signpost.
        self._publish(plan)
        self._leave_signpost(committed.plan_url)
        return plan, _get_outcome(plan)

    def _leave_signpost(self, plan_url: str) -> None:
        """Leave a signpost after COMMIT."""
        # By it, later runs notice a ledger that was lost or restored from a backup.
        proposal, target = self._proposal, self._database.target
        moment = signposts.format_time(definition.read_clock(self._database))
        name = f"{moment}.{target}.{proposal.kind}.{proposal.key}"
        signposts.write_signpost(proposal.run, APPLIED_SIGNPOSTS, name, plan_url)


def _refuse_a_future(current: Current, now: datetime) -> None:
    newest = current.newest_snapshot_at
    if newest is not None and newest > pd.Timestamp(now) + CLOCK_TOLERANCE:
        raise PermanentError(
            f"The newest snapshot that was applied lies in the future ({newest.isoformat()}, and "
            f"Joget's database says {now.isoformat()}), so every new run would count as older. The "
            "clock of a worker or of the database was or is wrong; correct it, and the time in "
            "table directory_sync_run."
        )


def read_plan(committed: runs.CommittedRun) -> Plan:
    """Read the plan that a committed run applied; raises PermanentError where its hash isn't the
    ledger's, or a file isn't a plan's.
    """
    try:
        changes, directory = (
            store.read_parquet(store.read_bytes(f"{committed.plan_url}/{name}.parquet"))
            for name in ("plan", "directory")
        )
    except pa.ArrowInvalid:
        raise _make_changed_plan_error(committed) from None
    counted = committed.counted
    plan = Plan(
        split_by_entity(changes),
        directory,
        counted.memberships,
        counted.excesses,
        counted.settings_change,
        counted.employed_twice,
    )
    # The plan was published before the transaction left these rows out. If it was published again
    # without them, this changes nothing.
    plan = defer_rows(plan, counted.deferred)
    if plan.sha256 != committed.plan_sha256:
        raise _make_changed_plan_error(committed)
    return plan


def _make_changed_plan_error(committed: runs.CommittedRun) -> PermanentError:
    return PermanentError(
        f"The plan in {committed.plan_url} isn't the one that its run applied. Joget holds what "
        f"was applied. Find out who changed the staged files."
    )


def _get_outcome(plan: Plan) -> str:
    return "applied" if plan.touches_joget else "nothing_to_do"
