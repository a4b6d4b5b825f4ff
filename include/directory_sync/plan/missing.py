"""What happens to linked users whom the pool doesn't list (rule 5 of the design)."""

import pandas as pd

from include.directory_sync.frames import TEXT, no_text, yes
from include.directory_sync.plan.changes import LEDGER_ONLY, USER_COLUMNS
from include.directory_sync.plan.current import Current, Evidence
from include.directory_sync.plan.decisions import Decisions
from include.directory_sync.plan.matching import users_of_sync, with_rows
from include.directory_sync.plan.users import excluded, newer_than
from include.directory_sync.run import Run

ACTIONS = {"deactivated": "deactivate", "deleted": "delete"}


def decide_missing(run: Run, matched: pd.DataFrame, current: Current, evidence: Evidence) -> pd.DataFrame:
    """Decide every linked user whom `matching.match_users` found nobody for, in whatever pool he was.

    Gives the columns of `users.decide_users` that a plan reads, with listed false; outcome is `missing`,
    `deactivated`, `deleted`, `frozen`, or `unlisted` where this snapshot proves nothing about absence. `active` is
    false for those who lose their memberships, and true for those who keep them.
    """
    links = users_of_sync(run, current)
    heir = yes(matched["way"] == "heir")
    present = matched.loc[~heir, "before_link"].dropna()
    users = links[~links["before_link"].isin(present)].reset_index(drop=True)
    users = with_rows(users, current.users)
    users = users.assign(key=no_text(users.index), listed=False, linked=True)
    runs = run.sync.policies.missing_runs
    users["after_misses"] = evidence.misses(users, runs, subset=bool(run.users))
    due = yes(users["after_misses"] >= runs)
    decisions = Decisions(users)
    decisions.decide(excluded(run, users, current), "frozen", "excluded by the settings")
    decisions.decide(newer_than(evidence, users), "frozen", "a newer reading of this user was applied")
    if run.users or not evidence.complete:
        decisions.decide(decisions.open, "unlisted", "not listed, and this run can't tell who is missing")
    decisions.decide(~due, "missing", "not listed in the pool")
    decisions.decide(users["now_id"].isna(), "missing", "not listed in the pool, and deleted in Joget")
    _decide_due(run, users, users["before_link"].isin(matched.loc[heir, "before_link"]), evidence, decisions)
    users = _values(users.join(decisions.frame()), due)
    acts = due & (run.sync.policies.missing_user != "keep")
    users["active"] = ~(users["outcome"].isin(["missing", "deactivated", "deleted"]) & acts)
    return _with_actions(users)


def _decide_due(
    run: Run, users: pd.DataFrame, has_heir: "pd.Series[bool]", evidence: Evidence, decisions: Decisions
) -> None:
    policies = run.sync.policies
    if policies.missing_user == "keep":
        decisions.decide(decisions.open, "missing", "not listed in the pool; the settings keep him")
    if policies.missing_user == "delete":
        # The link of somebody who was due already last changed when he was deactivated.
        waited = users["misses"] >= policies.missing_runs
        ripe = pd.Timestamp(evidence.snapshot_at).tz_localize(None) - pd.Timedelta(days=policies.delete_after_days or 0)
        old = waited & (users["changed_at"] <= ripe) if policies.delete_after_days else ~has_heir
        decisions.decide(yes(old) & ~has_heir, "deleted", "not listed in the pool")
    ours = (users["state"] == "active") & yes(users["now_active"] == 1)
    decisions.decide(ours, "deactivated", "not listed in the pool")
    decisions.decide(decisions.open, "missing", "not listed in the pool")


def _values(users: pd.DataFrame, due: "pd.Series[bool]") -> pd.DataFrame:
    deactivated, deleted = users["outcome"] == "deactivated", users["outcome"] == "deleted"
    values = {"before_id": users["now_id"], "after_id": users["now_id"].mask(deleted)}
    for column in USER_COLUMNS:
        values[f"before_{column}"] = users[f"now_{column}"]
        values[f"after_{column}"] = users[f"now_{column}"].mask(deleted)
    values["after_active"] = values["after_active"].mask(deactivated, 0)
    unlinked = deleted | (due & users["now_id"].isna() & (users["outcome"] == "missing"))
    values["after_link"] = users["before_link"].mask(unlinked)
    values["before_state"], values["before_misses"] = users["state"], users["misses"]
    values["after_state"] = users["state"].mask(deactivated, "deactivated").mask(unlinked)
    values["after_misses"] = users["after_misses"].mask(unlinked)
    return users.drop(columns="after_misses").assign(**values, joget_active=False)


def _with_actions(users: pd.DataFrame) -> pd.DataFrame:
    missing = users["outcome"] == "missing"
    counted = missing & yes(users["after_misses"] > users["before_misses"])
    action = users["outcome"].map(ACTIONS).astype(TEXT).mask(counted, "miss")
    action = action.mask(missing & users["after_link"].isna(), "unlink")
    changes = action.notna() & ~action.isin(LEDGER_ONLY)
    admins = yes(users["now_is_admin"]) & changes
    return users.assign(action=action, hold=users["hold"].mask(admins, "role_admin"))
