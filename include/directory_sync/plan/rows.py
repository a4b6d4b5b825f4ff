"""A plan's rows, from what was decided and what is held."""

import pandas as pd
import pyarrow as pa

from directory_sync.frames import (
    TEXT_TYPE,
    find_positions,
    is_true,
    look_up,
    make_frame,
    sort_table,
    take_rows,
    to_arrow_types,
)
from directory_sync.plan.changes import DIRECTORY_SCHEMA, USER_COLUMNS, VALUE_COLUMNS
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.dependencies import find_holds_by_users
from directory_sync.reasons import LEFT_OVER_REASONS, REASON_RULES, Reason
from directory_sync.vocabulary import (
    ANSWERED_CAUSES,
    LEDGER_ACTIONS,
    Action,
    Entity,
    Outcome,
    State,
)

ENSURING_OUTCOMES = (Outcome.CREATED, Outcome.ADOPTED, Outcome.REACTIVATED, Outcome.RECREATED)
"""Outcomes at which ROLE_USER and the employment are made. Later local changes to them stay."""


def make_user_rows(users: pd.DataFrame) -> pd.DataFrame:
    """Make a row for each user that changes; user_id is the id that Joget has now."""
    return make_entity_rows(Entity.USER, users.rename(columns={"joget_id": "user_id"}))


def make_entity_rows(entity: Entity, decided: pd.DataFrame) -> pd.DataFrame:
    """Make a row for each user or group that changes."""
    rows = decided[decided["action"].notna()].assign(entity=str(entity))
    # Presence resets the misses (make_seen_rows) before a held row can be released.
    reset = rows["hold"].notna() & rows["listed"] & rows["linked"]
    misses = rows["before_misses"]
    return rows.assign(before_misses=misses.mask(reset & misses.notna(), 0))


