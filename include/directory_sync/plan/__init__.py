"""Planning: the desired directory against Joget now, decided without touching either."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pandas as pd
import pyarrow as pa

from include.directory_sync.errors import PermanentError
from include.directory_sync.frames import TEXT, arrow, from_table, look_up, sort_texts, yes
from include.directory_sync.mapping import Desired
from include.directory_sync.plan.changes import (
    ANSWERED,
    CHANGES,
    DIRECTORY,
    LEDGER_ONLY,
    VALUES,
    Excess,
    Plan,
    Removals,
    decision_hashes,
    in_order,
    nothing,
)
from include.directory_sync.plan.current import Current, Evidence
from include.directory_sync.plan.groups import decide_groups, keep_peopled
from include.directory_sync.plan.limits import limit_memberships, limit_users
from include.directory_sync.plan.matching import match_users, pool_was_changed, too_few_found
from include.directory_sync.plan.memberships import decide_memberships, membership_counts
from include.directory_sync.plan.missing import decide_missing
from include.directory_sync.plan.settled import settle
from include.directory_sync.plan.users import decide_users, employment_ids
from include.directory_sync.run import Run

__all__ = ["CHANGES", "DIRECTORY", "Current", "Evidence", "Plan", "Removals", "make_plan", "nothing"]

ENSURED_AT = ("created", "adopted", "reactivated", "recreated")
"""When ROLE_USER and the employment are seen to; later local changes to them stay."""


def make_plan(run: Run, desired: Desired, current: Current, evidence: Evidence) -> Plan:
    """Everything that the run would change. Pure: the same input gives the same plan, in whatever order it comes.

    Raises PermanentError where the run names users the pool doesn't have, or is for some users of a pool that no run
    for everybody has taken over yet.
    """
    if run.users and not run.dry_run and pool_was_changed(run, current):
        raise PermanentError(
            f"The settings name another pool than before ({run.sync.user_pool_id}). Run the sync for everybody once, "
            f"so that users are matched with it; nothing was written."
        )
    settled = settle(run, desired.users, current, evidence)
    current = settled.current
    users, excesses, wrong_pool = _decide_everybody(run, settled.desired, current, evidence)
    if wrong_pool:
        evidence = replace(evidence, complete=False)
    users = settled.with_all(users)
    groups = decide_groups(run, desired.groups, current, evidence, users)
    memberships = decide_memberships(desired.memberships, current, evidence, users, groups)
    rows = memberships.changes
    rows["hold"] = rows["hold"].fillna(_answered(rows, current))
    rows["hold"], more = limit_memberships(run, rows, memberships.before, current)
    groups = keep_peopled(groups, rows, users, current)
    groups["hold"] = _group_holds(groups, rows, current)
    if wrong_pool:
        _hold_all(rows)
        _hold_all(groups)
    rows = _with_their_groups(rows, groups)
    counts = membership_counts(rows, read=memberships.read, unchanged=memberships.unchanged)
    directory = _directory(users, groups)
    makers: list[Callable[[], pd.DataFrame]] = [
        partial(_entity_rows, "user", users),
        partial(_seen_rows, "user", users, evidence),
        partial(_role_rows, users),
        partial(_employment_rows, run, users, current),
        partial(_entity_rows, "group", groups),
        partial(_seen_rows, "group", groups, evidence),
        partial(rows.assign, entity="membership"),
    ]
    del users, rows, memberships  # a frame goes as soon as its changes are made: a million users fill memory
    changes = in_order(makers.pop()() for _ in range(len(makers)))
    return Plan(changes, directory, counts, {**excesses, **more})


DECIDED = ["sub", "user_id", "listed", "linked", "active", "joget_active", "changed_at", "outcome", "action", "reason"]
DECIDED += ["linked_at", "hold", "now_has_role_user", "now_has_employment"]
"""What the plan needs to know of a user, besides his values before and after, once everything about him is decided."""


def _decide_everybody(
    run: Run, desired: pd.DataFrame, current: Current, evidence: Evidence
) -> tuple[pd.DataFrame, dict[str, Excess], bool]:
    """Users with DECIDED and their values, what exceeds which limit, and whether the pool looks like the wrong one."""
    matched = match_users(run, desired, current)
    wrong_pool = too_few_found(run, matched, current)
    if wrong_pool:
        evidence = replace(evidence, complete=False)
    listed = decide_users(run, matched, current, evidence)
    users = pd.concat([listed, decide_missing(run, matched, current, evidence)], ignore_index=True)
    users["hold"] = _answered(_entity_rows("user", users), current).reindex(users.index).fillna(users["hold"])
    if wrong_pool:
        _hold_all(users)
    users["hold"], excesses = limit_users(run, users, current)
    values = [f"{side}_{column}" for side in ("before", "after") for column in VALUES]
    return users[[*DECIDED, *(column for column in values if column in users)]], excesses, wrong_pool


def _hold_all(decided: pd.DataFrame) -> None:
    """The settings may name the wrong pool: everything waits for a person."""
    decided["hold"] = decided["hold"].mask(decided["action"].notna() & decided["hold"].isna(), "pool_change")


def _entity_rows(entity: str, decided: pd.DataFrame) -> pd.DataFrame:
    """Those who change. What is held of somebody who is listed starts without misses: they are reset meanwhile."""
    rows = decided[decided["action"].notna()].assign(entity=entity)
    reset = rows["hold"].notna() & rows["listed"] & rows["linked"]
    return rows.assign(before_misses=rows["before_misses"].mask(reset & rows["before_misses"].notna(), 0))


def _seen_rows(entity: str, decided: pd.DataFrame, evidence: Evidence) -> pd.DataFrame:
    """Presence ends a row of misses, also of whom nothing else changes, or whose changes are held."""
    own = decided["action"].notna() & decided["hold"].isna()
    older = decided["changed_at"] <= pd.Timestamp(evidence.snapshot_at).tz_localize(None)
    seen = decided[decided["listed"] & decided["linked"] & ~own & yes(decided["before_misses"] > 0) & yes(older)]
    values = {f"after_{column}": seen[f"before_{column}"] for column in VALUES if f"before_{column}" in seen.columns}
    values["after_misses"] = seen["before_misses"] * 0
    return seen.assign(**values, entity=entity, action="seen", hold=None, reason="listed again")


def _answered(rows: pd.DataFrame, current: Current) -> "pd.Series[str]":
    """`rejected` or `undone` for rows of which a person said so; null for the others. Misses go on being counted."""
    if current.decisions.empty or rows.empty:
        return pd.Series(None, index=rows.index, dtype=TEXT)
    full = arrow(rows, CHANGES).set_axis(rows.index)
    verdict = look_up(decision_hashes(full), current.decisions, "decision_sha256", "verdict")
    return verdict.mask(full["action"].isin(["miss", "seen"]))


def _group_holds(groups: pd.DataFrame, memberships: pd.DataFrame, current: Current) -> "pd.Series[str]":
    """A group isn't deleted while a membership of it is held."""
    answered = _answered(_entity_rows("group", groups), current).reindex(groups.index)
    removing = memberships[memberships["hold"].notna() & (memberships["action"] == "remove")]
    waiting = look_up(groups["group_id"], removing, "group_id", "hold")
    return answered.fillna(waiting.where(yes(groups["action"] == "delete")))


