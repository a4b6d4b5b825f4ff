"""What happens to each listed user (rules 1 to 4, 7, 8, 12 and 13 of the design)."""

import hashlib

import pandas as pd

from include.directory_sync.errors import PermanentError
from include.directory_sync.frames import BEYOND_BMP, TEXT, look_up, matches, yes
from include.directory_sync.plan.changes import USER_COLUMNS
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.decisions import Decisions
from include.directory_sync.run import Run
from include.directory_sync.settings import Policies

ACTIONS = {
    "created": "create",
    "adopted": "adopt",
    "updated": "update",
    "deactivated": "deactivate",
    "reactivated": "reactivate",
    "recreated": "recreate",
    "renamed": "rename",
}
"""The action of an outcome that changes something; the other outcomes change nothing."""

JOGET_ADMIN = "admin"


def decide_users(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Decide every listed user.

    Takes mapping.USERS; gives a row for each, in the same order, with those columns and: user_id (null where Joget
    has no row), key, linked, state (the link's), now_* (current.USERS), before_* and after_* (USER_COLUMNS and
    state), outcome, action (null where nothing changes), reason, hold (a cause; then none of the user's changes is
    safe). Raises PermanentError where the run names users that the pool doesn't have.
    """
    users = _with_current(run, desired, current)
    decisions = Decisions(users)
    _decide_who_takes_part(run, users, current, decisions)
    _decide_linked(run.sync.policies, users, current, decisions)
    _decide_new(run, users, current, decisions)
    users = users.join(_values(users))
    _decide_changes(users, decisions)
    users = users.drop(columns="reason").join(decisions.frame())
    admins = users["linked"] & yes(users["now_is_admin"]) & users["hold"].isna()
    users["hold"] = users["hold"].mask(admins, "role_admin")
    users["action"] = users["outcome"].map(ACTIONS).astype(TEXT)
    return _as_applied(users)


def employment_id(organization: str, user_id: str) -> str:
    """32 hex characters, always the same for one user and organization, so that a repeated plan is the same plan."""
    return hashlib.sha256(f"{organization}\0{user_id}".encode()).hexdigest()[:32]


def _with_current(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    links = current.user_links
    mine = links[(links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)]
    mine = mine[["sub", "user_id", "state", "user_key"]]
    users = desired.merge(mine, on="sub", how="left")
    users["linked"] = users["user_id"].notna()
    users["key"] = look_up(users["username"], current.keys, "text", "key")
    found = _found(current.users)
    users["matches"] = look_up(users["key"], found, "key", "count").fillna(0)
    users["user_id"] = users["user_id"].fillna(look_up(users["key"], found, "key", "id"))
    return users.merge(current.users.add_prefix("now_"), left_on="user_id", right_on="now_id", how="left")


def _found(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns key, id, count: for each key one of the Joget users with it as id or username, and how many have it."""
    by_id = rows[["id", "id_key"]].set_axis(["id", "key"], axis=1)
    by_name = rows[["id", "username_key"]].set_axis(["id", "key"], axis=1)
    pairs = pd.concat([by_id, by_name]).dropna().drop_duplicates()
    counts = pairs.groupby("key").size().rename("count").reset_index()
    return pairs.drop_duplicates("key").merge(counts, on="key")


def _decide_who_takes_part(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    for verdict in ("frozen", "quarantined"):
        decisions.decide(users["verdict"] == verdict, verdict, users["reason"])
    decisions.decide(_has_key(users, current, run.sync.scope.exclude_users), "frozen", "excluded by the settings")
    if run.users:
        asked = _has_key(users, current, run.users) | users["sub"].isin(run.users)
        _require_all_found(run.users, users[asked], current)
        decisions.decide(~asked, "frozen", "not among the users that this run is for")
    if not current.stores_all_of_unicode:
        for column in ("username", *USER_COLUMNS):
            if column != "active":
                decisions.decide(
                    matches(users[column], BEYOND_BMP), "quarantined", f"{column} can't be stored in utf8 tables"
                )
    no_key = users["key"].isna()
    decisions.decide(no_key, "quarantined", "the login has only characters that Joget's database ignores")


def _has_key(users: pd.DataFrame, current: Current, logins: tuple[str, ...]) -> "pd.Series[bool]":
    """Whether a user's login, or the stored username of his link, is the same key as one of the logins."""
    wanted = current.keys.loc[current.keys["text"].isin(logins), "key"].dropna()
    return users["key"].isin(wanted) | users["user_key"].isin(wanted)


def _require_all_found(asked: tuple[str, ...], found: pd.DataFrame, current: Current) -> None:
    keys = current.keys[current.keys["text"].isin(asked)].set_index("text")["key"]
    known = set(found["sub"].dropna()) | set(found["key"].dropna()) | set(found["user_key"].dropna())
    absent = [str(at) for at, text in enumerate(asked, 1) if text not in known and keys.get(text) not in known]
    if absent:
        raise PermanentError(
            f"{len(absent)} of the {len(asked)} users given aren't in the pool: number {', '.join(absent)} of the "
            f"list. Correct parameter users; nothing was written."
        )


def _decide_linked(policies: Policies, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    linked = users["linked"]
    gone = linked & users["now_id"].isna()
    taken = users["user_key"].isin(pd.concat([current.users["id_key"], current.users["username_key"]]))
    decisions.decide(gone & taken, "quarantined", "its Joget user was replaced by another account of the same name")
    decisions.decide(gone, "recreated", "its Joget user was deleted in Joget")
    if policies.renamed_user != "keep":
        renamed = linked & (users["key"] != users["now_username_key"])
        decisions.decide(renamed, "renamed", "the login changed in the pool", "renamed_user")


def _decide_new(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    new = ~users["linked"]
    decisions.decide(new & ~users["creatable"], "frozen", "archived or compromised, and not in Joget")
    decisions.decide(
        new & (users["username"].str.lower() == JOGET_ADMIN), "quarantined", "admin is Joget's own account"
    )
    _decide_taken(run, users, current, decisions)
    twins = users["key"].where(new & decisions.open).duplicated(keep=False) & users["key"].notna()
    decisions.decide(new & twins, "quarantined", "another user of the pool has the same login")
    _decide_adoption(run.sync.policies, users, decisions)
    decisions.decide(new & (users["matches"] == 0), "created", "new in the pool")


def _decide_taken(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    """A new person never inherits an account: a linked user keeps it, also when he is gone from the pool."""
    new = ~users["linked"]
    links = current.user_links
    mine = (links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)
    listed = mine & links["sub"].isin(users["sub"])
    elsewhere = users["key"].isin(links.loc[~mine, "user_key"].dropna())
    decisions.decide(new & elsewhere, "quarantined", "its Joget user is linked to another pool")
    holder = look_up(users["key"], links[mine], "user_key", "sub")
    reason = "its login belongs to the linked user " + holder.fillna("")
    decisions.decide(new & users["key"].isin(links.loc[listed, "user_key"].dropna()), "quarantined", reason)
    decisions.decide(new & holder.notna(), "created", reason + ", who is gone from the pool", "new_sub")


def _decide_adoption(policies: Policies, users: pd.DataFrame, decisions: Decisions) -> None:
    found = ~users["linked"] & users["now_id"].notna()
    refusals = [
        (users["matches"] > 1, "several Joget users have this login"),
        (users["now_id"] != users["now_username"], "the Joget user's id isn't his username"),
        (users["now_is_admin"], "the Joget user of this login holds ROLE_ADMIN"),
    ]
    if policies.existing_user == "adopt_sso":
        refusals.append((users["now_has_password"], "the Joget user of this login is local: he has a password"))
    if policies.existing_user == "quarantine":
        refusals.append((found, "Joget has a user of this login"))
    for refused, reason in refusals:
        decisions.decide(found & refused, "quarantined", reason)
    decisions.decide(
        found,
        "adopted",
        "already in Joget, from single sign-on" if policies.existing_user == "adopt_sso" else "already in Joget",
    )


def _values(users: pd.DataFrame) -> pd.DataFrame:
    """before_* and after_*: Joget's values now, and as the pool wants them where a column is mapped."""
    values = {}
    for column in USER_COLUMNS:
        values[f"before_{column}"] = users[f"now_{column}"]
        if column != "active":
            values[f"after_{column}"] = users[column].fillna(users[f"now_{column}"])
    exists = users["now_id"].notna()
    on, off = users["active"], ~users["active"]
    ours = users["state"].fillna("active") == "deactivated"
    turned_off = exists & off & ~ours & yes(users["now_active"] == 1)
    active = users["now_active"].mask(turned_off, 0).mask(exists & on & ours, 1)
    values["after_active"] = active.mask(~exists, on.astype("int64[pyarrow]"))
    values["before_state"] = users["state"]
    state = users["state"].fillna("active").mask(turned_off, "deactivated").mask(on & ours, "active")
    values["after_state"] = state.mask(~exists & off, "deactivated")
    return pd.DataFrame(values)


def _decide_changes(users: pd.DataFrame, decisions: Decisions) -> None:
    """Rule 3 and 4 for linked users: what differs by bytes, and `active` as the ledger has it."""
    before, after = users["before_state"], users["after_state"]
    decisions.decide((before == "active") & (after == "deactivated"), "deactivated", "disabled in the pool")
    decisions.decide((before == "deactivated") & (after == "active"), "reactivated", "enabled again in the pool")
    decisions.decide(_differs(users), "updated", "changed in the pool")
    off_in_joget = ~yes(users["now_active"] == 1) & (after == "active")
    decisions.decide(off_in_joget, "unchanged", "deactivated in Joget by an administrator: stays so")
    decisions.decide(decisions.open, "unchanged")


def _differs(users: pd.DataFrame) -> "pd.Series[bool]":
    """Whether any column differs by bytes; NULL differs from ''."""
    differs = pd.Series(False, index=users.index)
    for column in USER_COLUMNS:
        before, after = users[f"before_{column}"], users[f"after_{column}"]
        same = yes(before == after) | (before.isna() & after.isna())
        differs |= ~same
    return differs


def _as_applied(users: pd.DataFrame) -> pd.DataFrame:
    """user_id where this run knows or makes a Joget user: stored bytes where there are any, else the login."""
    made = users["outcome"] == "created"
    users["user_id"] = users["user_id"].where(~made, users["username"])
    known = users["linked"] | users["action"].notna()
    users["user_id"] = users["user_id"].where(known)
    users["joget_active"] = yes(users["after_active"] == 1) & (
        users["action"].notna() | (users["outcome"] == "unchanged")
    )
    return users
