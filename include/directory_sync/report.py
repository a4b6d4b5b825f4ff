"""The report of a run: counts, holds and quarantine, for people and for machines. No name, email or
attribute.
"""

from datetime import datetime

import pandas as pd
from pydantic import BaseModel, ConfigDict

from directory_sync.clock import Clock
from directory_sync.plan import Plan
from directory_sync.plan.changes import SettingsChange
from directory_sync.reasons import LEFT_OVER_REASONS, Reason
from directory_sync.run import Run
from directory_sync.vocabulary import Entity, Outcome

USER_OUTCOMES = (
    Outcome.CREATED,
    Outcome.ADOPTED,
    Outcome.UPDATED,
    Outcome.RENAMED,
    Outcome.DEACTIVATED,
    Outcome.REACTIVATED,
    Outcome.DELETED,
    Outcome.RECREATED,
    Outcome.UNCHANGED,
    Outcome.FROZEN,
    Outcome.MISSING,
    Outcome.QUARANTINED,
    Outcome.HELD,
    Outcome.DEFERRED,
)
GROUP_OUTCOMES = (
    Outcome.CREATED,
    Outcome.ADOPTED,
    Outcome.UPDATED,
    Outcome.DELETED,
    Outcome.UNCHANGED,
    Outcome.MISSING,
    Outcome.QUARANTINED,
    Outcome.HELD,
    Outcome.DEFERRED,
)


LEFT_OVER_NAMES = {
    "leavers": Reason.LEFT_OVER,
    "out_of_scope": Reason.LEFT_OVER_OUT_OF_SCOPE,
    "without_login": Reason.LEFT_OVER_WITHOUT_LOGIN,
}
"""What report.json calls the accounts without a link, by their reason."""


class Hold(BaseModel):
    """The rows that one cause holds. Where the cause is a limit, limit and figure are in its unit,
    a percentage or a count.
    """

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
    code: str | None = None
    """reasons.Reason."""


class ReviewAnswer(BaseModel):
    """What a person answered about held rows, and what was done."""

    model_config = ConfigDict(frozen=True)

    review_id: str
    answer: str
    """approve or reject."""
    answered_by: str | None
    answered_at: datetime | None
    asked: int
    """Rows that were shown."""
    applied: int
    changed_since: int
    """Approved rows that stay held, since they changed or depend on a row that did."""


