"""Comparing Joget's rows, by bytes, with a plan's `before` and `after`."""

from collections import Counter

from directory_sync.errors import PermanentError
from directory_sync.joget.database import Database
from directory_sync.joget.sending import (
    EMPLOYMENT_CHANGES_TABLE,
    GROUP_CHANGES_TABLE,
    MEMBERSHIP_CHANGES_TABLE,
    ROLE_CHANGES_TABLE,
    USER_CHANGES_TABLE,
)
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.plan.deferral import Deferred

GROUP_COLUMNS = ("name",)


def cast_to_bytes(expression: str) -> str:
    """SQL for an expression's bytes."""
    # To the collation, `mcdonald` and `McDonald` are equal.
    return f"CAST({expression} AS BINARY)"


def compare_columns(columns: tuple[str, ...], side: str) -> str:
    """SQL: whether a directory row `d` has the values on one side of a change `t`."""
    pairs = [
        f"d.{column} <=> t.{side}_{column}"
        if column == "active"
        else f"{cast_to_bytes(f'd.{column}')} <=> {cast_to_bytes(f't.{side}_{column}')}"
        for column in columns
    ]
    return f"({' AND '.join(pairs)})"


def lock_and_compare(database: Database, *, waits: bool) -> Deferred:
    """Lock the touched rows in key order; gives the users and groups that aren't as the plan saw
    them.

    waits: whether to wait for rows that another session has locked. If not, such rows count as
    changed, and so do new memberships with a locked parent.
    """
    users = _lock_rows(database, USER_CHANGES_TABLE, "dir_user", USER_COLUMNS, "t.sub", waits=waits)
    groups = _lock_rows(
        database, GROUP_CHANGES_TABLE, "dir_group", GROUP_COLUMNS, "t.group_name", waits=waits
    )
    changed = Deferred().join(users, groups)
    if waits:
        return changed
    # A membership's foreign keys lock its user and its group, and would wait for them.
    adds, removes = "t.action = 'add'", "t.action = 'remove'"
    pair = "d.userId = t.user_id AND d.groupId = t.group_id"
    locked = [
        *_find_locked(database, "dir_user", "d.id = t.user_id", adds, "t.sub"),
        *_find_locked(database, "dir_user_group", pair, removes, "t.sub"),
    ]
    groups = _find_locked(database, "dir_group", "d.id = t.group_id", adds, "t.group_name")
    return changed.join(locked, members_of=groups)


def _find_locked(database: Database, table: str, join: str, condition: str, key: str) -> list[str]:
    """Keys of memberships with a row in the table that another session has locked."""
    source = f"{MEMBERSHIP_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON {join} WHERE {condition}"
    there = database.rows(f"SELECT {key} FROM {source}", about=table)
    free = database.rows(f"SELECT {key} FROM {source} FOR UPDATE SKIP LOCKED", about=table)
    # A key may have several memberships, and waits if one of them is locked.
    counts = Counter(str(row[0]) for row in there)
    counts.subtract(str(row[0]) for row in free)
    return sorted(name for name, locked in counts.items() if locked > 0)


def _lock_rows(
    database: Database, changes: str, table: str, columns: tuple[str, ...], key: str, *, waits: bool
) -> list[str]:
    planned = _count_rows(database, f"{changes} t WHERE t.before_id IS NOT NULL", about=table)
    unchanged = (
        f"{compare_columns(columns, 'before')} AND {cast_to_bytes('d.id')} = "
        f"{cast_to_bytes('t.before_id')}"
    )
    source = f"{changes} t STRAIGHT_JOIN {table} d ON d.id = t.before_id"
    mode = "FOR UPDATE" if waits else "FOR UPDATE SKIP LOCKED"
    found = database.rows(f"SELECT COALESCE(SUM({unchanged}), 0) FROM {source} {mode}", about=table)
    if found[0][0] == planned:  # nearly always: no names travel
        return []
    kept = database.rows(f"SELECT {key} FROM {source} WHERE {unchanged} {mode}", about=table)
    wanted = database.rows(
        f"SELECT {key} FROM {changes} t WHERE t.before_id IS NOT NULL", about=table
    )
    return sorted({str(row[0]) for row in wanted} - {str(row[0]) for row in kept})


