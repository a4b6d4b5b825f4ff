"""Undoing runs: the inverse of what they applied, except for rows that changed since.

join_runs     make the changes of several runs one
plan_undo     plan their inverse against Joget now
find_undone   find the changes that an undo took back
"""

from collections.abc import Sequence

import pandas as pd

from directory_sync.frames import (
    TEXT_TYPE,
    is_true,
    look_up,
    make_empty_frame,
    make_null_texts,
    to_arrow_types,
)
from directory_sync.plan.changes import (
    CHANGES_SCHEMA,
    DIRECTORY_SCHEMA,
    USER_COLUMNS,
    VALUE_COLUMNS,
    Plan,
    sort_changes,
)
from directory_sync.plan.current import Current
from directory_sync.plan.dependencies import (
    CHILD_ENTITIES,
    EXCHANGE_ACTIONS,
    find_holds_by_exchanges,
    find_holds_by_groups,
    find_holds_by_users,
)
from directory_sync.plan.matching import is_among_texts
from directory_sync.plan.memberships import count_memberships
from directory_sync.plan.rows import find_employment_ids, give_renamed_ids
from directory_sync.reasons import REASON_RULES, Reason
from directory_sync.vocabulary import (
    APPLIED_OUTCOMES,
    INVERSE_ACTIONS,
    LEDGER_ACTIONS,
    Action,
    Cause,
    Entity,
    Outcome,
)

ROW_KEY_COLUMNS = ["entity", "sub", "group_name", "employment_id"]


def plan_undo(done: pd.DataFrame, current: Current) -> Plan:
    """The inverse of applied changes (columns CHANGES_SCHEMA) against Joget now.

    Rows that aren't as the runs left them are held as `changed_since`, with the rows that depend on
    them. current must have the belongings and used employments of the changed users.
    """
    inverse = _exchange_sides(done)
    inverse = inverse.assign(hold=_find_changed_rows(inverse, current))
    inverse = inverse.assign(hold=_hold_dependents(inverse, current))
    inverse = _use_ids_of_now(inverse)
    made_again = _make_children_of_restored(inverse, current)
    parts = sort_changes([pd.concat([inverse, made_again], ignore_index=True)])
    changes = Plan(parts, make_empty_frame(DIRECTORY_SCHEMA), {}).changes
    return Plan(parts, _make_directory(changes), count_memberships(changes, read=0, unchanged=0))


def find_undone(done: pd.DataFrame, written: Plan) -> pd.DataFrame:
    """The changes (columns CHANGES_SCHEMA) that an undo's plan took back, without those of the
    ledger alone.
    """
    inverses = written.safe
    inverses = inverses[~inverses["action"].isin(LEDGER_ACTIONS)]
    keys = ["entity", "action", "sub", "group_name"]
    taken_back = done.assign(action=done["action"].map(INVERSE_ACTIONS).astype(TEXT_TYPE))
    return done[
        is_among_texts(
            _replace_nulls(taken_back[keys]), _replace_nulls(inverses[keys]), keys
        ).to_numpy()
    ]


