"""The steps `transform` and `load` of a run: map, decide and apply. Each leaves a sealed folder in
staging.
"""

import logging
from dataclasses import replace
from datetime import timedelta

import pandas as pd

from directory_sync.errors import DirectorySyncError, hide_values
from directory_sync.frames import make_empty_frame
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, reviews, runs
from directory_sync.joget.reading import Lookups
from directory_sync.plan import Current, Evidence, Plan, make_plan
from directory_sync.plan.answers import AnswerUpdate, find_forgotten
from directory_sync.plan.changes import compare_settings
from directory_sync.plan.current import REMEMBERED_LINKS_SCHEMA
from directory_sync.plan.delays import ARRIVALS_SCHEMA
from directory_sync.report import Report, make_report
from directory_sync.run import Attempt, Run
from directory_sync.staging import retention, store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import alerting, ledger_loss
from directory_sync.tasks.proposal import carry_out_proposal
from directory_sync.tasks.transform import read_absent, read_desired
from directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)

LONGEST_REPLICATION = timedelta(minutes=15)
"""A replica may not know yet what changed so recently (AWS states no time), so a user whom a run
changed since is left to the next run.
"""


def _count_questions(transformed: Manifest) -> int:
    """How many users and groups this snapshot's tasks asked the pool for by name."""
    inputs = [store.read_manifest(url) for url in transformed.inputs.values()]
    return sum(manifest.counts.get("asked_by_name", 0) for manifest in inputs)


def load_snapshot(
    attempt: Attempt, transformed_url: str, arrivals: pd.DataFrame | None = None
) -> Manifest:
    """Plan against Joget now, apply what is safe in one transaction, and report.

    arrivals: plan.delays.ARRIVALS_SCHEMA, when the events about users happened and arrived.
    """
    with hide_values("load"):
        store.require_access(transformed_url)
        transformed = store.read_manifest(transformed_url)
        run = store.read_run(transformed)
        folder = store.open_folder(run, attempt.name)
        loaded = carry_out_proposal(
            folder, lambda database: SnapshotProposal(database, run, transformed, arrivals)
        )
    if not run.dry_run:
        alerting.alert_about_load(run, loaded)
        _delete_old_files(run)
    return loaded


def _delete_old_files(run: Run) -> None:
    """Delete files that staging has held for longer than staging_retention_days."""
    days = run.sync.staging_retention_days
    if days is None:
        return
    try:
        with hide_values("deleting old files"), open_session(run.sync.joget_conn_id) as database:
            needed = runs.find_newest_folders(database, run.sync.name)
            opened = reviews.open_review(database, run.sync.name)
            if opened is not None:
                needed.append(opened.plan_url)
            retention.delete_expired_files(
                run, timedelta(days=days), definition.read_clock(database), needed
            )
    except DirectorySyncError as error:
        # The run has done its work, and tomorrow's run tries again.
        log.warning(
            "staging keeps files that are older than %d days: %s To let a lifecycle rule of the "
            "bucket delete old files instead, set staging_retention_days to null.",
            days,
            error,
        )


class SnapshotProposal:
    """What a snapshot asks for: a Proposal."""

    def __init__(
        self,
        database: Database,
        run: Run,
        transformed: Manifest,
        arrivals: pd.DataFrame | None = None,
    ) -> None:
        self.run, self.transformed = run, transformed
        self.kind = RunKind.SUBSET if run.is_for_some else RunKind.FULL
        self.key = runs.make_run_key(run, transformed.snapshot_at)
        self.snapshot_at, self.transformed_url = transformed.snapshot_at, transformed.url
        self.inputs = {**transformed.inputs, "transform": transformed.url}
        self.needs: tuple[str, ...] = ()
        self.desired = read_desired(transformed)
        self.desired_before = read_desired(transformed, "before_change") if run.previous else None
        lost = ledger_loss.find_lost_ledger(database, run)
        self.incomplete_reasons = transformed.incomplete_reasons
        if lost is not None:
            self.incomplete_reasons += (ledger_loss.LOSS_REASON,)
            log.warning("%s", ledger_loss.LOSS_REASON)
            # A link from a backup may name an account that is somebody else's by now.
            self.run = run = run.model_copy(update={"leavers": ()})
        self.lookups = Lookups(
            desired=(self.desired, self.desired_before) if self.desired_before else (self.desired,),
            subs=self._select_subs(),
            remembered=lost.links if lost else make_empty_frame(REMEMBERED_LINKS_SCHEMA),
            remembered_organization=lost.organization if lost else None,
            # An incomplete snapshot would name users of the pool as left over (rule 2).
            finds_left_over=not run.is_for_some and not self.incomplete_reasons,
        )
        self.arrivals = make_empty_frame(ARRIVALS_SCHEMA) if arrivals is None else arrivals

    def _select_subs(self) -> tuple[str, ...] | None:
        """Whose links are read: everybody's, unless the run read only some users."""
        run = self.run
        # A replay has a snapshot of everybody.
        if not run.is_for_some or run.replay_run_id:
            return None
        return tuple(dict.fromkeys([*run.users, *self.desired.users["sub"].dropna()]))

    def make_plan(self, current: Current) -> Plan:
        """Plan, and find what a change of settings since the newest run does by itself."""
        run, before, evidence = self.run, self.desired_before, self._evidence()
        plan = make_plan(run, self.desired, current, evidence)
        if before is None:
            return plan
        without = make_plan(run.before_change, before, current, evidence)
        return replace(plan, settings_change=compare_settings(run.changed_settings, plan, without))

    def update_answers(self, plan: Plan, answers: pd.DataFrame) -> AnswerUpdate:
        """Forget the answers to changes that the plan no longer asks for."""
        # Only a complete plan for everybody shows that nobody asks for a change any more.
        if self.run.is_for_some or self.incomplete_reasons:
            return AnswerUpdate()
        return AnswerUpdate(forgotten=find_forgotten(plan, answers, self._evidence().at))

    def make_report(self, plan: Plan, outcome: str, seconds: float) -> Report:
        """Report also how long the earlier tasks took, and how often the pool was asked by name."""
        transformed = self.transformed
        timings = {
            task: store.read_manifest(url).seconds for task, url in transformed.inputs.items()
        }
        return make_report(
            self.run,
            plan,
            outcome=outcome,
            snapshot_at=self.snapshot_at,
            incomplete_reasons=self.incomplete_reasons,
            timings={**timings, "transform": transformed.seconds, "load": seconds},
            asked_by_name=_count_questions(transformed),
        )

    def _evidence(self) -> Evidence:
        return Evidence(
            self.snapshot_at,
            complete=not self.incomplete_reasons,
            compares=bool(self.run.replay_run_id),
            absent=read_absent(store.read_manifest(self.transformed.inputs["extract_groups"])),
            missing_minutes=self.run.sync.policies.missing_minutes,
            lag=LONGEST_REPLICATION if self._was_read_in_replica() else timedelta(0),
        )

    def _was_read_in_replica(self) -> bool:
        users = store.read_manifest(self.transformed.inputs["extract_users"])
        return bool(store.find_source(users).counts.get("in_replica"))
