"""Reading for a run for some users: only their rows, through indexes, at any size of Joget."""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from directory_sync.frames import is_true, look_up, make_empty_frame
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.ledger import links
from directory_sync.joget.ledger.recording import hash_in_sql
from directory_sync.joget.schema import JogetTables
from directory_sync.mapping import LOGIN_LENGTH, Desired
from directory_sync.plan import current as now
from directory_sync.run import Run
from directory_sync.vocabulary import Verdict


def read_linked_users(
    database: Database,
    tables: JogetTables,
    run: Run,
    desired: Sequence[Desired],
    subs: Sequence[str],
) -> pd.DataFrame:
    """Columns links.LINKED_USERS_SCHEMA: the links of these subs, and those to a desired login."""
    logins = pd.concat([_select_usable(directory)["username"] for directory in desired])
    holders = links.find_links_of_logins(database, tables, run, logins.drop_duplicates().tolist())
    wanted = list(dict.fromkeys([*subs, *holders["sub"]]))
    pools = {run.sync.user_pool_id, *holders["user_pool_id"]}
    return links.read_links_of_subs(database, tables, run, sorted(pools), wanted)


def add_links_of_users(
    database: Database, tables: JogetTables, run: Run, linked: pd.DataFrame, ids: Sequence[str]
) -> pd.DataFrame:
    """Columns links.LINKED_USERS_SCHEMA: `linked`, and the links to more Joget users."""
    found = links.find_links_of_users(database, run, ids)
    pools = sorted(set(found["user_pool_id"]))
    more = links.read_links_of_subs(database, tables, run, pools, found["sub"].tolist())
    joined = pd.concat([linked, more], ignore_index=True)
    return joined.drop_duplicates(["user_pool_id", "sub"], ignore_index=True)


def has_new_login(desired: Sequence[Desired], linked: pd.DataFrame) -> bool:
    """Whether a user is to get a login that isn't, byte for byte, the id of their Joget user."""
    # Where Joget's user was deleted or changed, another account may have the name by now.
    intact = linked[linked["is_same"]]
    for directory in desired:
        users = _select_usable(directory)
        own = look_up(users["sub"], intact, "sub", "user_id")
        if not is_true(own == users["username"]).all():
            return True
    return False


def _select_usable(directory: Desired) -> pd.DataFrame:
    users = directory.users
    usable = (users["verdict"] != Verdict.QUARANTINED) & (
        users["username"].str.len() <= LOGIN_LENGTH
    )
    return users[is_true(usable)]


def read_memberships(database: Database, user_ids: Sequence[str]) -> pd.DataFrame:
    """Columns current.JOGET_MEMBERSHIPS_SCHEMA, in the bytes of dir_user_group: every membership of
    these users.
    """
    parts = [make_empty_frame(now.JOGET_MEMBERSHIPS_SCHEMA)]
    parts += [
        database.frame(
            "SELECT userId, groupId FROM dir_user_group WHERE userId IN "
            f"({', '.join(['%s'] * len(batch))})",
            batch,
            schema=now.JOGET_MEMBERSHIPS_SCHEMA,
            about="dir_user_group",
        )
        for batch in split_into_batches(user_ids)
    ]
    return pd.concat(parts, ignore_index=True)


MEMBER_COUNTS_SCHEMA = pa.schema([("group_id", pa.string()), ("members", pa.int64())])


def count_members(
    database: Database, group_ids: Sequence[str], group_links: pd.DataFrame
) -> "pd.Series[int]":
    """How many linked members these Joget groups have, by the name of the linked group."""
    counts = [make_empty_frame(MEMBER_COUNTS_SCHEMA)]
    counts += [
        database.frame(
            "SELECT m.groupId, COUNT(*) FROM dir_user_group m STRAIGHT_JOIN "
            "directory_sync_user_link l ON l.user_id_sha256 = "
            f"{hash_in_sql('m.userId')} WHERE m.groupId IN "
            f"({', '.join(['%s'] * len(batch))}) GROUP BY m.groupId",
            batch,
            schema=MEMBER_COUNTS_SCHEMA,
            about="dir_user_group",
        )
        for batch in split_into_batches(group_ids)
    ]
    found = pd.concat(counts, ignore_index=True)
    names = look_up(found["group_id"], group_links, "group_id", "group_name")
    return found.assign(name=names).dropna().set_index("name")["members"].astype("int64")


def read_groups(database: Database, columns: str, ids: Sequence[str]) -> pd.DataFrame:
    """Columns current.JOGET_GROUPS_SCHEMA: these groups. columns: their SQL, for an alias g."""
    parts = [make_empty_frame(now.JOGET_GROUPS_SCHEMA)]
    parts += [
        database.frame(
            f"SELECT {columns} FROM dir_group g WHERE g.id IN ({', '.join(['%s'] * len(batch))})",
            batch,
            schema=now.JOGET_GROUPS_SCHEMA,
            about="dir_group",
        )
        for batch in split_into_batches(ids)
    ]
    return pd.concat(parts, ignore_index=True)


def needs_all_groups(
    desired: Sequence[Desired], groups: pd.DataFrame, group_links: pd.DataFrame
) -> bool:
    """Whether a group is to be made, adopted or renamed, so that every group's name matters.

    groups: now.JOGET_GROUPS_SCHEMA of the linked groups; group_links: the sync's links.
    """
    wanted = pd.concat(
        [
            directory.groups.loc[directory.groups["verdict"] == Verdict.MAPPED, "group_name"]
            for directory in desired
        ]
    )
    ids = look_up(wanted, group_links, "group_name", "group_id")
    names = look_up(ids, groups, "id", "name")
    return not is_true(names == wanted).all()
