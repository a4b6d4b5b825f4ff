"""What happens to each listed user (rules 1 to 4, 6 to 8, 11 to 13 of the design)."""

import hashlib
from collections.abc import Collection, Iterable

import pandas as pd

from include.directory_sync.errors import PermanentError
from include.directory_sync.frames import BEYOND_BMP, TEXT, look_up, matches, yes
from include.directory_sync.plan.changes import LEDGER_ONLY, USER_COLUMNS, link_parts
from include.directory_sync.plan.current import Current, Evidence
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
"""The action of an outcome that changes something; the other outcomes change nothing in Joget."""

JOGET_ADMIN = "admin"


def decide_users(run: Run, matched: pd.DataFrame, current: Current, evidence: Evidence) -> pd.DataFrame:
    """Decide every listed user.

    Takes `matching.match_users`; gives a row for each, in the same order, with those columns and: listed, linked,
    before_* and after_* (changes.VALUES of users), outcome, action (null where nothing changes), reason, hold (a
    cause; then none of the user's changes is safe), joget_active (after the run). user_id is null where Joget has no
    row. Raises PermanentError where the run names users that the pool doesn't have.
    """
    users = matched.assign(listed=True, linked=matched["way"].notna() & ~yes(matched["way"] == "heir"))
    decisions = Decisions(users)
    _decide_who_takes_part(run, users, current, evidence, decisions)
    _decide_linked(run.sync.policies, users, current, decisions)
    _decide_new(run, users, current, decisions)
    users = users.join(_values(users))
    _decide_changes(users, decisions)
    users = users.drop(columns="reason").join(decisions.frame())
    _place(users)
    users["action"] = users["outcome"].map(ACTIONS).astype(TEXT)
    unchanged = users["linked"] & (users["outcome"] == "unchanged")
    users["action"] = users["action"].mask(yes(unchanged & (users["before_misses"] > 0)), "seen")
    relinked = users["outcome"].isin(["updated"]) & yes(users["before_link"] != users["after_link"])
    users["action"] = users["action"].mask(relinked, "relink")
    users["hold"] = users["hold"].mask(_of_admins(users), "role_admin")
    return _as_applied(users)


NOT_ASKED = "not among the users that this run is for"
"""Reason of those whom a run for some users leaves alone."""

EMPLOYMENT_IDS = 3
"""How many ids an employment may choose from: a row that moved to another user or organization keeps its id."""


def employment_ids(organization: str, user_ids: Iterable[str], taken: Collection[str] = ()) -> list[str]:
    """The ids of these users' new employments: the first of each one's that isn't taken."""
    return [
        next(
            (one for at in range(EMPLOYMENT_IDS) if (one := employment_id(organization, user_id, at)) not in taken), ""
        )
        or employment_id(organization, user_id, 0)
        for user_id in user_ids
    ]


def employment_id(organization: str, user_id: str, at: int) -> str:
    """32 hex characters, always the same for one user and organization, so that a repeated plan is the same plan.

    The first half are the user id's first bytes: in the users' order, more or less, rows are written twice as fast.
    """
    text = user_id.encode()
    of = hashlib.sha256(b"%b\0%b\0%d" % (organization.encode(), text, at)).hexdigest()
    return text[:8].hex().ljust(16, "0") + of[:16]


