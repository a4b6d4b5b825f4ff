"""Reading Joget as it is now, in one consistent snapshot, for planning."""

from collections.abc import Iterable, Sequence

import pandas as pd
import pyarrow as pa

from include.directory_sync.frames import BEYOND_BMP, TEXT, arrow, empty, matches
from include.directory_sync.joget import ledger, links, reviews, runs
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.tables import OF_A_USERNAME, Tables
from include.directory_sync.mapping import LOGIN_LENGTH, Desired
from include.directory_sync.plan import Removals
from include.directory_sync.plan import current as now
from include.directory_sync.plan.current import Current
from include.directory_sync.plan.users import EMPLOYMENT_IDS
from include.directory_sync.run import Run

GROUPS_IN_A_QUERY = 1_000


MEMBERS = pa.schema([("sub", pa.string()), ("group_name", pa.string())])

LEDGER_FRAMES = {
    "user_links": now.USER_LINKS,
    "group_links": now.GROUP_LINKS,
    "local_memberships": now.LOCAL_MEMBERSHIPS,
    "past_links": now.PAST_LINKS,
    "retired": now.RETIRED,
    "decisions": now.DECISIONS,
}


def read_current(
    database: Database,
    tables: Tables,
    run: Run,
    *,
    desired: Sequence[Desired],
    ids: "pd.Series[str]",
    remembered: pd.DataFrame,
) -> Current:
    """Joget's rows that a plan for `desired` may touch, and those of the ids; and the ledger, which is empty where it
    isn't there yet. `remembered`: links that the ledger lost (current.REMEMBERED).
    """
    keys = _keys(database, tables, _texts(run, desired, pd.concat([ids, remembered["joget_id"]])))
    with database.transaction("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"):
        has_ledger = ledger.exists(database)
        groups = _groups(database, tables, run, has_ledger=has_ledger)
        return Current(
            users=_users(database, tables, run, has_ledger=has_ledger),
            groups=groups,
            memberships=_memberships(database, groups["id"].tolist()),
            **_ledger_frames(database, tables, run, has_ledger=has_ledger),
            employment_ids=_employment_ids(database, tables),
            keys=keys,
            stores_all_of_unicode=tables.stores_all_of_unicode,
            revision=ledger.revision(database) if has_ledger else 0,
            newest_snapshot_at=runs.newest_snapshot_at(database, run) if has_ledger else None,
            users_in_all=int(database.rows("SELECT COUNT(*) FROM dir_user", about="dir_user")[0][0]),
            removals=runs.removals(database, run) if has_ledger else Removals(),
            remembered=remembered,
        )


def read_memberships(database: Database, tables: Tables, run: Run) -> pd.DataFrame:
    """Columns sub, group_name: who is in which group now, of this pool's links; none without a ledger."""
    if not ledger.exists(database):
        return empty(MEMBERS)
    users, groups = (
        links.user_links(database, tables, now.USER_LINKS),
        links.group_links(database, tables, now.GROUP_LINKS),
    )
    users, groups = (
        frame[(frame["sync"] == run.sync.name) & (frame["user_pool_id"] == run.sync.user_pool_id)]
        for frame in (users, groups)
    )
    members = _memberships(database, groups["group_id"].tolist())
    return arrow(members.merge(users, on="user_id").merge(groups, on="group_id"), MEMBERS)


BELONGINGS = pa.schema(
    [
        ("user_id", pa.string()),
        ("memberships", pa.int64()),
        ("roles", pa.int64()),
        ("employments", pa.int64()),
        ("others", pa.int64()),
    ]
)


def read_belongings(database: Database, user_ids: list[str]) -> pd.DataFrame:
    """Columns BELONGINGS: how many rows of Joget's tables each of these users has; others go by username."""
    parts = [empty(BELONGINGS)]
    for ids in _batches(user_ids):
        counts = ", ".join(
            f"(SELECT COUNT(*) FROM {table} c WHERE c.userId = u.id)"
            for table in ("dir_user_group", "dir_user_role", "dir_employment")
        )
        others = " + ".join(
            f"(SELECT COUNT(*) FROM {table} c WHERE c.{column} = u.id)" for table, column in OF_A_USERNAME
        )
        statement = f"SELECT u.id, {counts}, {others} FROM dir_user u WHERE u.id IN ({', '.join(['%s'] * len(ids))})"
        parts.append(database.frame(statement, ids, schema=BELONGINGS, about="the tables of a user's belongings"))
    return pd.concat(parts, ignore_index=True)


def _ledger_frames(database: Database, tables: Tables, run: Run, *, has_ledger: bool) -> dict[str, pd.DataFrame]:
    if not has_ledger:
        return {name: empty(schema) for name, schema in LEDGER_FRAMES.items()}
    return {
        "user_links": links.user_links(database, tables, now.USER_LINKS),
        "group_links": links.group_links(database, tables, now.GROUP_LINKS),
        "local_memberships": links.local_memberships(database, run, now.LOCAL_MEMBERSHIPS),
        "past_links": links.past_links(database, tables, run, now.PAST_LINKS),
        "retired": links.retired_logins(database, tables, now.RETIRED),
        "decisions": reviews.decisions(database, run, now.DECISIONS),
    }


def _texts(run: Run, desired: Sequence[Desired], ids: "pd.Series[str]") -> pd.DataFrame:
    """Column text: each text whose key a plan compares: logins, possible group ids, logins in settings and form."""
    parts = [ids, pd.Series([*run.sync.scope.exclude_users, *run.users], dtype=TEXT)]
    for one in desired:
        usable = one.users["verdict"] != "quarantined"
        parts.append(one.users.loc[usable & (one.users["username"].str.len() <= LOGIN_LENGTH), "username"])
        groups = one.groups[one.groups["verdict"] == "mapped"]
        parts += [groups["plain_id"], groups["hashed_id"]]
    return pd.DataFrame({"text": pd.concat(parts, ignore_index=True)}).dropna().drop_duplicates()


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
        "WHERE l.user_id_sha256 IS NOT NULL AND l.sync = %s"
    )
    organization = (tables.organization,)
    parts = [_read_users(database, f"SELECT {columns} {source}", organization) for source in (by_id, by_name)]
    if has_ledger:
        parameters = (*organization, run.sync.name)
        parts.append(_read_users(database, f"SELECT {columns} {linked}", parameters))
    return pd.concat(parts, ignore_index=True).drop_duplicates("id", ignore_index=True)


def _employment_ids(database: Database, tables: Tables) -> pd.DataFrame:
    """Which of the ids that plan.users.employment_id gives for the sent texts exist already."""
    parts = []
    for at in range(EMPLOYMENT_IDS):
        of = "LEFT(SHA2(CONCAT(%s, CHAR(0), CONVERT(t.text USING utf8mb4), CHAR(0), %s), 256), 32)"
        statement = (
            f"SELECT e.id FROM directory_sync_text t STRAIGHT_JOIN dir_employment e ON e.id = {tables.as_directory(of)}"
        )
        found = database.frame(
            statement, (tables.organization, str(at)), schema=now.EMPLOYMENT_IDS, about="dir_employment"
        )
        parts.append(found)
    return pd.concat(parts, ignore_index=True)


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
                "WHERE l.group_id_sha256 IS NOT NULL AND l.sync = %s",
                (run.sync.name,),
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
