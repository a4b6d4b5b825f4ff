"""Why a user is as they are: the way from the pool to Joget, read from what the runs left."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from directory_sync.errors import DirectorySyncError, PermanentError
from directory_sync.mapping import MAPPED_COLUMNS
from directory_sync.pages.labels import VALUE_LABELS
from directory_sync.pages.published_files import PublishedRun
from directory_sync.pages.run_history import PastRun, find_newest_full_run
from directory_sync.pages.user_events import UserEvent, list_events
from directory_sync.pages.user_groups import InGroup, list_groups, list_unread_groups
from directory_sync.reasons import Reason, advise_on_reason
from directory_sync.settings import Mapping
from directory_sync.vocabulary import (
    Action,
    Entity,
    Outcome,
    State,
    Verdict,
    advise_on_cause,
    describe_cause,
)


@dataclass(frozen=True)
class InPool:
    """A user as the newest snapshot lists them."""

    status: str
    enabled: bool
    created_at: datetime | None
    modified_at: datetime | None


@dataclass(frozen=True)
class MappedValue:
    """One of Joget's columns, the attribute that it comes from, and the value."""

    column: str
    attribute: str
    value: str


@dataclass(frozen=True)
class Explanation:
    """One user's way from the pool to Joget. Without the right to see values, `joget_id` and
    `values` are empty.
    """

    sub: str
    newest: PastRun
    """The run for everybody with the newest snapshot."""
    pool: InPool | None
    verdict: str
    """By mapping and scope: mapped, frozen or quarantined; empty where the user isn't listed."""
    verdict_reason: str
    values: tuple[MappedValue, ...]
    decided_by: PastRun
    """The run, review or undo that decided about the user last: `joget_id` to `reason` are from it.
    """
    joget_id: str
    outcome: str
    """Empty where no run knows anything of the user."""
    state: str
    reason: str
    linked_since: str
    groups: tuple[InGroup, ...]
    unread_groups: tuple[str, ...]
    """Some of the pool's groups that aren't in scope: no run listed their members."""
    events: tuple[UserEvent, ...]
    holding_back: tuple[tuple[str, str], ...]
    """Why something isn't done, and what to do about it."""

    @property
    def is_known(self) -> bool:
        """Whether any run knows the user."""
        return bool(self.pool or self.outcome or self.events)

    @property
    def conclusion(self) -> str:
        """A sentence if nothing holds the user back; empty if something does."""
        if self.holding_back:
            return ""
        if self.pool:
            return "Nothing holds this user back: Joget has them as the pool says."
        return "Nothing waits for a decision about this user."

    @property
    def in_pool(self) -> str:
        """What the newest snapshot says of the user."""
        report = self.newest.published.report if self.newest.published else None
        at = f"{report.snapshot_at:%Y-%m-%d %H:%M} UTC" if report else "the newest run"
        if self.pool is None:
            doubt = "" if report and report.complete else ", which wasn't proven complete"
            return f"not in the snapshot of {at}{doubt}."
        created, modified = self.pool.created_at, self.pool.modified_at
        dates = [
            f"created {created:%Y-%m-%d}" if created else "",
            f"changed {modified:%Y-%m-%d %H:%M} UTC" if modified else "",
        ]
        state = "enabled" if self.pool.enabled else "disabled"
        since = ", ".join(filter(None, dates))
        return f"listed on {at}, status {self.pool.status}, {state}{'; ' if since else ''}{since}."

    @property
    def in_scope(self) -> str:
        """What mapping and scope make of the user."""
        return {
            str(Verdict.MAPPED): "yes.",
            str(Verdict.FROZEN): f"no: {self.verdict_reason}.",
            str(Verdict.QUARANTINED): f"can't be mapped: {self.verdict_reason}.",
        }.get(self.verdict, "not decided: the user isn't listed.")


