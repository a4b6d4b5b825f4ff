"""New users: their rows go straight into Joget's tables and the ledger, and are read back there.

In a first load nearly every row is a new user's. Other changes travel by temporary tables
(joget.sending), so that Joget's rows can be compared with them; a new user has no row to compare.
A key that somebody took meanwhile stops the insertion.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.errors import PermanentError
from directory_sync.frames import TEXT_TYPE, find_positions, is_true, number_pairs
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.ledger.runs import RunRow
from directory_sync.joget.schema import JogetTables, count_users
from directory_sync.joget.sending import make_passwords
from directory_sync.plan import Plan
from directory_sync.plan.changes import USER_COLUMN_FIELDS, USER_COLUMNS, hash_name
from directory_sync.vocabulary import Action, Entity

ADDED_ENTITIES = (Entity.ROLE, Entity.EMPLOYMENT, Entity.MEMBERSHIP)

USERS_ASKED_FOR = 1_000
"""Up to so many new users are always read back by their ids."""

SCANNED_SHARE = 0.1
"""If more of dir_user's rows are new, whole tables are read back: that takes less time than to look
each of their rows up.
"""

WRITTEN_LINKS_SCHEMA = pa.schema(
    [("sub", pa.string()), ("user_id", pa.string()), ("state", pa.string()), ("misses", pa.int64())]
)
WRITTEN_USERS_SCHEMA = pa.schema(
    [("id", pa.string()), ("username", pa.string()), *USER_COLUMN_FIELDS]
)
WRITTEN_PAIRS_SCHEMA = pa.schema([("user_id", pa.string()), ("other_id", pa.string())])
"""A user, and their role, employment or group."""

HASHES_AT_ONCE = 50_000
"""How many keys of the ledger are made at once."""


@dataclass(frozen=True)
class NewUsers:
    """The safe rows of users that a plan creates, as the parts of a plan have them."""

    users: pd.DataFrame
    roles: pd.DataFrame
    employments: pd.DataFrame
    memberships: pd.DataFrame

    def insert_users(self, database: Database, *, has_random_passwords: bool) -> None:
        """Insert rows of dir_user."""
        # InnoDB takes rows fastest in the order of their key, and a plan is sorted by ids already.
        passwords = make_passwords(self.users, are_random=has_random_passwords)
        rows = self._make_user_rows().assign(password=passwords)
        database.fill("dir_user", rows, about="dir_user")

    def insert_roles(self, database: Database, tables: JogetTables) -> None:
        """Insert rows of dir_user_role."""
        rows = self.roles[["user_id"]].rename(columns={"user_id": "userId"})
        constants = {"roleId": tables.role_user}
        database.fill("dir_user_role", rows, constants=constants, about="dir_user_role")

    def insert_employments(self, database: Database, tables: JogetTables) -> None:
        """Insert rows of dir_employment."""
        columns = {"employment_id": "id", "user_id": "userId"}
        rows = self.employments[list(columns)].rename(columns=columns).sort_values("id")
        constants = {"organizationId": tables.organization}
        database.fill("dir_employment", rows, constants=constants, about="dir_employment")

    def insert_memberships(self, database: Database) -> None:
        """Insert rows of dir_user_group."""
        rows = self.memberships[["user_id", "group_id"]]
        database.fill(
            "dir_user_group", rows.set_axis(["userId", "groupId"], axis=1), about="dir_user_group"
        )

    def insert_links(self, database: Database, row: RunRow) -> None:
        """Insert the ledger's links."""
        rows = self._make_link_rows().sort_values("sub")  # the order of the table's key
        constants = {
            "sync": row.run.sync.name,
            "user_pool_id": row.run.sync.user_pool_id,
            "origin": str(Action.CREATE),
            "linked_at": str(row.at),
            "changed_at": str(row.at),
            "changed_by": row.key,
        }
        table = "directory_sync_user_link"
        rows = rows.assign(user_id_sha256=_hash_ids(rows["user_id"]))
        database.fill(table, rows, constants=constants, about=table)

    def verify(self, database: Database, tables: JogetTables, row: RunRow) -> None:
        """Read the rows back and compare them, by bytes, with the plan; raises PermanentError where
        a trigger or a default of the database's changed one.
        """
        if self.users.empty:
            return
        written = WrittenRows(database, row, self.users)
        roles = self.roles.assign(role_id=tables.role_user)
        pairs = {
            ("dir_user_role", "roleId"): roles[["user_id", "role_id"]],
            ("dir_employment", "id"): self.employments[["user_id", "employment_id"]],
            ("dir_user_group", "groupId"): self.memberships[["user_id", "group_id"]],
        }
        if not _has_all_rows(self._make_link_rows(), "sub", written.read_links()):
            raise _make_error("directory_sync_user_link")
        if not _has_all_rows(self._make_user_rows(), "id", written.read_users()):
            raise _make_error("dir_user")
        for (table, column), planned in pairs.items():
            found = written.read_pairs(table, column)
            # More rows than planned are no fault: those that a trigger added are its own.
            if not _has_all_pairs(planned, self.users["after_id"], found):
                raise _make_error(table)

    def _make_user_rows(self) -> pd.DataFrame:
        """Columns WRITTEN_USERS_SCHEMA."""
        users = self.users
        values = {column: users[f"after_{column}"] for column in USER_COLUMNS}
        # Joget deletes users by id-as-username (DirectoryManagerImpl), so both are the same.
        return pd.DataFrame({"id": users["after_id"], "username": users["after_id"], **values})

    def _make_link_rows(self) -> pd.DataFrame:
        """Columns WRITTEN_LINKS_SCHEMA."""
        columns = {"sub": "sub", "after_id": "user_id"}
        columns |= {"after_state": "state", "after_misses": "misses"}
        return self.users[list(columns)].rename(columns=columns)


