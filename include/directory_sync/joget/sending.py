"""Sending a plan's safe rows into temporary tables, before the transaction that applies them: DDL
commits.
"""

import secrets

import pandas as pd

from directory_sync.frames import TEXT_TYPE, is_true, make_null_texts
from directory_sync.joget.database import Database
from directory_sync.joget.database_errors import TEMPORARY_TABLE
from directory_sync.joget.ledger.definition import ASCII_COLUMN
from directory_sync.joget.schema import JogetTables
from directory_sync.plan import Plan
from directory_sync.plan.changes import USER_COLUMNS, hash_name, split_link
from directory_sync.vocabulary import Action, Cause, Entity

USER_CHANGES_TABLE = "directory_sync_user_change"
GROUP_CHANGES_TABLE = "directory_sync_group_change"
ROLE_CHANGES_TABLE = "directory_sync_role_change"
EMPLOYMENT_CHANGES_TABLE = "directory_sync_employment_change"
MEMBERSHIP_CHANGES_TABLE = "directory_sync_membership_change"

ASCII_TEXT_TYPE = f"VARCHAR(128) {ASCII_COLUMN}"
CHANGE_SIDES = ("before", "after")


def send_plan(
    database: Database, tables: JogetTables, plan: Plan, *, random_passwords: bool
) -> None:
    """Fill a temporary table for each kind of change: users, groups, roles, employments and
    memberships. Ids have the directory's collation, and keys of the ledger are ASCII_COLUMN.
    """
    _send_users(database, tables, plan.safe_part(Entity.USER), random_passwords=random_passwords)
    _send_groups(database, tables, plan.safe_part(Entity.GROUP))
    columns = {"user_id": tables.text, "action": ASCII_TEXT_TYPE}
    _fill_table(database, ROLE_CHANGES_TABLE, plan.safe_part(Entity.ROLE), columns, "user_id")
    # The plan has them in the order of users. Rows load twice as fast in the order of their key.
    employments = plan.safe_part(Entity.EMPLOYMENT).sort_values("employment_id")
    _fill_table(
        database,
        EMPLOYMENT_CHANGES_TABLE,
        employments,
        {**columns, "employment_id": ASCII_TEXT_TYPE},
        "employment_id",
    )
    columns = {"user_id": tables.text, "group_id": tables.text, "group_name": tables.text}
    columns |= {"sub": ASCII_TEXT_TYPE, "action": ASCII_TEXT_TYPE}
    _fill_table(
        database,
        MEMBERSHIP_CHANGES_TABLE,
        plan.safe_part(Entity.MEMBERSHIP),
        columns,
        "user_id, group_id",
    )


def remove_deferred_rows(database: Database, plan: Plan) -> None:
    """Delete from the five tables the rows that the plan holds as `deferred`."""
    # One statement for each row: they are few.
    for table, entity, keys in (
        (USER_CHANGES_TABLE, Entity.USER, ["user_id"]),
        (GROUP_CHANGES_TABLE, Entity.GROUP, ["group_id"]),
        (ROLE_CHANGES_TABLE, Entity.ROLE, ["user_id"]),
        (EMPLOYMENT_CHANGES_TABLE, Entity.EMPLOYMENT, ["employment_id"]),
        (MEMBERSHIP_CHANGES_TABLE, Entity.MEMBERSHIP, ["user_id", "group_id"]),
    ):
        rows = plan.part(entity)
        condition = " AND ".join(f"{key} = %s" for key in keys)
        for row in rows.loc[is_true(rows["hold"] == Cause.DEFERRED), keys].itertuples(
            index=False, name=None
        ):
            database.execute(f"DELETE FROM {table} WHERE {condition}", row, about=TEMPORARY_TABLE)


def _send_users(
    database: Database, tables: JogetTables, users: pd.DataFrame, *, random_passwords: bool
) -> None:
    text = tables.text
    columns = {
        "user_id": text,
        "action": ASCII_TEXT_TYPE,
        "password": ASCII_TEXT_TYPE,
        "link_user_id": text,
    }
    columns |= {"sub": ASCII_TEXT_TYPE, "is_exchange": "INT"}
    users = users.assign(password=make_passwords(users, are_random=random_passwords))
    for side in CHANGE_SIDES:
        columns |= {f"{side}_id": text, f"{side}_state": ASCII_TEXT_TYPE, f"{side}_misses": "INT"}
        columns |= {
            f"{side}_{column}": "INT" if column == "active" else text for column in USER_COLUMNS
        }
        pool, sub = split_link(users[f"{side}_link"])
        users = users.assign(**{f"{side}_pool": pool, f"{side}_sub": sub})
        columns |= {f"{side}_pool": ASCII_TEXT_TYPE, f"{side}_sub": ASCII_TEXT_TYPE}
    # A deleted user has no after_id; the link keeps the old id.
    users = users.assign(link_user_id=users["after_id"].fillna(users["user_id"]))
    # Two rows of one sub are an eviction and a rename: the evicted id is the renamed user's new id.
    users = users.assign(is_exchange=users["sub"].duplicated(keep=False).astype("int64"))
    # The key has `action`: an undo renames a user back and restores the account, both with one id.
    _fill_table(database, USER_CHANGES_TABLE, users, columns, "user_id, action")


def make_passwords(users: pd.DataFrame, *, are_random: bool) -> "pd.Series[str]":
    """The values of dir_user.password for new rows; null refuses every password."""
    if not are_random:
        return make_null_texts(users.index)
    # Joget takes it for a hash, and no password has that hash.
    passwords = [secrets.token_hex(16) for _ in range(len(users))]
    # A restored account is one that single sign-on made, without a password.
    made = users["action"] != Action.RESTORE
    return pd.Series(passwords, index=users.index, dtype=TEXT_TYPE).where(made)


def _send_groups(database: Database, tables: JogetTables, groups: pd.DataFrame) -> None:
    text = tables.text
    columns = {"group_id": text, "group_name": text, "group_name_sha256": ASCII_TEXT_TYPE}
    columns |= {"action": ASCII_TEXT_TYPE}
    groups = groups.assign(
        group_name_sha256=[hash_name(str(name)) for name in groups["group_name"]]
    )
    for side in CHANGE_SIDES:
        columns |= {f"{side}_{column}": text for column in ("id", "name", "organizationId")}
        columns |= {f"{side}_misses": "INT", f"{side}_pool": ASCII_TEXT_TYPE}
        groups = groups.assign(**{f"{side}_pool": split_link(groups[f"{side}_link"])[0]})
    _fill_table(database, GROUP_CHANGES_TABLE, groups, columns, "group_id")


def _fill_table(
    database: Database, table: str, frame: pd.DataFrame, columns: dict[str, str], key: str
) -> None:
    definition = ", ".join(f"{column} {kind}" for column, kind in columns.items())
    # An earlier planning, or a trial of parts of a plan, has left the table on this connection.
    database.execute(f"DROP TEMPORARY TABLE IF EXISTS {table}", about=TEMPORARY_TABLE)
    database.execute(
        f"CREATE TEMPORARY TABLE {table} ({definition}, PRIMARY KEY ({key})) ENGINE=InnoDB",
        about=TEMPORARY_TABLE,
    )
    database.fill(table, frame[list(columns)], about=TEMPORARY_TABLE)