def explain_user(sub: str, runs: list[PastRun], *, values: bool) -> Explanation:
    """Everything that these runs say about a user. Raises PermanentError where no run for everybody
    is among them.
    """
    read_by = find_newest_full_run(runs)
    if read_by is None or read_by.published is None:
        raise PermanentError(
            "No run of this sync for everybody has left its files, so no user can be searched for."
        )
    newest = read_by.published
    listed, desired = (
        next(newest.find_rows(name, "sub", [sub]), {})
        for name in ("users.parquet", "desired_users.parquet")
    )
    decided_by, known = _find_known_row(sub, runs, read_by)
    events = tuple(list_events(sub, runs, values=values))
    verdict, reason = desired.get("verdict") or "", desired.get("reason") or ""
    if known.get("outcome") == Outcome.FROZEN and verdict == Verdict.MAPPED:
        # Planning finds some frozen users, such as excluded ones, after the mapping.
        verdict, reason = (
            Verdict.FROZEN,
            known.get("reason") or "",
        )
    return Explanation(
        sub=sub,
        newest=read_by,
        pool=InPool(*(listed[name] for name in POOL_COLUMNS)) if listed else None,
        verdict=verdict,
        verdict_reason=reason,
        values=tuple(_list_mapped_values(newest, desired)) if values else (),
        decided_by=decided_by,
        joget_id=(known.get("joget_id") or "") if values else "",
        outcome=known.get("outcome") or "",
        state=known.get("state") or "",
        reason=known.get("reason") or "",
        linked_since=_find_link_time(known, events, decided_by),
        groups=tuple(list_groups(sub, newest, events, values=values)),
        unread_groups=tuple(list_unread_groups(newest, values=values)),
        events=events,
        holding_back=tuple(_list_obstacles(known, sub, decided_by)),
    )


POOL_COLUMNS = ("status", "enabled", "created_at", "modified_at")


def _find_known_row(
    sub: str, runs: list[PastRun], read_by: PastRun
) -> tuple[PastRun, dict[str, Any]]:
    """The run that decided last about a user, and its row of directory.parquet."""
    decided = sorted(
        (past for past in runs if past.decided), key=lambda past: past.ended, reverse=True
    )
    for past in decided:
        if past.published is None:
            continue
        try:
            row = next(past.published.find_rows("directory.parquet", "sub", [sub]), None)
        except DirectorySyncError:
            continue  # the files were deleted since
        # A run for some users may have rows of others too, and decides nothing about them.
        if row and row.get("code") != Reason.NOT_ASKED:
            return past, row
        # What older runs say of somebody is out of date. Runs for some users, and undos, know only
        # the users that they were about.
        if past.knows_everybody:
            return past, {}
    return read_by, {}


def _list_mapped_values(newest: PublishedRun, desired: dict[str, Any]) -> Iterator[MappedValue]:
    mapping = newest.run.sync.mapping if newest.run else Mapping()
    if not desired:
        return
    yield MappedValue("login", mapping.username, desired["username"] or "")
    for column, setting in MAPPED_COLUMNS.items():
        attribute = getattr(mapping, setting)
        if attribute:
            yield MappedValue(VALUE_LABELS[column], attribute, desired[column] or "")


LINKING_ACTIONS = (Action.CREATE, Action.ADOPT, Action.RELINK, Action.RECREATE)


def _find_link_time(
    known: dict[str, Any], events: tuple[UserEvent, ...], decided_by: PastRun
) -> str:
    # A left-over account has a joget_id without a link; only linked users have a state.
    if not known.get("joget_id") or not known.get("state"):
        return ""
    # linked_at is null where the deciding run itself made the link, and otherwise the time of the
    # user's first link (plan.changes.DIRECTORY_SCHEMA). A later link in the events counts instead.
    since = known.get("linked_at")
    for event in events:
        done = [
            change
            for change in event.changes
            if change.entity == Entity.USER and change.action in LINKING_ACTIONS
        ]
        if any(not change.hold for change in done) and not event.dry_run:
            since = event.at
            break
    return f"{since or decided_by.ended:%Y-%m-%d %H:%M} UTC"


def _list_obstacles(
    known: dict[str, Any], sub: str, decided_by: PastRun
) -> Iterator[tuple[str, str]]:
    # What an undo holds was changed since, and is only listed: it holds back no user.
    if decided_by.published and decided_by.sync_dag.kind != "undo":
        rows = decided_by.published.find_rows("plan.parquet", "sub", [sub])
        for cause in sorted({row["hold"] for row in rows if row["hold"]}):
            yield f"held ({cause}): {describe_cause(cause)}", advise_on_cause(cause)
    outcome, reason = known.get("outcome"), known.get("reason") or ""
    if outcome == Outcome.QUARANTINED:
        yield f"in quarantine: {reason}", advise_on_reason(known.get("code"))
    if outcome == Outcome.FROZEN:
        yield f"left alone: {reason}", advise_on_reason(known.get("code"))
    if known.get("state") == State.DEACTIVATED_IN_JOGET:
        yield (
            "an administrator deactivated the user in Joget: the sync leaves them inactive and "
            "without memberships",
            "Activate the user in Joget's console; the next run gives them what the pool says.",
        )
    if known.get("state") == State.DEACTIVATED:
        yield (
            "deactivated by the sync",
            "Enable the user in Cognito, or bring them back into the pool.",
        )
