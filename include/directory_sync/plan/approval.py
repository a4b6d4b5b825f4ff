"""Releasing the rows that a person approved, if they are still the same."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from directory_sync.frames import TEXT_TYPE, is_true, look_up
from directory_sync.plan.changes import Plan, hash_rows, split_by_entity
from directory_sync.plan.dependencies import EXCHANGE_ACTIONS, find_dependent_holds
from directory_sync.plan.memberships import count_memberships
from directory_sync.plan.rows import give_renamed_ids
from directory_sync.vocabulary import (
    APPLIED_OUTCOMES,
    REMOVAL_ACTIONS,
    UNANSWERABLE_CAUSES,
    Action,
    Entity,
    Outcome,
)


def release_approved(plan: Plan, approved: Collection[str]) -> Plan:
    """The plan with each held row made safe if its hash (changes.hash_rows) was approved.

    A row that depends on a row that stays held also stays held (plan.dependencies).
    """
    changes = plan.changes
    held = changes["hold"].notna()
    hashes = hash_rows(changes[held]).reindex(changes.index)
    released = is_true(hashes.isin(approved)) & ~changes["hold"].isin(UNANSWERABLE_CAUSES)
    released &= ~_is_moved_otherwise(changes, released)
    # Each round may hold rows that others wait for; a chain is at most user, membership, group.
    for _ in range(3):
        staying = changes.assign(hold=changes["hold"].mask(released))
        released &= find_dependent_holds(staying).isna()
    users = (changes["entity"] == Entity.USER) & released
    seen = (changes["entity"] == Entity.USER) & (changes["action"] == Action.SEEN)
    seen &= changes["user_id"].isin(changes.loc[users, "user_id"])
    changes = changes.assign(hold=changes["hold"].mask(released))
    # While the rename was held, the rows of the user's children had the old id.
    renamed = changes[users].assign(joget_id=changes["user_id"])
    of_a_user = changes["entity"].isin([Entity.MEMBERSHIP, Entity.ROLE, Entity.EMPLOYMENT])
    renamed_ids = give_renamed_ids(changes[of_a_user], renamed)["user_id"]
    changes = changes.assign(user_id=renamed_ids.reindex(changes.index).fillna(changes["user_id"]))
    # The released row resets the misses itself; a second row would change the link twice.
    changes = changes[~seen]
    counts = count_memberships(
        changes, read=plan.memberships["read"], unchanged=plan.memberships["unchanged"]
    )
    return replace(
        plan,
        parts=split_by_entity(changes),
        directory=_update_directory(plan.directory, changes),
        memberships=counts,
    )


def _is_moved_otherwise(changes: pd.DataFrame, released: "pd.Series[bool]") -> "pd.Series[bool]":
    """Whether a held row is about a Joget user that other rows of this plan change."""
    # After those changes the row will have other values, so the approval no longer fits it.
    is_user = changes["entity"] == Entity.USER
    leaving = changes["action"].isin(REMOVAL_ACTIONS)
    moves = is_user & (changes["action"] != Action.SEEN)
    moves &= changes["hold"].isna() | (released & leaving)
    moving = changes.loc[moves, "user_id"].dropna()
    other = is_user & ~changes["action"].isin([Action.SEEN, Action.RENAME, *EXCHANGE_ACTIONS])
    renames = (changes["action"] == Action.RENAME) & changes["user_id"].isin(
        changes.loc[other, "user_id"]
    )
    return (is_user & ~leaving & changes["user_id"].isin(moving)) | renames


def _update_directory(directory: pd.DataFrame, changes: pd.DataFrame) -> pd.DataFrame:
    """The directory with new outcomes for the users and groups that aren't held any more."""
    done = changes[changes["hold"].isna() & changes["action"].isin(list(APPLIED_OUTCOMES))]
    outcomes = {str(action): str(outcome) for action, outcome in APPLIED_OUTCOMES.items()}
    done = done.assign(outcome=done["action"].map(outcomes).astype(TEXT_TYPE))
    for entity, key, joget_id in (
        (Entity.USER, "sub", "user_id"),
        (Entity.GROUP, "group_name", "group_id"),
    ):
        rows = done[done["entity"] == entity]
        held = (directory["entity"] == entity) & (directory["outcome"] == Outcome.HELD)
        is_released = held & directory[key].isin(rows[key])
        keys = directory[key].where(is_released)
        for column, source in (
            ("outcome", "outcome"),
            ("state", "after_state"),
            ("joget_id", joget_id),
        ):
            now = directory[column].mask(is_released, look_up(keys, rows, key, source))
            directory = directory.assign(**{column: now})
    return directory
