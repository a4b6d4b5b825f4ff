"""New users: their rows go straight into Joget's tables and the ledger, and are read back there.

In a first load nearly every row is a new user's. Other changes travel by temporary tables
(joget.sending), so that Joget's rows can be compared with them; a new user has no row to compare.
A key that somebody took meanwhile stops the insertion.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.errors import PermanentError
from directory_sync.frames import conform_to_schema, find_positions, is_among, number_pairs
from directory_sync.joget.database import Database
from directory_sync.joget.ledger.runs import RunRow
from directory_sync.joget.schema import JogetTables
from directory_sync.joget.sending import make_passwords
from directory_sync.plan import Plan
from directory_sync.plan.changes import USER_COLUMNS, hash_name
from directory_sync.vocabulary import Action, Entity

ADDED_ENTITIES = (Entity.ROLE, Entity.EMPLOYMENT, Entity.MEMBERSHIP)

SUBS_IN_A_QUERY = 1_000
"""Up to so many new users are read back by their subs. More are found by reading all links of the
pool, which takes half a second for a million.
"""

WRITTEN_USERS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("id", pa.string()),
        ("username", pa.string()),
        *((name, pa.int64() if name == "active" else pa.string()) for name in USER_COLUMNS),
        ("state", pa.string()),
        ("misses", pa.int64()),
        ("has_role", pa.bool_()),
        ("has_employment", pa.bool_()),
    ]
)
"""Users as they were written, with the link that leads to them. id, username and USER_COLUMNS are
dir_user's; state and misses are the link's.
"""

WRITTEN_MEMBERSHIPS_SCHEMA = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])


@dataclass(frozen=True)
class NewUsers:
    """The safe rows of users that a plan creates, as the parts of a plan have them."""

    users: pd.DataFrame
    roles: pd.DataFrame
    employments: pd.DataFrame
    memberships: pd.DataFrame

    def insert_users(self, database: Database, *, has_random_passwords: bool) -> None:
        """Insert rows of dir_user. The plan has them in the order of ids, in which InnoDB takes
        them fastest.
        """
        rows = self.users
        values = {
            "id": rows["after_id"],
            "username": rows["after_id"],  # Joget deletes by id-as-username, so both are equal
            "password": make_passwords(rows, are_random=has_random_passwords),
            **{column: rows[f"after_{column}"] for column in USER_COLUMNS},
        }
        database.fill("dir_user", pd.DataFrame(values), about="dir_user")

    def insert_roles(self, database: Database, tables: JogetTables) -> None:
        """Insert rows of dir_user_role."""
        values = pd.DataFrame({"userId": self.roles["user_id"], "roleId": tables.role_user})
        database.fill("dir_user_role", values, about="dir_user_role")

    def insert_employments(self, database: Database, tables: JogetTables) -> None:
        """Insert rows of dir_employment."""
        rows = self.employments.sort_values("employment_id")
        values = {"id": rows["employment_id"], "userId": rows["user_id"]}
        database.fill(
            "dir_employment",
            pd.DataFrame({**values, "organizationId": tables.organization}),
            about="dir_employment",
        )

    def insert_memberships(self, database: Database) -> None:
        """Insert rows of dir_user_group."""
        rows = self.memberships[["user_id", "group_id"]]
        database.fill(
            "dir_user_group", rows.set_axis(["userId", "groupId"], axis=1), about="dir_user_group"
        )

    def insert_links(self, database: Database, row: RunRow) -> None:
        """Insert the ledger's links."""
        rows, at = self.users.sort_values("sub"), str(row.at)
        values = {
            "sub": rows["sub"],
            "user_id": rows["after_id"],
            "user_id_sha256": [hash_name(str(user_id)) for user_id in rows["after_id"]],
            "state": rows["after_state"],
            "misses": rows["after_misses"],
            "sync": row.run.sync.name,
            "user_pool_id": row.run.sync.user_pool_id,
            "origin": str(Action.CREATE),
            "linked_at": at,
            "changed_at": at,
            "changed_by": row.key,
        }
        table = "directory_sync_user_link"
        database.fill(table, pd.DataFrame(values, index=rows.index), about=table)

    def verify(self, database: Database, tables: JogetTables, row: RunRow) -> None:
        """Read the rows back and compare them, by bytes, with the plan; raises PermanentError where
        a trigger or a default of the database's changed one.
        """
        if self.users.empty:
            return
        condition = "l.sync = %s AND l.user_pool_id = %s AND l.changed_by = %s"
        parameters: tuple[str, ...] = (row.run.sync.name, row.run.sync.user_pool_id, row.key)
        if len(self.users) <= SUBS_IN_A_QUERY:
            condition += f" AND l.sub IN ({', '.join(['%s'] * len(self.users))})"
            parameters += tuple(self.users["sub"])
        if not self._has_all_users(_read_users(database, tables, condition, parameters)):
            raise _make_error("dir_user")
        if not self._has_all_memberships(_read_memberships(database, condition, parameters)):
            raise _make_error("dir_user_group")

    def _has_all_users(self, written: Iterator[pd.DataFrame]) -> bool:
        planned = self._make_written_users()
        found = np.zeros(len(planned), dtype=bool)
        for rows in written:
            at = find_positions(rows["sub"], planned["sub"])
            is_planned = at >= 0
            found[at[is_planned]] = _are_as_planned(rows[is_planned], planned.iloc[at[is_planned]])
        return bool(found.all())

    def _make_written_users(self) -> pd.DataFrame:
        """The users as they should have been written: columns WRITTEN_USERS_SCHEMA."""
        users = self.users
        values = {
            "sub": users["sub"],
            "id": users["after_id"],
            "username": users["after_id"],
            **{column: users[f"after_{column}"] for column in USER_COLUMNS},
            "state": users["after_state"],
            "misses": users["after_misses"],
            "has_role": users["sub"].isin(self.roles["sub"]),
            "has_employment": users["sub"].isin(self.employments["sub"]),
        }
        return conform_to_schema(pd.DataFrame(values), WRITTEN_USERS_SCHEMA)

    def _has_all_memberships(self, written: Iterator[pd.DataFrame]) -> bool:
        columns = ("user_id", "group_id")
        users = self.users["after_id"]
        groups = self.memberships["group_id"].drop_duplicates()
        planned = number_pairs(self.memberships, columns, users, groups)
        found = np.zeros(len(planned), dtype=bool)
        for rows in written:
            found |= is_among(planned, number_pairs(rows, columns, users, groups))
        return bool(found.all())


