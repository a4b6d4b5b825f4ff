"""Holding what waits for a person (rule 13 and *Limits* in docs/design.md).

Each entity has its holders in one tuple, in order; the first cause that fits a row counts.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd

from directory_sync.frames import TEXT_TYPE, is_true, look_up, to_arrow_types
from directory_sync.plan.changes import CHANGES_SCHEMA, Excess, hash_for_answers
from directory_sync.plan.current import Current
from directory_sync.plan.dependencies import (
    find_holds_by_groups,
    find_holds_by_memberships,
    find_holds_by_users,
    find_wanted_groups,
    is_undone_creation,
)
from directory_sync.plan.limits import limit_emptied_groups, limit_removed_memberships, limit_users
from directory_sync.plan.users import change_login_only, keep_login
from directory_sync.reasons import REASON_RULES, Reason
from directory_sync.run import Run
from directory_sync.vocabulary import (
    LEDGER_ACTIONS,
    UNANSWERABLE_CAUSES,
    Action,
    Cause,
    Entity,
    State,
)


@dataclass
class Holding:
    """What the holders look at; they add the limits that are exceeded to `excesses`, by cause."""

    run: Run
    current: Current
    before: "pd.Series[int]"
    """How many of our memberships each group had, by group name."""
    is_wrong_pool: bool
    """Whether the settings may name the wrong pool (matching.are_too_few_found)."""
    excesses: dict[str, Excess] = field(default_factory=dict)


HoldRule = Callable[[Holding, pd.DataFrame], "pd.Series[str]"]


def hold_users(holding: Holding, users: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The users as decided (DECIDED_USERS_SCHEMA), with every cause in `hold`; and held renames
    that have rows of their own.
    """
    # A held rename mustn't lock out a user who is enabled again (rule 4). For such a user, the held
    # row changes only the login, and the user's own row changes the rest under the present login.
    back = (users["before_state"] == State.DEACTIVATED) & (users["after_state"] == State.ACTIVE)
    returning = is_true((users["action"] == Action.RENAME) & back)
    if not returning.any():
        return _hold_user_rows(holding, users), users.iloc[:0]
    logins = change_login_only(users[returning])
    trial = _hold_user_rows(holding, pd.concat([users[~returning], logins]).reindex(users.index))
    waits = returning & trial["hold"].notna()
    # The trial's rows aren't all in the plan, so the limits that it exceeded don't count.
    holding.excesses.clear()
    others = pd.concat([users[~waits], keep_login(users[waits])]).reindex(users.index)
    return _hold_user_rows(holding, others), trial[waits]


def _hold_user_rows(holding: Holding, users: pd.DataFrame) -> pd.DataFrame:
    named = users.assign(entity=str(Entity.USER), user_id=users["joget_id"])
    return users.assign(hold=_hold_rows(holding, named, USER_HOLD_RULES)["hold"])


