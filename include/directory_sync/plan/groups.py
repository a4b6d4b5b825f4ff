"""What happens to each group, listed or vanished (rules 9 and 11 of docs/design.md)."""

import pandas as pd
import pyarrow as pa

from directory_sync.decisions import Decisions
from directory_sync.frames import (
    BEYOND_BMP_PATTERN,
    TEXT_TYPE,
    conform_to_schema,
    is_true,
    look_up,
    make_null_texts,
)
from directory_sync.plan.changes import GROUP_VALUE_COLUMNS, make_value_fields
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.matching import (
    is_among_texts,
    join_joget_rows,
    match_groups,
    select_groups_of_sync,
)
from directory_sync.reasons import REASON_RULES, Reason
from directory_sync.run import Run
from directory_sync.vocabulary import Action, Entity, Outcome, Verdict

GROUP_ACTIONS = {
    Outcome.CREATED: Action.CREATE,
    Outcome.ADOPTED: Action.ADOPT,
    Outcome.UPDATED: Action.UPDATE,
    Outcome.RECREATED: Action.RECREATE,
    Outcome.DELETED: Action.DELETE,
}
"""The action of an outcome that changes something."""

DECIDED_GROUPS_SCHEMA = pa.schema(
    [
        ("group_name", pa.string()),
        ("group_id", pa.string()),
        ("listed", pa.bool_()),
        ("linked", pa.bool_()),
        ("listed_twice", pa.bool_()),
        ("takes_part", pa.bool_()),
        ("loses_all", pa.bool_()),
        ("changed_at", pa.timestamp("us")),
        ("outcome", pa.string()),
        ("action", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("hold", pa.string()),
        *make_value_fields("before", GROUP_VALUE_COLUMNS),
        *make_value_fields("after", GROUP_VALUE_COLUMNS),
    ]
)
"""A row for each listed and each linked group, once the rules have decided.

group_id: the Joget group's id, or the id that a new group will get. takes_part: whether its
memberships are compared. loses_all: whether it vanished and all our memberships in it are removed.
The other columns are as in DECIDED_USERS_SCHEMA.
"""


def decide_groups(
    run: Run, desired: pd.DataFrame, current: Current, evidence: Evidence
) -> pd.DataFrame:
    """Decide every group that is listed (mapping.DESIRED_GROUPS_SCHEMA) or linked; returns
    DECIDED_GROUPS_SCHEMA.
    """
    listed = _decide_listed(run, match_groups(run, desired, current), current)
    vanished = _decide_vanished(run, listed, current, evidence)
    return pd.concat([listed, vanished], ignore_index=True)


def _decide_listed(run: Run, groups: pd.DataFrame, current: Current) -> pd.DataFrame:
    groups = groups.assign(linked=groups["way"].notna())
    groups = groups.join(_find_joget_groups(groups, current))
    ids = groups["linked_id"].fillna(groups["found_id"]).fillna(groups["new_id"])
    groups = join_joget_rows(groups.assign(group_id=ids), ids, current.groups)
    groups["after_name"] = _choose_names(groups, current)
    decisions = Decisions(groups)
    for outcome in (Outcome.FROZEN, Outcome.QUARANTINED):
        decisions.decide_as_mapped(groups["verdict"] == outcome, outcome, groups)
    if not current.stores_all_of_unicode:
        beyond = groups["group_name"].str.contains(BEYOND_BMP_PATTERN, na=False)
        decisions.decide(beyond, Outcome.QUARANTINED, Reason.NAME_NOT_STORABLE)
    _decide_linked(groups, current, decisions)
    _decide_new(groups, current, decisions)
    groups = groups.drop(columns=["code", "reason"]).join(decisions.frame())
    exists = groups["now_id"].notna()
    organization = groups["now_organizationId"].mask(~exists, run.sync.organization)
    groups = groups.assign(
        before_id=groups["now_id"],
        after_id=groups["now_id"].fillna(groups["group_id"]),
        before_name=groups["now_name"],
        before_organizationId=groups["now_organizationId"],
        after_organizationId=organization,
        before_misses=groups["misses"].where(groups["before_link"].notna()),
        after_misses=0,
        listed=True,
        takes_part=~groups["outcome"].isin([Outcome.FROZEN, Outcome.QUARANTINED]),
        loses_all=False,
        action=_choose_actions(groups),
    )
    return conform_to_schema(groups, DECIDED_GROUPS_SCHEMA)


def _find_joget_groups(groups: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Columns found_id, found_by (`id` or `name`), new_id, is_ambiguous for groups without a link.

    Joget groups that are linked already aren't looked at. new_id: the name itself where Joget's
    console accepts it and no other group has or wants that key, else the hashed id.
    """
    free = current.groups[~current.groups["id_key"].isin(current.group_links["group_key"])]
    new = ~groups["linked"] & (groups["verdict"] == Verdict.MAPPED)
    key = groups["name_key"].where(new)
    exact = groups["group_name"].where(new & groups["group_name"].isin(free["id"]))
    exact = exact.fillna(groups["group_name"].where(new & groups["group_name"].isin(free["name"])))
    # Where several of the pool's groups have one key, only one with exactly the id or name of a
    # Joget group may be that group.
    twins = key.duplicated(keep=False) & key.notna()
    sole = key.mask(twins & exact.isna())
    # First by the raw name, even if Joget's console would refuse it as an id: the Joget plugin made
    # such ids. Then by our own hashed id, and at last by an existing name.
    by_id = look_up(sole, free, "id_key", "id")
    by_hash = look_up(groups["hashed_key"].where(new), free, "id_key", "id")
    found = by_id.fillna(by_hash)
    named = free[free["name_key"].notna() & ~free["id"].isin(found)]
    count = look_up(sole, _count_by_key(named["name_key"]), "key", "count").fillna(0)
    by_name = look_up(sole.where(count == 1), named, "name_key", "id")
    # A new group gets its name as id where Joget's console accepts it (plain_id) and no other group
    # has or wants that key, else the hashed id.
    in_joget = current.groups["id_key"].dropna()
    linked_keys = current.group_links["group_key"].dropna()
    plain_id_is_used = (
        twins | key.isin(in_joget) | key.isin(linked_keys) | groups["plain_id"].isna()
    )
    return pd.DataFrame(
        {
            "found_id": found.fillna(by_name),
            "found_by": make_null_texts(groups.index)
            .mask(by_name.notna(), "name")
            .mask(found.notna(), "id"),
            "new_id": groups["plain_id"].mask(plain_id_is_used).fillna(groups["hashed_id"]),
            "is_ambiguous": (count > 1) & found.isna(),
        }
    )


def _count_by_key(keys: "pd.Series[str]") -> pd.DataFrame:
    counts = keys.value_counts().rename_axis("key").rename("count").reset_index()
    return counts.astype({"key": TEXT_TYPE})


def _choose_names(groups: pd.DataFrame, current: Current) -> "pd.Series[str]":
    """Choose the Cognito name, unless another group has it or two new groups want it. In that case,
    an existing Joget group keeps its own name, and a new group's name is its hashed id.
    """
    # Joget asks for groups by name (isUserInGroup), and takes the first one in any organization. A
    # second group of one name would shadow the first, or be shadowed.
    named = current.groups.dropna(subset=["name_key"])
    holders = named[["id", "name_key"]].drop_duplicates()
    pairs = groups[["group_id", "name_key"]].reset_index()
    pairs = pairs.merge(holders, on="name_key")
    others = pairs.loc[pairs["id"] != pairs["group_id"], "index"]
    takes = groups["verdict"] == Verdict.MAPPED
    unnamed = takes & ~is_true(groups["now_name"] == groups["group_name"])
    wanted = groups["name_key"].where(unnamed)
    of_linked = wanted.where(groups["linked"])
    # If two new groups want one name, neither gets it, so the order of a list decides nothing. A
    # linked group comes before new ones.
    twice = wanted.duplicated(keep=False) & ~groups["linked"]
    twice |= of_linked.duplicated(keep=False) & groups["linked"]
    wanted_twice = twice & wanted.notna()
    blocked = groups.index.isin(others) | wanted_twice
    kept = groups["now_name"].mask(groups["now_name"] == "").fillna(groups["hashed_id"])
    same = is_true(groups["now_name"] == groups["group_name"])
    return groups["group_name"].mask(pd.Series(blocked, index=groups.index) & ~same, kept)


def _decide_linked(groups: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    linked = groups["linked"]
    gone = linked & groups["now_id"].isna()
    # No group has the link's id byte for byte, but one has it in other letters: it isn't ours.
    replaced = gone & groups["group_key"].isin(current.groups["id_key"].dropna())
    decisions.decide(replaced, Outcome.QUARANTINED, Reason.GROUP_REPLACED_IN_JOGET)
    decisions.decide(gone, Outcome.RECREATED, Reason.GROUP_DELETED_IN_JOGET)
    decisions.decide(groups["way"] == "rebuilt", Outcome.ADOPTED, Reason.LINK_REBUILT)
    same = is_true(groups["now_name"] == groups["after_name"])
    decisions.decide(linked & ~same, Outcome.UPDATED, Reason.NAME_DIFFERS)
    decisions.decide(linked, Outcome.UNCHANGED)


def _decide_new(groups: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    """Decide the groups without a link."""
    ambiguous = is_true(groups["is_ambiguous"])
    decisions.decide(ambiguous, Outcome.QUARANTINED, Reason.SEVERAL_JOGET_GROUPS)
    found = groups["now_id"].notna()
    linked_elsewhere = ~found & groups["hashed_key"].isin(current.group_links["group_key"])
    linked_elsewhere &= groups["group_id"] == groups["hashed_id"]
    decisions.decide(linked_elsewhere, Outcome.QUARANTINED, Reason.GROUP_LINKED_ELSEWHERE)
    # Whether an adoption waits for a person depends on the group's members, so plan.holding decides
    # that once all users are decided.
    by_name = found & is_true(groups["found_by"] == "name")
    decisions.decide(by_name, Outcome.ADOPTED, Reason.GROUP_NAMED_ALIKE)
    decisions.decide(found, Outcome.ADOPTED, Reason.GROUP_FOUND)
    decisions.decide(~found, Outcome.CREATED, Reason.NEW)


def _choose_actions(groups: pd.DataFrame) -> "pd.Series[str]":
    action = groups["outcome"].map(GROUP_ACTIONS).astype(TEXT_TYPE)
    unchanged = groups["linked"] & (groups["outcome"] == Outcome.UNCHANGED)
    action = action.mask(unchanged & is_true(groups["misses"] > 0), Action.SEEN)
    kept = groups["outcome"].isin([Outcome.UNCHANGED, Outcome.UPDATED])
    return action.mask(kept & is_true(groups["before_link"] != groups["after_link"]), Action.RELINK)


def _decide_vanished(
    run: Run, listed: pd.DataFrame, current: Current, evidence: Evidence
) -> pd.DataFrame:
    """Decide linked groups that aren't listed: count misses first, then remove our memberships, and
    delete the group where the settings say so.
    """
    links = select_groups_of_sync(run, current)
    present = listed["before_link"].dropna()
    groups = links[~links["before_link"].isin(present)].reset_index(drop=True)
    groups = join_joget_rows(groups, groups["linked_id"], current.groups)
    runs = run.sync.policies.missing_runs
    proven = evidence.is_proven_absent(groups, Entity.GROUP, "group_name", run.sync.user_pool_id)
    after_misses = evidence.count_misses(groups, proven, runs, subset=run.is_for_some)
    # One listing without the group proves little: nothing is removed before missing_runs of them.
    due = is_true(after_misses >= runs)
    decisions = Decisions(groups)
    if run.is_for_some or not evidence.complete:
        decisions.decide(decisions.open, Outcome.UNLISTED, Reason.CANNOT_TELL)
    if run.sync.policies.missing_group == "delete":
        decisions.decide(due & groups["now_id"].notna(), Outcome.DELETED, Reason.MISSING)
    decisions.decide(decisions.open, Outcome.MISSING, Reason.MISSING)
    groups = groups.join(decisions.frame())
    missing, deleted = (
        is_true(groups["outcome"] == outcome) for outcome in (Outcome.MISSING, Outcome.DELETED)
    )
    gone = deleted | (missing & due & groups["now_id"].isna())
    counted = missing & is_true(after_misses > groups["misses"])
    action = make_null_texts(groups.index).mask(counted, Action.MISS).mask(gone, Action.UNLINK)
    groups = groups.assign(
        group_id=groups["linked_id"],
        linked=True,
        listed=False,
        # The pool was asked for a due group by name, which proves more than a second listing.
        listed_twice=True,
        # Nobody leaves a deleted group before it was missing for missing_runs (rule 9).
        takes_part=_is_answered_for(run, groups) & ~proven,
        loses_all=due & (missing | deleted),
        action=action.mask(deleted, Action.DELETE),
        before_id=groups["now_id"],
        after_id=groups["now_id"].mask(gone),
        before_name=groups["now_name"],
        after_name=groups["now_name"].mask(gone),
        before_organizationId=groups["now_organizationId"],
        after_organizationId=groups["now_organizationId"].mask(gone),
        after_link=groups["before_link"].mask(gone),
        before_misses=groups["misses"],
        after_misses=after_misses.mask(gone),
    )
    return conform_to_schema(groups, DECIDED_GROUPS_SCHEMA)


def _is_answered_for(run: Run, unlisted: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the run's users were asked for these groups: in a run for some users, each one's own
    list of groups has every group that they are in.
    """
    pool = run.sync.user_pool_id
    in_scope = [run.sync.scope.has_group(name, pool) for name in unlisted["group_name"]]
    of_pool = unlisted["user_pool_id"] == pool
    return of_pool & pd.Series(in_scope, index=unlisted.index, dtype=bool) & run.is_for_some


def keep_peopled_groups(
    groups: pd.DataFrame, removed: pd.DataFrame, members: pd.DataFrame
) -> pd.DataFrame:
    """Keep each group that would be deleted while it still has a member.

    removed: the memberships that this plan removes; members: all memberships in these groups now;
    both with columns user_id, group_id.
    """
    deletes = is_true(groups["action"] == Action.DELETE)
    if not deletes.any():
        return groups
    # Local members stay, and so do linked users that this run leaves alone.
    stays = ~is_among_texts(members, removed, ["user_id", "group_id"])
    peopled = deletes & groups["group_id"].isin(members.loc[stays, "group_id"])
    return groups.assign(
        action=groups["action"].mask(peopled),
        outcome=groups["outcome"].mask(peopled, Outcome.MISSING),
        code=groups["code"].mask(peopled, Reason.MISSING_AND_PEOPLED),
        reason=groups["reason"].mask(peopled, REASON_RULES[Reason.MISSING_AND_PEOPLED].sentence),
    )
