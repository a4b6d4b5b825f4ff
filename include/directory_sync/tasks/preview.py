"""What settings would change in Joget, planned from the newest snapshot that was applied. It reads,
and never writes.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from directory_sync.errors import PermanentError, hide_values
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, runs
from directory_sync.joget.reading import Lookups, read_current
from directory_sync.joget.schema import inspect_tables
from directory_sync.plan import Evidence, Plan, make_plan
from directory_sync.plan.changes import hash_rows
from directory_sync.run import Run
from directory_sync.settings import load_settings
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks.transform import map_with_settings, read_absent, read_snapshot_frames
from directory_sync.vocabulary import LEDGER_ACTIONS


class Origin(StrEnum):
    """Where a change comes from."""

    SETTINGS = "settings"
    """The settings differ from those of the newest run."""
    JOGET = "joget"
    """The newest run's settings give it too: Joget has changed since, or the row was held or left
    out then.
    """


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


def preview_changes(sync_name: str, settings_path: Path | None = None) -> Preview:
    """Plan with the settings, or with those of another file, against Joget now.

    The pool isn't read. Raises SettingsError with each fault of the file, and PermanentError where
    the file has no such sync, or no run of the sync's pool was applied yet.
    """
    settings = load_settings(settings_path)
    settings.require_valid()
    sync = settings.find_sync(sync_name)
    with hide_values("plan"):
        store.require_access(sync.staging_url)
        run = Run(run_id="plan", sync=sync, dry_run=True)
        with open_session(sync.joget_conn_id) as database:
            newest = _find_newest_run(database, run)
            rules = runs.find_newest_rules(database, run)
            run = run.model_copy(update={"previous": rules if rules != sync.rules else None})
            return _make_preview(database, run, store.read_manifest(newest.transformed_url))


def _find_newest_run(database: Database, run: Run) -> runs.CommittedRun:
    newest = None
    if definition.is_ledger_complete(database):
        newest = runs.find_newest_full_run(database, run)
    if newest is None:
        raise PermanentError(
            f"No run of pool {run.sync.user_pool_id} was applied yet. Trigger {run.sync.dag_id} "
            "with dry_run instead: it reads the pool."
        )
    return newest


def _make_preview(database: Database, run: Run, transformed: Manifest) -> Preview:
    tables = inspect_tables(database, run.sync.organization)
    users, groups = (
        store.read_manifest(transformed.inputs[task])
        for task in ("extract_users", "extract_groups")
    )
    frames = read_snapshot_frames(run, users, groups)
    desired = map_with_settings(run.sync, frames)
    before = map_with_settings(run.before_change.sync, frames)
    current = read_current(database, tables, run, Lookups(desired=(desired, before)))
    evidence = Evidence(
        transformed.snapshot_at,
        complete=transformed.complete,
        compares=True,
        absent=read_absent(transformed),
        missing_minutes=run.sync.policies.missing_minutes,
    )
    plan = make_plan(run, desired, current, evidence)
    without = make_plan(run.before_change, before, current, evidence)
    return _count_changes(run, transformed.snapshot_at, plan, without)


def _count_changes(run: Run, snapshot_at: datetime, plan: Plan, without: Plan) -> Preview:
    rows = plan.changes[~plan.changes["action"].isin(LEDGER_ACTIONS)]
    known = hash_rows(rows).isin(hash_rows(without.changes))
    rows = rows.assign(origin=known.map({True: Origin.JOGET, False: Origin.SETTINGS}))
    applied, held = rows[rows["hold"].isna()], rows[rows["hold"].notna()]
    return Preview(
        sync=run.sync.name,
        snapshot_at=snapshot_at,
        changed_settings=run.changed_settings,
        changes=_count_by(applied, "origin", "entity", "action"),
        held=_count_by(held, "origin", "hold"),
    )


def _count_by(rows: pd.DataFrame, *columns: str) -> dict[Any, int]:
    return dict(Counter(zip(*(rows[column] for column in columns), strict=True)))
