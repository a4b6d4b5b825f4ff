"""How much a run may change without asking a person: the settings' limits, each with its floor.

See *Limits* in docs/design.md.
"""

import pandas as pd

from directory_sync.frames import is_true
from directory_sync.plan.changes import Excess, hash_name
from directory_sync.plan.current import Current
from directory_sync.plan.matching import select_users_of_sync
from directory_sync.plan.users import are_values_different
from directory_sync.reasons import Reason
from directory_sync.run import Run
from directory_sync.settings import Limits
from directory_sync.vocabulary import REMOVAL_ACTIONS, Action, Cause, State

SMALLEST_GROUP = 10
"""`emptied_group_percent` applies to groups with at least so many members."""

CREATING_ACTIONS = (Action.CREATE, Action.ADOPT)
CHANGING_ACTIONS = (Action.UPDATE, Action.RENAME, Action.RECREATE, Action.RELINK)


def limit_users(
    run: Run, users: pd.DataFrame, current: Current
) -> tuple["pd.Series[str]", dict[str, Excess]]:
    """Give the users' holds, earlier ones included, and the limits that the plan exceeds, by cause.

    Missing users, and separately disabled users, are counted with those of the last 24 hours, in
    percent of the linked and active users. Changed users are counted in percent of all linked
    users. Where a limit is exceeded, every row that it counts is held.
    """
    limits = run.sync.limits
    links = select_users_of_sync(run, current)
    others = current.unchanged_users + current.unread_users
    total = len(links) + others
    action = users["action"].where(users["hold"].isna())
    removed = action.isin(REMOVAL_ACTIONS)
    # Each has a limit of its own, so that many missing users never hold back disabled ones.
    disabled = removed & is_true(users["code"] == Reason.DISABLED)
    missing = removed & ~disabled
    was_active = is_true(users["before_state"] == State.ACTIVE)
    counted = missing & (was_active | (action == Action.DELETE))
    active = int((links["state"] == State.ACTIVE).sum()) + others
    # A user who was deactivated before counts when deleted, so the total must have them as well.
    active_or_deleted = active + int((counted & ~was_active).sum())
    changed = action.isin(CHANGING_ACTIONS) & users["linked"] & are_values_different(users)
    created = is_true(action.isin(CREATING_ACTIONS) & (users["code"] != Reason.LINK_REBUILT))
    excesses = {
        Cause.DISABLED_USERS: find_excess(
            limits,
            limits.disabled_users_percent,
            int(disabled.sum()),
            active,
            current.removals.disabled,
        ),
        Cause.REMOVED_USERS: find_excess(
            limits,
            limits.removed_users_percent,
            int(counted.sum()),
            active_or_deleted,
            current.removals.users,
        ),
        Cause.CHANGED_USERS: find_excess(
            limits, limits.changed_users_percent, int(changed.sum()), total
        ),
        Cause.CREATED_USERS: _find_created_excess(limits, int(created.sum())),
    }
    held = {
        Cause.DISABLED_USERS: disabled,
        Cause.REMOVED_USERS: missing,
        Cause.CHANGED_USERS: changed,
        Cause.CREATED_USERS: created,
    }
    hold = users["hold"]
    for cause, excess in excesses.items():
        if excess:
            hold = hold.mask(held[cause] & hold.isna(), cause)
    found = {str(cause): excess for cause, excess in excesses.items() if excess}
    hold, seats = _limit_seats(limits, users, hold, current)
    return hold, found | seats


def _limit_seats(
    limits: Limits, users: pd.DataFrame, hold: "pd.Series[str]", current: Current
) -> tuple["pd.Series[str]", dict[str, Excess]]:
    makes = users["action"].isin([Action.CREATE, Action.RECREATE]) & hold.isna()
    # A held removal isn't applied, so it frees no seat.
    goes = (users["action"] == Action.DELETE) & hold.isna()
    seats = current.users_in_all + int(makes.sum()) - int(goes.sum())
    if limits.max_users is None or not makes.any() or seats <= limits.max_users:
        return hold, {}
    return hold.mask(makes, Cause.MAX_USERS), {Cause.MAX_USERS: Excess(limits.max_users, seats)}


def limit_removed_memberships(
    run: Run,
    rows: pd.DataFrame,
    before: "pd.Series[int]",
    current: Current,
    excesses: dict[str, Excess],
) -> "pd.Series[str]":
    """Give the holds of membership rows after `removed_memberships_percent`, and add to `excesses`
    where it is exceeded. before: how many of our memberships each group had, by group name.
    """
    limits = run.sync.limits
    removed = _is_removed(rows)
    excess = find_excess(
        limits,
        limits.removed_memberships_percent,
        int(removed.sum()),
        int(before.sum()) if current.memberships_in_all is None else current.memberships_in_all,
        current.removals.memberships,
    )
    if not excess:
        return rows["hold"]
    excesses[Cause.REMOVED_MEMBERSHIPS] = excess
    return rows["hold"].mask(removed, Cause.REMOVED_MEMBERSHIPS)


def limit_emptied_groups(
    run: Run,
    rows: pd.DataFrame,
    before: "pd.Series[int]",
    current: Current,
    excesses: dict[str, Excess],
) -> "pd.Series[str]":
    """The same for `emptied_group_percent`, group by group."""
    removed = _is_removed(rows)
    emptied = _find_emptied_groups(run.sync.limits, rows[removed], before, current)
    if not emptied:
        return rows["hold"]
    excesses[Cause.EMPTIED_GROUP] = max(emptied.values(), key=lambda excess: excess.figure)
    inside = rows["group_name"].isin(list(emptied))
    return rows["hold"].mask(removed & inside, Cause.EMPTIED_GROUP)


def _is_removed(rows: pd.DataFrame) -> "pd.Series[bool]":
    # What a deactivated or deleted user loses belongs to the user's own removal.
    return is_true((rows["action"] == Action.REMOVE) & rows["hold"].isna() & ~rows["is_ending"])


def _find_emptied_groups(
    limits: Limits, removed: pd.DataFrame, before: "pd.Series[int]", current: Current
) -> dict[str, Excess]:
    excesses = {}
    for name, rows in removed.groupby("group_name").size().items():
        had = int(before.get(name, 0))
        recent = current.removals.by_group.get(hash_name(str(name)), 0)
        if had + recent >= SMALLEST_GROUP:
            excess = find_excess(limits, limits.emptied_group_percent, int(rows), had, recent)
            if excess:
                excesses[str(name)] = excess
    return excesses


def _find_created_excess(limits: Limits, created: int) -> Excess | None:
    if limits.created_users is None or created <= max(limits.created_users, limits.floor):
        return None
    return Excess(limits.created_users, created)


def find_excess(limits: Limits, limit: float, rows: int, of: int, recent: int = 0) -> Excess | None:
    """Find how far this run's `rows` and the `recent` rows exceed the limit, in percent of what
    there was before both; None within the limit or the floor. of: what there is before this run.
    """
    if not rows or rows + recent <= limits.floor:
        return None
    figure = 100 * (rows + recent) / max(of + recent, 1)
    return Excess(limit, round(figure, 2)) if figure > limit else None
