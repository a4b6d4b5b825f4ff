"""New users: their rows go straight into Joget's tables and the ledger, and are read back there.

In a first load nearly every row is a new user's. Other changes travel by temporary tables
(joget.sending), so that Joget's rows can be compared with them; a new user has no row to compare.
A key that somebody took meanwhile stops the insertion.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.errors import PermanentError
from directory_sync.frames import (
    conform_to_schema,
    find_positions,
    is_true,
    number_pairs,
)
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

COLUMNS_OF_TABLES = {
    "directory_sync_user_link": ("user_id", "state", "misses"),
    "dir_user": ("id", "username", *USER_COLUMNS),
    "dir_user_role": ("has_role",),
}
"""The columns of WRITTEN_USERS_SCHEMA that each table holds."""

NUMBER_COLUMNS = ("active", "misses")

WRITTEN_USERS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        *(
            (name, pa.int64() if name in NUMBER_COLUMNS else pa.string())
            for table in ("directory_sync_user_link", "dir_user")
            for name in COLUMNS_OF_TABLES[table]
        ),
        ("has_role", pa.bool_()),
    ]
)
"""Users as they were written, with the links that lead to them."""

WRITTEN_PAIRS_SCHEMA = pa.schema([("user_id", pa.string()), ("other_id", pa.string())])
"""A user, and their employment or group."""


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
        written = WrittenRows(database, tables, row, self.users["sub"])
        with closing(written.read_users()) as rows:
            wrong = self._find_wrong_tables(rows)
        with closing(written.read_pairs("dir_employment", "id")) as rows:
            if not self._has_all_pairs(self.employments, "employment_id", rows):
                wrong.append("dir_employment")
        with closing(written.read_pairs("dir_user_group", "groupId")) as rows:
            if not self._has_all_pairs(self.memberships, "group_id", rows):
                wrong.append("dir_user_group")
        if wrong:
            raise PermanentError(
                f"{wrong[0]} doesn't hold what was written to it; the run was rolled back. Look "
                f"for a trigger or a constraint of this database's own on {wrong[0]}."
            )

    def _find_wrong_tables(self, written: Iterator[pd.DataFrame]) -> list[str]:
        planned = self._make_written_users()
        found = {table: np.zeros(len(planned), dtype=bool) for table in COLUMNS_OF_TABLES}
        for rows in written:
            at = find_positions(rows["sub"], planned["sub"])
            is_planned = at >= 0
            new_rows, planned_rows = rows[is_planned], planned.iloc[at[is_planned]]
            for table, columns in COLUMNS_OF_TABLES.items():
                found[table][at[is_planned]] = _are_as_planned(new_rows, planned_rows, columns)
        return [table for table, is_found in found.items() if not is_found.all()]

    def _make_written_users(self) -> pd.DataFrame:
        """The users as they should have been written: columns WRITTEN_USERS_SCHEMA."""
        users = self.users
        values = {
            "sub": users["sub"],
            "user_id": users["after_id"],
            "state": users["after_state"],
            "misses": users["after_misses"],
            "id": users["after_id"],
            "username": users["after_id"],
            **{column: users[f"after_{column}"] for column in USER_COLUMNS},
            "has_role": users["sub"].isin(self.roles["sub"]),
        }
        return conform_to_schema(pd.DataFrame(values), WRITTEN_USERS_SCHEMA)

    def _has_all_pairs(
        self, planned_rows: pd.DataFrame, column: str, written: Iterator[pd.DataFrame]
    ) -> bool:
        users, others = self.users["after_id"], planned_rows[column].drop_duplicates()
        planned = number_pairs(planned_rows, ("user_id", column), users, others)
        found = np.zeros(len(planned), dtype=bool)
        for rows in written:
            pairs = number_pairs(rows, WRITTEN_PAIRS_SCHEMA.names, users, others)
            found |= pd.Index(planned).isin(pairs)
        return bool(found.all())


@dataclass(frozen=True)
class WrittenRows:
    """Reads back what a run wrote of new users, by their links. It may give rows of other users
    too, whose links the run changed.
    """

    database: Database
    tables: JogetTables
    row: RunRow
    subs: "pd.Series[str]"

    @property
    def _condition(self) -> str:
        condition = "l.sync = %s AND l.user_pool_id = %s AND l.changed_by = %s"
        if len(self.subs) > SUBS_IN_A_QUERY:
            return condition
        return f"{condition} AND l.sub IN ({', '.join(['%s'] * len(self.subs))})"

    @property
    def _parameters(self) -> tuple[str, ...]:
        sync = self.row.run.sync
        subs = self.subs if len(self.subs) <= SUBS_IN_A_QUERY else ()
        return (sync.name, sync.user_pool_id, self.row.key, *subs)

    def read_users(self) -> Generator[pd.DataFrame]:
        """Columns WRITTEN_USERS_SCHEMA; dir_user's are null where the link leads nowhere."""
        columns = ", ".join(f"d.{column}" for column in COLUMNS_OF_TABLES["dir_user"])
        user_id = self.tables.as_directory("l.user_id")
        return self.database.frames(
            f"SELECT l.sub, l.user_id, l.state, l.misses, {columns}, EXISTS (SELECT 1 FROM "
            "dir_user_role r WHERE r.userId = d.id AND r.roleId = %s) FROM "
            f"directory_sync_user_link l LEFT JOIN dir_user d ON d.id = {user_id} "
            f"WHERE {self._condition}",
            (self.tables.role_user, *self._parameters),
            schema=WRITTEN_USERS_SCHEMA,
            about="dir_user",
        )

    def read_pairs(self, table: str, column: str) -> Generator[pd.DataFrame]:
        """Columns WRITTEN_PAIRS_SCHEMA: a child table's rows of the users."""
        user_id = self.tables.as_directory("l.user_id")
        return self.database.frames(
            f"SELECT d.userId, d.{column} FROM directory_sync_user_link l STRAIGHT_JOIN {table} d "
            f"ON d.userId = {user_id} WHERE {self._condition}",
            self._parameters,
            schema=WRITTEN_PAIRS_SCHEMA,
            about=table,
        )


