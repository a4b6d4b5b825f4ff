"""Taking a run back: the inverse of what it applied, without what changed since."""

from dataclasses import dataclass

import pandas as pd

from include.directory_sync.frames import TEXT, arrow, empty, look_up, yes
from include.directory_sync.plan.changes import (
    CHANGES,
    DIRECTORY,
    USER_COLUMNS,
    VALUES,
    Plan,
    sort_changes,
)
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.employments import choose_employment_ids
from include.directory_sync.plan.matching import among
from include.directory_sync.plan.memberships import count_memberships
from include.directory_sync.vocabulary import APPLIED_OUTCOMES, INVERSES, LEDGER_ONLY

SINCE = "changed_since"


@dataclass(frozen=True)
class Undoing:
    """plan: the inverse, with what changed since held as `changed_since`; undone: the changes that it takes back."""

    plan: Plan
    undone: pd.DataFrame


def undo_plan(organization: str, done: pd.DataFrame, current: Current, belongings: pd.DataFrame) -> Undoing:
    """The inverse of applied changes (columns CHANGES), against Joget now.

    belongings: columns user_id, memberships, roles, employments, others: how many rows of Joget's each user whom the
    run made has now.
    """
    inverse = _inverted(done)
    inverse["hold"] = _holds(inverse, current, belongings)
    rows = pd.concat(
        [inverse, _of_made_again(organization, inverse, set(current.employment_ids["id"]))], ignore_index=True
    )
    parts = sort_changes([rows])
    changes = Plan(parts, empty(DIRECTORY), {}).changes
    users = changes[changes["entity"].isin(["user", "group"])]
    outcome = users["action"].map(APPLIED_OUTCOMES).astype(TEXT).fillna("unchanged").mask(users["hold"].notna(), "held")
    directory = arrow(
        users.assign(
            outcome=outcome,
            listed=True,
            joget_id=users["user_id"].fillna(users["group_id"]),
            state=users["after_state"],
            reason=users["reason"].mask(users["hold"].notna(), "changed since that run: left as it is"),
        ),
        DIRECTORY,
    )
    plan = Plan(parts, directory, count_memberships(changes, read=0, unchanged=0))
    applied = inverse["hold"].isna() & ~inverse["action"].isin(LEDGER_ONLY)
    return Undoing(plan, done.loc[applied.to_numpy()])


def _inverted(done: pd.DataFrame) -> pd.DataFrame:
    inverse = done.reset_index(drop=True)
    for column in VALUES:
        inverse[[f"before_{column}", f"after_{column}"]] = inverse[[f"after_{column}", f"before_{column}"]].to_numpy()
    inverse = arrow(inverse, CHANGES)
    inverse["action"] = inverse["action"].map(INVERSES).astype(TEXT).fillna(inverse["action"])
    is_user = inverse["entity"] == "user"
    key = inverse["before_id"].fillna(inverse["after_id"])
    inverse["user_id"] = inverse["user_id"].mask(is_user & key.notna(), key)
    renamed = inverse[is_user & (inverse["action"] == "rename")]
    old_id = look_up(inverse["user_id"].where(~is_user), renamed, "before_id", "after_id")
    return inverse.assign(user_id=old_id.fillna(inverse["user_id"]), reason="taken back")


def _holds(rows: pd.DataFrame, current: Current, belongings: pd.DataFrame) -> "pd.Series[str]":
    """`changed_since` for what isn't as the run left it, and for whatever depends on that."""
    is_user, is_group, is_membership = (rows["entity"] == entity for entity in ("user", "group", "membership"))
    pairs = _pairs_now(rows)
    changed = is_user & _user_changed(rows, current, belongings)
    changed |= is_membership & _membership_changed(rows, pairs, current)
    changed |= ~is_group & rows["sub"].isin(rows.loc[is_user & changed, "sub"].dropna())
    removed = pairs[is_membership & (rows["action"] == "remove") & ~changed]
    changed |= is_group & _group_changed(rows, removed, current)
    changed |= is_membership & rows["group_id"].isin(rows.loc[is_group & changed, "group_id"].dropna())
    return pd.Series(None, index=rows.index, dtype=TEXT).mask(yes(changed), SINCE)