@dataclass(frozen=True)
class WrittenRows:
    """Reads back what a run wrote of new users, perhaps among other rows."""

    database: Database
    row: RunRow
    users: pd.DataFrame
    """The new users: a plan's rows."""

    def read_links(self) -> Generator[pd.DataFrame]:
        """Columns WRITTEN_LINKS_SCHEMA."""
        sync = self.row.run.sync
        return self._read(
            f"SELECT {', '.join(WRITTEN_LINKS_SCHEMA.names)} FROM directory_sync_user_link WHERE "
            "sync = %s AND user_pool_id = %s AND changed_by = %s",
            (sync.name, sync.user_pool_id, self.row.key),
            only=("AND sub", self.users["sub"]),
            schema=WRITTEN_LINKS_SCHEMA,
            about="directory_sync_user_link",
        )

    def read_users(self) -> Generator[pd.DataFrame]:
        """Columns WRITTEN_USERS_SCHEMA."""
        return self._read(
            f"SELECT {', '.join(WRITTEN_USERS_SCHEMA.names)} FROM dir_user",
            only=("WHERE id", self.users["after_id"]),
            schema=WRITTEN_USERS_SCHEMA,
            about="dir_user",
        )

    def read_pairs(self, table: str, column: str) -> Generator[pd.DataFrame]:
        """Columns WRITTEN_PAIRS_SCHEMA, of a table that has rows for each user."""
        return self._read(
            f"SELECT userId, {column} FROM {table}",
            only=("WHERE userId", self.users["after_id"]),
            schema=WRITTEN_PAIRS_SCHEMA,
            about=table,
        )

    def _read(
        self,
        statement: str,
        parameters: tuple[str, ...] = (),
        *,
        only: "tuple[str, pd.Series[str]]",
        schema: pa.Schema,
        about: str,
    ) -> Generator[pd.DataFrame]:
        if self._scans:
            yield from self.database.frames(statement, parameters, schema=schema, about=about)
            return
        key, values = only
        for batch in split_into_batches(values.tolist()):
            part = f"{statement} {key} IN ({', '.join(['%s'] * len(batch))})"
            yield self.database.frame(part, (*parameters, *batch), schema=schema, about=about)

    @cached_property
    def _scans(self) -> bool:
        """Whether whole tables are read."""
        if len(self.users) <= USERS_ASKED_FOR:
            return False
        return len(self.users) > SCANNED_SHARE * count_users(self.database)


