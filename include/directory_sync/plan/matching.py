"""Matching each listed user and group with its link and its Joget row, before the rules decide."""

from typing import Any

import pandas as pd
import pyarrow as pa

from directory_sync import mapping
from directory_sync.frames import (
    TEXT_TYPE,
    conform_to_schema,
    find_positions,
    is_true,
    look_up,
    make_null_texts,
    take_rows,
    take_values,
)
from directory_sync.plan import current as now
from directory_sync.plan.current import Current
from directory_sync.run import Run
from directory_sync.vocabulary import Entity, State, Verdict

LINK_COLUMNS = [
    "linked_id",
    "user_key",
    "origin",
    "state",
    "misses",
    "changed_at",
    "linked_at",
    "before_link",
]

LEAST_FOUND_SHARE = 0.5
"""A changed pool with less than this share of the active linked logins may be the wrong one."""

MATCHED_USERS_SCHEMA = pa.schema(
    [
        *mapping.DESIRED_USERS_SCHEMA,
        ("key", pa.string()),
        ("linked_id", pa.string()),
        ("user_key", pa.string()),
        ("origin", pa.string()),
        ("state", pa.string()),
        ("misses", pa.int64()),
        ("changed_at", pa.timestamp("us")),
        ("linked_at", pa.timestamp("us")),
        ("before_link", pa.string()),
        ("after_link", pa.string()),
        ("way", pa.string()),
        ("found_id", pa.string()),
        ("matches", pa.int64()),
        *((f"now_{field.name}", field.type) for field in now.JOGET_USERS_SCHEMA),
    ]
)
"""A row for each desired user, in the order of the desired users.

key: the database's key of the login. linked_id: the Joget user's id as the link has it; user_key:
the key of that id. origin to linked_at: the link's. way: how the link was found, null without a
link. found_id: for a user without a link, the id of the Joget user with the login's key. matches:
how many Joget users have that key. now_*: the Joget user's row (current.JOGET_USERS_SCHEMA), linked
or found.
"""

MATCHED_GROUPS_SCHEMA = pa.schema(
    [
        *mapping.DESIRED_GROUPS_SCHEMA,
        ("name_key", pa.string()),
        ("hashed_key", pa.string()),
        ("linked_id", pa.string()),
        ("group_key", pa.string()),
        ("misses", pa.int64()),
        ("changed_at", pa.timestamp("us")),
        ("before_link", pa.string()),
        ("after_link", pa.string()),
        ("way", pa.string()),
    ]
)
"""A row for each desired group, in the order of the desired groups, with its link.

name_key and hashed_key: the database's keys of the Cognito name and of hashed_id. way: `own`,
`login` (of another pool, after a change) or `rebuilt`; null without a link.
"""