def hold_groups(holding: Holding, groups: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    """The decided groups with `hold` filled, except for what depends on memberships
    (hold_deletions).

    users: as hold_users gives them.
    """
    groups = _explain_adoptions(holding, groups, users)
    named = groups.assign(entity=str(Entity.GROUP))
    return groups.assign(hold=_hold_rows(holding, named, GROUP_HOLD_RULES)["hold"])


def hold_memberships(
    holding: Holding, rows: pd.DataFrame, users: pd.DataFrame, groups: pd.DataFrame
) -> pd.DataFrame:
    """Membership rows (columns of changes.CHANGES_SCHEMA, sub and is_ending) with every cause in
    `hold`.
    """
    # An undone creation of a group doesn't hold the group's memberships: one of them may bring the
    # group back (release_wanted_groups).
    binding = groups[~is_undone_creation(groups)]
    rows = rows.assign(
        hold=find_holds_by_users(rows, users).fillna(find_holds_by_groups(rows, binding)),
        is_admin=rows["sub"].isin(users.loc[users["is_admin"], "sub"].dropna()),
    )
    return _hold_rows(holding, rows, MEMBERSHIP_HOLD_RULES).drop(columns=["is_admin", "is_ending"])


def release_wanted_groups(groups: pd.DataFrame, memberships: pd.DataFrame) -> pd.DataFrame:
    """Release the undone creation of each group that a safe membership needs."""
    wanted = find_wanted_groups(groups, memberships)
    return groups.assign(hold=groups["hold"].mask(wanted))


def hold_deletions(groups: pd.DataFrame, memberships: pd.DataFrame) -> pd.DataFrame:
    """Hold the deletion of each group from which the removal of a membership is held."""
    waiting = find_holds_by_memberships(groups, memberships)
    return groups.assign(hold=groups["hold"].fillna(waiting))


def _hold_rows(holding: Holding, rows: pd.DataFrame, holders: tuple[HoldRule, ...]) -> pd.DataFrame:
    rows = rows.assign(hold=rows["hold"].astype(TEXT_TYPE))
    for holder in holders:
        rows["hold"] = holder(holding, rows)
    return rows


def _hold_answered(holding: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    """Hold each row that a person rejected or undid.

    The rows need columns entity, user_id and group_id, as in changes.CHANGES_SCHEMA.
    """
    answers = holding.current.answers
    # Rows for the ledger alone go on, so misses are still counted.
    changing = rows[_has_changes(rows)]
    if answers.empty or changing.empty:
        return rows["hold"]
    full = to_arrow_types(changing, CHANGES_SCHEMA).set_axis(changing.index)
    verdict = look_up(hash_for_answers(full), answers, "answer_sha256", "verdict")
    hold = verdict.reindex(rows.index).fillna(rows["hold"]).astype(TEXT_TYPE)
    # An answer never releases these causes.
    return hold.mask(rows["hold"].isin(UNANSWERABLE_CAUSES), rows["hold"])


def _hold_admins(_: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    """Hold every change of a linked user who got ROLE_ADMIN, memberships too."""
    return _set_hold(rows, rows["is_admin"] & _has_changes(rows), Cause.ROLE_ADMIN)


def _hold_wrong_pool(holding: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    if not holding.is_wrong_pool:
        return rows["hold"]
    return _set_hold(rows, rows["action"].notna(), Cause.POOL_CHANGE)


def _hold_many_users(holding: Holding, users: pd.DataFrame) -> "pd.Series[str]":
    hold, excesses = limit_users(holding.run, users, holding.current)
    holding.excesses.update(excesses)
    return hold


def _hold_unproven(_: Holding, users: pd.DataFrame) -> "pd.Series[str]":
    """Hold removals before absence is proven: an approval asks the pool for each user first."""
    return _set_hold(users, users["is_unproven"] & _has_changes(users), Cause.UNPROVEN_ABSENCE)


def _hold_existing_groups(holding: Holding, groups: pd.DataFrame) -> "pd.Series[str]":
    """Hold adoptions of Joget's own groups: the pool's users mustn't get a group's rights
    unnoticed.
    """
    if holding.run.sync.policies.existing_group == "adopt":
        return groups["hold"]
    asks = groups["code"].isin(HELD_ADOPTION_REASONS) & (groups["action"] == Action.ADOPT)
    return _set_hold(groups, asks, Cause.EXISTING_GROUP)


HELD_ADOPTION_REASONS = (
    Reason.GROUP_NAMED_ALIKE,
    Reason.GROUP_IN_OTHER_ORGANIZATION,
    Reason.GROUP_WITH_LOCAL_MEMBERS,
    Reason.GROUP_WITHOUT_MEMBERS,
)


def _explain_adoptions(holding: Holding, groups: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    """Put into code and reason what a person should know before a group found by id is adopted."""
    found = is_true(groups["code"] == Reason.GROUP_FOUND)
    if not found.any():
        return groups
    members = holding.current.memberships
    # Members that this sync knows: linked users, and users adopted by rows that aren't held.
    safe = users["linked"] | ((users["action"] == Action.ADOPT) & users["hold"].isna())
    known = users.loc[safe, "joget_id"].dropna()
    strangers = members.loc[~members["user_id"].isin(known), "group_id"]
    elsewhere = groups["before_organizationId"].fillna("") != holding.run.sync.organization
    for rows, reason in (
        (elsewhere, Reason.GROUP_IN_OTHER_ORGANIZATION),
        (groups["group_id"].isin(strangers), Reason.GROUP_WITH_LOCAL_MEMBERS),
        (~groups["group_id"].isin(members["group_id"]), Reason.GROUP_WITHOUT_MEMBERS),
    ):
        chosen = found & is_true(rows)
        groups = groups.assign(
            code=groups["code"].mask(chosen, reason),
            reason=groups["reason"].mask(chosen, REASON_RULES[reason].sentence),
        )
        found &= ~chosen
    return groups


def _hold_many_removals(holding: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    return limit_removed_memberships(
        holding.run, rows, holding.before, holding.current, holding.excesses
    )


def _hold_emptied_groups(holding: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    return limit_emptied_groups(
        holding.run, rows, holding.before, holding.current, holding.excesses
    )


def _hold_together(_: Holding, rows: pd.DataFrame) -> "pd.Series[str]":
    """Where a limit holds one membership change of a user, hold all of them."""
    # Nobody is to leave one group without joining the next (rule 10).
    hold = rows["hold"]
    for cause in (Cause.REMOVED_MEMBERSHIPS, Cause.EMPTIED_GROUP):
        together = rows["sub"].isin(rows.loc[hold == cause, "sub"])
        hold = hold.mask(together & hold.isna(), cause)
    return hold


def _has_changes(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a row changes more than the ledger."""
    return rows["action"].notna() & ~rows["action"].isin(LEDGER_ACTIONS)


def _set_hold(rows: pd.DataFrame, chosen: "pd.Series[bool]", cause: Cause) -> "pd.Series[str]":
    return rows["hold"].mask(is_true(chosen) & rows["hold"].isna(), cause)


# The limits come last, since they count only rows that nothing else holds.
USER_HOLD_RULES: tuple[HoldRule, ...] = (
    _hold_answered,  # replaces the cause that a rule gave: a person has answered that question
    _hold_admins,
    _hold_wrong_pool,
    _hold_unproven,
    _hold_many_users,
)
GROUP_HOLD_RULES: tuple[HoldRule, ...] = (_hold_existing_groups, _hold_answered, _hold_wrong_pool)
MEMBERSHIP_HOLD_RULES: tuple[HoldRule, ...] = (
    _hold_answered,
    _hold_admins,
    _hold_wrong_pool,
    _hold_many_removals,
    _hold_emptied_groups,
    _hold_together,
)
