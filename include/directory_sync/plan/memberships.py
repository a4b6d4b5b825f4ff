"""Which memberships come and go (rules 4, 5, 9, 10 and 13 of the design)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from include.directory_sync.frames import TEXT, is_among, pair_numbers, yes
from include.directory_sync.plan.current import Current, Evidence
from include.directory_sync.plan.matching import among

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
    settled = _settled(desired, current, users, groups)
    read, desired = len(desired), desired[~settled.desired]
    members = current.memberships[~settled.members]
    everybody = users
    users = users[users["outcome"].isin(TAKES_PART) | ~users["active"]]
    users = users[~users["outcome"].isin(["frozen", "quarantined", "unlisted"])]
    groups = groups[groups["outcome"].isin(TAKES_PART) | groups["loses"]]
    user_columns = users[["sub", "user_id", "after_id", "active", "joget_active", "outcome", "hold"]]
    group_columns = groups[["group_name", "group_id", "listed_twice", "loses", "outcome"]]
    group_columns = group_columns.rename(columns={"outcome": "group_outcome"})

    in_joget = user_columns[user_columns["outcome"] != "created"]
    # Until it is planned, a renamed user's rows are under the old id; all that is planned is under the new one.
    now = members.merge(in_joget, on="user_id").merge(group_columns, on="group_id")
    local = among(now, current.local_memberships, IDS)
    now, user_columns = _under_new_ids(now), _under_new_ids(user_columns)
    named = desired.merge(user_columns, on="sub").merge(group_columns[~group_columns["loses"]], on="group_name")
    entitled = named[named["active"]]

    lacking = entitled[~among(entitled, now, PAIR)]
    add = lacking[lacking["joget_active"]]
    wanted = among(now, entitled, PAIR)
    adopted_now = yes(now["outcome"] == "adopted") | yes(now["group_outcome"] == "adopted")
    keep_local = _found_at_adoption(members, current, everybody, groups, wanted=now[wanted])
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
    before = now[~local].groupby("group_name").size().add(settled.by_group, fill_value=0).astype("int64")
    return MembershipDecisions(changes, read, int(wanted.sum()) + int(settled.members.sum()), before)


@dataclass(frozen=True)
class SettledPairs:
    """Memberships that the pool and Joget both have, of users and groups that don't change: nothing is to be decided.

    desired, members: which rows of desired and of current.MEMBERSHIPS they are; by_group: how many, by group name.
    """

    desired: "np.ndarray[Any, Any]"
    members: "np.ndarray[Any, Any]"
    by_group: "pd.Series[int]"


def _settled(desired: pd.DataFrame, current: Current, users: pd.DataFrame, groups: pd.DataFrame) -> SettledPairs:
    """Found by numbers, since these are nearly all of a large directory's."""
    takes_part = users[~users["outcome"].isin(["frozen", "quarantined", "unlisted"]) & users["user_id"].notna()]
    plain = takes_part[
        ~takes_part["user_id"].duplicated(keep=False)
        & takes_part["listed"]
        & yes(takes_part["outcome"] == "unchanged")
        & takes_part["active"]
        & takes_part["joget_active"]
    ]
    groups = groups[groups["outcome"].isin(["unchanged", "updated"]) & ~groups["loses"]]

    wanted, now, local = (
        pair_numbers(pairs, columns, plain[columns[0]], groups[columns[1]])
        for pairs, columns in ((desired, PAIR), (current.memberships, IDS), (current.local_memberships, IDS))
    )
    settled = (now >= 0) & is_among(now, wanted) & ~is_among(now, local)
    by_group = np.bincount(now[settled] % max(len(groups), 1), minlength=len(groups))
    return SettledPairs(
        is_among(wanted, now[settled]), settled, pd.Series(by_group, index=pd.Index(groups["group_name"], dtype=TEXT))
    )


def _found_at_adoption(
    members: pd.DataFrame, current: Current, users: pd.DataFrame, groups: pd.DataFrame, *, wanted: pd.DataFrame
) -> pd.DataFrame:
    """What the pool doesn't name of users and groups adopted now: theirs who are frozen or held today as well."""
    adopted = users["outcome"] == "adopted"
    known = users[users["linked"] | adopted].assign(active=True)
    renames = yes(known["action"] == "rename") & known["hold"].isna()
    known["new_id"] = known["user_id"].mask(renames, known["after_id"])
    # What a held change waits for has nothing to do with whose a membership is, unless the user isn't ours yet.
    known["hold"] = known["hold"].where(~known["linked"])
    known = known[["sub", "user_id", "new_id", "outcome", "hold", "active"]].dropna(subset=["user_id", "sub"])
    linked = groups[groups["linked"] | (groups["outcome"] == "adopted")]
    linked = linked[["group_name", "group_id", "outcome"]].rename(columns={"outcome": "group_outcome"})
    found = members.merge(known, on="user_id").merge(linked, on="group_id")
    found = found[yes(found["outcome"] == "adopted") | yes(found["group_outcome"] == "adopted")]
    found = found[~among(found, wanted, PAIR) & ~among(found, current.local_memberships, IDS)]
    return found.drop_duplicates(IDS).assign(user_id=lambda rows: rows["new_id"])


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


def _rows(pairs: pd.DataFrame, action: str, reason: str) -> pd.DataFrame:
    rows = pairs[[*PAIR, *IDS, "hold"]]
    return rows.assign(entity="membership", action=action, reason=reason, ending=~pairs["active"])
