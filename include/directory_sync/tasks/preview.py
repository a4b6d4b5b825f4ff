"""What a run with the settings would change in Joget, planned from the newest snapshot. It reads,
and never writes.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from directory_sync.errors import (
    MissingAttributesError,
    MissingFilesError,
    PermanentError,
    hide_values,
)
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, runs
from directory_sync.joget.reading import Lookups, read_current
from directory_sync.joget.schema import inspect_tables
from directory_sync.mapping import Desired
from directory_sync.plan import Evidence, Plan, make_plan
from directory_sync.plan.changes import hash_rows, make_empty_plan
from directory_sync.run import Run
from directory_sync.settings import load_settings
from directory_sync.staging import signposts, store
from directory_sync.staging.manifest import Manifest
from directory_sync.staging.signposts import SNAPSHOT_SIGNPOSTS
from directory_sync.tasks.transform import map_with_settings, read_absent, read_snapshot_frames
from directory_sync.vocabulary import LEDGER_ACTIONS

log = logging.getLogger(__name__)


class Origin(StrEnum):
    """Where a change comes from."""

    SETTINGS = "settings"
    """The settings differ from those of the newest run. If they name another pool, all comes from
    them.
    """
    POOL = "pool"
    """The newest snapshot gives it, and the newest applied one doesn't, or none of this pool was
    applied yet.
    """
    JOGET = "joget"
    """The newest applied snapshot gives it too: Joget has changed since, or the row was held or
    left out then.
    """


@dataclass(frozen=True)
class Snapshot:
    """What the two extracting tasks of one run left in staging."""

    users: Manifest
    groups: Manifest

    @property
    def at(self) -> datetime:
        """When its listing of users began."""
        return self.users.snapshot_at


@dataclass(frozen=True)
class Preview:
    """What a run would do, in counts. It names nobody."""

    sync: str
    snapshot_at: datetime
    changed_settings: tuple[str, ...]
    """The settings that differ from those of the newest run, such as `mapping.first_name`."""
    changes: dict[tuple[Origin, str, str], int]
    """Changes of Joget that would be applied, by origin, entity and action."""
    held: dict[tuple[Origin, str], int]
    """Changes that would wait for a person, by origin and cause."""

    @property
    def is_empty(self) -> bool:
        """Whether a run would neither change Joget nor hold anything."""
        return not self.changes and not self.held

    def blame_changed_pool(self) -> "Preview":
        """The preview, with all changes as the settings': they name another pool."""
        changes, held = Counter[tuple[Origin, str, str]](), Counter[tuple[Origin, str]]()
        for (_, entity, action), count in self.changes.items():
            changes[Origin.SETTINGS, entity, action] += count
        for (_, cause), count in self.held.items():
            held[Origin.SETTINGS, cause] += count
        changed_settings = ("user_pool_id", *self.changed_settings)
        return replace(
            self, changed_settings=changed_settings, changes=dict(changes), held=dict(held)
        )


def preview_changes(sync_name: str, settings_path: Path | None = None) -> Preview:
    """Plan with the settings, or with those of another file, from the newest snapshot, against
    Joget now.

    The pool isn't read. Raises SettingsError with each fault of the file, and PermanentError where
    the file has no such sync, or staging has no complete snapshot of the sync's pool.
    """
    settings = load_settings(settings_path)
    settings.require_valid()
    sync = settings.find_sync(sync_name)
    with hide_values("plan"):
        store.require_access(sync.staging_url)
        run = Run(run_id="plan", sync=sync, dry_run=True)
        with open_session(sync.joget_conn_id) as database:
            run = runs.add_previous_rules(database, run)
            is_pool_changed = _is_pool_changed(database, run)
            applied = _find_applied_snapshot(database, run)
            staged = _find_staged_snapshot(run)
            newest = max(filter(None, (applied, staged)), key=lambda found: found.at, default=None)
            if newest is None:
                raise PermanentError(
                    f"Staging has no complete snapshot of pool {sync.user_pool_id}. Trigger "
                    f"{sync.dag_id} with dry_run: it reads the pool, and writes nothing to Joget. "
                    "If that was done, its report says why the snapshot isn't complete."
                )
            found = _make_preview(database, run, newest, applied)
            return found.blame_changed_pool() if is_pool_changed else found


def _is_pool_changed(database: Database, run: Run) -> bool:
    if not definition.is_ledger_complete(database):
        return False
    return runs.find_newest_pool(database, run.sync.name) not in (None, run.sync.user_pool_id)


