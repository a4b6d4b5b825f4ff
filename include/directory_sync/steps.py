"""The steps `transform` and `load` of a run: map, decide and apply. Each leaves a sealed folder in
staging.
"""

import logging
from dataclasses import replace
from datetime import timedelta

import pandas as pd

from include.directory_sync import mapping, recovery, retention, staging
from include.directory_sync.errors import DirectorySyncError, PermanentError, without_values
from include.directory_sync.frames import empty
from include.directory_sync.joget import ledger, reviews, runs
from include.directory_sync.joget.database import Database, session
from include.directory_sync.joget.reading import Lookups
from include.directory_sync.loading import carry_out
from include.directory_sync.plan import Current, Evidence, Plan, make_plan
from include.directory_sync.plan.answers import AnswerUpdate, find_forgotten
from include.directory_sync.plan.changes import settings_change
from include.directory_sync.plan.current import REMEMBERED
from include.directory_sync.report import Report, make_report
from include.directory_sync.run import Attempt, Run
from include.directory_sync.settings import Sync
from include.directory_sync.snapshot import ABSENT, Manifest
from include.directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)


def transform(attempt: Attempt, users_url: str, groups_url: str) -> Manifest:
    """Map the snapshot to Joget's columns: desired_*.parquet and quarantine.parquet. No network, no database.

    Where the settings changed since the newest run, the old settings' result goes into
    before_change_*.parquet.
    """
    with without_values("transform"):
        staging.require_access(users_url)
        users, groups = staging.read_manifest(users_url), staging.read_manifest(groups_url)
        run = staging.read_run(users)
        folder = staging.open_folder(run, attempt.name)
        frames = _snapshot_frames(run, users, groups)
        desired = _write_desired(folder, "desired", run.sync, frames)
        if run.previous:
            _write_desired(folder, "before_change", run.before_change.sync, frames)
        folder.frame("quarantine.parquet", desired.quarantine)
        counts = {"users": len(desired.users), "groups": len(desired.groups), "quarantined": len(desired.quarantine)}
        log.info("mapped %d users and %d groups, %d quarantined", *counts.values())
        return folder.seal(
            snapshot_at=users.snapshot_at,
            counts=counts,
            complete=users.complete and groups.complete,
            incomplete_reasons=users.incomplete_reasons + groups.incomplete_reasons,
            inputs={"extract_users": users.url, "extract_groups": groups.url},
        )


def _snapshot_frames(run: Run, users: Manifest, groups: Manifest) -> tuple[pd.DataFrame, ...]:
    of_users, of_groups = staging.source(users), staging.source(groups)
    names = ("groups.parquet", "memberships.parquet", "memberships_again.parquet")
    listed, first, again = (staging.read_frame(of_groups, name) for name in names)
    found = _read_users(of_users, of_groups)
    lacking = [name for name in run.attributes if f"attribute.{name}" not in found.columns]
    if lacking:
        raise PermanentError(
            f"The snapshot of run {of_users.run_id} doesn't hold {', '.join(lacking)}, which the mapping asks for now. "
            f"It can't be planned with these settings; run the sync instead."
        )
    return found, listed, pd.concat([first, again], ignore_index=True)


def _read_users(of_users: Manifest, of_groups: Manifest) -> pd.DataFrame:
    """Read all users that any answer had: the list, a group's members, or a direct question."""
    listed = staging.read_frame(of_users, "users.parquet")
    others = [
        staging.read_frame(of_groups, name)
        for name in ("users_seen.parquet", "users_seen_again.parquet")
        if name in of_groups.files and of_groups.files[name].rows
    ]
    return pd.concat([listed, *others], ignore_index=True) if others else listed


def _read_absent(transformed: Manifest) -> pd.DataFrame:
    """Columns snapshot.ABSENT; no rows for a snapshot that an earlier version took."""
    groups = staging.source(staging.read_manifest(transformed.inputs["extract_groups"]))
    if "absent.parquet" not in groups.files:
        return empty(ABSENT)
    return staging.read_frame(groups, "absent.parquet")


def _count_questions(transformed: Manifest) -> int:
    """How many users and groups this snapshot's tasks asked the pool for by name."""
    inputs = [staging.read_manifest(url) for url in transformed.inputs.values()]
    return sum(manifest.counts.get("asked_by_name", 0) for manifest in inputs)


