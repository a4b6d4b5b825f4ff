"""Comparing Joget's rows, by bytes, with a plan's `before` and `after`."""

from collections import Counter

from include.directory_sync.errors import PermanentError
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.sending import EMPLOYMENTS, GROUPS, MEMBERSHIPS, ROLES, USERS
from include.directory_sync.plan.changes import USER_COLUMNS
from include.directory_sync.plan.deferral import Deferred

GROUP_COLUMNS = ("name",)


def as_bytes(expression: str) -> str:
    """SQL that compares by bytes: to the collation, `mcdonald` and `McDonald` are equal."""
    return f"CAST({expression} AS BINARY)"


def same(columns: tuple[str, ...], side: str) -> str:
    """SQL: whether a directory row `d` has the values on one side of a change `t`."""
    pairs = [
        f"d.{column} <=> t.{side}_{column}"
        if column == "active"
        else f"{as_bytes(f'd.{column}')} <=> {as_bytes(f't.{side}_{column}')}"
        for column in columns
    ]
    return f"({' AND '.join(pairs)})"


def lock_and_compare(database: Database, *, waits: bool) -> Deferred:
    """Lock the touched rows in key order; gives the users and groups that aren't as the plan saw
    them.

    waits: for rows that another session has locked. Else those count as changed, and so do the
    parents of new memberships, since their foreign keys would wait for them.
    """
    users = _lock(database, USERS, "dir_user", USER_COLUMNS, "t.sub", waits=waits)
    groups = _lock(database, GROUPS, "dir_group", GROUP_COLUMNS, "t.group_name", waits=waits)
    changed = Deferred().join(users, groups)
    if waits:
        return changed
    adds, removes = "t.action = 'add'", "t.action = 'remove'"
    pair = "d.userId = t.user_id AND d.groupId = t.group_id"
    locked = [
        *_find_locked(database, "dir_user", "d.id = t.user_id", adds, "t.sub"),
        *_find_locked(database, "dir_user_group", pair, removes, "t.sub"),
    ]
    groups = _find_locked(database, "dir_group", "d.id = t.group_id", adds, "t.group_name")
    return changed.join(locked, members_of=groups)


def _find_locked(database: Database, table: str, join: str, condition: str, key: str) -> list[str]:
    """Keys of memberships for which another session has locked the row of the table."""
    source = f"{MEMBERSHIPS} t STRAIGHT_JOIN {table} d ON {join} WHERE {condition}"
    there = database.rows(f"SELECT {key} FROM {source}", about=table)
    free = database.rows(f"SELECT {key} FROM {source} FOR UPDATE SKIP LOCKED", about=table)
    counts = Counter(str(row[0]) for row in there)
    counts.subtract(str(row[0]) for row in free)
    return sorted(name for name, locked in counts.items() if locked > 0)


def _lock(
    database: Database, changes: str, table: str, columns: tuple[str, ...], key: str, *, waits: bool
) -> list[str]:
    planned = _count(database, f"{changes} t WHERE t.before_id IS NOT NULL", about=table)
    unchanged = f"{same(columns, 'before')} AND {as_bytes('d.id')} = {as_bytes('t.before_id')}"
    source = f"{changes} t STRAIGHT_JOIN {table} d ON d.id = t.before_id"
    mode = "FOR UPDATE" if waits else "FOR UPDATE SKIP LOCKED"
    found = database.rows(f"SELECT COALESCE(SUM({unchanged}), 0) FROM {source} {mode}", about=table)
    if found[0][0] == planned:
        return []
    kept = database.rows(f"SELECT {key} FROM {source} WHERE {unchanged} {mode}", about=table)
    wanted = database.rows(f"SELECT {key} FROM {changes} t WHERE t.before_id IS NOT NULL", about=table)
    return sorted({str(row[0]) for row in wanted} - {str(row[0]) for row in kept})


def verify(database: Database, sync: str, run_key: str) -> None:
    """Read back what was written, by bytes; raises PermanentError where a trigger or a default changed it."""
    pair = "d.userId = t.user_id AND d.groupId = t.group_id"
    ids = f"{as_bytes('d.userId')} = {as_bytes('t.user_id')} AND {as_bytes('d.groupId')} = {as_bytes('t.group_id')}"
    stays, goes = "t.action = 'add'", "t.action = 'remove'"
    there = "t.after_id IS NOT NULL"
    renamed = f"(t.after_id IS NULL OR NOT {as_bytes('t.after_id')} = {as_bytes('t.before_id')})"
    renamed += " AND NOT t.is_exchange"
    link = (
        f"d.sync = %s AND d.user_pool_id = t.after_pool AND d.sub = t.after_sub AND d.state = t.after_state AND "
        f"d.misses = t.after_misses AND {as_bytes('d.user_id')} = {as_bytes('t.link_user_id')}"
    )
    checks = [
        ("dir_user", f"{USERS} t STRAIGHT_JOIN dir_user d ON d.id = t.after_id WHERE {same(USER_COLUMNS, 'after')}",
         f"{USERS} t WHERE {there}"),
        ("dir_user", f"{USERS} t STRAIGHT_JOIN dir_user d ON d.id = t.before_id WHERE {renamed}", None),
        ("dir_group", f"{GROUPS} t STRAIGHT_JOIN dir_group d ON d.id = t.after_id WHERE {same(GROUP_COLUMNS, 'after')}",
         f"{GROUPS} t WHERE {there}"),
        ("dir_group", f"{GROUPS} t STRAIGHT_JOIN dir_group d ON d.id = t.group_id WHERE t.after_id IS NULL", None),
        ("dir_user_role", f"{ROLES} t STRAIGHT_JOIN dir_user_role d ON d.userId = t.user_id AND d.roleId = 'ROLE_USER'",
         f"{ROLES} t WHERE t.action = 'add'"),
        ("dir_employment", f"{EMPLOYMENTS} t STRAIGHT_JOIN dir_employment d ON d.id = t.employment_id",
         f"{EMPLOYMENTS} t WHERE t.action = 'add'"),
        ("dir_user_group",
         f"{MEMBERSHIPS} t STRAIGHT_JOIN dir_user_group d ON {pair} WHERE {stays} AND {ids}",
         f"{MEMBERSHIPS} t WHERE {stays}"),
        ("dir_user_group", f"{MEMBERSHIPS} t STRAIGHT_JOIN dir_user_group d ON {pair} WHERE {goes}", None),
        ("directory_sync_user_link",
         f"{USERS} t STRAIGHT_JOIN directory_sync_user_link d ON {link} WHERE d.changed_by = %s",
         f"{USERS} t WHERE t.after_pool IS NOT NULL"),
    ]  # fmt: skip
    for about, found, planned in checks:
        expected = _count(database, planned, about=about) if planned else 0
        parameters = (sync, run_key) if "%s" in found else ()
        if _count(database, found, parameters, about=about) != expected:
            raise PermanentError(
                f"{about} doesn't hold what was written to it; the run was rolled back. Look for a trigger or a "
                f"constraint of this database's own on {about}."
            )


def _count(database: Database, source: str, parameters: tuple[str, ...] = (), *, about: str) -> int:
    return int(database.rows(f"SELECT COUNT(*) FROM {source}", parameters, about=about)[0][0])