class Report(BaseModel):
    """report.json."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    sync: str
    user_pool_id: str
    organization: str
    snapshot_at: datetime
    dry_run: bool
    only_users: int | None = None
    """In a run for some users: how many users were looked at; null in a run for everybody."""
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
    to_review: int
    """How many held rows a person is asked about; 0 where every one of them was answered before."""
    review: ReviewAnswer | None = None
    undoes: str | None = None
    """The run that an undo takes back."""
    settings_change: SettingsChange | None = None
    asked_by_name: int = 0
    """How many users and groups the pool was asked for by name."""
    left_over: dict[str, int] = {}
    """Of the organization: accounts that the pool doesn't explain (LEFT_OVER_NAMES), and users with
    several employments."""
    clock: Clock | None = None
    """How long the changes of the sync's last days took; null where the ledger doesn't time them.
    """

    def flat_counts(self) -> dict[str, int]:
        """Every count under one name, such as `users_created`."""
        return {
            f"{entity}_{what}": count
            for entity in ("users", "groups", "memberships")
            for what, count in getattr(self, entity).items()
        }

    def sentence(self) -> str:
        """The run in a line, for the log."""
        done = [
            f"{count} {name.replace('_', ' ')}"
            for name, count in self.flat_counts().items()
            if count
        ]
        nothing = "the pool has neither users nor groups"
        if self.only_users is not None:
            nothing = "nothing was found"
        return f"{self.outcome}: {', '.join(done) or nothing}"


def make_report(
    run: Run,
    plan: Plan,
    *,
    outcome: str,
    snapshot_at: datetime,
    incomplete_reasons: tuple[str, ...],
    timings: dict[str, float],
    review: ReviewAnswer | None = None,
    undoes: str | None = None,
    asked_by_name: int = 0,
) -> Report:
    """Count a plan. A dry run counts what it would do."""
    return Report(
        run_id=run.run_id,
        sync=run.sync.name,
        user_pool_id=run.sync.user_pool_id,
        organization=run.sync.organization,
        snapshot_at=snapshot_at,
        dry_run=run.dry_run,
        only_users=len(run.users) if run.is_for_some else None,
        outcome=outcome,
        complete=not incomplete_reasons,
        incomplete_reasons=incomplete_reasons,
        users=_count_outcomes(plan.directory, Entity.USER, USER_OUTCOMES),
        groups=_count_outcomes(plan.directory, Entity.GROUP, GROUP_OUTCOMES),
        memberships=plan.memberships,
        holds=list_holds(plan, plan.held),
        quarantine=_list_quarantined(plan.directory),
        plan_sha256=plan.sha256,
        held_sha256=plan.held_sha256,
        timings=timings,
        to_review=len(plan.to_review) if plan.opens_review else 0,
        review=review,
        undoes=undoes,
        settings_change=plan.settings_change,
        asked_by_name=asked_by_name,
        left_over=_count_left_over(plan),
    )


def _count_left_over(plan: Plan) -> dict[str, int]:
    """Count accounts by LEFT_OVER_NAMES, and users with several employments."""
    # An account that this plan deactivates isn't left over any more.
    found = plan.directory.loc[
        plan.directory["outcome"] != Outcome.DEACTIVATED, "code"
    ].value_counts()
    counts = {name: int(found.get(reason, 0)) for name, reason in LEFT_OVER_NAMES.items()}
    return {**counts, "employed_twice": plan.employed_twice}


def list_holds(plan: Plan, held: pd.DataFrame) -> tuple[Hold, ...]:
    """Count held rows by cause, with the limit and the figure where the cause is a limit."""
    holds = []
    for cause, rows in held.groupby("hold").size().items():
        excess = plan.excesses.get(str(cause))
        limit, figure = (excess.limit, excess.figure) if excess else (None, None)
        holds.append(Hold(cause=str(cause), limit=limit, figure=figure, rows=int(rows)))
    return tuple(holds)


def _count_outcomes(
    directory: pd.DataFrame, entity: str, outcomes: tuple[str, ...]
) -> dict[str, int]:
    """Count the users or groups by outcome, and as `missing` all linked ones that aren't listed."""
    rows = directory[directory["entity"] == entity]
    found = rows["outcome"].value_counts()
    counts = {outcome: int(found.get(outcome, 0)) for outcome in outcomes}
    # A left-over account isn't listed either, but it isn't linked: _count_left_over counts it.
    unlisted = rows.loc[~rows["listed"] & ~rows["code"].isin(LEFT_OVER_REASONS), "outcome"]
    # Reports have no `recreated` groups: one that was deleted in Joget counts as created.
    if entity == Entity.GROUP:
        counts[Outcome.CREATED] += int(found.get(Outcome.RECREATED, 0))
    # Whatever is done about missing users, `deactivated`, `deleted` or `held` counts that (rule 5).
    counts["missing"] = int((~unlisted.isin([Outcome.UNLISTED, Outcome.FROZEN])).sum())
    return {"read": int(rows["listed"].sum()), **counts}


def _list_quarantined(directory: pd.DataFrame) -> tuple[Quarantined, ...]:
    rows = directory[directory["outcome"] == Outcome.QUARANTINED]
    keys = rows["sub"].fillna(rows["group_name"])
    return tuple(
        Quarantined(
            entity=entity, key=key, reason=reason, code=code if isinstance(code, str) else None
        )
        for entity, key, reason, code in zip(
            rows["entity"], keys, rows["reason"], rows["code"], strict=True
        )
    )
