"""Writing a run into the ledger: links, retired logins, local memberships and the run itself."""

from directory_sync.joget.comparing import cast_to_bytes
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.ledger.delays import record_delays
from directory_sync.joget.ledger.runs import RunRow
from directory_sync.joget.schema import JogetTables
from directory_sync.joget.sending import (
    GROUP_CHANGES_TABLE,
    MEMBERSHIP_CHANGES_TABLE,
    USER_CHANGES_TABLE,
)

MOVED_CONDITION = "NOT (t.before_pool <=> t.after_pool AND t.before_sub <=> t.after_sub)"


def _stamp_links(database: Database, row: RunRow) -> None:
    """In a run for some users, stamp the links of the users that it read, changed or not."""
    # By the stamp, an older reading doesn't change these users back. Misses keep their times.
    for batch in split_into_batches(row.run.users):
        database.execute(
            "UPDATE directory_sync_user_link SET changed_at = GREATEST(changed_at, %s) WHERE "
            "sync = %s AND user_pool_id = %s AND user_id_sha256 IS NOT NULL AND misses = 0 "
            f"AND sub IN ({', '.join(['%s'] * len(batch))})",
            (row.at, row.run.sync.name, row.run.sync.user_pool_id, *batch),
            about="directory_sync_user_link",
        )


def record_run(database: Database, tables: JogetTables, row: RunRow) -> None:
    """Write what the sent changes mean for the ledger, within the transaction of the changes."""
    _retire_logins(database, row)
    _link_users(database, row)
    _link_groups(database, row)
    _write_local_memberships(database, row)
    _stamp_links(database, row)
    values = row.values(tables.organization)
    marks = ", ".join(["%s"] * len(values.columns))
    database.execute(
        f"INSERT INTO directory_sync_run ({', '.join(values.columns)}, committed_at) "
        f"VALUES ({marks}, UTC_TIMESTAMP(6))",
        values.astype(object).where(values.notna(), None).iloc[0].tolist(),
        about="directory_sync_run",
    )
    record_delays(database, row.run.sync.name, row.key, row.plan, row.arrivals)


def _retire_logins(database: Database, row: RunRow) -> None:
    """Keep a login that loses its link reserved for its last sub: Joget keeps history by login."""
    database.execute(
        "REPLACE INTO directory_sync_retired_login (user_id_sha256, user_id, sync, user_pool_id, "
        "sub, retired_at) "
        "SELECT SHA2(user_id, 256), user_id, %s, before_pool, before_sub, UTC_TIMESTAMP(6) FROM "
        f"{USER_CHANGES_TABLE} t "
        f"WHERE before_pool IS NOT NULL "
        f"AND (after_pool IS NULL OR NOT {cast_to_bytes('after_id')} = "
        f"{cast_to_bytes('before_id')})",
        (row.run.sync.name,),
        about="directory_sync_retired_login",
    )


def _link_users(database: Database, row: RunRow) -> None:
    """Write the links of users."""
    sync, table = row.run.sync.name, "directory_sync_user_link"
    # Ended links become history first, since a Joget user has one live link at most (user_once).
    database.execute(
        f"UPDATE {USER_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_pool_id = t.before_pool "
        "AND d.sub = t.before_sub "
        "SET d.user_id_sha256 = NULL, d.changed_at = %s, d.changed_by = %s WHERE d.sync = %s AND "
        f"{MOVED_CONDITION}",
        (row.at, row.key, sync),
        about=table,
    )
    database.execute(
        f"UPDATE {USER_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_pool_id = t.after_pool "
        "AND d.sub = t.after_sub "
        "SET d.user_id = t.link_user_id, d.user_id_sha256 = SHA2(t.link_user_id, 256), d.state = "
        "t.after_state, "
        f"d.misses = t.after_misses, d.changed_at = %s, d.changed_by = %s WHERE d.sync = %s",
        (row.at, row.key, sync),
        about=table,
    )
    database.execute(
        f"INSERT INTO {table} (sync, user_pool_id, sub, user_id, user_id_sha256, origin, state, "
        "misses, linked_at, "
        "changed_at, changed_by) SELECT %s, t.after_pool, t.after_sub, t.link_user_id, "
        "SHA2(t.link_user_id, 256), "
        f"t.action, t.after_state, t.after_misses, %s, %s, %s FROM {USER_CHANGES_TABLE} t LEFT "
        f"JOIN {table} d ON d.sync = %s "
        f"AND d.user_pool_id = t.after_pool AND d.sub = t.after_sub "
        f"WHERE t.after_pool IS NOT NULL AND d.sub IS NULL ORDER BY t.after_sub",
        (sync, row.at, row.at, row.key, sync),
        about=table,
    )