def make_seen_rows(entity: Entity, decided: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Reset the misses of listed users or groups where nothing else changes, or all is held."""
    own = decided["action"].notna() & decided["hold"].isna()
    older = decided["changed_at"] <= evidence.at
    has_misses = decided["before_misses"] > 0
    seen = decided[decided["listed"] & decided["linked"] & ~own & has_misses & older]
    values = {
        f"after_{name}": seen[f"before_{name}"]
        for name in VALUE_COLUMNS
        if f"before_{name}" in seen
    }
    # Times 0, since the product keeps the column's type and index.
    values["after_misses"] = seen["before_misses"] * 0
    return seen.rename(columns={"joget_id": "user_id"}).assign(
        **values,
        entity=str(entity),
        action=str(Action.SEEN),
        hold=None,
        code=str(Reason.SEEN_AGAIN),
        reason=REASON_RULES[Reason.SEEN_AGAIN].sentence,
    )


def make_eviction_rows(users: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Make a row for each account that single sign-on made under a renamed user's new login: the
    row deletes the account, so that the login is free (rule 6).
    """
    renamed = users[users["occupier_id"].notna()]
    if renamed.empty:
        return pd.DataFrame()
    occupiers = take_rows(
        current.users, find_positions(renamed["occupier_id"], current.users["id"]), renamed.index
    )
    values = {f"before_{column}": occupiers[column] for column in ("id", *USER_COLUMNS)}
    return pd.DataFrame(
        {
            "entity": str(Entity.USER),
            "action": str(Action.EVICT),
            "sub": renamed["sub"],
            "user_id": renamed["occupier_id"],
            "code": str(Reason.SECOND_ACCOUNT),
            "reason": REASON_RULES[Reason.SECOND_ACCOUNT].sentence,
            "hold": renamed["hold"],
            **values,
        }
    )


def make_role_rows(users: pd.DataFrame) -> pd.DataFrame:
    """Add ROLE_USER to the users that this run creates, adopts, recreates or reactivates."""
    rows = users[users["outcome"].isin(ENSURING_OUTCOMES) & ~is_true(users["now_has_role_user"])]
    return _make_added_rows(Entity.ROLE, Reason.ROLE_USER, rows, users)


def make_employment_rows(users: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Add an employment in the organization to the same users."""
    rows = users[users["outcome"].isin(ENSURING_OUTCOMES) & ~is_true(users["now_has_employment"])]
    rows = _make_added_rows(Entity.EMPLOYMENT, Reason.EMPLOYMENT, rows, users)
    return rows.assign(employment_id=find_employment_ids(rows["user_id"], current))


def find_employment_ids(user_ids: "pd.Series[str]", current: Current) -> "pd.Series[str]":
    """The ids of these users' new employments."""
    return look_up(user_ids, current.employment_ids, "user_id", "employment_id")


def give_renamed_ids(rows: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    """Give membership rows (column user_id) the new ids of the users in safe renames.

    users: rows with columns action, hold, joget_id (the id now) and after_id.
    """
    # Writing moves each child of a renamed user to the new id before it writes memberships.
    renamed = users[(users["action"] == Action.RENAME) & users["hold"].isna()]
    newer = look_up(rows["user_id"], renamed, "joget_id", "after_id")
    return rows.assign(user_id=newer.fillna(rows["user_id"]))


def make_directory(
    users: pd.DataFrame, renames: pd.DataFrame, groups: pd.DataFrame
) -> pd.DataFrame:
    """directory.parquet: columns changes.DIRECTORY_SCHEMA, in the order of ids."""
    parts = [
        _list_held_renames(_list_users(users), users, _list_users(renames)),
        _list_groups(groups),
    ]
    tables = [
        pa.Table.from_pandas(to_arrow_types(part, DIRECTORY_SCHEMA), preserve_index=False)
        for part in parts
    ]
    order = ("entity", "joget_id", "sub", "group_name")
    rows = sort_table(pa.concat_tables(tables), order)
    return to_arrow_types(make_frame(rows), DIRECTORY_SCHEMA)


def _make_added_rows(
    entity: Entity, reason: Reason, rows: pd.DataFrame, users: pd.DataFrame
) -> pd.DataFrame:
    added = pd.DataFrame(
        {
            "entity": str(entity),
            "action": str(Action.ADD),
            "sub": rows["sub"],
            "user_id": rows["after_id"],
            "code": str(reason),
            "reason": REASON_RULES[reason].sentence,
        }
    )
    return added.assign(hold=find_holds_by_users(added, users))


def _list_users(users: pd.DataFrame) -> pd.DataFrame:
    acts = users["action"].notna()
    held = users["hold"].notna() & acts & ~users["action"].isin(LEDGER_ACTIONS)
    known = users["linked"] | (acts & ~held)
    shown = known | users["code"].isin(LEFT_OVER_REASONS)
    in_joget = users["after_active"].where(acts, users["before_active"])
    off = users["before_id"].notna() & ~is_true(in_joget == 1)
    state = users["after_state"].where(acts, users["before_state"])
    state = state.mask(is_true(state == State.ACTIVE) & off, State.DEACTIVATED_IN_JOGET)
    asks = users["hold"].where(held)
    answered = asks.where(asks.isin(ANSWERED_CAUSES))
    reason = users["reason"].mask(answered.notna(), users["reason"] + " (" + answered + ")")
    return pd.DataFrame(
        {
            "entity": str(Entity.USER),
            "sub": users["sub"].fillna(""),
            "joget_id": users["joget_id"].where(shown),
            "listed": users["listed"],
            "outcome": users["outcome"].mask(held, Outcome.HELD),
            "state": state.where(known & ~held, users["before_state"]),
            "linked_at": users["linked_at"],
            "code": users["code"],
            "reason": reason,
        }
    )


def _list_held_renames(
    listed: pd.DataFrame, users: pd.DataFrame, renames: pd.DataFrame
) -> pd.DataFrame:
    """The listed users. Where a user's only change is a held rename, their row tells of the
    rename.
    """
    quiet = users["action"].isna() | users["action"].isin(LEDGER_ACTIONS)
    waits = listed["sub"].isin(renames["sub"]) & quiet
    subs = listed["sub"].where(waits)
    for column in ("outcome", "code", "reason"):
        found = look_up(subs, renames, "sub", column)
        listed[column] = listed[column].astype(TEXT_TYPE).mask(waits, found)
    return listed


def _list_groups(groups: pd.DataFrame) -> pd.DataFrame:
    held = groups["hold"].notna() & groups["action"].notna()
    held &= ~groups["action"].isin(LEDGER_ACTIONS)
    known = groups["linked"] | (groups["action"].notna() & ~held)
    return groups[["group_name", "listed", "code", "reason"]].assign(
        entity=str(Entity.GROUP),
        joget_id=groups["group_id"].where(known),
        outcome=groups["outcome"].mask(held, Outcome.HELD),
    )