def split_new_users(
    plan: Plan, user_pool_id: str, linked_before: "pd.Series[str]"
) -> tuple[NewUsers, Plan]:
    """The new users of a plan, and the plan without their rows.

    linked_before: subs with an ended link in the ledger.
    """
    users = plan.safe_part(Entity.USER)
    # The ledger has a row for an ended link, which is updated and not inserted.
    is_new = (users["action"] == Action.CREATE) & ~users["sub"].isin(linked_before)
    # An undo may give back a link to another pool, and insert_links writes those of this pool.
    is_new &= users["after_link"] == user_pool_id + "/" + users["sub"]
    subs = users.loc[is_true(is_new), "sub"]
    parts, own = dict(plan.parts), {}
    for entity in (Entity.USER, *ADDED_ENTITIES):
        rows = plan.part(entity)
        is_own = rows["sub"].isin(subs) & rows["hold"].isna()
        # In a first load, all rows are of new users: they are the largest frames, and not copied.
        own[entity] = rows if is_own.all() else rows[is_own]
        parts[entity] = rows[~is_own]
    return NewUsers(*own.values()), replace(plan, parts=parts)


def _hash_ids(user_ids: "pd.Series[str]") -> "pd.Series[str]":
    """The ledger's keys of ids."""
    # In parts: a million Python texts would take 100 MB.
    parts = [
        pa.array([hash_name(str(user_id)) for user_id in user_ids.iloc[start:][:HASHES_AT_ONCE]])
        for start in range(0, len(user_ids), HASHES_AT_ONCE)
    ]
    hashes = pa.chunked_array(parts, pa.string())
    return pd.Series(hashes, index=user_ids.index, dtype=TEXT_TYPE)


def _has_all_rows(planned: pd.DataFrame, key: str, written: Generator[pd.DataFrame]) -> bool:
    """Whether each planned row is among the written ones, which have the same columns."""
    found = np.zeros(len(planned), dtype=bool)
    # Closed on an error too: the next statement would meet the rest of this one's result.
    with closing(written) as parts:
        for rows in parts:
            at = find_positions(rows[key], planned[key])
            is_planned = at >= 0
            new_rows, planned_rows = rows[is_planned], planned.iloc[at[is_planned]]
            found[at[is_planned]] = _are_equal(new_rows, planned_rows)
    return bool(found.all())


def _has_all_pairs(
    planned: pd.DataFrame, users: "pd.Series[str]", written: Generator[pd.DataFrame]
) -> bool:
    """Whether each planned pair of a user's id and another id is among the written ones."""
    others = planned.iloc[:, 1].drop_duplicates()
    numbers = number_pairs(planned, list(planned.columns), users, others)
    found = np.zeros(len(planned), dtype=bool)
    with closing(written) as parts:
        for rows in parts:
            pairs = number_pairs(rows, WRITTEN_PAIRS_SCHEMA.names, users, others)
            found |= pd.Index(numbers).isin(pairs)
    # A pair without a number has an id that no new user has, so it can't have been found.
    return bool((found & (numbers >= 0)).all())


def _are_equal(rows: pd.DataFrame, others: pd.DataFrame) -> "np.ndarray[Any, Any]":
    """Whether rows at the same position are equal, by bytes; null equals null."""
    same = np.ones(len(rows), dtype=bool)
    for name in rows.columns:
        left, right = pa.array(rows[name]), pa.array(others[name])
        both_null = pc.and_(pc.is_null(left), pc.is_null(right))
        equal = pc.or_(pc.fill_null(pc.equal(left, right), False), both_null)
        same &= equal.to_numpy(zero_copy_only=False)
    return same


def _make_error(table: str) -> PermanentError:
    return PermanentError(
        f"{table} doesn't hold what was written to it; the run was rolled back. Look for a trigger "
        f"or a constraint of this database's own on {table}."
    )
