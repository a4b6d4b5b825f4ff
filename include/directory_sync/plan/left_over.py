"""Accounts that the pool left behind in Joget before the sync came (rule 2 of docs/design.md)."""

import pandas as pd

from directory_sync.decisions import Decisions
from directory_sync.frames import is_true, make_empty_frame, make_null_texts, to_arrow_types
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.users import DECIDED_USERS_SCHEMA, JOGET_ADMIN_LOGIN, find_keys
from directory_sync.reasons import Reason
from directory_sync.run import Run
from directory_sync.vocabulary import USER_ACTIONS, Cause, Outcome, State, Verdict


def decide_left_over(run: Run, current: Current, evidence: Evidence) -> pd.DataFrame:
    """Decide each account that no user in scope has; returns DECIDED_USERS_SCHEMA, with listed and
    linked false.

    The outcome is `left_over`, or `deactivated` and held where the settings ask a person.
    """
    accounts = (
        _find_accounts(run, current)
        if evidence.complete and not run.is_for_some
        else current.left_over.iloc[:0]
    )
    if accounts.empty:
        return make_empty_frame(DECIDED_USERS_SCHEMA)
    in_pool = is_true(accounts["verdict"] == Verdict.FROZEN)
    decisions = Decisions(accounts)
    decisions.decide(accounts["id_key"].isna(), Outcome.LEFT_OVER, Reason.LEFT_OVER_WITHOUT_LOGIN)
    decisions.decide(in_pool, Outcome.LEFT_OVER, Reason.LEFT_OVER_OUT_OF_SCOPE)
    if run.sync.policies.left_over == "ask":
        decisions.decide(decisions.open, Outcome.DEACTIVATED, Reason.LEFT_OVER, Cause.LEFT_OVER)
    decisions.decide(decisions.open, Outcome.LEFT_OVER, Reason.LEFT_OVER)
    accounts = accounts.join(decisions.frame())
    asks = is_true(accounts["outcome"] == Outcome.DEACTIVATED)
    values = {
        f"{side}_{column}": accounts[column]
        for side in ("before", "after")
        for column in ("id", *USER_COLUMNS)
    }
    # The deactivation links the account, under its name in place of a sub, so that the ledger knows
    # what the sync took. A user who comes with that login later is the account's heir (rule 7).
    link = run.sync.user_pool_id + "/" + accounts["account"]
    values["after_active"] = accounts["active"].mask(asks, 0)
    values["after_link"] = link.where(asks)
    values["after_state"] = make_null_texts(accounts.index).mask(asks, State.DEACTIVATED)
    # The link has all its misses at once, so the pool is never asked for the account by its name.
    misses = pd.Series(run.sync.policies.missing_runs, index=accounts.index, dtype="int64[pyarrow]")
    values["after_misses"] = misses.where(asks)
    decided = accounts.assign(
        **values,
        sub=accounts["account"],
        joget_id=accounts["id"],
        listed=False,
        linked=False,
        active=True,
        joget_active=~asks,
        takes_part=False,
        loses_all=asks,
        is_admin=False,
        is_unproven=False,
        action=accounts["outcome"].map(USER_ACTIONS),
    )
    return to_arrow_types(decided, DECIDED_USERS_SCHEMA)


def _find_accounts(run: Run, current: Current) -> pd.DataFrame:
    """The accounts (current.LEFT_OVER_SCHEMA) that may be left over. Left out are the accounts of
    users in scope or in quarantine, of linked users and of excluded logins, and `admin`.
    """
    accounts = current.left_over
    others = accounts["verdict"].notna() & ~is_true(accounts["verdict"] == Verdict.FROZEN)
    # Reading left out linked ids by their bytes; the account may have such an id in other letters.
    others |= accounts["id_key"].isin(current.user_links["user_key"].dropna())
    others |= accounts["id_key"].isin(find_keys(current, run.sync.scope.exclude_users))
    others |= accounts["id"].str.lower() == JOGET_ADMIN_LOGIN
    return accounts[~is_true(others)].reset_index(drop=True)
