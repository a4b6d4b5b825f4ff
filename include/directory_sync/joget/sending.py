"""Sending a plan's safe rows into temporary tables, before the transaction that applies them: DDL commits."""

import secrets

import pandas as pd

from include.directory_sync.frames import TEXT, no_text, yes
from include.directory_sync.joget.database import TEMPORARY_TABLE, Database
from include.directory_sync.joget.ledger import ASCII
from include.directory_sync.joget.tables import Tables
from include.directory_sync.plan import Plan
from include.directory_sync.plan.changes import USER_COLUMNS, link_parts, name_sha256
from include.directory_sync.vocabulary import Action, Cause, Entity

USERS = "directory_sync_user_change"
GROUPS = "directory_sync_group_change"
ROLES = "directory_sync_role_change"
EMPLOYMENTS = "directory_sync_employment_change"
MEMBERSHIPS = "directory_sync_membership_change"

TOKEN = f"VARCHAR(128) {ASCII}"
SIDES = ("before", "after")


def send(database: Database, tables: Tables, plan: Plan, *, random_passwords: bool) -> None:
    """Fill the five tables above; ids are in the directory's collation, keys of the ledger in ASCII."""
    _send_users(database, tables, plan.safe_part(Entity.USER), random_passwords=random_passwords)
    _send_groups(database, tables, plan.safe_part(Entity.GROUP))
    columns = {"user_id": tables.text, "action": TOKEN}
    _send(database, ROLES, plan.safe_part(Entity.ROLE), columns, "user_id")
    employments = plan.safe_part(Entity.EMPLOYMENT).sort_values("employment_id")
    _send(database, EMPLOYMENTS, employments, {**columns, "employment_id": TOKEN}, "employment_id")
    columns = {"user_id": tables.text, "group_id": tables.text, "group_name": tables.text}
    columns |= {"sub": TOKEN, "action": TOKEN}
    _send(database, MEMBERSHIPS, plan.safe_part(Entity.MEMBERSHIP), columns, "user_id, group_id")


def remove_deferred(database: Database, plan: Plan) -> None:
    """Delete from the five tables the rows that the plan holds as `deferred`. They are few."""
    for table, entity, keys in (
        (USERS, Entity.USER, ["user_id"]),
        (GROUPS, Entity.GROUP, ["group_id"]),
        (ROLES, Entity.ROLE, ["user_id"]),
        (EMPLOYMENTS, Entity.EMPLOYMENT, ["employment_id"]),
        (MEMBERSHIPS, Entity.MEMBERSHIP, ["user_id", "group_id"]),
    ):
        rows = plan.part(entity)
        condition = " AND ".join(f"{key} = %s" for key in keys)
        for row in rows.loc[yes(rows["hold"] == Cause.DEFERRED), keys].itertuples(index=False, name=None):
            database.execute(f"DELETE FROM {table} WHERE {condition}", row, about=TEMPORARY_TABLE)


def _send_users(database: Database, tables: Tables, users: pd.DataFrame, *, random_passwords: bool) -> None:
    text = tables.text
    columns = {"user_id": text, "action": TOKEN, "password": TOKEN, "link_user_id": text}
    columns |= {"sub": TOKEN, "is_exchange": "INT"}
    users = users.assign(password=no_text(users.index))
    if random_passwords:  # Joget takes it for a hash, and no password has that hash
        passwords = [secrets.token_hex(16) for _ in range(len(users))]
        made = users["action"] != Action.RESTORE
        users["password"] = pd.Series(passwords, index=users.index, dtype=TEXT).where(made)
    for side in SIDES:
        columns |= {f"{side}_id": text, f"{side}_state": TOKEN, f"{side}_misses": "INT"}
        columns |= {f"{side}_{column}": "INT" if column == "active" else text for column in USER_COLUMNS}
        pool, sub = link_parts(users[f"{side}_link"])
        users = users.assign(**{f"{side}_pool": pool, f"{side}_sub": sub})
        columns |= {f"{side}_pool": TOKEN, f"{side}_sub": TOKEN}
    # A user who was deleted in Joget has no after_id; their link keeps its old id.
    users = users.assign(link_user_id=users["after_id"].fillna(users["user_id"]))
    # Two rows of one sub are an eviction and a rename: the evicted id is the renamed user's new id.
    users = users.assign(is_exchange=users["sub"].duplicated(keep=False).astype("int64"))
    # The key has `action`: an undo renames a user back and restores the account, both with one id.
    _send(database, USERS, users, columns, "user_id, action")


def _send_groups(database: Database, tables: Tables, groups: pd.DataFrame) -> None:
    text = tables.text
    columns = {"group_id": text, "group_name": text, "group_name_sha256": TOKEN}
    columns |= {"action": TOKEN}
    groups = groups.assign(group_name_sha256=[name_sha256(str(name)) for name in groups["group_name"]])
    for side in SIDES:
        columns |= {f"{side}_{column}": text for column in ("id", "name", "organizationId")}
        columns |= {f"{side}_misses": "INT", f"{side}_pool": TOKEN}
        groups = groups.assign(**{f"{side}_pool": link_parts(groups[f"{side}_link"])[0]})
    _send(database, GROUPS, groups, columns, "group_id")


def _send(database: Database, table: str, frame: pd.DataFrame, columns: dict[str, str], key: str) -> None:
    definition = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    database.execute(f"DROP TEMPORARY TABLE IF EXISTS {table}", about=TEMPORARY_TABLE)
    database.execute(
        f"CREATE TEMPORARY TABLE {table} ({definition}, PRIMARY KEY ({key})) ENGINE=InnoDB", about=TEMPORARY_TABLE
    )
    database.fill(table, frame[list(columns)], about=TEMPORARY_TABLE)