def _link_groups(database: Database, row: RunRow) -> None:
    sync, table = row.run.sync.name, "directory_sync_group_link"
    same = "d.group_name_sha256 = t.group_name_sha256"
    database.execute(
        f"UPDATE {GROUP_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_pool_id = t.before_pool "
        f"AND {same} SET d.group_id_sha256 = NULL, d.changed_at = %s, d.changed_by = %s WHERE "
        "d.sync = %s AND NOT t.before_pool <=> t.after_pool",
        (row.at, row.key, sync),
        about=table,
    )
    database.execute(
        f"UPDATE {GROUP_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_pool_id = t.after_pool "
        f"AND {same} SET d.group_id = t.group_id, d.group_id_sha256 = SHA2(t.group_id, 256), "
        "d.misses = t.after_misses, d.changed_at = %s, d.changed_by = %s WHERE d.sync = %s",
        (row.at, row.key, sync),
        about=table,
    )
    database.execute(
        f"INSERT INTO {table} (sync, user_pool_id, group_name_sha256, group_name, group_id, "
        "group_id_sha256, origin, misses, linked_at, changed_at, changed_by) SELECT %s, "
        "t.after_pool, t.group_name_sha256, t.group_name, t.group_id, SHA2(t.group_id, 256), "
        f"t.action, t.after_misses, %s, %s, %s FROM {GROUP_CHANGES_TABLE} t LEFT JOIN {table} d ON "
        f"d.sync = %s AND d.user_pool_id = t.after_pool AND {same} WHERE t.after_pool IS NOT NULL "
        "AND d.sync IS NULL ORDER BY t.group_id",
        (sync, row.at, row.at, row.key, sync),
        about=table,
    )


def hash_in_sql(expression: str) -> str:
    """SQL of the ledger's key of an id."""
    # In ASCII, so that the indexes are used. Joget converts the collation of every table in its
    # schema when it starts, so none is named here.
    return f"CONVERT(SHA2({expression}, 256) USING ascii)"


def _write_local_memberships(database: Database, row: RunRow) -> None:
    table = "directory_sync_local_membership"
    database.execute(
        f"REPLACE INTO {table} (sync, user_id_sha256, group_id_sha256) SELECT %s, SHA2(user_id, "
        f"256), SHA2(group_id, 256) FROM {MEMBERSHIP_CHANGES_TABLE} WHERE action = 'keep_local'",
        (row.run.sync.name,),
        about=table,
    )
    if not database.rows(f"SELECT 1 FROM {table} LIMIT 1", about=table):
        return
    # A membership is ours from the moment when the pool names it (rule 2).
    database.execute(
        f"DELETE d FROM {MEMBERSHIP_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_id_sha256 = "
        f"{hash_in_sql('t.user_id')} "
        f"AND d.group_id_sha256 = {hash_in_sql('t.group_id')} WHERE t.action IN ('claim', 'add')",
        about=table,
    )
    database.execute(
        f"UPDATE {USER_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_id_sha256 = "
        f"{hash_in_sql('t.user_id')} "
        f"SET d.user_id_sha256 = SHA2(t.after_id, 256) "
        f"WHERE t.before_id IS NOT NULL AND NOT {cast_to_bytes('t.after_id')} = "
        f"{cast_to_bytes('t.before_id')}",
        about=table,
    )
    database.execute(
        f"DELETE d FROM {USER_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.user_id_sha256 = "
        f"{hash_in_sql('t.user_id')} "
        f"WHERE t.before_pool IS NOT NULL AND t.after_pool IS NULL",
        about=table,
    )
    database.execute(
        f"DELETE d FROM {GROUP_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.group_id_sha256 = "
        f"{hash_in_sql('t.group_id')} "
        f"WHERE t.before_pool IS NOT NULL AND t.after_pool IS NULL",
        about=table,
    )
