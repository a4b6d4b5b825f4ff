"""Giving up a sync's links: all that it manages in Joget becomes local, and no row of Joget's
changes.
"""

from dataclasses import dataclass

from directory_sync.joget.database import Database
from directory_sync.joget.ledger import definition
from directory_sync.joget.ledger.recording import hash_in_sql
from directory_sync.joget.schema import JogetTables
from directory_sync.vocabulary import RunKind, State


@dataclass(frozen=True)
class ManagedCounts:
    """What a sync manages in Joget, in counts."""

    users: int = 0
    """Linked users in Joget, inactive ones too."""
    without_password: int = 0
    """How many of these users can log in by single sign-on alone."""
    inactive: int = 0
    """How many of these users can't log in at all."""
    deactivated_by_sync: int = 0
    """How many of the inactive users the sync deactivated."""
    groups: int = 0
    """Linked groups that are in Joget."""
    memberships: int = 0
    """Between linked users and linked groups, without those that the administrator gave."""
    open_reviews: int = 0
    answers: int = 0
    """Rejected and undone changes that the ledger remembers."""
    other_syncs: int = 0
    """Other syncs that have links in this ledger."""


def has_links(database: Database) -> bool:
    """Whether the ledger has its table of links, in this or an earlier version; raises
    PermanentError where a newer release wrote the ledger.
    """
    # Asked only so that it refuses a newer ledger: an incomplete one may have links to give up too.
    definition.is_ledger_complete(database)
    found = database.rows(
        "SELECT COUNT(*) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'directory_sync_user_link'",
        about="information_schema.tables",
    )
    return bool(found[0][0])


def count_managed(database: Database, tables: JogetTables, sync: str) -> ManagedCounts:
    """Count what the sync manages. The counts belong together where the caller has a
    transaction.
    """
    users, without_password, inactive, deactivated = _read_count(
        database,
        "directory_sync_user_link",
        f"SELECT COUNT(*), SUM(u.password IS NULL), SUM(COALESCE(u.active, 0) = 0), "
        f"SUM(COALESCE(u.active, 0) = 0 AND l.state = '{State.DEACTIVATED}') "
        "FROM directory_sync_user_link l JOIN dir_user u ON u.id = "
        f"{tables.as_directory('l.user_id')} "
        f"WHERE l.user_id_sha256 IS NOT NULL AND l.sync = %s",
        sync,
    )
    (groups,) = _read_count(
        database,
        "directory_sync_group_link",
        f"SELECT COUNT(*) FROM directory_sync_group_link l "
        f"JOIN dir_group g ON g.id = {tables.as_directory('l.group_id')} "
        f"WHERE l.group_id_sha256 IS NOT NULL AND l.sync = %s",
        sync,
    )
    return ManagedCounts(
        users=users,
        without_password=without_password,
        inactive=inactive,
        deactivated_by_sync=deactivated,
        groups=groups,
        memberships=_count_memberships(database, tables, sync),
        open_reviews=_count_rows(
            database, "directory_sync_review", "closed_at IS NULL AND sync = %s", sync
        ),
        answers=_count_rows(database, "directory_sync_decision", "sync = %s", sync),
        other_syncs=_count_other_syncs(database, sync),
    )


def _read_count(database: Database, table: str, statement: str, *parameters: str) -> list[int]:
    """The first row that a statement finds, with 0 in place of NULL."""
    return [int(value or 0) for value in database.rows(statement, parameters, about=table)[0]]


def _count_rows(database: Database, table: str, condition: str, *parameters: str) -> int:
    return _read_count(
        database, table, f"SELECT COUNT(*) FROM {table} WHERE {condition}", *parameters
    )[0]


def _count_memberships(database: Database, tables: JogetTables, sync: str) -> int:
    return _read_count(
        database,
        "dir_user_group",
        f"SELECT COUNT(*) FROM directory_sync_user_link l "
        f"STRAIGHT_JOIN dir_user_group m ON m.userId = {tables.as_directory('l.user_id')} "
        "STRAIGHT_JOIN directory_sync_group_link g ON g.group_id_sha256 = "
        f"{hash_in_sql('m.groupId')} "
        f"LEFT JOIN directory_sync_local_membership d "
        f"ON d.user_id_sha256 = l.user_id_sha256 AND d.group_id_sha256 = g.group_id_sha256 "
        f"WHERE l.user_id_sha256 IS NOT NULL AND l.sync = %s AND g.sync = %s AND d.sync IS NULL",
        sync,
        sync,
    )[0]


def _count_other_syncs(database: Database, sync: str) -> int:
    return _read_count(
        database,
        "directory_sync_user_link",
        "SELECT COUNT(*) FROM (SELECT sync FROM directory_sync_user_link "
        "WHERE user_id_sha256 IS NOT NULL AND sync <> %s "
        "UNION SELECT sync FROM directory_sync_group_link "
        "WHERE group_id_sha256 IS NOT NULL AND sync <> %s) others",
        sync,
        sync,
    )[0]


def find_pools(database: Database, sync: str) -> list[str]:
    """The pools that the sync's runs read."""
    found = database.rows(
        "SELECT DISTINCT user_pool_id FROM directory_sync_run WHERE sync = %s",
        (sync,),
        about="directory_sync_run",
    )
    return sorted(str(row[0]) for row in found)


def give_up_links(database: Database, tables: JogetTables, sync: str) -> ManagedCounts:
    """Give up the sync's links in one transaction, and return what it managed until then. The
    caller must hold the ledger's lock.
    """
    with database.writing_transaction():
        # This comes first, as in each run: a run that has already read the links plans again.
        _execute_on_ledger(
            database,
            "directory_sync_lock",
            "UPDATE directory_sync_lock SET revision = revision + 1 WHERE id = 1",
        )
        managed = count_managed(database, tables, sync)
        # Joget keeps history by login. So the logins stay reserved for their last subs, and a later
        # sync asks a person before somebody else gets one (rule 7).
        _execute_on_ledger(
            database,
            "directory_sync_retired_login",
            "REPLACE INTO directory_sync_retired_login "
            "(user_id_sha256, user_id, sync, user_pool_id, sub, retired_at) "
            "SELECT user_id_sha256, user_id, sync, user_pool_id, sub, UTC_TIMESTAMP(6) "
            "FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL AND sync = %s",
            sync,
        )
        for table in (
            "directory_sync_local_membership",
            "directory_sync_user_link",
            "directory_sync_group_link",
            "directory_sync_decision",
            "directory_sync_delay",
        ):
            _execute_on_ledger(database, table, f"DELETE FROM {table} WHERE sync = %s", sync)
        _execute_on_ledger(
            database,
            "directory_sync_review",
            "UPDATE directory_sync_review SET closed_at = UTC_TIMESTAMP(6) WHERE closed_at IS NULL "
            "AND sync = %s",
            sync,
        )
        # Runs of this kind stay as history: no undo, review or check of the organization uses them.
        _execute_on_ledger(
            database,
            "directory_sync_run",
            f"UPDATE directory_sync_run SET kind = '{RunKind.DETACHED}' WHERE sync = %s",
            sync,
        )
    return managed


def _execute_on_ledger(database: Database, table: str, statement: str, *parameters: str) -> None:
    database.execute(statement, parameters, about=table)