def split_new_users(plan: Plan, linked_before: "pd.Series[str]") -> tuple[NewUsers, Plan]:
    """The new users of a plan, and the plan without their rows.

    linked_before: subs with an ended link in the ledger. Their links are updated, not inserted, so
    they stay in the plan.
    """
    users = plan.safe_part(Entity.USER)
    created = users[(users["action"] == Action.CREATE) & ~users["sub"].isin(linked_before)]
    if created.empty:
        return NewUsers(created, *(plan.part(entity).iloc[:0] for entity in ADDED_ENTITIES)), plan
    parts, own = dict(plan.parts), {}
    for entity in (Entity.USER, *ADDED_ENTITIES):
        rows = plan.part(entity)
        is_new = rows["sub"].isin(created["sub"]) & rows["hold"].isna()
        own[entity], parts[entity] = rows[is_new], rows[~is_new]
    return NewUsers(*own.values()), replace(plan, parts=parts)


def _read_users(
    database: Database, tables: JogetTables, condition: str, parameters: tuple[str, ...]
) -> Iterator[pd.DataFrame]:
    columns = ", ".join(f"d.{column}" for column in USER_COLUMNS)
    return database.frames(
        f"SELECT l.sub, d.id, d.username, {columns}, l.state, l.misses, EXISTS (SELECT 1 FROM "
        "dir_user_role r WHERE r.userId = d.id AND r.roleId = %s), EXISTS (SELECT 1 FROM "
        "dir_employment e WHERE e.userId = d.id AND e.organizationId = %s) FROM "
        "directory_sync_user_link l STRAIGHT_JOIN dir_user d ON d.id = l.user_id WHERE "
        f"{condition}",
        (tables.role_user, tables.organization, *parameters),
        schema=WRITTEN_USERS_SCHEMA,
        about="dir_user",
    )


def _read_memberships(
    database: Database, condition: str, parameters: tuple[str, ...]
) -> Iterator[pd.DataFrame]:
    return database.frames(
        "SELECT d.userId, d.groupId FROM directory_sync_user_link l STRAIGHT_JOIN dir_user_group d "
        f"ON d.userId = l.user_id WHERE {condition}",
        parameters,
        schema=WRITTEN_MEMBERSHIPS_SCHEMA,
        about="dir_user_group",
    )


def _are_as_planned(rows: pd.DataFrame, planned: pd.DataFrame) -> "np.ndarray[Any, Any]":
    """Whether each row is as planned; a role or an employment that wasn't planned may be there."""
    same = np.ones(len(rows), dtype=bool)
    for name in WRITTEN_USERS_SCHEMA.names:
        one, other = pa.array(rows[name]), pa.array(planned[name])
        if name.startswith("has_"):
            equal = pc.greater_equal(one, other)
        else:
            both_null = pc.and_(pc.is_null(one), pc.is_null(other))
            equal = pc.or_(pc.fill_null(pc.equal(one, other), False), both_null)
        same &= equal.to_numpy(zero_copy_only=False)
    return same


def _make_error(table: str) -> PermanentError:
    return PermanentError(
        f"{table} doesn't hold what was written to it; the run was rolled back. Look for a "
        f"trigger or a constraint of this database's own on {table}."
    )
