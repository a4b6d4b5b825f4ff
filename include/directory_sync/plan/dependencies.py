"""Which rows of a plan wait for which: planning, deferral, approval, answers and undo all ask here.

A held row holds the rows that can't or mustn't be applied without it (rule 13 of docs/design.md):

    user created, adopted, recreated, relinked   their role, employment and memberships
    user deactivated, deleted or released        the removals of their memberships
    user reactivated                             their role, employment and new memberships
    user renamed to an occupied login            the eviction of the occupier, and vice versa
    group created, adopted, recreated, relinked  its memberships
    removal of a membership                      the deletion of its group

A held update or rename of a linked user holds nothing else. An answer (`rejected`, `undone`) is
remembered for its own row alone; the rows that depend on it wait only as long as it does.
"""

import pandas as pd

from directory_sync.frames import TEXT_TYPE, is_true, look_up, make_null_texts
from directory_sync.vocabulary import Action, Cause, Entity

USER_GIVING_ACTIONS = (Action.CREATE, Action.ADOPT, Action.RECREATE, Action.RELINK)
GROUP_GIVING_ACTIONS = (Action.CREATE, Action.ADOPT, Action.RECREATE, Action.RELINK)
USER_REMOVING_ACTIONS = (Action.DEACTIVATE, Action.DELETE, Action.RELEASE)
EXCHANGE_ACTIONS = (Action.EVICT, Action.RESTORE)

CHILD_ENTITIES = (Entity.ROLE, Entity.EMPLOYMENT, Entity.MEMBERSHIP)
"""Each row of these entities belongs to a user."""


def find_holds_by_users(rows: pd.DataFrame, users: pd.DataFrame) -> "pd.Series[str]":
    """Find, for each role, employment or membership row (columns action, sub), the cause that holds
    the user row that it waits for; null where it waits for none.

    users: rows with columns sub, action, hold; rows that aren't held are ignored.
    """
    held = users[users["hold"].notna() & users["sub"].notna()]
    removes = is_true(rows["action"] == Action.REMOVE)
    hold = _look_up(rows, held[held["action"].isin(USER_GIVING_ACTIONS)], "sub")
    removing = _look_up(rows, held[held["action"].isin(USER_REMOVING_ACTIONS)], "sub")
    back = _look_up(rows, held[held["action"] == Action.REACTIVATE], "sub")
    return hold.fillna(removing.where(removes)).fillna(back.where(~removes))


def find_holds_by_groups(rows: pd.DataFrame, groups: pd.DataFrame) -> "pd.Series[str]":
    """Find, for each membership row (column group_name), the cause that holds its group's row."""
    held = groups[groups["hold"].notna() & groups["action"].isin(GROUP_GIVING_ACTIONS)]
    return _look_up(rows, held, "group_name")


def find_holds_by_memberships(groups: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[str]":
    """Find, for each deletion of a group (columns group_name, action), the cause that holds a
    removal from the group.
    """
    held = rows[rows["hold"].notna() & (rows["action"] == Action.REMOVE)]
    return _look_up(groups, held, "group_name").where(groups["action"] == Action.DELETE)


def find_holds_by_exchanges(users: pd.DataFrame) -> "pd.Series[str]":
    """Find, for each rename, eviction and restoration (columns sub, action, hold), the cause that
    holds its counterpart. A rename goes together with the eviction or restoration of the account
    that has the login.
    """
    renames = users[users["action"] == Action.RENAME]
    exchanges = users[users["action"].isin(EXCHANGE_ACTIONS)]
    if exchanges.empty:
        return make_null_texts(users.index)
    of_renames = _look_up(renames, exchanges[exchanges["hold"].notna()], "sub")
    of_exchanges = _look_up(exchanges, renames[renames["hold"].notna()], "sub")
    return pd.concat([of_renames, of_exchanges]).reindex(users.index).astype(TEXT_TYPE)


def find_dependent_holds(changes: pd.DataFrame) -> "pd.Series[str]":
    """Find, for each row of a plan (columns changes.CHANGES_SCHEMA), the cause that holds a row
    that it waits for; null where there is none.
    """
    entity = changes["entity"]
    users, groups = changes[entity == Entity.USER], changes[entity == Entity.GROUP]
    hold = find_holds_by_users(changes, users).where(entity.isin(CHILD_ENTITIES))
    hold = hold.fillna(find_holds_by_exchanges(users).reindex(changes.index))
    memberships = entity == Entity.MEMBERSHIP
    hold = hold.fillna(find_holds_by_groups(changes, groups).where(memberships))
    waiting = changes.assign(hold=changes["hold"].fillna(hold))[memberships]
    deleted = find_holds_by_memberships(changes, waiting).where(entity == Entity.GROUP)
    return hold.fillna(deleted)


def remove_dependents(changes: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows (columns changes.CHANGES_SCHEMA) that an answer is about: those that wait for
    none. Of a rename and its eviction, the rename is kept.
    """
    entity, asked = changes["entity"], changes.assign(hold="asked")
    users = asked[entity == Entity.USER]
    # Memberships in a group that is created stay: an undone group comes back for any membership
    # that has no answer (find_wanted_groups).
    groups = asked[(entity == Entity.GROUP) & (asked["action"] != Action.CREATE)]
    depends = find_holds_by_users(asked, users).where(entity.isin(CHILD_ENTITIES))
    depends = depends.fillna(find_holds_by_groups(asked, groups).where(entity == Entity.MEMBERSHIP))
    return changes[depends.isna() & ~changes["action"].isin(EXCHANGE_ACTIONS)]


def find_wanted_groups(groups: pd.DataFrame, memberships: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a group (columns group_name, action, hold) comes back although its creation was
    undone, because the plan adds a membership that nobody undid.
    """
    # When a first load is undone and the settings are corrected, the groups return with the users.
    wanted = memberships.loc[
        memberships["hold"].isna() & (memberships["action"] == Action.ADD), "group_name"
    ]
    return is_undone_creation(groups) & groups["group_name"].isin(wanted)


def is_undone_creation(groups: pd.DataFrame) -> "pd.Series[bool]":
    """Whether only an undo keeps the group from being created."""
    return is_true((groups["action"] == Action.CREATE) & (groups["hold"] == Cause.UNDONE))


def _look_up(rows: pd.DataFrame, held: pd.DataFrame, key: str) -> "pd.Series[str]":
    if held.empty:
        return make_null_texts(rows.index)
    return look_up(rows[key], held, key, "hold")
