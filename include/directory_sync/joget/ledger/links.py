"""Reading the ledger's links: which sub is which Joget user, and which group name is which Joget
group.
"""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from directory_sync.frames import make_empty_frame
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.schema import JogetTables, name_columns
from directory_sync.plan.changes import USER_COLUMN_FIELDS, USER_COLUMNS
from directory_sync.plan.current import USER_LINKS_SCHEMA
from directory_sync.run import Run
from directory_sync.vocabulary import State

LINK_COLUMNS = [
    field for field in USER_LINKS_SCHEMA if field.name not in ("user_key", "is_compared")
]

LINKED_USERS_SCHEMA = pa.schema(
    [
        *LINK_COLUMNS,
        ("is_same", pa.bool_()),
        *USER_COLUMN_FIELDS,
        ("has_password", pa.bool_()),
    ]
)
"""The sync's live links with their rows of dir_user. is_same: whether there is a row, and its id
and username are the link's user_id, byte for byte.
"""


def read_linked_users(
    database: Database, tables: JogetTables, run: Run, condition: str = "", *parameters: str
) -> pd.DataFrame:
    """Columns LINKED_USERS_SCHEMA. condition: more SQL about a link `l`, with its parameters."""
    same = " AND ".join(
        f"CAST(u.{column} AS BINARY) <=> CAST(l.user_id AS BINARY)" for column in ("id", "username")
    )
    return database.frame(
        "SELECT l.sync, l.user_pool_id, l.sub, l.user_id, l.origin, l.state, l.misses, "
        f"l.changed_at, l.linked_at, {same}, {name_columns(USER_COLUMNS, 'u')}, u.password IS NOT "
        "NULL FROM directory_sync_user_link l LEFT JOIN "
        f"dir_user u ON u.id = {tables.as_directory('l.user_id')} WHERE l.user_id_sha256 IS NOT "
        f"NULL AND l.sync = %s {condition}",
        (run.sync.name, *parameters),
        schema=LINKED_USERS_SCHEMA,
        about="directory_sync_user_link",
    )


def read_links_of_subs(
    database: Database, tables: JogetTables, run: Run, pools: Sequence[str], subs: Sequence[str]
) -> pd.DataFrame:
    """Columns LINKED_USERS_SCHEMA: the links of these subs in these pools."""
    parts = [make_empty_frame(LINKED_USERS_SCHEMA)]
    for pool in pools:
        for batch in split_into_batches(subs):
            condition = f"AND l.user_pool_id = %s AND l.sub IN ({', '.join(['%s'] * len(batch))})"
            parts.append(read_linked_users(database, tables, run, condition, pool, *batch))
    return pd.concat(parts, ignore_index=True)


FOUND_LINKS_SCHEMA = pa.schema(
    [("text", pa.string()), ("user_pool_id", pa.string()), ("sub", pa.string())]
)


def find_links_of_logins(
    database: Database, tables: JogetTables, run: Run, logins: Sequence[str]
) -> pd.DataFrame:
    """Columns text, user_pool_id, sub: the sync's links to a Joget user with one of these logins
    (text).
    """
    parts = [make_empty_frame(FOUND_LINKS_SCHEMA)]
    for batch in split_into_batches(logins):
        rows = " UNION ALL ".join(["SELECT CONVERT(%s USING utf8mb4) AS text"] * len(batch))
        # With the collation on the texts' side alone, the link's index by_user_id is used.
        parts.append(
            database.frame(
                f"SELECT t.text, l.user_pool_id, l.sub FROM ({rows}) t STRAIGHT_JOIN "
                "directory_sync_user_link l "
                f"ON l.user_id = {tables.as_directory('t.text')} "
                "WHERE l.user_id_sha256 IS NOT NULL AND l.sync = %s",
                (*batch, run.sync.name),
                schema=FOUND_LINKS_SCHEMA,
                about="directory_sync_user_link",
            )
        )
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


def read_logins_of_subs(database: Database, run: Run, subs: Sequence[str]) -> pd.DataFrame:
    """Columns sub, user_id: the links of these subs of the sync's pool."""
    parts = [make_empty_frame(SUBS_SCHEMA)]
    for batch in split_into_batches(subs):
        marks = ", ".join(["%s"] * len(batch))
        parts.append(
            database.frame(
                "SELECT sub, user_id FROM directory_sync_user_link WHERE user_id_sha256 IS NOT "
                f"NULL AND sync = %s AND user_pool_id = %s AND sub IN ({marks})",
                (run.sync.name, run.sync.user_pool_id, *batch),
                schema=SUBS_SCHEMA,
                about="directory_sync_user_link",
            )
        )
    return pd.concat(parts, ignore_index=True)


KEYS_SCHEMA = pa.schema([("user_pool_id", pa.string()), ("sub", pa.string())])


def find_links_of_users(database: Database, run: Run, user_ids: Sequence[str]) -> pd.DataFrame:
    """Columns user_pool_id, sub: the sync's links to these Joget users."""
    parts = [make_empty_frame(KEYS_SCHEMA)]
    for batch in split_into_batches(user_ids):
        hashes = ", ".join(["SHA2(CONVERT(%s USING utf8mb4), 256)"] * len(batch))
        parts.append(
            database.frame(
                "SELECT user_pool_id, sub FROM directory_sync_user_link WHERE user_id_sha256 IN "
                f"({hashes}) AND sync = %s",
                (*batch, run.sync.name),
                schema=KEYS_SCHEMA,
                about="directory_sync_user_link",
            )
        )
    return pd.concat(parts, ignore_index=True)


