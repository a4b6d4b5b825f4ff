"""What happens to linked users that the pool doesn't list (rule 5 of docs/design.md)."""

import pandas as pd

from directory_sync.decisions import Decisions
from directory_sync.frames import TEXT_TYPE, conform_to_schema, is_true, make_null_texts
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.matching import join_joget_rows, select_users_of_sync
from directory_sync.plan.users import DECIDED_USERS_SCHEMA, is_excluded, is_newer, is_replaced
from directory_sync.reasons import Reason
from directory_sync.run import Run
from directory_sync.vocabulary import USER_ACTIONS, Action, Entity, Outcome, State


def decide_missing(
    run: Run, matched: pd.DataFrame, current: Current, evidence: Evidence
) -> pd.DataFrame:
    """Decide each linked user, of any pool, that no listed user was matched with.

    Gives DECIDED_USERS_SCHEMA with listed false. The outcome is `missing`, `deactivated`,
    `deleted`, `frozen`, `quarantined`, or `unlisted` where this snapshot proves nothing.
    """
    links = select_users_of_sync(run, current)
    # An heir has the login but another sub, so the linked user isn't listed.
    heir = is_true(matched["way"] == "heir")
    present = matched.loc[~heir, "before_link"].dropna()
    users = links[~links["before_link"].isin(present)].reset_index(drop=True)
    users = join_joget_rows(users, users["linked_id"], current.users)
    users["key"] = users["occupier_id"] = make_null_texts(users.index)
    runs = run.sync.policies.missing_runs
    proven = evidence.is_proven_absent(users, Entity.USER, "sub", run.sync.user_pool_id)
    users["after_misses"] = evidence.count_misses(users, proven, runs, subset=run.is_for_some)
    # Somebody who was named, and whom the pool doesn't have, is removed at once (rule 5).
    named = proven & users["sub"].isin(run.leavers)
    named &= users["user_pool_id"] == run.sync.user_pool_id
    users["after_misses"] = users["after_misses"].mask(named, runs)
    # They were too many to ask for by name (rule 5). Without that, none of their misses counts, so
    # their removal is proposed at once, and held.
    users["is_unproven"] = ~proven & is_true(users["misses"] < runs) & (not evidence.compares)
    due = is_true(users["after_misses"] >= runs) | users["is_unproven"]
    users["after_misses"] = users["after_misses"].mask(users["is_unproven"], runs)
    decisions = Decisions(users)
    decisions.decide(is_excluded(run, users, current), Outcome.FROZEN, Reason.EXCLUDED)
    decisions.decide(is_newer(evidence, users), Outcome.FROZEN, Reason.NEWER_READING)
    replaced = is_replaced(users, current)
    decisions.decide(replaced, Outcome.QUARANTINED, Reason.REPLACED_IN_JOGET)
    if run.is_for_some or not evidence.complete:
        decisions.decide(~named, Outcome.UNLISTED, Reason.CANNOT_TELL)
    decisions.decide(~due, Outcome.MISSING, Reason.MISSING)
    gone = users["now_id"].isna()
    decisions.decide(gone, Outcome.MISSING, Reason.MISSING_AND_DELETED_IN_JOGET)
    has_heir = users["before_link"].isin(matched.loc[heir, "before_link"])
    _decide_due(run, users, has_heir, evidence, decisions)
    users = _find_values(users.join(decisions.frame()), due)
    return conform_to_schema(_complete_columns(run, users, due), DECIDED_USERS_SCHEMA)


def _decide_due(
    run: Run,
    users: pd.DataFrame,
    has_heir: "pd.Series[bool]",
    evidence: Evidence,
    decisions: Decisions,
) -> None:
    policies = run.sync.policies
    if policies.missing_user == "keep":
        decisions.decide(decisions.open, Outcome.MISSING, Reason.MISSING_AND_KEPT)
    if policies.missing_user == "delete":
        # Once a user has all their misses, their link was last changed when they were deactivated.
        waited = users["misses"] >= policies.missing_runs
        ripe = evidence.at - pd.Timedelta(days=policies.delete_after_days or 0)
        old = waited & (users["changed_at"] <= ripe) if policies.delete_after_days else ~has_heir
        # An event, or a person who named the user, takes access at once, and never an account.
        old &= waited | ~users["sub"].isin(run.leavers)
        # A person may still give the account to a newcomer with its login (rule 7).
        deleted = is_true(old) & ~has_heir
        # The link is a left-over account's: a person approved its deactivation, but no deletion.
        deleted &= ~is_true(users["origin"] == Action.DEACTIVATE)
        unasked = deleted & users["is_unproven"]
        decisions.decide(unasked, Outcome.DELETED, Reason.MISSING_UNASKED)
        decisions.decide(deleted, Outcome.DELETED, Reason.MISSING)
    ours_is_on = (users["state"] == State.ACTIVE) & is_true(users["now_active"] == 1)
    unproven = ours_is_on & users["is_unproven"]
    decisions.decide(unproven, Outcome.DEACTIVATED, Reason.MISSING_UNASKED)
    decisions.decide(ours_is_on, Outcome.DEACTIVATED, Reason.MISSING)
    decisions.decide(decisions.open, Outcome.MISSING, Reason.MISSING)


def _find_values(users: pd.DataFrame, due: "pd.Series[bool]") -> pd.DataFrame:
    deactivated = users["outcome"] == Outcome.DEACTIVATED
    deleted = users["outcome"] == Outcome.DELETED
    values = {"before_id": users["now_id"], "after_id": users["now_id"].mask(deleted)}
    for column in USER_COLUMNS:
        values[f"before_{column}"] = users[f"now_{column}"]
        values[f"after_{column}"] = users[f"now_{column}"].mask(deleted)
    values["after_active"] = values["after_active"].mask(deactivated, 0)
    lost = due & users["now_id"].isna() & (users["outcome"] == Outcome.MISSING)
    # A user who is gone from Joget as well has nothing left to manage.
    unlinked = deleted | (lost & ~users["is_unproven"])
    values["after_link"] = users["before_link"].mask(unlinked)
    values["before_state"], values["before_misses"] = users["state"], users["misses"]
    values["after_state"] = users["state"].mask(deactivated, State.DEACTIVATED).mask(unlinked)
    values["after_misses"] = users["after_misses"].mask(unlinked)
    return users.drop(columns="after_misses").assign(**values)


def _complete_columns(run: Run, users: pd.DataFrame, due: "pd.Series[bool]") -> pd.DataFrame:
    missing = users["outcome"] == Outcome.MISSING
    counted = (
        missing & ~users["is_unproven"] & is_true(users["after_misses"] > users["before_misses"])
    )
    action = users["outcome"].map(USER_ACTIONS).astype(TEXT_TYPE).mask(counted, Action.MISS)
    action = action.mask(missing & users["after_link"].isna(), Action.UNLINK)
    acts = due & ~users["is_unproven"] & (run.sync.policies.missing_user != "keep")
    removed = users["outcome"].isin([Outcome.DEACTIVATED, Outcome.DELETED])
    return users.assign(
        action=action,
        joget_id=users["linked_id"],
        listed=False,
        linked=True,
        # Only disabled users lose memberships by an incomplete snapshot (plan.memberships).
        active=True,
        joget_active=False,
        takes_part=False,
        loses_all=removed | (missing & acts),
        is_admin=is_true(users["now_is_admin"]),
        is_unproven=users["is_unproven"] & removed,
    )
