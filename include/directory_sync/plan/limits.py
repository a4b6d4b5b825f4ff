"""What a run may change without a person's word: the settings' limits, each with its floor."""

import pandas as pd

from include.directory_sync.frames import TEXT, yes
from include.directory_sync.plan.changes import Excess, name_sha256
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.matching import users_of_sync
from include.directory_sync.plan.users import differs
from include.directory_sync.run import Run
from include.directory_sync.settings import Limits

SMALLEST_GROUP = 10
"""Members that a group has at least when `emptied_group_percent` looks at it."""

REMOVALS = ("deactivate", "delete")
CREATIONS = ("create", "adopt")
CHANGES = ("update", "rename", "recreate", "relink")


def limit_users(run: Run, users: pd.DataFrame, current: Current) -> tuple["pd.Series[str]", dict[str, Excess]]:
    """The holds of users (with those they have already) after the limits on users, and what exceeds them.

    Percents are of the linked users before the run; removals are summed with those of the last 24 hours. What exceeds
    a limit is held whole.
    """
    limits = run.sync.limits
    links = users_of_sync(run, current)
    active = int((links["state"] == "active").sum()) + current.settled
    recent = current.removals.users
    action = users["action"].where(users["hold"].isna())
    was_active = yes(users["before_state"] == "active")
    removed = action.isin(REMOVALS) & (was_active | (action == "delete"))
    active += int((removed & ~was_active).sum())
    changed = action.isin(CHANGES) & users["linked"] & differs(users)
    created = action.isin(CREATIONS)
    excesses = {}
    if excess := _percent(limits, limits.removed_users_percent, int(removed.sum()), active, recent):
        excesses["removed_users_percent"] = excess
    if excess := _percent(limits, limits.changed_users_percent, int(changed.sum()), len(links) + current.settled):
        excesses["changed_users_percent"] = excess
    if limits.created_users is not None and created.sum() > max(limits.created_users, limits.floor):
        excesses["created_users"] = Excess(limits.created_users, int(created.sum()))
    held = {
        "removed_users_percent": action.isin(REMOVALS),
        "changed_users_percent": changed,
        "created_users": created,
    }
    hold = users["hold"]
    for cause in excesses:
        hold = hold.mask(held[cause] & hold.isna(), cause)
    makes = users["action"].isin(["create", "recreate"]) & hold.isna()
    seats = current.users_in_all + int(makes.sum()) - int((yes(users["action"] == "delete") & hold.isna()).sum())
    if limits.max_users is not None and makes.any() and seats > limits.max_users:
        excesses["max_users"] = Excess(limits.max_users, seats)
        hold = hold.mask(makes, "max_users")
    return hold, excesses


def limit_memberships(
    run: Run, memberships: pd.DataFrame, before: "pd.Series[int]", current: Current
) -> tuple["pd.Series[str]", dict[str, Excess]]:
    """The holds of membership rows after the limits on memberships, and what exceeds them.

    Takes MembershipDecisions' changes and `before`. What a deactivated or deleted user loses belongs to his own
    removal and isn't counted again. A user's memberships change together, so what is held of one is held of all.
    """
    limits = run.sync.limits
    removed = (memberships["action"] == "remove") & memberships["hold"].isna() & ~memberships["ending"]
    excesses = {}
    hold = memberships["hold"].astype(TEXT)
    total, recent = int(before.sum()), current.removals.memberships
    if excess := _percent(limits, limits.removed_memberships_percent, int(removed.sum()), total, recent):
        excesses["removed_memberships_percent"] = excess
        hold = hold.mask(removed, "removed_memberships_percent")
    emptied = _emptied(limits, memberships[removed & hold.isna()], before, current)
    if emptied:
        excesses["emptied_group_percent"] = max(emptied.values(), key=lambda excess: excess.figure)
        hold = hold.mask(removed & hold.isna() & memberships["group_name"].isin(list(emptied)), "emptied_group_percent")
    for cause in ("removed_memberships_percent", "emptied_group_percent"):
        together = memberships["sub"].isin(memberships.loc[yes(hold == cause), "sub"])
        hold = hold.mask(together & hold.isna(), cause)
    return hold, excesses


def _emptied(limits: Limits, removed: pd.DataFrame, before: "pd.Series[int]", current: Current) -> dict[str, Excess]:
    excesses = {}
    for name, rows in removed.groupby("group_name").size().items():
        recent = current.removals.by_group.get(name_sha256(str(name)), 0)
        if before.get(name, 0) + recent >= SMALLEST_GROUP:
            excess = _percent(limits, limits.emptied_group_percent, int(rows), int(before.get(name, 0)), recent)
            if excess:
                excesses[str(name)] = excess
    return excesses


def _percent(limits: Limits, limit: float, rows: int, of: int, recent: int = 0) -> Excess | None:
    """The excess of `rows` with the `recent` ones, of what there was before all of them; None within limit or floor."""
    if not rows or rows + recent <= limits.floor:
        return None
    figure = 100 * (rows + recent) / max(of + recent, 1)
    return Excess(limit, round(figure, 2)) if figure > limit else None
