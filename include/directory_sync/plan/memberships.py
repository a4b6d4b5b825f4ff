"""Which memberships come and go (rules 4, 5, 9, 10 and 13 of docs/design.md)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from directory_sync.frames import TEXT_TYPE, conform_to_schema, is_true, number_pairs
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.matching import is_among_texts
from directory_sync.reasons import REASON_RULES, Reason
from directory_sync.vocabulary import UNTOUCHED_OUTCOMES, Action, Cause, Entity, Outcome

PAIR_COLUMNS = ["sub", "group_name"]
ID_COLUMNS = ["user_id", "group_id"]

DECIDED_MEMBERSHIPS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("group_name", pa.string()),
        ("user_id", pa.string()),
        ("group_id", pa.string()),
        ("action", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("is_ending", pa.bool_()),
    ]
)
"""A row for each membership that is added or removed, or that becomes ours or local.

user_id: the Joget user's id now, or the login of a user to be created; a rename may still change it
(plan.rows). is_ending: whether the user loses all our memberships.
"""


@dataclass(frozen=True)
class DecidedMemberships:
    """rows: DECIDED_MEMBERSHIPS_SCHEMA; read, unchanged: counts; before: how many of our
    memberships each group had, by group name.
    """

    rows: pd.DataFrame
    read: int
    unchanged: int
    before: "pd.Series[int]"


def decide_memberships(
    desired: pd.DataFrame,
    current: Current,
    evidence: Evidence,
    users: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    keeps_found: bool,
) -> DecidedMemberships:
    """Compare memberships between the users and groups that take part; all others stay.

    Takes mapping.DESIRED_MEMBERSHIPS_SCHEMA, DECIDED_USERS_SCHEMA and DECIDED_GROUPS_SCHEMA.
    keeps_found: memberships found at an adoption are the local administrator's until the pool names
    them (policies.existing_memberships).
    """
    same = _find_unchanged_pairs(desired, current, users, groups)
    read, desired = len(desired), desired[~same.desired]
    members = current.memberships[~same.members]
    concerned = users[users["takes_part"] | users["loses_all"]]
    columns = ["sub", "joget_id", "active", "joget_active", "loses_all", "outcome"]
    of_users = concerned[columns].rename(columns={"joget_id": "user_id"})
    # A vanished group that isn't due keeps its members, but not those who lose all memberships.
    of_groups = groups[groups["takes_part"] | groups["loses_all"] | ~groups["listed"]]
    of_groups = of_groups[
        ["group_name", "group_id", "listed_twice", "takes_part", "loses_all", "outcome"]
    ]
    of_groups = of_groups.rename(
        columns={"loses_all": "group_loses_all", "outcome": "group_outcome"}
    )

    in_joget = of_users[of_users["outcome"] != Outcome.CREATED]
    now = members.merge(in_joget, on="user_id").merge(of_groups, on="group_id")
    now = now[now["takes_part"] | now["group_loses_all"] | now["loses_all"]]
    local = is_among_texts(now, current.local_memberships, ID_COLUMNS)
    listed_groups = of_groups[of_groups["takes_part"]]
    named = desired.merge(of_users, on="sub").merge(listed_groups, on="group_name")
    # Joget gives tasks to inactive members too, so an inactive user keeps none (rule 4).
    entitled = named[named["active"] & ~named["loses_all"]]

    lacking = entitled[~is_among_texts(entitled, now, PAIR_COLUMNS)]
    wanted = is_among_texts(now, entitled, PAIR_COLUMNS)
    found = _find_at_adoption(members, current, users, groups, named=desired)
    if not keeps_found:
        found = found.iloc[:0]
    # One absence proves nothing: Cognito's lists are eventually consistent.
    believed = evidence.complete & is_true(now["listed_twice"])
    kept = local | is_among_texts(now, found, ID_COLUMNS)
    # Inactive users lose all of ours, since Joget gives tasks to inactive members too (rule 4). An
    # incomplete snapshot shows who is disabled, and proves nothing else about memberships.
    loses_all = now["loses_all"] & (evidence.complete | ~is_true(now["active"]))
    remove = now[~wanted & ~kept & (believed | loses_all)]

    ending, gone = remove["loses_all"], remove["group_loses_all"]
    out = ending & ~(remove["active"] & (remove["outcome"].isin(ENABLED_OUTCOMES)))
    parts = [
        _make_rows(lacking[lacking["joget_active"]], Action.ADD, Reason.NAMED),
        _make_rows(remove[~ending & ~gone], Action.REMOVE, Reason.NO_LONGER_NAMED),
        _make_rows(remove[~ending & gone], Action.REMOVE, Reason.GROUP_GONE),
        _make_rows(remove[out], Action.REMOVE, Reason.USER_OUT),
        _make_rows(remove[ending & ~out], Action.REMOVE, Reason.USER_OFF_IN_JOGET),
        _make_rows(found, Action.KEEP_LOCAL, Reason.FOUND_AT_ADOPTION),
        _make_rows(now[wanted & local], Action.CLAIM, Reason.NAMED_NOW),
    ]
    rows = conform_to_schema(pd.concat(parts, ignore_index=True), DECIDED_MEMBERSHIPS_SCHEMA)
    before = now[~local].groupby("group_name").size()
    before = before.add(same.by_group, fill_value=0).astype("int64")
    unchanged = int(wanted.sum()) + int(same.members.sum())
    return DecidedMemberships(rows, read, unchanged, before)


ENABLED_OUTCOMES = (
    Outcome.UNCHANGED,
    Outcome.UPDATED,
    Outcome.RENAMED,
    Outcome.ADOPTED,
)
"""Outcomes of users who are enabled in the pool. If such a user loses all memberships, an
administrator deactivated the user in Joget."""


@dataclass(frozen=True)
class UnchangedPairs:
    """Memberships that the pool and Joget both have, of users and groups that don't change.

    desired, members: flags of their rows in `desired` and in current.JOGET_MEMBERSHIPS_SCHEMA;
    by_group: their number, by group name.
    """

    desired: "np.ndarray[Any, Any]"
    members: "np.ndarray[Any, Any]"
    by_group: "pd.Series[int]"


def _find_unchanged_pairs(
    desired: pd.DataFrame, current: Current, users: pd.DataFrame, groups: pd.DataFrame
) -> UnchangedPairs:
    """Find the memberships that need no rule: nearly all, in a large directory."""
    known = users[~users["outcome"].isin(UNTOUCHED_OUTCOMES) & users["joget_id"].notna()]
    plain = known[
        ~known["joget_id"].duplicated(keep=False)
        & known["listed"]
        & (known["outcome"] == Outcome.UNCHANGED)
        & ~known["loses_all"]
        & known["joget_active"]
    ]
    kept = [Outcome.UNCHANGED, Outcome.UPDATED]
    groups = groups[groups["outcome"].isin(kept) & ~groups["loses_all"]]

    wanted, now, local = (
        number_pairs(pairs, columns, plain[user_column], groups[columns[1]])
        for pairs, columns, user_column in (
            (desired, PAIR_COLUMNS, "sub"),
            (current.memberships, ID_COLUMNS, "joget_id"),
            (current.local_memberships, ID_COLUMNS, "joget_id"),
        )
    )
    pairs = pd.Index(now)
    same = (now >= 0) & pairs.isin(wanted) & ~pairs.isin(local)
    # A pair's number is the user's position times len(groups), plus the group's (number_pairs).
    by_group = np.bincount(now[same] % max(len(groups), 1), minlength=len(groups))
    names = pd.Index(groups["group_name"], dtype=TEXT_TYPE)
    return UnchangedPairs(pd.Index(wanted).isin(now[same]), same, pd.Series(by_group, index=names))


def _find_at_adoption(
    members: pd.DataFrame,
    current: Current,
    users: pd.DataFrame,
    groups: pd.DataFrame,
    *,
    named: pd.DataFrame,
) -> pd.DataFrame:
    """Find the memberships of users and groups adopted in this run that the pool doesn't name, also
    where the user is left alone in this run. Columns PAIR_COLUMNS, ID_COLUMNS, loses_all.
    """
    known = users[users["linked"] | (users["outcome"] == Outcome.ADOPTED)]
    known = known[["sub", "joget_id", "outcome"]].rename(columns={"joget_id": "user_id"})
    known = known.dropna(subset=["user_id", "sub"])
    linked = groups[groups["linked"] | (groups["outcome"] == Outcome.ADOPTED)]
    linked = linked[["group_name", "group_id", "outcome"]]
    linked = linked.rename(columns={"outcome": "group_outcome"})
    found = members.merge(known, on="user_id").merge(linked, on="group_id")
    adopted = found["outcome"] == Outcome.ADOPTED
    found = found[adopted | (found["group_outcome"] == Outcome.ADOPTED)]
    found = found[
        ~is_among_texts(found, named, PAIR_COLUMNS)
        & ~is_among_texts(found, current.local_memberships, ID_COLUMNS)
    ]
    return found.drop_duplicates(ID_COLUMNS).assign(loses_all=False)


def count_memberships(changes: pd.DataFrame, *, read: int, unchanged: int) -> dict[str, int]:
    """The report's counts, from the membership rows of a plan."""
    rows = changes[changes["entity"] == Entity.MEMBERSHIP]
    changing = rows[rows["action"].isin([Action.ADD, Action.REMOVE])]
    safe = changing.loc[changing["hold"].isna(), "action"]
    deferred = int((changing["hold"] == Cause.DEFERRED).sum())
    return {
        "read": read,
        "added": int((safe == Action.ADD).sum()),
        "removed": int((safe == Action.REMOVE).sum()),
        "unchanged": unchanged,
        "held": int(changing["hold"].notna().sum()) - deferred,
        "deferred": deferred,
    }


def _make_rows(pairs: pd.DataFrame, action: Action, reason: Reason) -> pd.DataFrame:
    return pairs[[*PAIR_COLUMNS, *ID_COLUMNS]].assign(
        action=str(action),
        code=str(reason),
        reason=REASON_RULES[reason].sentence,
        is_ending=pairs["loses_all"],
    )
