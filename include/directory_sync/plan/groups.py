"""What happens to each group, listed or vanished (rules 9 and 11 of the design)."""

import pandas as pd

from include.directory_sync.frames import BEYOND_BMP, TEXT, look_up, matches, no_text, yes
from include.directory_sync.plan.current import Current, Evidence
from include.directory_sync.plan.decisions import Decisions
from include.directory_sync.plan.matching import among, groups_of_sync, match_groups
from include.directory_sync.run import Run

ACTIONS = {"created": "create", "adopted": "adopt", "updated": "update", "deleted": "delete"}
"""The action of an outcome that changes something; a linked group that is gone from Joget is recreated."""


def decide_groups(
    run: Run, desired: pd.DataFrame, current: Current, evidence: Evidence, users: pd.DataFrame
) -> pd.DataFrame:
    """Decide every group that is listed or linked, knowing what was decided about users.

    Takes mapping.GROUPS; gives a row for each, with group_name, group_id, listed, linked, listed_twice, loses (a
    vanished group whose memberships go), before_* and after_* (changes.VALUES of groups), outcome, action (null where
    nothing changes), reason, hold.
    """
    listed = _decide_listed(run, desired, current, users)
    vanished = _decide_vanished(run, listed, current, evidence)
    return pd.concat([listed, vanished], ignore_index=True)


def _decide_listed(run: Run, desired: pd.DataFrame, current: Current, users: pd.DataFrame) -> pd.DataFrame:
    groups = match_groups(run, desired, current)
    groups["linked"] = groups["way"].notna()
    _choose_ids(groups, current)
    rows = current.groups.dropna(subset=["id_key"]).add_prefix("now_")
    groups = groups.merge(rows, left_on="key", right_on="now_id_key", how="left")
    decisions = Decisions(groups)
    for verdict in ("frozen", "quarantined"):
        decisions.decide(groups["verdict"] == verdict, verdict, groups["reason"])
    if not current.stores_all_of_unicode:
        beyond = matches(groups["group_name"], BEYOND_BMP)
        decisions.decide(beyond, "quarantined", "the name can't be stored in utf8 tables")
    _decide_linked(groups, decisions)
    _decide_new(run, groups, current, users, decisions)
    groups = groups.drop(columns="reason").join(decisions.frame())
    groups["group_id"] = groups["group_id"].where(groups["outcome"] != "adopted", groups["now_id"])
    exists = groups["now_id"].notna()
    values = {
        "before_id": groups["now_id"],
        "after_id": groups["now_id"].fillna(groups["group_id"]),
        "before_name": groups["now_name"],
        "after_name": groups["group_name"],
        "before_organizationId": groups["now_organizationId"],
        "after_organizationId": groups["now_organizationId"].mask(~exists, run.sync.organization),
        "before_misses": groups["misses"].where(groups["before_link"].notna()),
        "after_misses": pd.Series(0, index=groups.index, dtype="int64[pyarrow]"),
    }
    groups = groups.assign(**values, listed=True, loses=False)
    return _with_actions(groups)


def _with_actions(groups: pd.DataFrame) -> pd.DataFrame:
    recreated = groups["linked"] & (groups["outcome"] == "created")
    action = groups["outcome"].map(ACTIONS).astype(TEXT).mask(recreated, "recreate")
    unchanged = groups["linked"] & (groups["outcome"] == "unchanged")
    action = action.mask(unchanged & yes(groups["before_misses"] > 0), "seen")
    moved = groups["outcome"].isin(["unchanged", "updated"]) & yes(groups["before_link"] != groups["after_link"])
    return groups.assign(action=action.mask(moved, "relink"))


def _choose_ids(groups: pd.DataFrame, current: Current) -> None:
    """A linked group keeps its id; the name itself is a new group's id unless another group has or wants that key."""
    plain = groups["plain_id"].where(~groups["linked"] & (groups["verdict"] == "mapped"))
    plain_key = look_up(plain, current.keys, "text", "key")
    wanted_twice = plain_key.duplicated(keep=False) & plain_key.notna()
    shared = wanted_twice | plain_key.isin(current.group_links["group_key"])
    chosen = plain.mask(shared).fillna(groups["hashed_id"])
    groups["group_id"] = groups["group_id"].fillna(chosen)
    groups["key"] = groups["group_key"].fillna(look_up(groups["group_id"], current.keys, "text", "key"))