def _find_applied_snapshot(database: Database, run: Run) -> Snapshot | None:
    """The newest snapshot that was applied to Joget; None where there is none, or its files were
    deleted.
    """
    if not definition.is_ledger_complete(database):
        return None
    newest = runs.find_newest_full_run(database, run)
    if newest is None:
        return None
    try:
        transformed = store.read_manifest(newest.transformed_url)
        users, groups = (
            store.read_manifest(transformed.inputs[task])
            for task in ("extract_users", "extract_groups")
        )
        return Snapshot(users, groups)
    except MissingFilesError:
        log.warning(
            "the files of the newest applied snapshot are gone, so changes that Joget or the pool "
            "caused can't be told apart: all are called the pool's"
        )
        return None


def _find_staged_snapshot(run: Run) -> Snapshot | None:
    """The newest complete snapshot; None where there is none, or its files were deleted."""
    try:
        folder_url = signposts.read_newest_signpost(run, SNAPSHOT_SIGNPOSTS, ".groups")
        if folder_url is None:
            return None
        groups = store.read_manifest(folder_url)
        return Snapshot(store.read_manifest(groups.inputs["extract_users"]), groups)
    except MissingFilesError:
        return None


def _make_preview(
    database: Database, run: Run, newest: Snapshot, applied: Snapshot | None
) -> Preview:
    """Plan from the newest snapshot, and count the changes by their origin."""
    # Up to three plans tell the origins apart: the newest snapshot with today's settings, the same
    # with the newest run's settings, and the applied snapshot with the newest run's settings.
    is_applied = newest is applied
    tables = inspect_tables(database, run.sync.organization)
    desired = _map_snapshot(run.model_copy(update={"previous": None}), newest)
    before = _map_by_old_rules(run, newest) if run.previous else desired
    last = before if is_applied or applied is None else _map_by_old_rules(run, applied)
    known = tuple(found for found in (desired, before, last) if found is not None)
    current = read_current(database, tables, run, Lookups(desired=known))
    evidence = _make_evidence(run, newest, is_applied=is_applied)
    plan = make_plan(run, desired, current, evidence)
    without_change = plan
    if run.previous and before is not None:
        without_change = make_plan(run.before_change, before, current, evidence)
    without_snapshot = make_empty_plan()
    if is_applied and before is not None:
        without_snapshot = without_change
    elif applied is not None and last is not None:
        evidence = _make_evidence(run, applied, is_applied=True)
        without_snapshot = make_plan(run.before_change, last, current, evidence)
    return _count_changes(run, newest.at, plan, without_change, without_snapshot)


def _map_snapshot(run: Run, snapshot: Snapshot) -> Desired:
    frames = read_snapshot_frames(run, snapshot.users, snapshot.groups)
    return map_with_settings(run.sync, frames)


def _map_by_old_rules(run: Run, snapshot: Snapshot) -> Desired | None:
    """The snapshot by the newest run's settings; None if it lacks an attribute that they name."""
    try:
        return _map_snapshot(run.before_change, snapshot)
    except MissingAttributesError:
        log.warning(
            "the snapshot of run %s lacks attributes that the newest run's settings ask for, so "
            "some changes that the settings or Joget caused are called the pool's",
            snapshot.users.run_id,
        )
        return None


def _make_evidence(run: Run, snapshot: Snapshot, *, is_applied: bool) -> Evidence:
    return Evidence(
        snapshot.at,
        complete=snapshot.users.complete and snapshot.groups.complete,
        compares=is_applied,  # the ledger has counted the misses of an applied snapshot already
        absent=read_absent(snapshot.groups),
        missing_minutes=run.sync.policies.missing_minutes,
    )


def _count_changes(
    run: Run, snapshot_at: datetime, plan: Plan, without_change: Plan, without_snapshot: Plan
) -> Preview:
    rows = plan.changes[~plan.changes["action"].isin(LEDGER_ACTIONS)]
    hashes = _hash_with_hold(rows)
    of_joget = hashes.isin(_hash_with_hold(without_snapshot.changes))
    of_settings = ~hashes.isin(_hash_with_hold(without_change.changes))
    origin = pd.Series(str(Origin.POOL), index=rows.index)
    origin = origin.mask(of_joget, str(Origin.JOGET)).mask(of_settings, str(Origin.SETTINGS))
    rows = rows.assign(origin=origin.map(Origin))
    applied, held = rows[rows["hold"].isna()], rows[rows["hold"].notna()]
    return Preview(
        sync=run.sync.name,
        snapshot_at=snapshot_at,
        changed_settings=run.changed_settings,
        changes=_count_by(applied, "origin", "entity", "action"),
        held=_count_by(held, "origin", "hold"),
    )


def _hash_with_hold(rows: pd.DataFrame) -> "pd.Series[str]":
    """A hash for each row, with the cause that holds it: a setting may only hold or release it."""
    return hash_rows(rows) + rows["hold"].fillna("")


def _count_by(rows: pd.DataFrame, *columns: str) -> dict[Any, int]:
    return dict(Counter(zip(*(rows[column] for column in columns), strict=True)))