def _write_desired(
    folder: staging.Folder, prefix: str, sync: Sync, frames: tuple[pd.DataFrame, ...]
) -> mapping.Desired:
    desired = mapping.transform(*frames, mapping=sync.mapping, scope=sync.scope, user_pool_id=sync.user_pool_id)
    for name in mapping.FRAMES:
        folder.frame(f"{prefix}_{name}.parquet", getattr(desired, name))
    return desired


def read_desired(transformed: Manifest, prefix: str = "desired") -> mapping.Desired:
    """The desired directory that `transform` left."""
    return mapping.Desired(*(staging.read_frame(transformed, f"{prefix}_{name}.parquet") for name in mapping.FRAMES))


def load(attempt: Attempt, transformed_url: str) -> Manifest:
    """Plan against Joget now, apply what is safe in one transaction, and report."""
    with without_values("load"):
        staging.require_access(transformed_url)
        transformed = staging.read_manifest(transformed_url)
        run = staging.read_run(transformed)
        folder = staging.open_folder(run, attempt.name)
        loaded = carry_out(folder, lambda database: SnapshotProposal(database, run, transformed))
    if not run.dry_run:
        _delete_old_files(run)
    return loaded


def _delete_old_files(run: Run) -> None:
    """Delete files that staging has held for longer than staging_retention_days.

    A failure is only logged: the run has done its work, and tomorrow's run tries again.
    """
    days = run.sync.staging_retention_days
    if days is None:
        return
    try:
        with without_values("deleting old files"), session(run.sync.joget_conn_id) as database:
            needed = runs.find_newest_folders(database, run.sync.name)
            opened = reviews.open_review(database, run.sync.name)
            if opened is not None:
                needed.append(opened.plan_url)
            retention.delete_expired(run, timedelta(days=days), ledger.now(database), needed)
    except DirectorySyncError as error:
        log.warning(
            "staging keeps files that are older than %d days: %s To let a lifecycle rule of the bucket delete "
            "old files instead, set staging_retention_days to null.",
            days,
            error,
        )


class SnapshotProposal:
    """What a snapshot asks for: a loading.Proposal."""

    def __init__(self, database: Database, run: Run, transformed: Manifest) -> None:
        self.run, self.transformed = run, transformed
        self.kind = RunKind.SUBSET if run.users else RunKind.FULL
        self.key = runs.run_key(run, transformed.snapshot_at)
        self.snapshot_at, self.transformed_url = transformed.snapshot_at, transformed.url
        self.inputs = {**transformed.inputs, "transform": transformed.url}
        self.needs: tuple[str, ...] = ()
        self.desired = read_desired(transformed)
        self.desired_before = read_desired(transformed, "before_change") if run.previous else None
        lost = recovery.find_lost_ledger(database, run)
        self.incomplete_reasons = transformed.incomplete_reasons
        if lost is not None:
            self.incomplete_reasons += (recovery.LOST,)
            log.warning("%s", recovery.LOST)
        self.lookups = Lookups(
            desired=(self.desired, self.desired_before) if self.desired_before else (self.desired,),
            remembered=lost.links if lost else empty(REMEMBERED),
            remembered_organization=lost.organization if lost else None,
            finds_left_over=not run.users and not self.incomplete_reasons,
        )

    def make_plan(self, current: Current) -> Plan:
        """Plan, and find what a change of settings since the newest run does by itself."""
        run, before, evidence = self.run, self.desired_before, self._evidence()
        plan = make_plan(run, self.desired, current, evidence)
        if before is None:
            return plan
        without = make_plan(run.before_change, before, current, evidence)
        return replace(plan, settings_change=settings_change(run.changed_settings, plan, without))

    def update_answers(self, plan: Plan, answers: pd.DataFrame) -> AnswerUpdate:
        """Forget the answers to changes that the plan no longer asks for. Only a complete plan for
        everybody can show that.
        """
        if self.run.users or self.incomplete_reasons:
            return AnswerUpdate()
        return AnswerUpdate(forgotten=find_forgotten(plan, answers, self._evidence().at))

    def make_report(self, plan: Plan, outcome: str, seconds: float) -> Report:
        """Report also how long the earlier tasks took, and how often the pool was asked by name."""
        transformed = self.transformed
        timings = {task: staging.read_manifest(url).seconds for task, url in transformed.inputs.items()}
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
            absent=_read_absent(self.transformed),
            missing_minutes=self.run.sync.policies.missing_minutes,
        )
