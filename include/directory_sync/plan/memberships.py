"""Which memberships come and go (rules 4, 10 and 13 of the design)."""

from dataclasses import dataclass

import pandas as pd

from include.directory_sync.plan.current import Current

PAIR = ["sub", "group_name"]

TAKES_PART = (
    "created",
    "adopted",
    "updated",
    "deactivated",
    "reactivated",
    "recreated",
    "renamed",
    "unchanged",
)


@dataclass(frozen=True)
class MembershipDecisions:
    """changes: columns entity, action, sub, group_name, user_id, group_id, reason, hold; counts: the report's."""

    changes: pd.DataFrame
    counts: dict[str, int]


def decide_memberships(
    desired: pd.DataFrame, current: Current, users: pd.DataFrame, groups: pd.DataFrame, *, may_remove: bool
) -> MembershipDecisions:
    """Compare memberships between the users and groups that take part; all others stay.

    Takes mapping.MEMBERSHIPS and the frames of decide_users and decide_groups. Without `may_remove` (a listing
    that didn't end by itself) nothing is removed but what a disabled user has.
    """
    users = users[users["outcome"].isin(TAKES_PART)]
    groups = groups[groups["outcome"].isin(TAKES_PART)]
    user_columns = users[["sub", "user_id", "active", "joget_active", "outcome", "hold"]]
    group_columns = groups[["group_name", "group_id", "outcome"]].rename(columns={"outcome": "group_outcome"})

    in_joget = user_columns[user_columns["outcome"] != "created"]
    now = current.memberships.merge(in_joget, on="user_id").merge(group_columns, on="group_id")
    named = desired.merge(user_columns, on="sub").merge(group_columns, on="group_name")
    entitled = named[named["active"]]
    local = current.local_memberships[PAIR]

    missing = entitled[~_among(entitled, now)]
    add = missing[missing["joget_active"] | missing["hold"].notna()]
    surplus = now[~_among(now, entitled)]
    adopted_now = (surplus["outcome"] == "adopted") | (surplus["group_outcome"] == "adopted")
    keep_local = surplus[adopted_now & ~_among(surplus, local)]
    remove = surplus[~adopted_now & ~_among(surplus, local)]
    if not may_remove:
        remove = remove[~remove["active"]]
    claim = entitled[_among(entitled, local) & _among(entitled, now)]

    parts = [
        _rows(add, "add", "the pool names it"),
        _rows(remove[remove["active"]], "remove", "the pool no longer names it"),
        _rows(remove[~remove["active"]], "remove", "the user is disabled in the pool"),
        _rows(keep_local, "keep_local", "found at the adoption: the local administrator's"),
        _rows(claim, "claim", "the pool names it now"),
    ]
    changes = pd.concat(parts, ignore_index=True)
    safe = changes[changes["hold"].isna()]["action"]
    counts = {
        "read": len(desired),
        "added": int((safe == "add").sum()),
        "removed": int((safe == "remove").sum()),
        "unchanged": int(_among(now, entitled).sum()),
        "held": int((changes["hold"].notna() & changes["action"].isin(["add", "remove"])).sum()),
    }
    return MembershipDecisions(changes, counts)


def _among(pairs: pd.DataFrame, others: pd.DataFrame) -> "pd.Series[bool]":
    """Whether each pair of sub and group name is also among the others."""
    found = pairs[PAIR].merge(others[PAIR].drop_duplicates(), on=PAIR, how="left", indicator=True)["_merge"] == "both"
    return pd.Series(found.to_numpy(), index=pairs.index, dtype=bool)


def _rows(pairs: pd.DataFrame, action: str, reason: str) -> pd.DataFrame:
    rows = pairs[["sub", "group_name", "user_id", "group_id", "hold"]]
    return rows.assign(entity="membership", action=action, reason=reason)
