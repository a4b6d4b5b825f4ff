"""Who is who: each listed user's and group's Joget row and link, before anything is decided (rules 2, 7, 11)."""

from typing import Any

import pandas as pd

from include.directory_sync.frames import TEXT, look_up, no_text, places, rows_at, yes
from include.directory_sync.plan.current import Current
from include.directory_sync.run import Run

LINK = ["user_id", "user_key", "state", "misses", "changed_at", "linked_at", "before_link"]

HALF = 0.5
"""Of the active linked logins, what a changed pool must have at least to be taken for the same people."""


def match_users(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    """A row for each desired user (mapping.USERS, in the same order) with what is known of him:

    key (of the login), before_link and its user_id, user_key, state, misses, changed_at, linked_at; after_link; `way`,
    how the link was found: `own` (by sub), `history` or `login` (after a change of the pool), `rebuilt` (lost from the
    ledger), `heir` (a new sub with the login of somebody who isn't listed); null without a link. Without one, user_id
    is that of Joget's row with the same key, and `matches` says how many have it. now_*: that row (current.USERS).
    """
    pool = run.sync.user_pool_id
    links = users_of_sync(run, current)
    here = links[links["user_pool_id"] == pool]
    own = places(desired["sub"], here["sub"])
    users = desired.reset_index(drop=True).join(rows_at(here[LINK], own, pd.RangeIndex(len(desired))))
    users["after_link"] = pool + "/" + users["sub"]
    settled = yes(users["username"] == users["user_id"])
    users["key"] = users["user_key"].where(settled)
    users.loc[~settled, "key"] = look_up(users.loc[~settled, "username"], current.keys, "text", "key")
    users["way"] = no_text(users.index).mask(users["before_link"].notna(), "own")
    elsewhere = links[links["user_pool_id"] != pool]
    _take(users, _by_history(users, current, elsewhere), elsewhere, "history")
    if pool_was_changed(run, current):
        _take(users, _by_login(users, elsewhere), elsewhere, "login")
    _rebuild(users, current)
    # Once the change is through, whoever comes with a login that only the old pool had may be anybody.
    gone = pd.concat([here[~here["sub"].isin(users["sub"])], elsewhere])
    _take(users, _by_login(users, gone), gone, "heir")
    found = _found(current.users)
    users["matches"] = look_up(users["key"], found, "key", "count").fillna(0)
    users["user_id"] = users["user_id"].fillna(look_up(users["key"], found, "key", "id"))
    return with_rows(users, current.users)


def with_rows(users: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Users (column user_id) with now_*: the row of current.USERS or current.GROUPS of exactly that id."""
    return users.join(rows_at(rows, places(users["user_id"], rows["id"]), users.index).add_prefix("now_"))


def users_of_sync(run: Run, current: Current) -> pd.DataFrame:
    """The sync's live links to users, in whatever pool, with before_link."""
    links = current.user_links[current.user_links["sync"] == run.sync.name]
    return links.assign(before_link=links["user_pool_id"] + "/" + links["sub"])


def pool_was_changed(run: Run, current: Current) -> bool:
    """Whether the sync has links of another pool, and none of this one yet."""
    pools = current.user_links.loc[current.user_links["sync"] == run.sync.name, "user_pool_id"]
    return not current.settled and bool(len(pools)) and not bool((pools == run.sync.user_pool_id).any())


def too_few_found(run: Run, users: pd.DataFrame, current: Current) -> bool:
    """Whether a changed pool has fewer than half of the active linked logins: it may be the wrong pool."""
    if not pool_was_changed(run, current):
        return False
    links = users_of_sync(run, current)
    active = links[links["state"] == "active"]
    found = active["before_link"].isin(users["before_link"]).sum()
    return bool(found < HALF * len(active))


def match_groups(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    """A row for each desired group (mapping.GROUPS) with its link, of this pool or, after a change, of another:

    group_id, group_key, misses, before_link, after_link, way (`own`, `login`, `rebuilt`).
    """
    pool = run.sync.user_pool_id
    links = groups_of_sync(run, current)
    ranked = links.assign(other=links["user_pool_id"] != pool).sort_values(["other", "before_link"])
    known = ranked.drop_duplicates("group_name")
    groups = desired.merge(
        known[["group_name", "group_id", "group_key", "misses", "changed_at", "before_link", "other"]],
        on="group_name",
        how="left",
    )
    groups["after_link"] = pool + "/" + groups["group_name"]
    groups["way"] = no_text(groups.index).mask(groups["other"].notna(), "own").mask(yes(groups["other"]), "login")
    remembered = current.remembered[current.remembered["entity"] == "group"]
    remembered = remembered.merge(current.groups[["id", "id_key"]], left_on="joget_id", right_on="id")
    remembered = remembered[~remembered["id_key"].isin(current.group_links["group_key"])]
    lost = groups["way"].isna() & groups["group_name"].isin(remembered["key"])
    for column, source in (("group_id", "joget_id"), ("group_key", "id_key")):
        groups[column] = groups[column].fillna(look_up(groups["group_name"].where(lost), remembered, "key", source))
    groups["misses"] = groups["misses"].fillna(0)
    groups["way"] = groups["way"].mask(lost, "rebuilt")
    return groups.drop(columns="other")


def groups_of_sync(run: Run, current: Current) -> pd.DataFrame:
    """The sync's live links to groups, in whatever pool, with before_link."""
    links = current.group_links[current.group_links["sync"] == run.sync.name]
    return links.assign(before_link=links["user_pool_id"] + "/" + links["group_name"])


def among(pairs: pd.DataFrame, others: pd.DataFrame, columns: list[str]) -> "pd.Series[bool]":
    """Whether each pair is also among the others."""
    known = others[columns].drop_duplicates()
    found = pairs[columns].merge(known, on=columns, how="left", indicator=True)["_merge"] == "both"
    return pd.Series(found.to_numpy(), index=pairs.index, dtype=bool)


def _by_history(users: pd.DataFrame, current: Current, elsewhere: pd.DataFrame) -> "pd.Series[str]":
    """Back in an earlier pool: the link whose Joget user this sub had before; null where there is none."""
    past = look_up(users["sub"].where(users["way"].isna()), current.past_links, "sub", "user_id")
    return look_up(past, elsewhere, "user_id", "before_link")


def _by_login(users: pd.DataFrame, links: pd.DataFrame) -> "pd.Series[str]":
    """The link whose Joget user has the login of exactly one unlinked user; null where there is none."""
    free = users["way"].isna() & (users["verdict"] != "quarantined") & users["sub"].notna()
    key = users["key"].where(free)
    key = key.mask(key.duplicated(keep=False))
    untaken = links[~links["before_link"].isin(users["before_link"])]
    return look_up(key, untaken, "user_key", "before_link")


def _take(users: pd.DataFrame, chosen: "pd.Series[str]", links: pd.DataFrame, way: str) -> None:
    """Give users the links that were chosen for them."""
    taken = chosen.notna()
    for column in LINK:
        found = look_up(chosen, links.assign(link=links["before_link"]), "link", column)
        users[column] = users[column].mask(taken, found)
    users["way"] = users["way"].mask(taken, way)


def _rebuild(users: pd.DataFrame, current: Current) -> None:
    """Links that the ledger lost, where Joget's row is still there, nobody else's, and no administrator's."""
    remembered = current.remembered[current.remembered["entity"] == "user"]
    ordinary = current.users[~yes(current.users["is_admin"]) & yes(current.users["id"] == current.users["username"])]
    rows = remembered.merge(ordinary[["id", "id_key"]], left_on="joget_id", right_on="id")
    rows = rows[~rows["id_key"].isin(current.user_links["user_key"])]
    lost = users["way"].isna() & users["sub"].isin(rows["key"])
    sub = users["sub"].where(lost)
    for column, source in (("user_id", "joget_id"), ("user_key", "id_key"), ("state", "state")):
        users[column] = users[column].mask(lost, look_up(sub, rows, "key", source))
    users["misses"] = users["misses"].fillna(0)
    users["way"] = users["way"].mask(lost, "rebuilt")


def _found(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns key, id, count: for each key one of the Joget users with it as id or username, and how many have it."""
    by_id = rows[["id", "id_key"]].set_axis(["id", "key"], axis=1)
    by_name = rows[["id", "username_key"]].set_axis(["id", "key"], axis=1)
    pairs: Any = pd.concat([by_id, by_name]).dropna().drop_duplicates().astype(TEXT)
    counts = pairs.groupby("key").size().rename("count").reset_index()
    found: pd.DataFrame = pairs.drop_duplicates("key").merge(counts, on="key")
    return found
