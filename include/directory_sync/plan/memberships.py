"""Which memberships come and go (rules 4, 5, 9, 10 and 13 of the design)."""

from dataclasses import dataclass

import pandas as pd

from include.directory_sync.frames import yes
from include.directory_sync.plan.current import Current, Evidence

PAIR = ["sub", "group_name"]
IDS = ["user_id", "group_id"]

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
    """changes: columns entity, action, sub, group_name, user_id, group_id, reason, hold, and `ending`, true where the
    user as a whole loses his; unchanged, read: counts; before: by group name, how many of ours it had.
    """

    changes: pd.DataFrame
    read: int
    unchanged: int
    before: "pd.Series[int]"


def decide_memberships(
    desired: pd.DataFrame, current: Current, evidence: Evidence, users: pd.DataFrame, groups: pd.DataFrame
) -> MembershipDecisions:
    """Compare memberships between the users and groups that take part; all others stay.

    Takes mapping.MEMBERSHIPS, the users and the groups as decided. Of a listed user nothing is removed unless the
    snapshot is complete and the group was listed twice: presence is evidence, one absence is none.
    """
    users = users[users["outcome"].isin(TAKES_PART) | ~users["active"]]
    users = users[~users["outcome"].isin(["frozen", "quarantined", "unlisted"])]
    groups = groups[groups["outcome"].isin(TAKES_PART) | groups["loses"]]
    user_columns = users[["sub", "user_id", "after_id", "active", "joget_active", "outcome", "hold"]]
    group_columns = groups[["group_name", "group_id", "listed_twice", "loses", "outcome"]]
    group_columns = group_columns.rename(columns={"outcome": "group_outcome"})

    in_joget = user_columns[user_columns["outcome"] != "created"]
    # Until it is planned, a renamed user's rows are under the old id; all that is planned is under the new one.
    now = current.memberships.merge(in_joget, on="user_id").merge(group_columns, on="group_id")
    local = among(now, current.local_memberships, IDS)
    now, user_columns = _under_new_ids(now), _under_new_ids(user_columns)
    named = desired.merge(user_columns, on="sub").merge(group_columns[~group_columns["loses"]], on="group_name")
    entitled = named[named["active"]]

    lacking = entitled[~among(entitled, now, PAIR)]
    add = lacking[lacking["joget_active"] | lacking["hold"].notna()]
    wanted = among(now, entitled, PAIR)
    adopted_now = yes(now["outcome"] == "adopted") | yes(now["group_outcome"] == "adopted")
    keep_local = now[~wanted & adopted_now & ~local]
    believed = evidence.complete & yes(now["listed_twice"])
    remove = now[~wanted & ~adopted_now & ~local & (believed | ~now["active"])]

    on, vanished = remove["active"], remove["loses"]
    parts = [
        _rows(add, "add", "the pool names it"),
        _rows(remove[on & ~vanished], "remove", "the pool no longer names it"),
        _rows(remove[on & vanished], "remove", "the group is gone from the pool"),
        _rows(remove[~on], "remove", "the user is disabled in the pool, or gone from it"),
        _rows(keep_local, "keep_local", "found at the adoption: the local administrator's"),
        _rows(now[wanted & local], "claim", "the pool names it now"),
    ]
    changes = pd.concat(parts, ignore_index=True)
    before = now[~local].groupby("group_name").size()
    return MembershipDecisions(changes, len(desired), int(wanted.sum()), before)


def membership_counts(changes: pd.DataFrame, *, read: int, unchanged: int) -> dict[str, int]:
    """The report's counts, from the membership rows of a plan."""
    rows = changes[changes["entity"] == "membership"]
    safe = rows.loc[rows["hold"].isna(), "action"]
    held = rows["hold"].notna() & rows["action"].isin(["add", "remove"])
    added, removed = int((safe == "add").sum()), int((safe == "remove").sum())
    return {"read": read, "added": added, "removed": removed, "unchanged": unchanged, "held": int(held.sum())}


def _under_new_ids(rows: pd.DataFrame) -> pd.DataFrame:
    renamed = yes(rows["outcome"] == "renamed")
    return rows.assign(user_id=rows["user_id"].mask(renamed, rows["after_id"]))


def among(pairs: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> "pd.Series[bool]":
    """Whether each pair is also among the others."""
    known = others[columns].drop_duplicates()
    found = pairs[columns].merge(known, on=columns, how="left", indicator=True)["_merge"] == "both"
    return pd.Series(found.to_numpy(), index=pairs.index, dtype=bool)


def _rows(pairs: pd.DataFrame, action: str, reason: str) -> pd.DataFrame:
    rows = pairs[[*PAIR, *IDS, "hold"]]
    return rows.assign(entity="membership", action=action, reason=reason, ending=~pairs["active"])