def _with_their_groups(memberships: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """A held group, not there yet, holds the memberships that it is to get."""
    held = groups[groups["hold"].notna() & groups["before_id"].isna()]
    hold = look_up(memberships["group_id"], held, "group_id", "hold")
    return memberships.assign(hold=memberships["hold"].fillna(hold))


def _role_rows(users: pd.DataFrame) -> pd.DataFrame:
    rows = users[users["outcome"].isin(ENSURED_AT) & ~yes(users["now_has_role_user"])]
    rows = rows.assign(user_id=rows["after_id"])[["sub", "user_id", "hold"]]
    return rows.assign(entity="role", action="add", reason="every synchronised user has ROLE_USER")


def _employment_rows(run: Run, users: pd.DataFrame, current: Current) -> pd.DataFrame:
    rows = users[users["outcome"].isin(ENSURED_AT) & ~yes(users["now_has_employment"])]
    rows = rows.assign(user_id=rows["after_id"])[["sub", "user_id", "hold"]]
    ids = employment_ids(run.sync.organization, rows["user_id"], set(current.employment_ids["id"]))
    reason = "every synchronised user is employed in the organization"
    return rows.assign(entity="employment", action="add", employment_id=ids, reason=reason)


def _directory(users: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    held = users["hold"].notna() & users["action"].notna() & ~users["action"].isin(LEDGER_ONLY)
    known = users["linked"] | (users["action"].notna() & ~held)
    in_joget = users["after_active"].where(users["action"].notna(), users["before_active"])
    off = users["before_id"].notna() & ~yes(in_joget == 1)
    state = users["after_state"].where(users["action"].notna(), users["before_state"])
    state = state.mask(yes(state == "active") & off, "deactivated in Joget")
    asks = users["hold"].where(held)
    answered = asks.where(asks.isin(ANSWERED))
    listed = pd.DataFrame(
        {
            "entity": "user",
            "sub": users["sub"].fillna(""),
            "joget_id": users["user_id"].where(known),
            "listed": users["listed"],
            "outcome": users["outcome"].mask(held, "held"),
            "state": state.where(known & ~held, users["before_state"]),
            "linked_at": users["linked_at"],
            "reason": users["reason"].mask(answered.notna(), users["reason"] + " (" + answered + ")"),
        }
    )
    held = groups["hold"].notna() & groups["action"].notna()
    known = groups["linked"] | groups["action"].notna()
    others = groups[["group_name", "listed", "outcome", "reason"]].assign(
        entity="group", joget_id=groups["group_id"].where(known), outcome=groups["outcome"].mask(held, "held")
    )
    parts = [pa.Table.from_pandas(arrow(part, DIRECTORY), preserve_index=False) for part in (listed, others)]
    rows = sort_texts(pa.concat_tables(parts), ["entity", "joget_id", "sub", "group_name"])
    return arrow(from_table(rows), DIRECTORY)
