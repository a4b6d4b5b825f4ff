"""What happens to each listed group (rule 9 of the design)."""

import pandas as pd

from include.directory_sync.frames import BEYOND_BMP, TEXT, look_up, matches
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.decisions import Decisions
from include.directory_sync.run import Run

ACTIONS = {"created": "create", "adopted": "adopt", "updated": "update"}
"""The action of an outcome that changes something; a linked group that is gone from Joget is recreated."""


def decide_groups(run: Run, desired: pd.DataFrame, current: Current, users: pd.DataFrame) -> pd.DataFrame:
    """Decide every listed group, knowing what `users.decide_users` decided.

    Takes mapping.GROUPS; gives a row for each, in the same order, with those columns and: group_id, linked, now_*
    (current.GROUPS), before_name, after_name, before_organizationId, after_organizationId, outcome, action (null where
    nothing changes), reason, hold.
    """
    links = current.group_links
    mine = links[(links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)]
    groups = desired.merge(mine[["group_name", "group_id", "group_key"]], on="group_name", how="left")
    groups["linked"] = groups["group_id"].notna()
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
    recreated = groups["linked"] & (groups["outcome"] == "created")
    groups["action"] = groups["outcome"].map(ACTIONS).astype(TEXT).mask(recreated, "recreate")
    groups["group_id"] = groups["group_id"].where(groups["outcome"] != "adopted", groups["now_id"])
    groups["before_name"], groups["after_name"] = groups["now_name"], groups["group_name"]
    groups["before_organizationId"] = groups["now_organizationId"]
    groups["after_organizationId"] = groups["now_organizationId"].mask(groups["now_id"].isna(), run.sync.organization)
    return groups


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
    decisions.decide(linked & (groups["now_name"] != groups["group_name"]), "updated", "the name differs in Joget")
    decisions.decide(linked, "unchanged")


def _decide_new(run: Run, groups: pd.DataFrame, current: Current, users: pd.DataFrame, decisions: Decisions) -> None:
    """An existing group is adopted with care: its members would gain, or share, the rights of the pool's group."""
    linked_elsewhere = groups["key"].isin(current.group_links["group_key"])
    decisions.decide(linked_elsewhere, "quarantined", "the Joget group of this id is linked to another group")
    found = groups["now_id"].notna()
    if run.sync.policies.existing_group == "careful":
        elsewhere = groups["now_organizationId"].fillna("") != run.sync.organization
        decisions.decide(found & elsewhere, "quarantined", "Joget has a group of this id in another organization")
        with_locals = _groups_with_locals(current, users)
        reason = "Joget has a group of this id with members whom this sync doesn't know"
        decisions.decide(found & groups["now_id"].isin(with_locals), "quarantined", reason)
    decisions.decide(found, "adopted", "already in Joget")
    decisions.decide(~found, "created", "new in the pool")


def _groups_with_locals(current: Current, users: pd.DataFrame) -> "pd.Series[str]":
    known = users.loc[users["linked"] | (users["outcome"] == "adopted"), "user_id"]
    members = current.memberships
    return members.loc[~members["user_id"].isin(known), "group_id"].drop_duplicates()