def join_runs(runs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The changes of several runs, oldest first, as if one run had made them (columns
    CHANGES_SCHEMA).

    Each row goes from the oldest run's `before` to the newest run's `after`. A change that a later
    one of the runs reversed is left out.
    """
    joined = runs[0]
    for newer in runs[1:]:
        joined = _join_two(joined, newer)
    return joined


def _join_two(older: pd.DataFrame, newer: pd.DataFrame) -> pd.DataFrame:
    older = _rename_children(older, newer)
    both = _make_row_keys(older, "older_at").merge(
        _make_row_keys(newer, "newer_at"), on=ROW_KEY_COLUMNS
    )
    first = older.loc[both["older_at"]].reset_index(drop=True)
    second = newer.loc[both["newer_at"]].reset_index(drop=True)
    # If another run changed the row in between, only the row's newest change is undone.
    follows = pd.Series(True, index=first.index)
    for name in VALUE_COLUMNS:
        left, found = first[f"after_{name}"], second[f"before_{name}"]
        follows &= is_true(left == found) | (left.isna() & found.isna())
    merged = second.assign(
        **{
            f"before_{name}": first[f"before_{name}"].where(follows, second[f"before_{name}"])
            for name in VALUE_COLUMNS
        }
    )
    merged["action"] = _join_actions(first["action"], merged).where(follows, second["action"])
    of_nobody = merged["before_id"].isna() & merged["after_id"].isna()
    cancelled = (
        first["action"].map(INVERSE_ACTIONS).astype(TEXT_TYPE) == second["action"]
    ) & of_nobody
    rest = (
        older.drop(index=both["older_at"].tolist()),
        newer.drop(index=both["newer_at"].tolist()),
    )
    parts = [to_arrow_types(part, CHANGES_SCHEMA) for part in (*rest, merged[~is_true(cancelled)])]
    return pd.concat(parts, ignore_index=True)


def _rename_children(older: pd.DataFrame, newer: pd.DataFrame) -> pd.DataFrame:
    """Give the older run's roles, employments and memberships the ids to which the newer run
    renamed their users.
    """
    renamed = newer[newer["entity"] == Entity.USER].assign(joget_id=newer["before_id"])
    children = older["entity"].isin(CHILD_ENTITIES)
    ids = give_renamed_ids(older[children], renamed)["user_id"]
    return older.assign(user_id=ids.reindex(older.index).fillna(older["user_id"]))


def _make_row_keys(changes: pd.DataFrame, at: str) -> pd.DataFrame:
    """ROW_KEY_COLUMNS and the place of every row, except evictions and restorations."""
    # Those have the sub of the renamed user, and with it the key of the rename.
    keys = _replace_nulls(changes[ROW_KEY_COLUMNS]).reset_index(names=at)
    return keys[~changes["action"].isin(EXCHANGE_ACTIONS).to_numpy()]


def _join_actions(first: "pd.Series[str]", merged: pd.DataFrame) -> "pd.Series[str]":
    """Name two changes of one row together: making, adopting or deleting it outranks the rest."""
    had, has = merged["before_id"].notna(), merged["after_id"].notna()
    is_child = merged["entity"].isin(CHILD_ENTITIES)
    action = merged["action"].mask(merged["action"].isin(LEDGER_ACTIONS) & ~is_child, first)
    action = action.mask(~is_child & ~had & has, first)
    action = action.mask(is_true(first == Action.ADOPT) & has, Action.ADOPT)
    made_again = had & has & action.isin([Action.CREATE, Action.RECREATE, Action.DELETE])
    return action.mask(made_again, Action.UPDATE)


def _replace_nulls(keys: pd.DataFrame) -> pd.DataFrame:
    return keys.astype(object).where(keys.notna(), "")


def _exchange_sides(done: pd.DataFrame) -> pd.DataFrame:
    """Exchange `before` and `after`; user_id becomes the user's id as the runs left it."""
    inverse = done.reset_index(drop=True)
    for name in VALUE_COLUMNS:
        sides = [f"before_{name}", f"after_{name}"]
        inverse[sides] = inverse[sides[::-1]].to_numpy()
    inverse = to_arrow_types(inverse, CHANGES_SCHEMA)
    is_user = inverse["entity"] == Entity.USER
    own_id = inverse["before_id"].fillna(inverse["after_id"])
    return inverse.assign(
        action=inverse["action"].map(INVERSE_ACTIONS).astype(TEXT_TYPE),
        user_id=inverse["user_id"].mask(is_user & own_id.notna(), own_id),
        code=str(Reason.TAKEN_BACK),
        reason=REASON_RULES[Reason.TAKEN_BACK].sentence,
    )


def _find_changed_rows(rows: pd.DataFrame, current: Current) -> "pd.Series[str]":
    """`changed_since` for the rows that aren't as the runs left them, each by its own values."""
    entity = rows["entity"]
    changed = (entity == Entity.USER) & _is_user_changed(rows, current)
    changed |= (entity == Entity.MEMBERSHIP) & _is_membership_changed(rows, current)
    used = rows["employment_id"].isin(current.used_employments["id"])
    changed |= (entity == Entity.EMPLOYMENT) & (rows["action"] == Action.REMOVE) & used
    changed |= (entity == Entity.GROUP) & _is_group_changed(rows, current)
    changed |= _is_of_admin(rows, current)
    return make_null_texts(rows.index).mask(is_true(changed), Cause.CHANGED_SINCE)


def _hold_dependents(rows: pd.DataFrame, current: Current) -> "pd.Series[str]":
    """Hold also the rows that depend on held rows (plan.dependencies), and deletions of groups that
    would still have members.
    """
    users = rows[rows["entity"] == Entity.USER]
    hold = rows["hold"].fillna(find_holds_by_exchanges(users).reindex(rows.index))
    users = users.assign(hold=hold[users.index])
    children = rows["entity"].isin(CHILD_ENTITIES)
    hold = hold.fillna(find_holds_by_users(rows, users).where(children))
    is_group, is_membership = (
        rows["entity"] == entity for entity in (Entity.GROUP, Entity.MEMBERSHIP)
    )
    removed = rows[is_membership & (rows["action"] == Action.REMOVE) & hold.isna()]
    leaving = users[(users["action"] == Action.DELETE) & users["hold"].isna()]
    stays = ~is_among_texts(current.memberships, removed, ["user_id", "group_id"])
    stays &= ~current.memberships["user_id"].isin(leaving["before_id"])
    goes = rows["before_id"].notna() & rows["after_id"].isna()
    peopled = is_group & goes & rows["before_id"].isin(current.memberships.loc[stays, "group_id"])
    hold = hold.mask(is_true(peopled) & hold.isna(), Cause.CHANGED_SINCE)
    groups = rows.assign(hold=hold)[is_group]
    return hold.fillna(find_holds_by_groups(rows, groups).where(is_membership)).astype(TEXT_TYPE)


def _use_ids_of_now(rows: pd.DataFrame) -> pd.DataFrame:
    """Give children the new ids of users that the plan renames; a held rename gives none."""
    users = rows[rows["entity"] == Entity.USER].assign(joget_id=lambda users: users["before_id"])
    children = rows["entity"].isin(CHILD_ENTITIES)
    renamed = give_renamed_ids(rows[children], users)["user_id"]
    return rows.assign(user_id=renamed.reindex(rows.index).fillna(rows["user_id"]))


def _is_user_changed(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    now = rows[["before_id"]].merge(current.users, left_on="before_id", right_on="id", how="left")
    had_row = rows["before_id"].notna()
    differs = had_row & now["id"].isna()
    for column in USER_COLUMNS:
        before = rows[f"before_{column}"]
        same = is_true(before == now[column]) | (before.isna() & now[column].isna())
        differs |= had_row & ~same
    links = current.user_links
    links = links.assign(link=links["user_pool_id"] + "/" + links["sub"])
    state = look_up(rows["before_link"], links, "link", "state")
    misses = look_up(rows["before_link"], links, "link", "misses")
    linked = rows["before_link"].notna()
    differs |= linked & ~is_true(state == rows["before_state"])
    differs |= (
        linked & rows["action"].isin(LEDGER_ACTIONS) & ~is_true(misses == rows["before_misses"])
    )
    differs |= ~linked & rows["after_link"].isin(links["link"])
    return differs | _is_id_taken(rows, current) | _is_used(rows, current)


def _is_id_taken(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a user can't come back under the old id, since another account has it now."""
    renamed = rows["action"] == Action.RENAME
    returning = rows["after_id"].where(rows["before_id"].isna() | renamed)
    key = look_up(returning, current.keys, "text", "key")
    staying = current.users[~current.users["id"].isin(rows.loc[renamed, "before_id"].dropna())]
    in_joget = pd.concat([staying["id_key"], staying["username_key"]]).dropna()
    return key.notna() & key.isin(in_joget)


def _is_used(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a user to be deleted has more than the runs gave, so somebody used the account."""
    given = rows[(rows["entity"] == Entity.MEMBERSHIP) & (rows["action"] == Action.REMOVE)]
    sizes = given.groupby("user_id").size()
    has = current.belongings
    memberships = has["user_id"].map(sizes).astype("float64").fillna(0)
    # The sync gives each user one role and one employment.
    used = (has["memberships"] > memberships) | (has["roles"] > 1) | (has["employments"] > 1)
    used |= has["others"] > 0
    used |= has["user_id"].isin(current.used_employments["user_id"])
    goes = rows["before_id"].notna() & rows["after_id"].isna()
    return goes & rows["before_id"].isin(has.loc[used, "user_id"])


def _is_group_changed(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    now = rows[["before_id"]].merge(current.groups, left_on="before_id", right_on="id", how="left")
    had_row = rows["before_id"].notna()
    same = is_true(now["name"] == rows["before_name"]) | (
        now["name"].isna() & rows["before_name"].isna()
    )
    differs = had_row & (now["id"].isna() | ~same)
    links = current.group_links["user_pool_id"] + "/" + current.group_links["group_name"]
    differs |= rows["before_link"].notna() & ~rows["before_link"].isin(links)
    key = look_up(rows["after_id"].where(~had_row), current.keys, "text", "key")
    return differs | (key.notna() & key.isin(current.groups["id_key"]))


def _is_of_admin(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a row's user got ROLE_ADMIN since (rule 12)."""
    admins = current.users.loc[current.users["is_admin"], "id"]
    subs = rows.loc[rows["user_id"].isin(admins), "sub"].dropna()
    return rows["user_id"].isin(admins) | rows["sub"].isin(subs)


def _is_parent_lost(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a membership can't come back: the group is gone, or the user is gone or inactive, and
    the undo doesn't bring them back.
    """
    users, groups = (rows[rows["entity"] == entity] for entity in (Entity.USER, Entity.GROUP))
    active = current.users.loc[current.users["active"] == 1, "id"]
    brought = users.loc[users["after_active"] == 1, ["before_id", "after_id"]]
    has_user = rows["user_id"].isin(
        pd.concat([active, brought["before_id"], brought["after_id"]]).dropna()
    )
    has_group = rows["group_id"].isin(
        pd.concat([current.groups["id"], groups["after_id"]]).dropna()
    )
    return (rows["action"] == Action.ADD) & ~(has_user & has_group)


def _is_membership_changed(rows: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    found = is_among_texts(rows, current.memberships, ["user_id", "group_id"])
    expected = rows["action"].isin([Action.REMOVE, Action.CLAIM, Action.KEEP_LOCAL])
    return is_true(
        (found & (rows["action"] == Action.ADD))
        | (~found & expected)
        | _is_parent_lost(rows, current)
    )


def _make_children_of_restored(inverse: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Add ROLE_USER and the employment to users who come back, where the inverse doesn't."""
    back = inverse[
        (inverse["entity"] == Entity.USER)
        & inverse["before_id"].isna()
        & inverse["after_id"].notna()
    ]
    rows = back[["sub", "hold", "action"]].assign(user_id=back["after_id"])
    # Single sign-on makes its accounts without an employment.
    employed = rows[rows["action"] != Action.RESTORE]

    def find_lacking(entity: Entity, users: pd.DataFrame) -> pd.DataFrame:
        brought = inverse.loc[inverse["entity"] == entity, "user_id"]
        return users[~users["user_id"].isin(brought)].assign(
            entity=str(entity),
            action=str(Action.ADD),
            code=str(Reason.TAKEN_BACK),
            reason=REASON_RULES[Reason.TAKEN_BACK].sentence,
        )

    employments = find_lacking(Entity.EMPLOYMENT, employed)
    ids = find_employment_ids(employments["user_id"], current)
    return pd.concat([find_lacking(Entity.ROLE, rows), employments.assign(employment_id=ids)])


def _make_directory(changes: pd.DataFrame) -> pd.DataFrame:
    """Columns DIRECTORY_SCHEMA: what the undo does with each user and group."""
    rows = changes[changes["entity"].isin([Entity.USER, Entity.GROUP])]
    rows = rows[~rows["action"].isin(EXCHANGE_ACTIONS)]
    held = rows["hold"].notna()
    outcomes = {str(action): str(outcome) for action, outcome in APPLIED_OUTCOMES.items()}
    outcome = rows["action"].map(outcomes).astype(TEXT_TYPE).fillna(str(Outcome.UNCHANGED))
    return to_arrow_types(
        rows.assign(
            outcome=outcome.mask(held, Outcome.HELD),
            listed=True,
            joget_id=rows["user_id"].fillna(rows["group_id"]),
            state=rows["after_state"],
            reason=rows["reason"].mask(held, REASON_RULES[Reason.CHANGED_SINCE].sentence),
            code=rows["code"].mask(held, Reason.CHANGED_SINCE),
        ),
        DIRECTORY_SCHEMA,
    )
