"""The four steps of a run, one for each task: gather, decide, apply. Each leaves a sealed folder in staging."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from include.directory_sync import cognito, mapping, snapshot, staging
from include.directory_sync.errors import PermanentError, without_values
from include.directory_sync.joget.database import session
from include.directory_sync.joget.tables import inspect
from include.directory_sync.loading import Loading
from include.directory_sync.run import Run, resolve
from include.directory_sync.settings import load as load_settings
from include.directory_sync.snapshot import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """One try of one task: `<task id>.<try>.<unique>`, unique also when a run is cleared and starts anew."""

    name: str
    run_id: str


def extract_users(attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Manifest:
    """Resolve the run, check both ends, then list every user of the pool into users.parquet."""
    with without_values("extract_users"):
        run = _resolve(attempt, sync_name, parameters, conf)
        staging.require_access(run.sync.staging_url)
        folder = staging.open_folder(run, attempt.name)
        folder.json("run.json", run.model_dump(mode="json"))
        pool = cognito.connect(run.sync, "listing users")
        with session(run.sync.joget_conn_id) as database:
            inspect(database, run.sync.organization)
        snapshot_at = datetime.now(UTC)
        estimated = pool.estimated_users()
        attributes = run.sync.mapping.attributes
        with folder.rows("users.parquet", snapshot.users_schema(attributes)) as users:
            for page in pool.users():
                users.write([snapshot.user_row(user, attributes) for user in page])
        pool.progress.say()
        counts = {"users": users.rows, "estimated_users": estimated, "calls": pool.progress.calls}
        return folder.seal(snapshot_at=snapshot_at, counts=counts, complete=True)


def extract_groups(attempt: Attempt, users_url: str) -> Manifest:
    """List the pool's groups, and the members of those in scope, several groups at once."""
    with without_values("extract_groups"):
        staging.require_access(users_url)
        users = staging.read_manifest(users_url)
        run = staging.read_run(users)
        folder = staging.open_folder(run, attempt.name)
        pool = cognito.connect(run.sync, "listing groups")
        listed = {group["GroupName"]: snapshot.group_row(group) for page in pool.groups() for group in page}
        with folder.rows("memberships.parquet", snapshot.MEMBERSHIPS) as memberships:

            def list_members(group_name: str) -> None:
                try:
                    for page in pool.members(group_name):
                        memberships.write([snapshot.member_row(group_name, user) for user in page])
                except cognito.GroupGoneError:
                    listed.pop(group_name)

            inside = [name for name in listed if run.sync.scope.has_group(name, run.sync.user_pool_id)]
            _in_parallel(list_members, inside)
        pool.progress.say()
        with folder.rows("groups.parquet", snapshot.GROUPS) as groups:
            groups.write(list(listed.values()))
        counts = {"groups": groups.rows, "memberships": memberships.rows, "calls": pool.progress.calls}
        return folder.seal(
            snapshot_at=users.snapshot_at, counts=counts, complete=True, inputs={"extract_users": users.url}
        )


def _in_parallel(work: Callable[[str], None], names: list[str]) -> None:
    """Run the work for every name; the first failure cancels what hasn't begun and is raised."""
    with ThreadPoolExecutor(cognito.WORKERS, thread_name_prefix="groups") as pool:
        futures = [pool.submit(work, name) for name in names]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def transform(attempt: Attempt, users_url: str, groups_url: str) -> Manifest:
    """Map the snapshot to Joget's columns: desired_*.parquet and quarantine.parquet. No network, no database."""
    with without_values("transform"):
        staging.require_access(users_url)
        users, groups = staging.read_manifest(users_url), staging.read_manifest(groups_url)
        run = staging.read_run(users)
        desired = mapping.transform(
            staging.read_frame(users, "users.parquet"),
            staging.read_frame(groups, "groups.parquet"),
            staging.read_frame(groups, "memberships.parquet"),
            mapping=run.sync.mapping,
            scope=run.sync.scope,
            user_pool_id=run.sync.user_pool_id,
        )
        folder = staging.open_folder(run, attempt.name)
        for name in mapping.FRAMES:
            folder.frame(f"desired_{name}.parquet", getattr(desired, name))
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


def load(attempt: Attempt, transformed_url: str) -> Manifest:
    """Plan against Joget now, apply what is safe in one transaction, and report."""
    with without_values("load"):
        staging.require_access(transformed_url)
        transformed = staging.read_manifest(transformed_url)
        run = staging.read_run(transformed)
        loading = Loading(run, transformed, staging.open_folder(run, attempt.name))
        with session(run.sync.joget_conn_id) as database:
            report = loading.run_on(database)
        log.info("%s", report.sentence())
        return loading.folder.seal(
            snapshot_at=transformed.snapshot_at,
            counts=report.flat_counts(),
            complete=transformed.complete,
            incomplete_reasons=transformed.incomplete_reasons,
            inputs={**transformed.inputs, "transform": transformed.url},
        )


def _resolve(attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Run:
    sync = next((sync for sync in load_settings().syncs if sync.name == sync_name), None)
    if sync is None:
        raise PermanentError(
            f"The settings hold no valid sync named {sync_name!r} any more. Correct the settings file, then run again."
        )
    run = resolve(attempt.run_id, sync, parameters, conf)
    if run.dry_run:
        log.warning("DRY RUN (%s): nothing will be written to Joget", run.dry_run_reason)
    return run
