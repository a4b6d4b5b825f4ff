"""The task `transform`: maps a snapshot to Joget's columns."""

import logging

import pandas as pd

from directory_sync import mapping
from directory_sync.cognito.snapshot import ABSENT_SCHEMA
from directory_sync.errors import MissingAttributesError, hide_values
from directory_sync.frames import make_empty_frame
from directory_sync.run import Attempt, Run
from directory_sync.settings import Sync
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest

log = logging.getLogger(__name__)


def transform_snapshot(attempt: Attempt, users_url: str, groups_url: str) -> Manifest:
    """Map the snapshot to Joget's columns: desired_*.parquet and quarantine.parquet. No network, no
    database.

    Where the settings changed since the newest run, the old settings' result goes into
    before_change_*.parquet.
    """
    with hide_values("transform"):
        store.require_access(users_url)
        users, groups = store.read_manifest(users_url), store.read_manifest(groups_url)
        run = store.read_run(users)
        folder = store.open_folder(run, attempt.name)
        frames = read_snapshot_frames(run, users, groups)
        desired = _write_desired(folder, "desired", run.sync, frames)
        if run.previous:
            _write_desired(folder, "before_change", run.before_change.sync, frames)
        folder.frame("quarantine.parquet", desired.quarantine)
        counts = {
            "users": len(desired.users),
            "groups": len(desired.groups),
            "quarantined": len(desired.quarantine),
        }
        log.info("mapped %d users and %d groups, %d quarantined", *counts.values())
        return folder.seal(
            snapshot_at=users.snapshot_at,
            counts=counts,
            complete=users.complete and groups.complete,
            incomplete_reasons=users.incomplete_reasons + groups.incomplete_reasons,
            inputs={"extract_users": users.url, "extract_groups": groups.url},
        )


def read_snapshot_frames(run: Run, users: Manifest, groups: Manifest) -> tuple[pd.DataFrame, ...]:
    """Read users, groups and memberships of a snapshot (the frames of cognito.snapshot).

    Raises MissingAttributesError where the run's mapping names attributes that the snapshot
    lacks.
    """
    of_users, of_groups = store.find_source(users), store.find_source(groups)
    names = ("groups.parquet", "memberships.parquet", "memberships_again.parquet")
    listed, first, again = (store.read_frame(of_groups, name) for name in names)
    found = _read_users(of_users, of_groups)
    lacking = [name for name in run.attributes if f"attribute.{name}" not in found.columns]
    if lacking:
        raise MissingAttributesError(
            f"The snapshot of run {of_users.run_id} doesn't hold {', '.join(lacking)}, which the "
            "mapping asks for now. It can't be planned with these settings; run the sync instead."
        )
    # A membership in either listing counts, since presence is evidence (docs/design.md).
    return found, listed, pd.concat([first, again], ignore_index=True)


def _read_users(of_users: Manifest, of_groups: Manifest) -> pd.DataFrame:
    """Read all users that any answer had: the list, a group's members, or a direct question."""
    listed = store.read_frame(of_users, "users.parquet")
    others = [
        store.read_frame(of_groups, name)
        for name in ("users_seen.parquet", "users_seen_again.parquet")
        if name in of_groups.files and of_groups.files[name].rows
    ]
    # In the order of reading: of rows that are equally new, mapping keeps a sub's last one.
    return pd.concat([listed, *others], ignore_index=True) if others else listed


def map_with_settings(sync: Sync, frames: tuple[pd.DataFrame, ...]) -> mapping.Desired:
    """Map `read_snapshot_frames` by a sync's mapping and scope."""
    return mapping.map_snapshot(
        *frames, mapping=sync.mapping, scope=sync.scope, user_pool_id=sync.user_pool_id
    )


def _write_desired(
    folder: store.Folder, prefix: str, sync: Sync, frames: tuple[pd.DataFrame, ...]
) -> mapping.Desired:
    desired = map_with_settings(sync, frames)
    for name in mapping.DESIRED_FRAMES:
        folder.frame(f"{prefix}_{name}.parquet", getattr(desired, name))
    return desired


def read_desired(transformed: Manifest, prefix: str = "desired") -> mapping.Desired:
    """The desired directory that `transform_snapshot` left."""
    return mapping.Desired(
        *(
            store.read_frame(transformed, f"{prefix}_{name}.parquet")
            for name in mapping.DESIRED_FRAMES
        )
    )


def read_absent(groups: Manifest) -> pd.DataFrame:
    """Read the users and groups that the pool didn't have when `extract_groups` asked for them by
    name: columns snapshot.ABSENT_SCHEMA; no rows for a snapshot that an earlier version took.
    """
    groups = store.find_source(groups)
    if "absent.parquet" not in groups.files:
        return make_empty_frame(ABSENT_SCHEMA)
    return store.read_frame(groups, "absent.parquet")