def split_new_users(
    plan: Plan, user_pool_id: str, linked_before: "pd.Series[str]"
) -> tuple[NewUsers, Plan]:
    """The new users of a plan, and the plan without their rows.

    linked_before: subs with an ended link in the ledger. Their links are updated, not inserted, so
    they stay in the plan; so do users whose link, which an undo gives back, is to another pool.
    """
    users = plan.safe_part(Entity.USER)
    is_new = (users["action"] == Action.CREATE) & ~users["sub"].isin(linked_before)
    is_new &= users["after_link"] == user_pool_id + "/" + users["sub"]
    created = users[is_true(is_new)]
    if created.empty:
        return NewUsers(created, *(plan.part(entity).iloc[:0] for entity in ADDED_ENTITIES)), plan
    parts, own = dict(plan.parts), {}
    for entity in (Entity.USER, *ADDED_ENTITIES):
        rows = plan.part(entity)
        is_own = rows["sub"].isin(created["sub"]) & rows["hold"].isna()
        own[entity] = rows if is_own.all() else rows[is_own]
        parts[entity] = rows[~is_own]
    return NewUsers(*own.values()), replace(plan, parts=parts)


def _are_as_planned(
    rows: pd.DataFrame, planned: pd.DataFrame, columns: Sequence[str]
) -> "np.ndarray[Any, Any]":
    """Whether each row is as planned, by bytes. A role that wasn't planned may be there."""
    same = np.ones(len(rows), dtype=bool)
    for name in columns:
        one, other = pa.array(rows[name]), pa.array(planned[name])
        if name == "has_role":
            equal = pc.greater_equal(one, other)
        else:
            both_null = pc.and_(pc.is_null(one), pc.is_null(other))
            equal = pc.or_(pc.fill_null(pc.equal(one, other), False), both_null)
        same &= equal.to_numpy(zero_copy_only=False)
    return same