def count_active_links(database: Database, run: Run) -> int:
    """How many users the sync's links have as active."""
    rows = database.rows(
        "SELECT COUNT(*) FROM directory_sync_user_link "
        f"WHERE user_id_sha256 IS NOT NULL AND sync = %s AND state = '{State.ACTIVE}'",
        (run.sync.name,),
        about="directory_sync_user_link",
    )
    return int(rows[0][0])


def find_linked_pools(database: Database, run: Run) -> frozenset[str]:
    """The sync's pool where it has live links from it, and another pool from which it has some."""
    found = [
        database.rows(
            "SELECT user_pool_id FROM directory_sync_user_link WHERE sync = %s AND user_pool_id "
            f"{comparison} %s AND user_id_sha256 IS NOT NULL LIMIT 1",
            (run.sync.name, run.sync.user_pool_id),
            about="directory_sync_user_link",
        )
        for comparison in ("=", "<>")
    ]
    return frozenset(str(row[0]) for rows in found for row in rows)


def read_links_of_other_syncs(database: Database, tables: JogetTables, run: Run) -> pd.DataFrame:
    """Columns current.USER_LINKS_SCHEMA without is_compared: other syncs' live links to users with
    one of the sent texts as their id.
    """
    # Several sent texts may have the key of one id, hence DISTINCT.
    user_id = tables.as_directory("l.user_id")
    return database.frame(
        "SELECT DISTINCT l.sync, l.user_pool_id, l.sub, l.user_id, l.origin, l.state, l.misses, "
        f"l.changed_at, l.linked_at, {tables.key(user_id)} FROM directory_sync_text t "
        f"STRAIGHT_JOIN directory_sync_user_link l ON l.user_id = {tables.as_directory('t.text')} "
        "WHERE l.user_id_sha256 IS NOT NULL AND l.sync <> %s",
        (run.sync.name,),
        schema=pa.schema([*LINK_COLUMNS, ("user_key", pa.string())]),
        about="directory_sync_user_link",
    )


SUBS_SCHEMA = pa.schema([("sub", pa.string()), ("user_id", pa.string())])


def read_subs_of_users(database: Database, run: Run) -> pd.DataFrame:
    """Columns sub, user_id: the linked users of the sync's pool."""
    return database.frame(
        "SELECT sub, user_id FROM directory_sync_user_link "
        "WHERE user_id_sha256 IS NOT NULL AND sync = %s AND user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=SUBS_SCHEMA,
        about="directory_sync_user_link",
    )


def read_expected_subs(database: Database, run: Run) -> pd.DataFrame:
    """Column sub: the linked users of the sync's pool with fewer misses than missing_runs."""
    return database.frame(
        "SELECT sub FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL AND sync = %s "
        "AND user_pool_id = %s AND misses < %s",
        (run.sync.name, run.sync.user_pool_id, run.sync.policies.missing_runs),
        schema=pa.schema([("sub", pa.string())]),
        about="directory_sync_user_link",
    )


def read_ended_subs(database: Database, run: Run) -> "pd.Series[str]":
    """The subs of the sync's pool with a link that is history."""
    return database.frame(
        "SELECT sub FROM directory_sync_user_link WHERE user_id_sha256 IS NULL AND sync = %s AND "
        "user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=pa.schema([("sub", pa.string())]),
        about="directory_sync_user_link",
    )["sub"]


def read_group_links(database: Database, tables: JogetTables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget group, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, group_name, group_id, misses, changed_at, "
        f"{tables.key(tables.as_directory('group_id'))} "
        f"FROM directory_sync_group_link WHERE group_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_group_link",
    )


def read_past_links(
    database: Database, tables: JogetTables, run: Run, schema: pa.Schema
) -> pd.DataFrame:
    """The sync's links of this pool that are history, in the schema's columns."""
    return database.frame(
        "SELECT sub, user_id, state, changed_at, "
        f"{tables.key(tables.as_directory('user_id'))} FROM directory_sync_user_link "
        f"WHERE user_id_sha256 IS NULL AND sync = %s AND user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=schema,
        about="directory_sync_user_link",
    )


def read_retired_logins(database: Database, tables: JogetTables, schema: pa.Schema) -> pd.DataFrame:
    """Every retired login with the key of a sent text, in the schema's columns."""
    login = tables.as_directory("r.user_id")
    return database.frame(
        f"SELECT DISTINCT r.user_pool_id, r.sub, {tables.key(login)} FROM "
        "directory_sync_retired_login r "
        f"JOIN directory_sync_text t ON t.text = {login}",
        schema=schema,
        about="directory_sync_retired_login",
    )


def read_local_memberships(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's memberships that were found at an adoption, in the schema's columns."""
    return database.frame(
        "SELECT u.user_id, g.group_id FROM directory_sync_local_membership m "
        "JOIN directory_sync_user_link u ON u.user_id_sha256 = m.user_id_sha256 "
        "JOIN directory_sync_group_link g ON g.group_id_sha256 = m.group_id_sha256 WHERE m.sync = "
        "%s",
        (run.sync.name,),
        schema=schema,
        about="directory_sync_local_membership",
    )