def match_users(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Find each desired user's link and Joget row. Gives columns MATCHED_USERS_SCHEMA.

    The ways to a link: `own` (by sub), `history` or `login` (after a change of the pool), `rebuilt`
    (the ledger lost it), `heir` (a new sub with the login of a linked user that isn't listed).
    """
    pool = run.sync.user_pool_id
    links = select_users_of_sync(run, current)
    here = links[links["user_pool_id"] == pool]
    own = find_positions(desired["sub"], here["sub"])
    links_found = take_rows(here[LINK_COLUMNS], own, pd.RangeIndex(len(desired)))
    users = desired.reset_index(drop=True).join(links_found)
    users["after_link"] = pool + "/" + users["sub"]
    # Reading doesn't ask the database for the key of a login that is, byte for byte, the linked id.
    same = is_true(users["username"] == users["linked_id"])
    users["key"] = users["user_key"].where(same)
    users.loc[~same, "key"] = look_up(users.loc[~same, "username"], current.keys, "text", "key")
    users["way"] = make_null_texts(users.index).mask(users["before_link"].notna(), "own")
    elsewhere = links[links["user_pool_id"] != pool]
    _give_links(users, _find_link_by_history(users, current, elsewhere), elsewhere, "history")
    if is_pool_changed(run, current):
        _give_links(users, _find_link_by_login(users, elsewhere), elsewhere, "login")
    _restore_lost_links(users, current)
    # Once a run has taken the new pool over, a newcomer with an old pool's login may be anybody.
    # Their login finds the link only as `heir`, and a person is asked about that (rule 11).
    gone = pd.concat([here[~here["sub"].isin(users["sub"])], elsewhere])
    _give_links(users, _find_link_by_login(users, gone), gone, "heir")
    found = _find_joget_rows(current.users)
    users["matches"] = look_up(users["key"], found, "key", "count").fillna(0)
    unlinked = users["key"].where(users["linked_id"].isna())
    users["found_id"] = look_up(unlinked, found, "key", "id")
    ids = users["linked_id"].fillna(users["found_id"])
    return conform_to_schema(join_joget_rows(users, ids, current.users), MATCHED_USERS_SCHEMA)


def join_joget_rows(
    decided: pd.DataFrame, ids: "pd.Series[str]", rows: pd.DataFrame
) -> pd.DataFrame:
    """Add columns now_*: the row of current.JOGET_USERS_SCHEMA or current.JOGET_GROUPS_SCHEMA with
    exactly that id.
    """
    found = take_rows(rows, find_positions(ids, rows["id"]), decided.index)
    return decided.join(found.add_prefix("now_"))


def select_users_of_sync(run: Run, current: Current) -> pd.DataFrame:
    """Select the sync's live links to users of any pool: columns current.USER_LINKS_SCHEMA, with
    user_id renamed to linked_id, and before_link added.
    """
    links = current.user_links[current.user_links["sync"] == run.sync.name]
    links = links.rename(columns={"user_id": "linked_id"})
    return links.assign(before_link=links["user_pool_id"] + "/" + links["sub"])


def is_pool_changed(run: Run, current: Current) -> bool:
    """Whether the sync has links of another pool, and none of this one yet."""
    # The links of unchanged users are left out of user_links (plan.unchanged).
    own = current.user_links.loc[current.user_links["sync"] == run.sync.name, "user_pool_id"]
    pools = {*own, *current.linked_pools}
    return not current.unchanged_users and bool(pools) and run.sync.user_pool_id not in pools


def are_too_few_found(run: Run, users: pd.DataFrame, current: Current) -> bool:
    """Whether a changed pool has fewer than half of the active linked logins: it may be the wrong
    pool.
    """
    if not is_pool_changed(run, current):
        return False
    links = select_users_of_sync(run, current)
    active = links[links["state"] == State.ACTIVE]
    found = active["before_link"].isin(users["before_link"]).sum()
    return bool(found < LEAST_FOUND_SHARE * len(active))


def match_groups(run: Run, desired: pd.DataFrame, current: Current) -> pd.DataFrame:
    """Find each desired group's link, of this pool or, after a change, of another pool.

    Gives columns MATCHED_GROUPS_SCHEMA.
    """
    pool = run.sync.user_pool_id
    links = select_groups_of_sync(run, current)
    ranked = links.assign(other=links["user_pool_id"] != pool)
    # Where both pools have a group of the name, this pool's own link comes first.
    known = ranked.sort_values(["other", "before_link"]).drop_duplicates("group_name")
    columns = ["group_name", "linked_id", "group_key", "misses", "changed_at", "before_link"]
    groups = desired.merge(known[[*columns, "other"]], on="group_name", how="left")
    groups["name_key"] = look_up(groups["group_name"], current.keys, "text", "key")
    groups["hashed_key"] = look_up(groups["hashed_id"], current.keys, "text", "key")
    groups["after_link"] = pool + "/" + groups["group_name"]
    way = make_null_texts(groups.index).mask(groups["other"].notna(), "own")
    groups["way"] = way.mask(is_true(groups["other"]), "login")
    # After a loss of the ledger: groups that Joget still has, and no other link names.
    remembered = current.remembered[current.remembered["entity"] == Entity.GROUP]
    rows = current.groups[["id", "id_key"]]
    remembered = remembered.merge(rows, left_on="joget_id", right_on="id")
    remembered = remembered[~remembered["id_key"].isin(current.group_links["group_key"])]
    lost = groups["way"].isna() & groups["group_name"].isin(remembered["key"])
    names = groups["group_name"].where(lost)
    for column, source in (("linked_id", "joget_id"), ("group_key", "id_key")):
        groups[column] = groups[column].fillna(look_up(names, remembered, "key", source))
    groups["misses"] = groups["misses"].fillna(0)
    groups["way"] = groups["way"].mask(lost, "rebuilt")
    return conform_to_schema(groups, MATCHED_GROUPS_SCHEMA)


def select_groups_of_sync(run: Run, current: Current) -> pd.DataFrame:
    """Select the sync's live links to groups of any pool: columns current.GROUP_LINKS_SCHEMA, with
    group_id renamed to linked_id, and before_link added.
    """
    links = current.group_links[current.group_links["sync"] == run.sync.name]
    links = links.rename(columns={"group_id": "linked_id"})
    return links.assign(before_link=links["user_pool_id"] + "/" + links["group_name"])


def is_among_texts(
    pairs: pd.DataFrame, others: pd.DataFrame, columns: list[str]
) -> "pd.Series[bool]":
    """Whether each pair is also among the others."""
    if pairs.empty or others.empty:
        return pd.Series(False, index=pairs.index)
    known = others[columns].drop_duplicates()
    found = pairs[columns].merge(known, on=columns, how="left", indicator=True)["_merge"] == "both"
    return pd.Series(found.to_numpy(), index=pairs.index, dtype=bool)


def _find_link_by_history(
    users: pd.DataFrame, current: Current, elsewhere: pd.DataFrame
) -> "pd.Series[str]":
    """After a change back to an earlier pool, find the link to the Joget user that each sub had
    then; null where there is none.
    """
    past = look_up(users["sub"].where(users["way"].isna()), current.past_links, "sub", "user_id")
    return look_up(past, elsewhere, "linked_id", "before_link")


def _find_link_by_login(users: pd.DataFrame, links: pd.DataFrame) -> "pd.Series[str]":
    """For each unlinked user, the link to the Joget user with their login; null where there is
    none, or where the user is a twin.
    """
    free = users["way"].isna() & (users["verdict"] != Verdict.QUARANTINED) & users["sub"].notna()
    key = users["key"].where(free)
    # Of two enabled users with one login, nobody can tell which one is meant (rule 8).
    key = key.mask(is_twin(key, users["active"]))
    unused_links = links[~links["before_link"].isin(users["before_link"])]
    return look_up(key, unused_links, "user_key", "before_link")


def _give_links(
    users: pd.DataFrame, chosen: "pd.Series[str]", links: pd.DataFrame, way: str
) -> None:
    """Give users the links that were chosen for them."""
    has_link = chosen.notna()
    if not has_link.any():
        return
    at = find_positions(chosen, links["before_link"])
    for column in LINK_COLUMNS:
        found = take_values(links[column], at, users.index)
        users[column] = users[column].mask(has_link, found)
    users["way"] = users["way"].mask(has_link, way)


def _restore_lost_links(users: pd.DataFrame, current: Current) -> None:
    """Give users the links that the ledger lost, where Joget still has the row and no other link
    names it.
    """
    remembered = current.remembered[current.remembered["entity"] == Entity.USER]
    # An account that an administrator or another person has by now isn't linked again.
    ordinary = current.users[
        ~is_true(current.users["is_admin"]) & (current.users["id"] == current.users["username"])
    ]
    rows = remembered.merge(ordinary[["id", "id_key"]], left_on="joget_id", right_on="id")
    rows = rows[~rows["id_key"].isin(current.user_links["user_key"])]
    lost = users["way"].isna() & users["sub"].isin(rows["key"])
    sub = users["sub"].where(lost)
    for column, source in (("linked_id", "joget_id"), ("user_key", "id_key"), ("state", "state")):
        users[column] = users[column].mask(lost, look_up(sub, rows, "key", source))
    users["misses"] = users["misses"].fillna(0)
    users["way"] = users["way"].mask(lost, "rebuilt")


def is_twin(keys: "pd.Series[str]", active: "pd.Series[bool]") -> "pd.Series[bool]":
    """Whether a user can't get their login, since another user has the same key.

    Of several users with one key, the only enabled one gets the login. If several are enabled, or
    none is, nobody gets it.
    """
    among_enabled = keys.where(active).duplicated(keep=False)
    return keys.notna() & keys.duplicated(keep=False) & (~active | among_enabled)


def _find_joget_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Columns key, id, count: for each key, one Joget user that has it as id or username, and how
    many have it.
    """
    by_id = rows[["id", "id_key"]].set_axis(["id", "key"], axis=1)
    by_name = rows[["id", "username_key"]].set_axis(["id", "key"], axis=1)
    # Without duplicates: an id and a username with one key are one match, if one user has them.
    pairs: Any = pd.concat([by_id, by_name]).dropna().drop_duplicates().astype(TEXT_TYPE)
    counts = pairs.groupby("key").size().rename("count").reset_index()
    found: pd.DataFrame = pairs.drop_duplicates("key").merge(counts, on="key")
    return found
