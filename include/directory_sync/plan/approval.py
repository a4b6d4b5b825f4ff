"""Releasing what a person approved: row by row, and only what is still the same."""

from dataclasses import replace

import pandas as pd

from include.directory_sync.frames import TEXT, look_up
from include.directory_sync.plan.changes import Plan, by_entity, row_hashes
from include.directory_sync.plan.memberships import membership_counts


def approved_part(plan: Plan, approved: set[str]) -> Plan:
    """The plan with those held rows safe whose hash (changes.row_hashes) was approved.

    What depends on something that stays held stays held: the role, employment and memberships of a held user, the
    memberships of a held group, and the deletion of a group whose memberships stay.
    """
    changes = plan.changes
    hashes = row_hashes(changes[changes["hold"].notna()]).reindex(changes.index)
    released = hashes.isin(approved) & (changes["hold"] != "occupied_login").fillna(False).astype(bool)
    is_user, is_group = changes["entity"] == "user", changes["entity"] == "group"
    leaving = changes["action"].isin(["deactivate", "delete"])
    moves = is_user & (changes["action"] != "seen") & (changes["hold"].isna() | (released & leaving))
    moving = changes.loc[moves, "user_id"].dropna()
    released &= ~(is_user & ~leaving & changes["user_id"].isin(moving))
    waiting = changes[changes["hold"].notna() & ~released]
    users, groups = (waiting[waiting["entity"] == entity] for entity in ("user", "group"))
    depends = ~is_user & ~is_group
    released &= ~(depends & changes["sub"].isin(users["sub"].dropna()))
    made = groups.loc[groups["action"] != "delete", "group_id"]
    released &= ~(depends & changes["group_id"].isin(made.dropna()))
    staying = changes[changes["hold"].notna() & ~released & (changes["action"] == "remove")]
    released &= ~(is_group & changes["group_id"].isin(staying["group_id"].dropna()))
    seen = is_user & (changes["action"] == "seen") & changes["user_id"].isin(changes.loc[is_user & released, "user_id"])
    changes = changes.assign(hold=changes["hold"].mask(released))[~seen]
    counts = membership_counts(changes, read=plan.memberships["read"], unchanged=plan.memberships["unchanged"])
    return replace(plan, parts=by_entity(changes), directory=_told(plan, changes), memberships=counts)


def _told(plan: Plan, changes: pd.DataFrame) -> pd.DataFrame:
    """The directory with what becomes of those who aren't held any more."""
    directory = plan.directory
    told = changes[changes["hold"].isna() & changes["action"].isin(list(OUTCOMES))]
    told = told.assign(outcome=told["action"].map(OUTCOMES).astype(TEXT))
    for entity, key, user_or_group_id in (("user", "sub", "user_id"), ("group", "group_name", "group_id")):
        rows = told[told["entity"] == entity]
        mine = (directory["entity"] == entity) & (directory["outcome"] == "held") & directory[key].isin(rows[key])
        asked = directory[key].where(mine)
        for column, source in (("outcome", "outcome"), ("state", "after_state"), ("joget_id", user_or_group_id)):
            now = directory[column].mask(mine, look_up(asked, rows, key, source))
            directory = directory.assign(**{column: now})
    return directory


OUTCOMES = {
    "create": "created",
    "adopt": "adopted",
    "update": "updated",
    "relink": "updated",
    "release": "updated",
    "deactivate": "deactivated",
    "reactivate": "reactivated",
    "recreate": "recreated",
    "rename": "renamed",
    "delete": "deleted",
}
"""What the report calls an action that was applied; other actions change nothing in Joget."""
