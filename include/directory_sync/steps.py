"""Decide and apply: the steps `transform` and `load` of a run. Each leaves a sealed folder in staging."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC

import pandas as pd

from include.directory_sync import mapping, recovery, staging
from include.directory_sync.errors import PermanentError, without_values
from include.directory_sync.frames import empty
from include.directory_sync.joget import ledger, reviews, runs
from include.directory_sync.joget.database import Database, session
from include.directory_sync.joget.tables import inspect
from include.directory_sync.loading import Loading, Proposal
from include.directory_sync.plan import Current, Evidence, Plan, make_plan
from include.directory_sync.plan.changes import decision_hashes, settings_change
from include.directory_sync.plan.current import REMEMBERED
from include.directory_sync.report import make_report
from include.directory_sync.run import Attempt, Run
from include.directory_sync.settings import Sync
from include.directory_sync.snapshot import ABSENT, Manifest

log = logging.getLogger(__name__)


def transform(attempt: Attempt, users_url: str, groups_url: str) -> Manifest:
    """Map the snapshot to Joget's columns: desired_*.parquet and quarantine.parquet. No network, no database.

    Where the settings changed since the newest run, what they wanted before goes into before_change_*.parquet.
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
    """Everybody who was seen: listed, or in a group or by a direct question alone."""
    listed = staging.read_frame(of_users, "users.parquet")
    others = [
        staging.read_frame(of_groups, name)
        for name in ("users_seen.parquet", "users_seen_again.parquet")
        if name in of_groups.files and of_groups.files[name].rows
    ]
    return pd.concat([listed, *others], ignore_index=True) if others else listed


def _read_absent(transformed: Manifest) -> pd.DataFrame:
    """Columns snapshot.ABSENT; none of a snapshot that an earlier version took."""
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
        with loading_session(run, folder) as loading:
            proposal, reasons = propose(loading, run, transformed)
            plan, outcome = (loading.dry(proposal), "dry_run") if run.dry_run else loading.apply(proposal)
        report = make_report(
            run,
            plan,
            outcome=outcome,
            snapshot_at=transformed.snapshot_at,
            incomplete_reasons=reasons,
            timings=_timings(transformed, folder),
            asked_by_name=_count_questions(transformed),
        )
        folder.json("report.json", report.model_dump(mode="json"))
        log.info("%s", report.sentence())
        return folder.seal(
            snapshot_at=transformed.snapshot_at,
            counts=report.flat_counts(),
            complete=not reasons,
            incomplete_reasons=reasons,
            inputs={**transformed.inputs, "transform": transformed.url},
        )


@contextmanager
def loading_session(run: Run, folder: staging.Folder) -> Iterator[Loading]:
    """A connection to Joget for one load: with the ledger and its lock, unless the run is a dry one."""
    with session(run.sync.joget_conn_id) as database:
        loading = Loading(database, inspect(database, run.sync.organization), folder)
        if run.dry_run:
            yield loading
        else:
            ledger.create(database, loading.tables)
            with ledger.lock(database, run):
                yield loading


def propose(loading: Loading, run: Run, transformed: Manifest) -> tuple[Proposal, tuple[str, ...]]:
    """What a snapshot asks for, and why it isn't proven complete: the snapshot's doubts, and a ledger that was lost."""
    desired, reasons = read_desired(transformed), transformed.incomplete_reasons
    before = read_desired(transformed, "before_change") if run.previous else None
    remembered = None if run.users else recovery.lost_links(loading.database, run)
    if remembered is not None:
        reasons += (
            "the ledger doesn't know the newest run that was applied: it was lost or restored from an older backup. "
            "Links are rebuilt where Joget's rows still match; nobody is removed",
        )
        log.warning("%s", reasons[-1])
    evidence = Evidence(
        transformed.snapshot_at,
        complete=not reasons,
        compares=bool(run.replay_run_id),
        absent=_read_absent(transformed),
        missing_minutes=run.sync.policies.missing_minutes,
    )

    def make(current: Current) -> Plan:
        plan = make_plan(run, desired, current, evidence)
        if before is None:
            return plan
        without = make_plan(run.before_change, before, current, evidence)
        return replace(plan, settings_change=settings_change(run.changed_settings, plan, without))

    def forget(database: Database, plan: Plan) -> None:
        """An answer counts as long as its change is asked for; only a full, complete plan shows that it isn't."""
        if not run.users and not reasons and reviews.has_decisions(database, run.sync.name):
            quiet = plan.directory["outcome"].isin(["frozen", "quarantined", "unlisted"])
            reviews.forget_decisions(
                database,
                run.sync.name,
                asked=set(decision_hashes(plan.held)),
                undecided=set(plan.directory.loc[quiet, "sub"].dropna()),
                before=transformed.snapshot_at.astimezone(UTC).replace(tzinfo=None),
            )

    proposal = Proposal(
        run=run,
        kind="subset" if run.users else "full",
        key=runs.run_key(run, transformed.snapshot_at),
        snapshot_at=transformed.snapshot_at,
        transformed_url=transformed.url,
        make=make,
        desired=(desired, before) if before else (desired,),
        remembered=empty(REMEMBERED) if remembered is None else remembered,
        note=forget,
    )
    return proposal, reasons


def _timings(transformed: Manifest, folder: staging.Folder) -> dict[str, float]:
    earlier = {task: staging.read_manifest(url).seconds for task, url in transformed.inputs.items()}
    return {**earlier, "transform": transformed.seconds, "load": folder.seconds}
