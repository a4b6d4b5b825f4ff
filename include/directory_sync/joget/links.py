"""Reading the ledger's links: which sub is which Joget user, and which group name is which Joget group."""

import pandas as pd
import pyarrow as pa

from include.directory_sync.joget.database import Database
from include.directory_sync.joget.tables import Tables
from include.directory_sync.run import Run


def user_links(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget user, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, sub, user_id, state, misses, changed_at, "
        f"{tables.key(tables.as_directory('user_id'))} FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_user_link",
    )


def group_links(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every live link to a Joget group, in the schema's columns."""
    return database.frame(
        f"SELECT sync, user_pool_id, group_name, group_id, misses, changed_at, "
        f"{tables.key(tables.as_directory('group_id'))} "
        f"FROM directory_sync_group_link WHERE group_id_sha256 IS NOT NULL",
        schema=schema,
        about="directory_sync_group_link",
    )


def past_links(database: Database, tables: Tables, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's links of this pool that are history, in the schema's columns."""
    return database.frame(
        f"SELECT sub, user_id, state, {tables.key(tables.as_directory('user_id'))} FROM directory_sync_user_link "
        f"WHERE user_id_sha256 IS NULL AND sync = %s AND user_pool_id = %s",
        (run.sync.name, run.sync.user_pool_id),
        schema=schema,
        about="directory_sync_user_link",
    )


def retired_logins(database: Database, tables: Tables, schema: pa.Schema) -> pd.DataFrame:
    """Every login that was linked once, in the schema's columns."""
    return database.frame(
        f"SELECT user_pool_id, sub, {tables.key(tables.as_directory('user_id'))} FROM directory_sync_retired_login",
        schema=schema,
        about="directory_sync_retired_login",
    )


def local_memberships(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """The sync's memberships that were found at an adoption, in the schema's columns."""
    return database.frame(
        "SELECT u.user_id, g.group_id FROM directory_sync_local_membership m "
        "JOIN directory_sync_user_link u ON u.user_id_sha256 = m.user_id_sha256 "
        "JOIN directory_sync_group_link g ON g.group_id_sha256 = m.group_id_sha256 WHERE m.sync = %s",
        (run.sync.name,),
        schema=schema,
        about="directory_sync_local_membership",
    )
