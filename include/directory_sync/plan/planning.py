"""Making a plan in three passes: decide by the rules, hold what waits for a person, write the
rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from directory_sync.errors import PermanentError
from directory_sync.mapping import Desired
from directory_sync.plan import rows as plan_rows
from directory_sync.plan.changes import Excess, Plan, sort_changes
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.groups import decide_groups, keep_peopled_groups
from directory_sync.plan.holding import (
    Holding,
    hold_deletions,
    hold_groups,
    hold_memberships,
    hold_users,
    release_wanted_groups,
)
from directory_sync.plan.left_over import decide_left_over
from directory_sync.plan.matching import are_too_few_found, is_pool_changed, match_users
from directory_sync.plan.memberships import (
    DecidedMemberships,
    count_memberships,
    decide_memberships,
)
from directory_sync.plan.missing import decide_missing
from directory_sync.plan.unchanged import find_unchanged
from directory_sync.plan.users import decide_users
from directory_sync.run import Run
from directory_sync.vocabulary import Action, Entity


def make_plan(run: Run, desired: Desired, current: Current, evidence: Evidence) -> Plan:
    """Plan everything that the run would change. Pure, and independent of the input's row order.

    Raises PermanentError where the settings name another organization than the runs before, and
    where a run for some users comes before a changed pool was taken over by a run for everybody.
    """
    _require_same_target(run, current)
    decided = _decide_all(run, desired, current, evidence)
    return _write_rows(decided, _hold_all(decided))


@dataclass(frozen=True)
class Decided:
    """What the rules alone say: DECIDED_USERS_SCHEMA, DECIDED_GROUPS_SCHEMA, and memberships."""

    run: Run
    current: Current
    evidence: Evidence
    is_wrong_pool: bool
    users: pd.DataFrame
    groups: pd.DataFrame
    memberships: DecidedMemberships


def _require_same_target(run: Run, current: Current) -> None:
    """Refuse a changed organization, and a changed pool in a run for some users (rules 14, 11)."""
    # A run for some users would take the new pool over for them alone. After that, a login proves
    # nothing any more (rule 11), so the other users would never be matched.
    if run.is_for_some and not run.dry_run and is_pool_changed(run, current):
        raise PermanentError(
            f"The settings name another pool than before ({run.sync.user_pool_id}). Run the sync "
            f"for everybody once, so that users are matched with it; nothing was written."
        )
    # Refused and not held, since an approval would split the directory: linked users and groups
    # would stay in the old organization, and new ones would be made in the new one.
    before, now = current.organization, run.sync.organization
    if not run.dry_run and before not in (None, now):
        raise PermanentError(
            f"The settings name organization {now!r}, and the runs of sync {run.sync.name!r} wrote "
            f"to {before!r}; nothing was written. Set organization back to {before!r}. To move to "
            f"{now!r}, follow docs/operations.md, Another organization."
        )


def _decide_all(run: Run, desired: Desired, current: Current, evidence: Evidence) -> Decided:
    unchanged = find_unchanged(run, desired.users, current, evidence)
    current = unchanged.current
    matched = match_users(run, unchanged.desired, current)
    is_wrong_pool = are_too_few_found(run, matched, current)
    # Everybody would be missing in a wrong pool.
    if is_wrong_pool:
        evidence = replace(evidence, complete=False)
    listed = decide_users(run, matched, current, evidence)
    missing = decide_missing(run, matched, current, evidence)
    del matched  # frees a million rows
    left_over = decide_left_over(run, current, evidence)
    users = unchanged.join(pd.concat([listed, missing, left_over], ignore_index=True))
    groups = decide_groups(run, desired.groups, current, evidence)
    keeps_found = run.sync.policies.existing_memberships == "keep"
    memberships = decide_memberships(
        desired.memberships, current, evidence, users, groups, keeps_found=keeps_found
    )
    return Decided(run, current, evidence, is_wrong_pool, users, groups, memberships)


@dataclass(frozen=True)
class Held:
    """What was decided, with the causes in `hold`."""

    users: pd.DataFrame
    renames: pd.DataFrame
    """Held renames, apart from the users' own rows."""
    groups: pd.DataFrame
    memberships: pd.DataFrame
    excesses: dict[str, Excess]


def _hold_all(decided: Decided) -> Held:
    """Hold users, groups and membership rows."""
    before = decided.current.members_by_group
    before = decided.memberships.before if before is None else before
    holding = Holding(decided.run, decided.current, before, decided.is_wrong_pool)
    # In this order: groups need the users' holds, and memberships need both.
    users, renames = hold_users(holding, decided.users)
    groups = hold_groups(holding, decided.groups, users)
    rows = decided.memberships.rows.assign(entity=str(Entity.MEMBERSHIP))
    rows = plan_rows.give_renamed_ids(rows, users)
    rows = hold_memberships(holding, rows, users, groups)
    groups = release_wanted_groups(groups, rows)
    # `rows` has the new ids of renamed users, so the members that Joget has now must have them too.
    members = decided.current.memberships
    members = plan_rows.give_renamed_ids(members, users)
    # Held removals count here as well. They hold the deletion of their group (hold_deletions).
    removed = rows.loc[rows["action"] == Action.REMOVE, ["user_id", "group_id"]]
    groups = keep_peopled_groups(groups, removed, members)
    return Held(users, renames, hold_deletions(groups, rows), rows, holding.excesses)


def _select_asked(run: Run, directory: pd.DataFrame) -> pd.DataFrame:
    """The rows that say what became of the run's users and groups."""
    # In a run for some users, others are there only since they have a login that one of them wants.
    if not run.is_for_some:
        return directory
    asked = directory["sub"].isin(run.users)
    return directory[asked | (directory["sub"].isna() & directory["listed"])]


def _write_rows(decided: Decided, held: Held) -> Plan:
    users, renames, groups, memberships = held.users, held.renames, held.groups, held.memberships
    counts = count_memberships(
        memberships, read=decided.memberships.read, unchanged=decided.memberships.unchanged
    )
    directory = _select_asked(decided.run, plan_rows.make_directory(users, renames, groups))
    evidence = decided.evidence
    makers: list[Callable[[], pd.DataFrame]] = [
        partial(plan_rows.make_user_rows, users),
        partial(plan_rows.make_user_rows, renames),
        partial(plan_rows.make_eviction_rows, users, decided.current),
        partial(plan_rows.make_eviction_rows, renames, decided.current),
        partial(plan_rows.make_seen_rows, Entity.USER, users, evidence),
        partial(plan_rows.make_role_rows, users),
        partial(plan_rows.make_employment_rows, users, decided.current),
        partial(plan_rows.make_entity_rows, Entity.GROUP, groups),
        partial(plan_rows.make_seen_rows, Entity.GROUP, groups, evidence),
        partial(memberships.copy, deep=False),
    ]
    # Each frame is released as soon as its rows are made: with a million users, memory runs short.
    excesses = held.excesses
    del users, memberships, held
    changes = sort_changes(makers.pop()() for _ in range(len(makers)))
    return Plan(changes, directory, counts, excesses, employed_twice=decided.current.employed_twice)
