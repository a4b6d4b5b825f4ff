"""The report of a run: counts, holds and quarantine, for people and for machines. No name, email or attribute."""

from datetime import datetime

import pandas as pd
from pydantic import BaseModel, ConfigDict

from include.directory_sync.plan import Plan
from include.directory_sync.run import Run

USERS = (
    "created",
    "adopted",
    "updated",
    "renamed",
    "deactivated",
    "reactivated",
    "deleted",
    "recreated",
    "unchanged",
    "frozen",
    "missing",
    "quarantined",
    "held",
)
GROUPS = ("created", "adopted", "updated", "deleted", "unchanged", "missing", "quarantined", "held")


class Hold(BaseModel):
    """Rows that wait for a person, by cause; limit and figure are percents or counts where a limit caused it."""

    model_config = ConfigDict(frozen=True)

    cause: str
    limit: float | None = None
    figure: float | None = None
    rows: int


class Quarantined(BaseModel):
    """A record that can't be mapped or matched."""

    model_config = ConfigDict(frozen=True)

    entity: str
    key: str
    """A sub or a group name."""
    reason: str


class Report(BaseModel):
    """report.json."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    sync: str
    user_pool_id: str
    organization: str
    snapshot_at: datetime
    dry_run: bool
    outcome: str
    """applied, nothing_to_do, dry_run or superseded."""
    complete: bool
    incomplete_reasons: tuple[str, ...]
    users: dict[str, int]
    groups: dict[str, int]
    memberships: dict[str, int]
    holds: tuple[Hold, ...]
    quarantine: tuple[Quarantined, ...]
    plan_sha256: str
    held_sha256: str | None
    timings: dict[str, float]
    """Seconds, by task."""

    def flat_counts(self) -> dict[str, int]:
        """Every count under one name, such as `users_created`."""
        return {
            f"{entity}_{what}": count
            for entity in ("users", "groups", "memberships")
            for what, count in getattr(self, entity).items()
        }

    def sentence(self) -> str:
        """The run in a line, for the log."""
        done = [f"{count} {name.replace('_', ' ')}" for name, count in self.flat_counts().items() if count]
        return f"{self.outcome}: {', '.join(done) or 'the pool has neither users nor groups'}"


def make_report(
    run: Run,
    plan: Plan,
    *,
    outcome: str,
    snapshot_at: datetime,
    incomplete_reasons: tuple[str, ...],
    timings: dict[str, float],
) -> Report:
    """Count a plan. A dry run counts what it would do."""
    held = plan.held
    causes = held.groupby("hold").size()
    return Report(
        run_id=run.run_id,
        sync=run.sync.name,
        user_pool_id=run.sync.user_pool_id,
        organization=run.sync.organization,
        snapshot_at=snapshot_at,
        dry_run=run.dry_run,
        outcome=outcome,
        complete=not incomplete_reasons,
        incomplete_reasons=incomplete_reasons,
        users=_counts(plan.directory, "user", USERS),
        groups=_counts(plan.directory, "group", GROUPS),
        memberships=plan.memberships,
        holds=tuple(Hold(cause=str(cause), rows=int(rows)) for cause, rows in causes.items()),
        quarantine=_quarantine(plan.directory),
        plan_sha256=plan.sha256,
        held_sha256=plan.held_sha256,
        timings=timings,
    )


def _counts(directory: pd.DataFrame, entity: str, outcomes: tuple[str, ...]) -> dict[str, int]:
    found = directory.loc[directory["entity"] == entity, "outcome"].value_counts()
    counts = {outcome: int(found.get(outcome, 0)) for outcome in outcomes}
    return {"read": int(found.sum()) - counts["missing"], **counts}


def _quarantine(directory: pd.DataFrame) -> tuple[Quarantined, ...]:
    rows = directory[directory["outcome"] == "quarantined"]
    keys = rows["sub"].fillna(rows["group_name"])
    return tuple(
        Quarantined(entity=entity, key=key, reason=reason)
        for entity, key, reason in zip(rows["entity"], keys, rows["reason"], strict=True)
    )
