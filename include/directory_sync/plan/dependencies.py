"""What depends on what: the one place that planning, deferral, approval and undo ask.

A held row holds what can't be done, or mustn't be done, without it (rule 13 of docs/design.md):

    user created, adopted, recreated, relinked   their role, employment and memberships
    user deactivated or deleted                  the removals of their memberships
    user reactivated                             their role, employment and new memberships
    group created, adopted, recreated, relinked  its memberships
    removal of a membership                      the deletion of its group

A held update or rename of a linked user holds nothing else. An answer (`rejected`, `undone`) is
about its own row: it is remembered for that row alone, and what depends on the row waits only as
long as the row does.
"""

import pandas as pd

from include.directory_sync.frames import TEXT, look_up, yes
from include.directory_sync.vocabulary import Action, Entity

GIVING_A_USER = (Action.CREATE, Action.ADOPT, Action.RECREATE, Action.RELINK)
GIVING_A_GROUP = (Action.CREATE, Action.ADOPT, Action.RECREATE, Action.RELINK)
REMOVING_A_USER = (Action.DEACTIVATE, Action.DELETE)


def find_holds_by_users(rows: pd.DataFrame, users: pd.DataFrame) -> "pd.Series[str]":
    """For each role, employment or membership row (columns action, sub) the cause of the user row
    that it waits for, or null.

    users: rows with columns sub, action, hold; rows that aren't held are ignored.
    """
    held = users[users["hold"].notna() & users["sub"].notna()]
    removes = yes(rows["action"] == Action.REMOVE)
    hold = _look_up(rows, held[held["action"].isin(GIVING_A_USER)], "sub")
    removing = _look_up(rows, held[held["action"].isin(REMOVING_A_USER)], "sub")
    back = _look_up(rows, held[held["action"] == Action.REACTIVATE], "sub")
    return hold.fillna(removing.where(removes)).fillna(back.where(~removes))


def find_holds_by_groups(rows: pd.DataFrame, groups: pd.DataFrame) -> "pd.Series[str]":
    """For each membership row (column group_name) the cause of the group row that it waits for."""
    held = groups[groups["hold"].notna() & groups["action"].isin(GIVING_A_GROUP)]
    return _look_up(rows, held, "group_name")


def find_holds_by_memberships(groups: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[str]":
    """For each group's deletion (columns group_name, action) the cause of a removal it waits for."""
    held = rows[rows["hold"].notna() & yes(rows["action"] == Action.REMOVE)]
    return _look_up(groups, held, "group_name").where(yes(groups["action"] == Action.DELETE))


def find_dependent_holds(changes: pd.DataFrame) -> "pd.Series[str]":
    """For each row of a plan (columns changes.CHANGES) the cause of a row that it waits for."""
    entity = changes["entity"]
    users, groups = changes[entity == Entity.USER], changes[entity == Entity.GROUP]
    theirs = entity.isin([Entity.ROLE, Entity.EMPLOYMENT, Entity.MEMBERSHIP])
    hold = find_holds_by_users(changes, users).where(theirs)
    memberships = entity == Entity.MEMBERSHIP
    hold = hold.fillna(find_holds_by_groups(changes, groups).where(memberships))
    waiting = changes.assign(hold=changes["hold"].fillna(hold))[memberships]
    deleted = find_holds_by_memberships(changes, waiting).where(entity == Entity.GROUP)
    return hold.fillna(deleted)


def without_dependents(changes: pd.DataFrame) -> pd.DataFrame:
    """The rows (columns changes.CHANGES) that wait for no other row among them."""
    depends = find_dependent_holds(changes.assign(hold="asked")).notna()
    group = changes["entity"] == Entity.GROUP
    return changes[~depends | group]


def _look_up(rows: pd.DataFrame, held: pd.DataFrame, key: str) -> "pd.Series[str]":
    if held.empty:
        return pd.Series(None, index=rows.index, dtype=TEXT)
    return look_up(rows[key], held, key, "hold")
