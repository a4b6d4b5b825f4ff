"""Which memberships come and go (rules 4, 5, 9, 10 and 13 of the design)."""

from dataclasses import dataclass

import pandas as pd

from include.directory_sync.frames import yes
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
    everybody = users
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
    add = lacking[lacking["joget_active"]]
    wanted = among(now, entitled, PAIR)
    adopted_now = yes(now["outcome"] == "adopted") | yes(now["group_outcome"] == "adopted")
    keep_local = _found_at_adoption(current, everybody, groups, now[wanted])
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


def _found_at_adoption(
    current: Current, users: pd.DataFrame, groups: pd.DataFrame, wanted: pd.DataFrame
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
    found = current.memberships.merge(known, on="user_id").merge(linked, on="group_id")
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