def _pairs_now(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns user_id, group_id: memberships under the ids of now, which one who is renamed back has still."""
    renamed = rows[(rows["entity"] == "user") & (rows["action"] == "rename")]
    newer = look_up(rows["user_id"], renamed, "after_id", "before_id").fillna(rows["user_id"])
    return pd.DataFrame({"user_id": newer, "group_id": rows["group_id"]})


def _user_changed(rows: pd.DataFrame, current: Current, belongings: pd.DataFrame) -> "pd.Series[bool]":
    now = rows[["before_id"]].merge(current.users, left_on="before_id", right_on="id", how="left")
    had_row = rows["before_id"].notna()
    differs = had_row & now["id"].isna()
    for column in USER_COLUMNS:
        before = rows[f"before_{column}"]
        differs |= had_row & ~(yes(before == now[column]) | (before.isna() & now[column].isna()))
    links = current.user_links.assign(link=current.user_links["user_pool_id"] + "/" + current.user_links["sub"])
    state = look_up(rows["before_link"], links, "link", "state")
    misses = look_up(rows["before_link"], links, "link", "misses")
    linked = rows["before_link"].notna()
    differs |= linked & ~yes(state == rows["before_state"])
    differs |= linked & rows["action"].isin(LEDGER_ONLY) & ~yes(misses == rows["before_misses"])
    differs |= ~linked & rows["after_link"].isin(links["link"])
    back = rows["after_id"].where(rows["before_id"].isna() | (rows["action"] == "rename"))
    key = look_up(back, current.keys, "text", "key")
    taken = pd.concat([current.users["id_key"], current.users["username_key"]]).dropna()
    differs |= key.notna() & key.isin(taken)
    return differs | _has_gained(rows, belongings)


def _has_gained(rows: pd.DataFrame, belongings: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a user who is to go has more than the run gave him: a person used the account."""
    ours = rows[(rows["entity"] == "membership") & (rows["action"] == "remove")].groupby("user_id").size()
    gained = belongings.assign(ours=belongings["user_id"].map(ours).astype("float64").fillna(0))
    gained = gained[
        (gained["memberships"] > gained["ours"])
        | (gained["roles"] > 1)
        | (gained["employments"] > 1)
        | (gained["others"] > 0)
    ]
    return rows["after_id"].isna() & rows["before_id"].isin(gained["user_id"])


def _group_changed(rows: pd.DataFrame, removed: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    now = rows[["before_id"]].merge(current.groups, left_on="before_id", right_on="id", how="left")
    had_row = rows["before_id"].notna()
    same = yes(now["name"] == rows["before_name"]) | (now["name"].isna() & rows["before_name"].isna())
    differs = had_row & (now["id"].isna() | ~same)
    links = current.group_links["user_pool_id"] + "/" + current.group_links["group_name"]
    differs |= rows["before_link"].notna() & ~rows["before_link"].isin(links)
    key = look_up(rows["after_id"].where(~had_row), current.keys, "text", "key")
    differs |= key.notna() & key.isin(current.groups["id_key"])
    goes = had_row & rows["after_id"].isna()
    stays = ~among(current.memberships, removed, ["user_id", "group_id"])
    return differs | (goes & rows["before_id"].isin(current.memberships.loc[stays, "group_id"]))


def _membership_changed(rows: pd.DataFrame, pairs: pd.DataFrame, current: Current) -> "pd.Series[bool]":
    found = among(pairs, current.memberships, ["user_id", "group_id"])
    there = rows["action"].isin(["remove", "claim", "keep_local"])
    return yes((found & (rows["action"] == "add")) | (~found & there))


def _of_made_again(organization: str, inverse: pd.DataFrame, taken: set[str]) -> pd.DataFrame:
    """ROLE_USER and the employment of users who were deleted and come back, where the inverse doesn't bring them."""
    back = inverse[(inverse["entity"] == "user") & inverse["before_id"].isna() & inverse["after_id"].notna()]
    rows = back[["sub", "hold"]].assign(user_id=back["after_id"], action="add", reason="taken back")

    def without(entity: str) -> pd.DataFrame:
        return rows[~rows["user_id"].isin(inverse.loc[inverse["entity"] == entity, "user_id"])].assign(entity=entity)

    employments = without("employment")
    ids = choose_employment_ids(organization, employments["user_id"], taken)
    return pd.concat([without("role"), employments.assign(employment_id=ids)])