def excluded(run: Run, users: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether the settings say that a user (columns key, user_key) is never touched."""
    return _has_key(users, current, run.sync.scope.exclude_users)


def newer_than(evidence: Evidence, users: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a link was set from a newer reading, which this snapshot may not undo."""
    if evidence.compares:
        return pd.Series(False, index=users.index)
    return yes(users["changed_at"] > pd.Timestamp(evidence.snapshot_at).tz_localize(None))


def _decide_who_takes_part(
    run: Run, users: pd.DataFrame, current: Current, evidence: Evidence, decisions: Decisions
) -> None:
    for verdict in ("frozen", "quarantined"):
        decisions.decide(users["verdict"] == verdict, verdict, users["reason"])
    decisions.decide(excluded(run, users, current), "frozen", "excluded by the settings")
    if run.users:
        asked = _has_key(users, current, run.users) | users["sub"].isin(run.users)
        _require_all_found(run.users, users[asked], current)
        decisions.decide(~asked, "frozen", NOT_ASKED)
    decisions.decide(
        users["linked"] & newer_than(evidence, users), "frozen", "a newer reading of this user was applied"
    )
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
    in_joget = pd.concat([current.users["id_key"], current.users["username_key"]]).dropna()
    taken = users["user_key"].isin(in_joget)
    decisions.decide(gone & taken, "quarantined", "its Joget user was replaced by another account of the same name")
    decisions.decide(gone, "recreated", "its Joget user was deleted in Joget")
    decisions.decide(
        linked & ~yes(users["now_username_key"] == users["user_key"]),
        "quarantined",
        "the username of its Joget user isn't its id any more: it was changed in Joget",
    )
    # Whoever is disabled loses access at once, under the login that he has; a new one can wait.
    disabled = linked & ~users["active"] & (users["state"] == "active") & yes(users["now_active"] == 1)
    decisions.decide(disabled, "deactivated", "disabled in the pool")
    if policies.renamed_user == "keep":
        return
    renamed = linked & decisions.open & (users["key"] != users["user_key"])
    taken_keys = pd.concat([in_joget, current.user_links["user_key"].dropna()])
    wanted = users["key"].where(renamed)
    occupied = users["key"].isin(taken_keys) | wanted.duplicated(keep=False)
    occupied |= users["username"].str.lower() == JOGET_ADMIN
    decisions.decide(renamed & occupied, "renamed", "the login changed to one that is taken", "occupied_login")
    reason = "the login changed to one that was another user's once"
    decisions.decide(renamed & _is_retired(users, current), "renamed", reason, "retired_login")
    hold = "renamed_user" if policies.renamed_user == "hold" else None
    decisions.decide(renamed, "renamed", "the login changed in the pool", hold)


def _is_retired(users: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    """Whether a login was another sub's once: Joget's workflow history goes by name."""
    others = users[["sub", "key"]].reset_index().merge(current.retired, left_on="key", right_on="user_key")
    others = others[others["sub_x"] != others["sub_y"]]
    return pd.Series(users.index.isin(others["index"]), index=users.index)


def _decide_new(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    new = ~users["linked"]
    decisions.decide(new & ~users["creatable"], "frozen", "archived or compromised, and not in Joget")
    decisions.decide(
        new & (users["username"].str.lower() == JOGET_ADMIN), "quarantined", "admin is Joget's own account"
    )
    _decide_taken(run, users, current, decisions)
    twins = users["key"].where(new & decisions.open).duplicated(keep=False) & users["key"].notna()
    decisions.decide(new & twins, "quarantined", "another user of the pool has the same login")
    _decide_heirs(users, decisions)
    _decide_adoption(run.sync.policies, users, current, decisions)
    unknown = new & (users["matches"] == 0)
    reason = "new in the pool, with a login that was another user's once"
    decisions.decide(unknown & _is_retired(users, current), "created", reason, "retired_login")
    decisions.decide(unknown, "created", "new in the pool")


def _decide_taken(run: Run, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
    """While both are listed, or where it can't be told who is meant, the linked user keeps the account."""
    new = ~users["linked"]
    links = current.user_links
    foreign = links.loc[links["sync"] != run.sync.name, "user_key"].dropna()
    decisions.decide(new & users["key"].isin(foreign), "quarantined", "its Joget user is linked by another sync")
    holder = look_up(users["key"], links[links["sync"] == run.sync.name], "user_key", "sub")
    reason = "its login belongs to the linked user " + holder.fillna("")
    decisions.decide(new & holder.notna() & ~yes(users["way"] == "heir"), "quarantined", reason)
    moves = users["linked"] & (users["key"] != users["user_key"]) & (decisions.open | decisions.outcome_is("renamed"))
    wanted = users["key"].where(moves).dropna()
    decisions.decide(new & users["key"].isin(wanted), "quarantined", "a linked user's login changed to this one")


def _decide_heirs(users: pd.DataFrame, decisions: Decisions) -> None:
    """A new person never inherits an account without a person's word."""
    heir = yes(users["way"] == "heir")
    holder = link_parts(users["before_link"])[1]
    reason = "its login belongs to the linked user " + holder.fillna("") + ", who is gone from the pool"
    decisions.decide(heir & users["now_id"].isna(), "recreated", reason, "new_sub")
    decisions.decide(heir, "updated", reason, "new_sub")


def _decide_adoption(policies: Policies, users: pd.DataFrame, current: Current, decisions: Decisions) -> None:
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
    origin = "already in Joget, from single sign-on" if policies.existing_user == "adopt_sso" else "already in Joget"
    retired = found & _is_retired(users, current)
    decisions.decide(retired, "adopted", origin + ", with a login that was another user's once", "retired_login")
    decisions.decide(found, "adopted", origin)


def _values(users: pd.DataFrame) -> pd.DataFrame:
    """before_* and after_*: Joget's values now, and as the pool wants them where a column is mapped."""
    values = {"before_id": users["now_id"], "after_id": users["now_id"]}
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
    state = users["state"].fillna("active").mask(turned_off, "deactivated").mask(on & ours, "active")
    values["after_state"] = state.mask(~exists & off, "deactivated")
    known = users["before_link"].notna()
    values["before_state"] = users["state"].where(known)
    values["before_misses"] = users["misses"].where(known)
    values["after_misses"] = pd.Series(0, index=users.index, dtype="int64[pyarrow]")
    return pd.DataFrame(values)


def _decide_changes(users: pd.DataFrame, decisions: Decisions) -> None:
    """Rule 3 and 4 for linked users: what differs by bytes, and `active` as the ledger has it."""
    before, after = users["state"], users["after_state"]
    decisions.decide(users["way"] == "rebuilt", "adopted", "its link was lost from the ledger, and rebuilt")
    decisions.decide((before == "active") & (after == "deactivated"), "deactivated", "disabled in the pool")
    decisions.decide((before == "deactivated") & (after == "active"), "reactivated", "enabled again in the pool")
    decisions.decide(differs(users), "updated", "changed in the pool")
    decisions.decide(users["way"].isin(["history", "login"]), "updated", "the pool changed: linked to its new sub")
    off_in_joget = ~yes(users["now_active"] == 1) & (after == "active")
    decisions.decide(off_in_joget, "unchanged", "deactivated in Joget by an administrator: stays so")
    decisions.decide(decisions.open, "unchanged")


def differs(users: pd.DataFrame) -> "pd.Series[bool]":
    """Whether any of dir_user's columns differs by bytes; NULL differs from ''."""
    found = pd.Series(False, index=users.index)
    for column in USER_COLUMNS:
        before, after = users[f"before_{column}"], users[f"after_{column}"]
        same = yes(before == after) | (before.isna() & after.isna())
        found |= ~same
    return found


def _place(users: pd.DataFrame) -> None:
    """after_id of those who get a row: the login, or the linked id again."""
    takes_login = users["outcome"].isin(["created", "renamed"])
    users["after_id"] = users["after_id"].mask(takes_login, users["username"])
    users["after_id"] = users["after_id"].mask(users["outcome"] == "recreated", users["user_id"])
    users["user_id"] = users["user_id"].mask(users["outcome"] == "created", users["username"])


def _of_admins(users: pd.DataFrame) -> "pd.Series[bool]":
    """Whose every change is held: somebody made him an administrator of Joget."""
    changes = users["action"].notna() & ~users["action"].isin(LEDGER_ONLY)
    return users["linked"] & yes(users["now_is_admin"]) & users["hold"].isna() & changes


def _as_applied(users: pd.DataFrame) -> pd.DataFrame:
    """user_id only where this run knows or makes a Joget user, in stored bytes where there are any."""
    known = users["linked"] | users["action"].notna()
    users["user_id"] = users["user_id"].where(known)
    users["joget_active"] = yes(users["after_active"] == 1) & (
        users["action"].notna() | (users["outcome"] == "unchanged")
    )
    return users
