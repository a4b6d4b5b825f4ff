"""Planning: the desired directory against Joget now, decided without touching either."""

import pandas as pd

from include.directory_sync.frames import arrow, empty, yes
from include.directory_sync.mapping import Desired
from include.directory_sync.plan.changes import CHANGES, DIRECTORY, Plan, in_order
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.groups import decide_groups
from include.directory_sync.plan.memberships import decide_memberships
from include.directory_sync.plan.users import decide_users, employment_id
from include.directory_sync.run import Run

__all__ = ["CHANGES", "DIRECTORY", "Current", "Plan", "make_plan", "nothing"]

ENSURED_AT = ("created", "adopted", "reactivated", "recreated")
"""When ROLE_USER and the employment are seen to; later local changes to them stay."""


def make_plan(run: Run, desired: Desired, current: Current, *, may_remove: bool) -> Plan:
    """Everything that the run would change. Pure: the same input gives the same plan, in whatever order it comes.

    `may_remove`: every listing ended by itself. Raises PermanentError where the run names users the pool doesn't have.
    """
    users = decide_users(run, desired.users, current)
    groups = decide_groups(run, desired.groups, current, users)
    memberships = decide_memberships(desired.memberships, current, users, groups, may_remove=may_remove)
    changes = in_order(
        [
            _entity_rows("user", users),
            _entity_rows("group", groups),
            _role_rows(users),
            _employment_rows(run, users),
            memberships.changes,
        ]
    )
    directory = pd.concat([_user_directory(run, users, current), _group_directory(run, groups, current)])
    directory = arrow(directory.sort_values(["entity", "sub", "group_name"], ignore_index=True), DIRECTORY)
    return Plan(changes, directory, memberships.counts)


def nothing() -> Plan:
    """The plan of a run that reads and changes nothing, since a newer one was applied."""
    counts = dict.fromkeys(("read", "added", "removed", "unchanged", "held"), 0)
    return Plan(empty(CHANGES), empty(DIRECTORY), counts)


def _entity_rows(entity: str, decided: pd.DataFrame) -> pd.DataFrame:
    return decided[decided["action"].notna()].assign(entity=entity)


def _role_rows(users: pd.DataFrame) -> pd.DataFrame:
    rows = users[users["outcome"].isin(ENSURED_AT) & ~yes(users["now_has_role_user"])]
    rows = rows[["sub", "user_id", "hold"]]
    return rows.assign(entity="role", action="add", reason="every synchronised user has ROLE_USER")


def _employment_rows(run: Run, users: pd.DataFrame) -> pd.DataFrame:
    rows = users[users["outcome"].isin(ENSURED_AT) & ~yes(users["now_has_employment"])]
    rows = rows[["sub", "user_id", "hold"]]
    ids = [employment_id(run.sync.organization, user_id) for user_id in rows["user_id"]]
    reason = "every synchronised user is employed in the organization"
    return rows.assign(entity="employment", action="add", employment_id=ids, reason=reason)


def _user_directory(run: Run, users: pd.DataFrame, current: Current) -> pd.DataFrame:
    links = current.user_links
    mine = links[(links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)]
    missing = mine[~mine["sub"].isin(users["sub"])]
    held = users["hold"].notna() & users["action"].notna()
    known = users["linked"] | (users["action"].notna() & ~held)
    state = users["after_state"].mask(
        (users["after_state"] == "active") & ~users["joget_active"], "deactivated in Joget"
    )
    listed = pd.DataFrame(
        {
            "sub": users["sub"].fillna(""),
            "joget_id": users["user_id"].where(known),
            "outcome": users["outcome"].mask(held, "held"),
            "state": state.where(known & ~held, users["before_state"]),
            "reason": users["reason"],
        }
    )
    gone = missing.rename(columns={"user_id": "joget_id"})[["sub", "joget_id", "state"]]
    gone = gone.assign(outcome="missing", reason="not listed in the pool")
    return arrow(pd.concat([listed, gone], ignore_index=True).assign(entity="user"), DIRECTORY)


def _group_directory(run: Run, groups: pd.DataFrame, current: Current) -> pd.DataFrame:
    links = current.group_links
    mine = links[(links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)]
    missing = mine[~mine["group_name"].isin(groups["group_name"])]
    known = groups["linked"] | groups["action"].notna()
    listed = groups[["group_name", "outcome", "reason"]].assign(joget_id=groups["group_id"].where(known))
    gone = missing.rename(columns={"group_id": "joget_id"})[["group_name", "joget_id"]]
    gone = gone.assign(outcome="missing", reason="not listed in the pool")
    return arrow(pd.concat([listed, gone], ignore_index=True).assign(entity="group"), DIRECTORY)
