"""Applying a plan's safe rows to Joget and the ledger, in one transaction that checks itself before it commits."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import pandas as pd

from include.directory_sync.errors import ConflictError, DirectorySyncError, PermanentError, RefusedRowError
from include.directory_sync.frames import TEXT
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.ledger import ASCII, RunRow
from include.directory_sync.joget.tables import Tables
from include.directory_sync.plan.changes import USER_COLUMNS

USERS = "directory_sync_user_change"
GROUPS = "directory_sync_group_change"
ROLES = "directory_sync_role_change"
EMPLOYMENTS = "directory_sync_employment_change"
MEMBERSHIPS = "directory_sync_membership_change"


class _TriedError(Exception):
    """Ends a trial before its COMMIT."""


def _roll_back() -> None:
    raise _TriedError


@dataclass(frozen=True)
class Apply:
    """One application of one plan.

    `publish` runs after the checks and before COMMIT, so that no change is ever without its published plan.
    """

    database: Database
    tables: Tables
    row: RunRow
    revision: int
    publish: Callable[[], None]

    def run(self) -> None:
        """Write everything or nothing.

        Raises ConflictError where Joget or the ledger changed since the plan was made: plan again. Raises
        RefusedRowError that names the sub where the database refuses a user's row.
        """
        try:
            self._run()
        except RefusedRowError as error:
            sub = self._refused_sub()
            raise RefusedRowError(f"{error} It refuses the rows of sub {sub}." if sub else str(error)) from None

    def _run(self) -> None:
        self._send()
        with self.database.transaction("READ COMMITTED"):
            self._take_turn()
            self._lock_and_compare()
            self._write_groups()
            self._write_users()
            self._write_roles()
            self._write_memberships()
            self._write_employments()
            self._write_ledger()
            self._verify()
            self.publish()

    def _refused_sub(self) -> str | None:
        """Whose rows the database refuses, found by trying halves of the plan and rolling each back."""
        subs = sorted(set(self.row.plan.safe["sub"].dropna()))
        while len(subs) > 1:
            half = subs[: len(subs) // 2]
            subs = half if self._refuses(half) else subs[len(half) :]
        return subs[0] if subs and self._refuses(subs) else None

    def _refuses(self, subs: list[str]) -> bool:
        plan = self.row.plan
        changes = plan.changes[plan.changes["sub"].isna() | plan.changes["sub"].isin(subs)]
        row = replace(self.row, plan=replace(plan, changes=changes))
        try:
            replace(self, row=row, publish=_roll_back)._run()
        except RefusedRowError:
            return True
        except (_TriedError, DirectorySyncError):
            return False
        raise AssertionError("a trial always ends in its roll-back")

    def _send(self) -> None:
        """Send the plan into temporary tables, before the transaction: DDL commits."""
        text, token = self.tables.text, f"VARCHAR(128) {ASCII}"
        values = {
            f"{side}_{column}": "INT" if column == "active" else text
            for side in ("before", "after")
            for column in USER_COLUMNS
        }
        users = self._safe("user")
        users = users.reset_index(drop=True).assign(password=self._passwords(len(users)))
        columns = {"user_id": text, "sub": token, "action": token, "after_state": token, "password": token, **values}
        self._send_rows(USERS, users, columns, "user_id")
        groups = self._safe("group").assign(group_name_sha256=_name_hash)
        columns = {"group_id": text, "group_name": text, "group_name_sha256": token, "action": token}
        columns |= dict.fromkeys(("before_name", "after_name", "after_organizationId"), text)
        self._send_rows(GROUPS, groups, columns, "group_id")
        self._send_rows(ROLES, self._safe("role"), {"user_id": text}, "user_id")
        self._send_rows(EMPLOYMENTS, self._safe("employment"), {"user_id": text, "employment_id": token}, "user_id")
        memberships = self._safe("membership").assign(group_name_sha256=_name_hash)
        columns = {"user_id": text, "group_id": text, "sub": token, "group_name_sha256": token, "action": token}
        self._send_rows(MEMBERSHIPS, memberships, columns, "user_id, group_id")

    def _safe(self, entity: str) -> pd.DataFrame:
        safe = self.row.plan.safe
        return safe[safe["entity"] == entity]

    def _passwords(self, count: int) -> pd.Series:
        """For created users: null, or what Joget takes for a hash that no password has."""
        random = self.row.run.sync.policies.new_password == "random"  # noqa: S105 - a policy
        return pd.Series([secrets.token_hex(16) if random else None for _ in range(count)], dtype=TEXT)

    def _send_rows(self, table: str, frame: pd.DataFrame, columns: dict[str, str], key: str) -> None:
        definition = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        about = "a temporary table"
        self.database.execute(f"DROP TEMPORARY TABLE IF EXISTS {table}", about=about)
        self.database.execute(
            f"CREATE TEMPORARY TABLE {table} ({definition}, PRIMARY KEY ({key})) ENGINE=InnoDB", about=about
        )
        marks = ", ".join(["%s"] * len(columns))
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
        self.database.insert(statement, frame[list(columns)], about=about)

    def _take_turn(self) -> None:
        """The first write of the transaction: a clustered database refuses a second writer here."""
        turns = self.database.execute(
            "UPDATE directory_sync_lock SET revision = revision + 1 WHERE id = 1 AND revision = %s",
            (self.revision,),
            about="directory_sync_lock",
        )
        if turns != 1:
            raise ConflictError("Another run wrote through the ledger since this one read it. Planning again.")

    def _lock_and_compare(self) -> None:
        """Lock the touched rows in key order and hold them, by bytes, against the plan's before."""
        known_users = "action <> 'create' AND action <> 'recreate'"
        checks = [
            (USERS, "user_id", "dir_user", _same(USER_COLUMNS, "before"), known_users),
            (GROUPS, "group_id", "dir_group", _same(("name",), "before"), known_users),
        ]
        for changes, key, table, same, known in checks:
            planned = self._count(f"{changes} t WHERE {known}", about=table)
            found, unchanged = self.database.rows(
                f"SELECT COUNT(*), COALESCE(SUM({same} AND {_bytes('d.id')} = {_bytes(f't.{key}')}), 0) "
                f"FROM {changes} t STRAIGHT_JOIN {table} d ON d.id = t.{key} WHERE {known} FOR UPDATE",
                about=table,
            )[0]
            if not found == unchanged == planned:
                raise ConflictError(f"{table} was changed by somebody else since it was read. Planning again.")

    def _write_groups(self) -> None:
        self.database.execute(
            f"INSERT INTO dir_group (id, name, description, organizationId) SELECT group_id, after_name, '', "
            f"after_organizationId FROM {GROUPS} WHERE action IN ('create', 'recreate') ORDER BY group_id",
            about="dir_group",
        )
        self.database.execute(
            f"UPDATE dir_group d JOIN {GROUPS} t ON d.id = t.group_id SET d.name = t.after_name "
            f"WHERE t.action IN ('adopt', 'update') AND NOT {_same(('name',), 'after')}",
            about="dir_group",
        )

    def _write_users(self) -> None:
        columns = ", ".join(USER_COLUMNS)
        after = ", ".join(f"after_{column}" for column in USER_COLUMNS)
        self.database.execute(
            f"INSERT INTO dir_user (id, username, password, {columns}) SELECT user_id, user_id, password, {after} "
            f"FROM {USERS} WHERE action IN ('create', 'recreate') ORDER BY user_id",
            about="dir_user",
        )
        values = ", ".join(f"d.{column} = t.after_{column}" for column in USER_COLUMNS)
        self.database.execute(
            f"UPDATE dir_user d JOIN {USERS} t ON d.id = t.user_id SET {values} "
            f"WHERE t.action NOT IN ('create', 'recreate') AND NOT ({_same(USER_COLUMNS, 'after')})",
            about="dir_user",
        )

    def _write_roles(self) -> None:
        self.database.execute(
            f"INSERT INTO dir_user_role (roleId, userId) SELECT %s, user_id FROM {ROLES} ORDER BY user_id",
            (self.tables.role_user,),
            about="dir_user_role",
        )

    def _write_memberships(self) -> None:
        self.database.execute(
            f"DELETE d FROM dir_user_group d JOIN {MEMBERSHIPS} t ON d.userId = t.user_id AND d.groupId = t.group_id "
            f"WHERE t.action = 'remove'",
            about="dir_user_group",
        )
        self.database.execute(
            f"INSERT INTO dir_user_group (groupId, userId) SELECT group_id, user_id FROM {MEMBERSHIPS} "
            f"WHERE action = 'add' ORDER BY user_id, group_id",
            about="dir_user_group",
        )

    def _write_employments(self) -> None:
        self.database.execute(
            f"INSERT INTO dir_employment (id, userId, organizationId) SELECT employment_id, user_id, %s "
            f"FROM {EMPLOYMENTS} ORDER BY employment_id",
            (self.tables.organization,),
            about="dir_employment",
        )

    def _write_ledger(self) -> None:
        mine = (self.row.run.sync.name, self.row.run.sync.user_pool_id)
        at = self.row.snapshot_at.replace(tzinfo=None)
        self._write_links(mine, at)
        self.database.execute(
            f"INSERT INTO directory_sync_local_membership (sync, user_pool_id, sub, group_name_sha256) "
            f"SELECT %s, %s, sub, group_name_sha256 FROM {MEMBERSHIPS} WHERE action = 'keep_local'",
            mine,
            about="directory_sync_local_membership",
        )
        self.database.execute(
            f"DELETE d FROM directory_sync_local_membership d JOIN {MEMBERSHIPS} t ON d.sub = t.sub "
            f"AND d.group_name_sha256 = t.group_name_sha256 "
            f"WHERE d.sync = %s AND d.user_pool_id = %s AND t.action = 'claim'",
            mine,
            about="directory_sync_local_membership",
        )
        values = self.row.values(self.tables.organization)
        marks = ", ".join(["%s"] * len(values.columns))
        self.database.execute(
            f"INSERT INTO directory_sync_run ({', '.join(values.columns)}, committed_at) "
            f"VALUES ({marks}, UTC_TIMESTAMP(6))",
            values.iloc[0].tolist(),
            about="directory_sync_run",
        )

    def _write_links(self, mine: tuple[str, str], at: datetime) -> None:
        self.database.execute(
            f"INSERT INTO directory_sync_user_link (sync, user_pool_id, sub, user_id, user_id_sha256, origin, state, "
            f"linked_at, changed_at, changed_by) SELECT %s, %s, sub, user_id, SHA2(user_id, 256), action, after_state, "
            f"%s, %s, %s FROM {USERS} WHERE action IN ('create', 'adopt') ORDER BY sub",
            (*mine, at, at, self.row.key),
            about="directory_sync_user_link",
        )
        self.database.execute(
            f"UPDATE directory_sync_user_link d JOIN {USERS} t ON d.sub = t.sub "
            f"SET d.state = t.after_state, d.changed_at = %s, d.changed_by = %s "
            f"WHERE d.sync = %s AND d.user_pool_id = %s AND t.action NOT IN ('create', 'adopt')",
            (at, self.row.key, *mine),
            about="directory_sync_user_link",
        )
        self.database.execute(
            f"INSERT INTO directory_sync_group_link (sync, user_pool_id, group_name_sha256, group_name, group_id, "
            f"group_id_sha256, origin, linked_at, changed_by) SELECT %s, %s, group_name_sha256, group_name, group_id, "
            f"SHA2(group_id, 256), action, %s, %s FROM {GROUPS} WHERE action IN ('create', 'adopt') ORDER BY group_id",
            (*mine, at, self.row.key),
            about="directory_sync_group_link",
        )

    def _verify(self) -> None:
        """Read back what was written, by bytes: a trigger or a default of the database may have changed it."""
        users = f"{USERS} t JOIN dir_user d ON d.id = t.user_id WHERE {_same(USER_COLUMNS, 'after')}"
        groups = f"{GROUPS} t JOIN dir_group d ON d.id = t.group_id WHERE {_same(('name',), 'after')}"
        roles = f"{ROLES} t JOIN dir_user_role d ON d.userId = t.user_id AND d.roleId = 'ROLE_USER'"
        employments = f"{EMPLOYMENTS} t JOIN dir_employment d ON d.id = t.employment_id"
        members = f"{MEMBERSHIPS} t JOIN dir_user_group d ON d.userId = t.user_id AND d.groupId = t.group_id"
        links = (
            f"{USERS} t JOIN directory_sync_user_link d ON d.sub = t.sub AND d.state = t.after_state "
            f"AND {_bytes('d.user_id')} = {_bytes('t.user_id')} WHERE d.changed_by = '{self.row.key}'"
        )
        same_ids = f"{_bytes('d.userId')} = {_bytes('t.user_id')} AND {_bytes('d.groupId')} = {_bytes('t.group_id')}"
        stays = "t.action IN ('add', 'keep_local', 'claim')"
        checks = [
            ("dir_user", users, USERS),
            ("dir_group", groups, GROUPS),
            ("dir_user_role", roles, ROLES),
            ("dir_employment", employments, EMPLOYMENTS),
            (
                "dir_user_group",
                f"{members} WHERE t.action = 'add' AND {same_ids}",
                f"{MEMBERSHIPS} t WHERE t.action = 'add'",
            ),
            ("dir_user_group", f"{members} WHERE {stays} OR t.action = 'remove'", f"{MEMBERSHIPS} t WHERE {stays}"),
            ("directory_sync_user_link", links, USERS),
        ]
        for about, found, planned in checks:
            if self._count(found, about=about) != self._count(planned, about=about):
                raise PermanentError(
                    f"{about} doesn't hold what was written to it; the run was rolled back. Look for a trigger or a "
                    f"constraint of this database's own on {about}."
                )

    def _count(self, source: str, *, about: str) -> int:
        return int(self.database.rows(f"SELECT COUNT(*) FROM {source}", about=about)[0][0])


def _bytes(expression: str) -> str:
    """SQL that compares by bytes, where the collation would say that `mcdonald` is `McDonald`."""
    return f"CAST({expression} AS BINARY)"


def _same(columns: tuple[str, ...], side: str) -> str:
    pairs = [
        f"d.{column} <=> t.{side}_{column}"
        if column == "active"
        else f"{_bytes(f'd.{column}')} <=> {_bytes(f't.{side}_{column}')}"
        for column in columns
    ]
    return f"({' AND '.join(pairs)})"


def _name_hash(frame: pd.DataFrame) -> list[str]:
    return [hashlib.sha256(name.encode()).hexdigest() for name in frame["group_name"]]
