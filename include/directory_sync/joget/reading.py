"""Reading Joget as it is now, in one consistent snapshot, for planning."""

from collections.abc import Iterable

import pandas as pd

from include.directory_sync.frames import BEYOND_BMP, empty, matches
from include.directory_sync.joget import ledger
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.tables import Tables
from include.directory_sync.mapping import Desired
from include.directory_sync.plan import current as now
from include.directory_sync.plan.current import Current
from include.directory_sync.run import Run

GROUPS_IN_A_QUERY = 1_000


def read_current(database: Database, tables: Tables, run: Run, desired: Desired) -> Current:
    """Joget's rows that a plan for `desired` may touch, and the ledger; a ledger that isn't there yet is empty."""
    keys = _keys(database, tables, _texts(run, desired))
    with database.transaction("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"):
        has_ledger = ledger.exists(database)
        groups = _groups(database, tables, run, has_ledger=has_ledger)
        return Current(
            users=_users(database, tables, run, has_ledger=has_ledger),
            user_links=ledger.user_links(database, tables, now.USER_LINKS) if has_ledger else empty(now.USER_LINKS),
            groups=groups,
            group_links=ledger.group_links(database, tables, now.GROUP_LINKS) if has_ledger else empty(now.GROUP_LINKS),
            memberships=_memberships(database, groups["id"].tolist()),
            local_memberships=(
                ledger.local_memberships(database, run, now.LOCAL_MEMBERSHIPS)
                if has_ledger
                else empty(now.LOCAL_MEMBERSHIPS)
            ),
            keys=keys,
            stores_all_of_unicode=tables.stores_all_of_unicode,
            revision=ledger.revision(database) if has_ledger else 0,
            newest_snapshot_at=ledger.newest_snapshot_at(database, run) if has_ledger else None,
        )


def _texts(run: Run, desired: Desired) -> pd.DataFrame:
    """Column text: each text whose key a plan compares: logins, possible group ids, logins in settings and form."""
    logins = desired.users.loc[desired.users["verdict"] == "mapped", "username"]
    groups = desired.groups.loc[desired.groups["verdict"] == "mapped"]
    named = pd.Series([*run.sync.scope.exclude_users, *run.users], dtype=logins.dtype)
    texts = pd.concat([logins, groups["plain_id"], groups["hashed_id"], named], ignore_index=True)
    return pd.DataFrame({"text": texts}).dropna().drop_duplicates()


def _keys(database: Database, tables: Tables, texts: pd.DataFrame) -> pd.DataFrame:
    """Send the texts to the database once; it stays there as a temporary table for the joins that follow."""
    if not tables.stores_all_of_unicode:
        texts = texts[~matches(texts["text"], BEYOND_BMP)]
    database.execute("DROP TEMPORARY TABLE IF EXISTS directory_sync_text", about="a temporary table")
    database.execute(
        f"CREATE TEMPORARY TABLE directory_sync_text (text {tables.text} NOT NULL, KEY (text)) ENGINE=InnoDB",
        about="a temporary table",
    )
    database.insert("INSERT INTO directory_sync_text (text) VALUES (%s)", texts, about="a temporary table")
    return database.frame(
        f"SELECT text, {tables.key('text')} FROM directory_sync_text",
        schema=now.KEYS,
        about="a temporary table",
    )


def _users(database: Database, tables: Tables, run: Run, *, has_ledger: bool) -> pd.DataFrame:
    """Linked users, and those whose id or username is a desired login."""
    columns = (
        "u.id, u.username, u.firstName, u.lastName, u.email, u.active, u.timeZone, u.locale, u.password IS NOT NULL, "
        "EXISTS (SELECT 1 FROM dir_user_role r WHERE r.userId = u.id AND r.roleId = 'ROLE_ADMIN'), "
        "EXISTS (SELECT 1 FROM dir_user_role r WHERE r.userId = u.id AND r.roleId = 'ROLE_USER'), "
        "EXISTS (SELECT 1 FROM dir_employment e WHERE e.userId = u.id AND e.organizationId = %s), "
        f"{tables.key('u.id')}, {tables.key('u.username')}"
    )
    by_id = "FROM directory_sync_text t JOIN dir_user u ON u.id = t.text"
    by_name = (
        "FROM dir_user u JOIN directory_sync_text t ON t.text = u.username "
        "WHERE NOT CAST(u.id AS BINARY) <=> CAST(u.username AS BINARY)"
    )
    linked = (
        f"FROM directory_sync_user_link l JOIN dir_user u ON u.id = {tables.as_directory('l.user_id')} "
        "WHERE l.user_id_sha256 IS NOT NULL AND l.sync = %s AND l.user_pool_id = %s"
    )
    organization = (tables.organization,)
    parts = [_read_users(database, f"SELECT {columns} {source}", organization) for source in (by_id, by_name)]
    if has_ledger:
        parameters = (*organization, run.sync.name, run.sync.user_pool_id)
        parts.append(_read_users(database, f"SELECT {columns} {linked}", parameters))
    return pd.concat(parts, ignore_index=True).drop_duplicates("id", ignore_index=True)


def _read_users(database: Database, statement: str, parameters: tuple[str, ...]) -> pd.DataFrame:
    return database.frame(statement, parameters, schema=now.USERS, about="dir_user")


def _groups(database: Database, tables: Tables, run: Run, *, has_ledger: bool) -> pd.DataFrame:
    columns = f"g.id, g.name, g.organizationId, {tables.key('g.id')}"
    statements: list[tuple[str, tuple[str, ...]]] = [
        (f"SELECT {columns} FROM directory_sync_text t JOIN dir_group g ON g.id = t.text", ())
    ]
    if has_ledger:
        statements.append(
            (
                f"SELECT {columns} FROM directory_sync_group_link l "
                f"JOIN dir_group g ON g.id = {tables.as_directory('l.group_id')} "
                "WHERE l.group_id_sha256 IS NOT NULL AND l.sync = %s AND l.user_pool_id = %s",
                (run.sync.name, run.sync.user_pool_id),
            )
        )
    parts = [database.frame(text, values, schema=now.GROUPS, about="dir_group") for text, values in statements]
    return pd.concat(parts, ignore_index=True).drop_duplicates("id", ignore_index=True)


def _memberships(database: Database, group_ids: list[str]) -> pd.DataFrame:
    """Members of these groups in the parents' bytes: a child row may hold the same key in other letters."""
    parts = [empty(now.MEMBERSHIPS)]
    for ids in _batches(group_ids):
        marks = ", ".join(["%s"] * len(ids))
        statement = (
            "SELECT u.id, g.id FROM dir_group g JOIN dir_user_group m ON m.groupId = g.id "
            f"JOIN dir_user u ON u.id = m.userId WHERE g.id IN ({marks})"
        )
        parts.append(database.frame(statement, ids, schema=now.MEMBERSHIPS, about="dir_user_group"))
    return pd.concat(parts, ignore_index=True)


def _batches(ids: list[str]) -> Iterable[list[str]]:
    return (ids[start : start + GROUPS_IN_A_QUERY] for start in range(0, len(ids), GROUPS_IN_A_QUERY))
