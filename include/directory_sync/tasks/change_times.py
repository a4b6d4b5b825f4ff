"""Since when a run's changes are timed: by events, or by the dates in the snapshot."""

from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.cognito.snapshot import TIMESTAMP_TYPE
from directory_sync.frames import make_empty_frame, make_frame
from directory_sync.plan import Plan
from directory_sync.plan.delays import ARRIVALS_SCHEMA, date_changes, find_changed_users
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest

MODIFIED_SCHEMA = pa.schema([("sub", pa.string()), ("modified_at", TIMESTAMP_TYPE)])

USERS_FILES = {
    "extract_users": ("users.parquet",),
    "extract_groups": ("users_seen.parquet", "users_seen_again.parquet"),
}
"""By task: its files with users."""


def date_snapshot_changes(
    inputs: dict[str, str], plan: Plan, since: pd.Timestamp | None
) -> pd.DataFrame:
    """Columns plan.delays.ARRIVALS_SCHEMA: the users that a plan from a snapshot changes, with the
    pool's times.

    inputs: URLs of the snapshot's manifests, by task. since: the time of the newest full snapshot
    that was applied before; where there is none, nothing is timed.
    """
    if since is None:  # a first load may change a million users
        return make_empty_frame(ARRIVALS_SCHEMA)
    changed = find_changed_users(plan)
    subs = pa.array(changed["sub"], pa.string())
    found = list(_read_modified(inputs, subs)) if len(subs) else []
    return date_changes(changed, make_frame(pa.Table.from_batches(found, MODIFIED_SCHEMA)), since)


def _read_modified(inputs: dict[str, str], subs: pa.Array) -> Iterator[pa.RecordBatch]:
    for task, names in USERS_FILES.items():
        manifest = store.find_source(store.read_manifest(inputs[task]))
        for name in names:
            if name in manifest.files and manifest.files[name].rows:
                yield from _read_file(manifest, name, subs)


def _read_file(manifest: Manifest, name: str, subs: pa.Array) -> Iterator[pa.RecordBatch]:
    with store.open_parquet(manifest, name) as file:
        for batch in file.iter_batches(columns=MODIFIED_SCHEMA.names):
            yield batch.filter(pc.is_in(batch["sub"], value_set=subs)).cast(MODIFIED_SCHEMA)