def verify_written_rows(database: Database, sync: str, run_key: str) -> None:
    """Read back what was written, by bytes; raises PermanentError where a trigger or a default
    changed it.
    """
    pair = "d.userId = t.user_id AND d.groupId = t.group_id"
    # Hibernate finds nothing by a foreign key that isn't byte-identical to its parent's id.
    ids = (
        f"{cast_to_bytes('d.userId')} = {cast_to_bytes('t.user_id')} AND "
        f"{cast_to_bytes('d.groupId')} = {cast_to_bytes('t.group_id')}"
    )
    stays, goes = "t.action = 'add'", "t.action = 'remove'"
    there = "t.after_id IS NOT NULL"
    renamed = (
        f"(t.after_id IS NULL OR NOT {cast_to_bytes('t.after_id')} = "
        f"{cast_to_bytes('t.before_id')})"
    )
    # The id of an evicted account is there again: the renamed user has it now.
    renamed += " AND NOT t.is_exchange"
    link = (
        "d.sync = %s AND d.user_pool_id = t.after_pool AND d.sub = t.after_sub AND d.state = "
        f"t.after_state AND d.misses = t.after_misses AND {cast_to_bytes('d.user_id')} = "
        f"{cast_to_bytes('t.link_user_id')}"
    )
    # Each check counts what is there and what was planned; with None, nothing may be there.
    checks = [
        ("dir_user", f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_user d ON d.id = t.after_id WHERE "
                     f"{compare_columns(USER_COLUMNS, 'after')}",
         f"{USER_CHANGES_TABLE} t WHERE {there}"),
        ("dir_user", f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_user d ON d.id = t.before_id WHERE "
                     f"{renamed}", None),
        ("dir_group", f"{GROUP_CHANGES_TABLE} t STRAIGHT_JOIN dir_group d ON d.id = t.after_id "
                      f"WHERE {compare_columns(GROUP_COLUMNS, 'after')}",
         f"{GROUP_CHANGES_TABLE} t WHERE {there}"),
        ("dir_group", f"{GROUP_CHANGES_TABLE} t STRAIGHT_JOIN dir_group d ON d.id = t.group_id "
                      "WHERE t.after_id IS NULL", None),
        ("dir_user_role", f"{ROLE_CHANGES_TABLE} t STRAIGHT_JOIN dir_user_role d ON d.userId = "
                          "t.user_id AND d.roleId = 'ROLE_USER'",
         f"{ROLE_CHANGES_TABLE} t WHERE t.action = 'add'"),
        ("dir_employment", f"{EMPLOYMENT_CHANGES_TABLE} t STRAIGHT_JOIN dir_employment d ON d.id = "
                           "t.employment_id",
         f"{EMPLOYMENT_CHANGES_TABLE} t WHERE t.action = 'add'"),
        ("dir_user_group",
         f"{MEMBERSHIP_CHANGES_TABLE} t STRAIGHT_JOIN dir_user_group d ON {pair} WHERE {stays} AND "
         f"{ids}",
         f"{MEMBERSHIP_CHANGES_TABLE} t WHERE {stays}"),
        ("dir_user_group", f"{MEMBERSHIP_CHANGES_TABLE} t STRAIGHT_JOIN dir_user_group d ON {pair} "
                           f"WHERE {goes}", None),
        ("directory_sync_user_link",
         f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN directory_sync_user_link d ON {link} WHERE "
         "d.changed_by = %s",
         f"{USER_CHANGES_TABLE} t WHERE t.after_pool IS NOT NULL"),
    ]  # fmt: skip
    for about, found, planned in checks:
        expected = _count_rows(database, planned, about=about) if planned else 0
        parameters = (sync, run_key) if "%s" in found else ()
        if _count_rows(database, found, parameters, about=about) != expected:
            raise PermanentError(
                f"{about} doesn't hold what was written to it; the run was rolled back. Look for a "
                f"trigger or a constraint of this database's own on {about}."
            )


def _count_rows(
    database: Database, source: str, parameters: tuple[str, ...] = (), *, about: str
) -> int:
    return int(database.rows(f"SELECT COUNT(*) FROM {source}", parameters, about=about)[0][0])