def _decide_linked(groups: pd.DataFrame, decisions: Decisions) -> None:
    linked = groups["linked"]
    gone = linked & groups["now_id"].isna()
    decisions.decide(gone, "created", "its Joget group was deleted in Joget")
    replaced = linked & (groups["now_id"] != groups["group_id"])
    decisions.decide(replaced, "quarantined", "its Joget group was replaced by another one of the same name")
    decisions.decide(groups["way"] == "rebuilt", "adopted", "its link was lost from the ledger, and rebuilt")
    same = yes(groups["now_name"] == groups["group_name"])
    decisions.decide(linked & ~same, "updated", "the name differs in Joget")
    decisions.decide(linked, "unchanged")


def _decide_new(run: Run, groups: pd.DataFrame, current: Current, users: pd.DataFrame, decisions: Decisions) -> None:
    """An existing group is adopted with care: its members would gain, or share, the rights of the pool's group."""
    linked_elsewhere = groups["key"].isin(current.group_links["group_key"])
    decisions.decide(linked_elsewhere, "quarantined", "the Joget group of this id is linked to another group")
    found = groups["now_id"].notna()
    if run.sync.policies.existing_group == "careful":
        elsewhere = groups["now_organizationId"].fillna("") != run.sync.organization
        decisions.decide(found & elsewhere, "quarantined", "Joget has a group of this id in another organization")
        with_locals = _groups_with_locals(current, users, groups.loc[found & ~groups["linked"], "now_id"])
        reason = "Joget has a group of this id with members whom this sync doesn't know"
        decisions.decide(found & groups["now_id"].isin(with_locals), "quarantined", reason)
    decisions.decide(found, "adopted", "already in Joget")
    decisions.decide(~found, "created", "new in the pool")


def _groups_with_locals(current: Current, users: pd.DataFrame, among: "pd.Series[str]") -> "pd.Series[str]":
    safely_adopted = (users["outcome"] == "adopted") & users["hold"].isna()
    known = users.loc[users["linked"] | safely_adopted, "user_id"]
    members = current.memberships[current.memberships["group_id"].isin(among)]
    return members.loc[~members["user_id"].isin(known), "group_id"].drop_duplicates()


def _decide_vanished(run: Run, listed: pd.DataFrame, current: Current, evidence: Evidence) -> pd.DataFrame:
    """Linked groups that nobody lists: counted, then without our memberships, then deleted where the settings say."""
    links = groups_of_sync(run, current)
    groups = links[~links["before_link"].isin(listed["before_link"].dropna())].reset_index(drop=True)
    groups = groups.merge(current.groups.add_prefix("now_"), left_on="group_id", right_on="now_id", how="left")
    runs = run.sync.policies.missing_runs
    after_misses = evidence.misses(groups, runs, subset=bool(run.users))
    due = yes(after_misses >= runs)
    decisions = Decisions(groups)
    if run.users or not evidence.complete:
        decisions.decide(decisions.open, "unlisted", "not listed, and this run can't tell which are missing")
    deleted = due & groups["now_id"].notna()
    if run.sync.policies.missing_group == "delete":
        decisions.decide(deleted, "deleted", "not listed in the pool")
    decisions.decide(decisions.open, "missing", "not listed in the pool")
    groups = groups.join(decisions.frame())
    gone = yes(groups["outcome"] == "deleted") | (yes(groups["outcome"] == "missing") & due & groups["now_id"].isna())
    missing = yes(groups["outcome"] == "missing")
    counted = missing & yes(after_misses > groups["misses"])
    return groups.assign(
        linked=True,
        listed=False,
        listed_twice=True,
        loses=due & groups["outcome"].isin(["missing", "deleted"]),
        action=no_text(groups.index)
        .mask(counted, "miss")
        .mask(gone, "unlink")
        .mask(yes(groups["outcome"] == "deleted"), "delete"),
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


def keep_peopled(
    groups: pd.DataFrame, memberships: pd.DataFrame, users: pd.DataFrame, current: Current
) -> pd.DataFrame:
    """No group is deleted that has a member whose membership this plan doesn't remove: a local one, or one of ours who
    takes no part. Takes and gives the groups as decided.
    """
    if not yes(groups["action"] == "delete").any():
        return groups
    removed = memberships.loc[memberships["action"] == "remove", ["user_id", "group_id"]]
    renamed = users[yes(users["action"] == "rename")]
    newer = look_up(current.memberships["user_id"], renamed, "user_id", "after_id")
    members = current.memberships.assign(user_id=newer.fillna(current.memberships["user_id"]))
    stays = ~among(members, removed, ["user_id", "group_id"])
    peopled = yes(groups["action"] == "delete") & groups["group_id"].isin(members.loc[stays, "group_id"])
    return groups.assign(
        action=groups["action"].mask(peopled),
        outcome=groups["outcome"].mask(peopled, "missing"),
        reason=groups["reason"].mask(peopled, "not listed in the pool; kept for its members"),
    )
