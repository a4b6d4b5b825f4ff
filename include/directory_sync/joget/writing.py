"""Applying a plan's safe rows to Joget and the ledger, in one transaction that is verified before
its COMMIT.

Statements begin at our temporary tables (STRAIGHT_JOIN): the database knows nothing about a table
that was just filled, and would guess the order.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

from directory_sync.errors import ConflictError, RefusedRowError, TakenKeyError
from directory_sync.joget import sending
from directory_sync.joget.comparing import (
    GROUP_COLUMNS,
    cast_to_bytes,
    compare_columns,
    lock_and_compare,
    verify_written_rows,
)
from directory_sync.joget.database import Database
from directory_sync.joget.database_errors import TEMPORARY_TABLE
from directory_sync.joget.ledger import links, recording, reviews
from directory_sync.joget.ledger.runs import RunRow
from directory_sync.joget.new_users import NewUsers, split_new_users
from directory_sync.joget.schema import (
    TABLES_BY_USER_ID,
    TABLES_BY_USERNAME,
    TABLES_WITHOUT_INDEX,
    JogetTables,
)
from directory_sync.joget.sending import (
    EMPLOYMENT_CHANGES_TABLE,
    GROUP_CHANGES_TABLE,
    MEMBERSHIP_CHANGES_TABLE,
    ROLE_CHANGES_TABLE,
    USER_CHANGES_TABLE,
)
from directory_sync.plan import Plan
from directory_sync.plan.answers import AnswerUpdate
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.plan.deferral import Deferred, defer_rows
from directory_sync.plan.refusals import find_refused_rows
from directory_sync.vocabulary import Entity


def _join_to_user_changes(table: str, column: str) -> str:
    """SQL that joins rows `d` to their users' changes `t`, starting from the table without an index
    on the username, if it has none.
    """
    if table in TABLES_WITHOUT_INDEX:
        # user_id leads the changes' primary key. It equals before_id, which has no index.
        return (
            f"{table} d STRAIGHT_JOIN {USER_CHANGES_TABLE} t ON t.user_id = d.{column} AND "
            "t.before_id IS NOT NULL"
        )
    return f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN {table} d ON d.{column} = t.before_id"


class RefusedRowsError(ConflictError):
    """The database refuses the rows of some users and groups: plan again without them."""

    def __init__(self, message: str, deferred: Deferred) -> None:
        super().__init__(message)
        self.deferred = deferred


class _TriedError(Exception):
    """Rolls a trial back before its COMMIT."""


def _roll_back() -> None:
    raise _TriedError


@dataclass(frozen=True)
class PlanApplication:
    """One application of one plan.

    `publish` is called before the transaction begins, so that every change has its published plan
    and no lock waits for the object store. `update_answers` tells which of people's answers the
    ledger is to remember and which to forget. `defers`: whether rows that Joget changed since the
    plan was made are left out.
    """

    database: Database
    tables: JogetTables
    row: RunRow
    revision: int
    publish: Callable[[], None]
    update_answers: Callable[[Plan], AnswerUpdate] = lambda _plan: AnswerUpdate()
    defers: bool = False
    before_commit: Callable[[], None] = lambda: None

    def run(self) -> Plan:
        """Write everything or nothing; gives the plan that was written.

        Raises ConflictError, so that the caller plans again, where another run wrote through the
        ledger meanwhile, and, unless `defers`, where Joget's rows changed. Raises RefusedRowsError,
        with the users and groups, where the database refuses their rows.
        """
        try:
            return self._run()
        except (RefusedRowError, TakenKeyError) as error:
            # Somebody may have taken the key since we read. So the first planning is repeated, and
            # only the next ones leave rows out.
            if isinstance(error, TakenKeyError) and not self.defers:
                raise
            deferred = find_refused_rows(self.row.plan, self._refuses)
            if not deferred:
                raise
            raise RefusedRowsError(str(error), deferred) from None

    def _run(self) -> Plan:
        # The object store and the database work at the same time. One thread, since publishing and
        # hashing need much memory each. Both end before the transaction begins, so no lock waits.
        with ThreadPoolExecutor(1) as beside:
            published = beside.submit(self.publish)
            hashed = beside.submit(lambda: self.row.plan.sha256)
            self._send()
            published.result()
            hashed.result()
        return self._write(self.update_answers(self.row.plan))

    @cached_property
    def _parts(self) -> tuple[NewUsers, Plan]:
        """The new users, and the part of the plan that travels by temporary tables."""
        plan, run = self.row.plan, self.row.run
        # Only the temporary tables tell which rows are locked, so all rows travel by them where
        # some may be left out.
        if self.defers:
            return split_new_users(plan, run.sync.user_pool_id, plan.part(Entity.USER)["sub"])
        ended = links.read_ended_subs(self.database, run)
        return split_new_users(plan, run.sync.user_pool_id, ended)

    @property
    def _new_users(self) -> NewUsers:
        return self._parts[0]

    def _write(self, answers: AnswerUpdate) -> Plan:
        # Foreign keys give the order: users and groups before what points to them, and what points
        # to them before they are deleted. Evictions come before all, since they free logins.
        with self.database.writing_transaction():
            self._take_turn()
            row = self._leave_out_changed()
            self._evict_users()
            self._write_groups()
            self._write_users()
            self._write_roles()
            self._write_memberships()
            self._delete_groups()
            self._delete_users()
            # Uncommitted employments make Joget's console wait when it edits the organization, so
            # they come last. Uncommitted rows of ROLE_USER block nobody (tried on MariaDB 10.11).
            self._write_employments()
            self._write_ledger(row)
            self._verify()
            if row is not self.row:  # some rows were left out, so their answers stay
                answers = self.update_answers(row.plan)
            reviews.update_answers(self.database, row.run.sync.name, answers)
            self.before_commit()
        return row.plan

    def _leave_out_changed(self) -> RunRow:
        """Lock and compare the rows; gives the run's row, without what somebody changed since they
        were read. Raises ConflictError for such a change, unless `defers`.
        """
        # What is the same now stays so until COMMIT, since the rows are locked from here on.
        changed = lock_and_compare(self.database, waits=not self.defers)
        if not changed:
            return self.row
        if not self.defers:
            raise ConflictError(
                f"{len(changed.subs)} users and {len(changed.groups)} groups were changed by "
                "somebody else since they were read. Planning again."
            )
        deferred = self.row.deferred.join_all(changed)
        plan = defer_rows(self.row.plan, deferred)
        sending.remove_deferred_rows(self.database, plan)
        return replace(self.row, plan=plan, deferred=deferred)

    def _refuses(self, left_out: Deferred) -> bool:
        row = replace(self.row, plan=defer_rows(self.row.plan, left_out))
        # Only writing shows what triggers and constraints refuse.
        trial = replace(self, row=row, publish=lambda: None, before_commit=_roll_back)
        try:
            trial._run()
        except (RefusedRowError, TakenKeyError):
            return True
        except _TriedError:
            return False
        raise AssertionError("a trial always ends in its roll-back")

    @property
    def _has_random_passwords(self) -> bool:
        return self.row.run.sync.policies.new_password == "random"  # noqa: S105 - a policy

    def _send(self) -> None:
        _, others = self._parts
        sending.send_plan(
            self.database, self.tables, others, random_passwords=self._has_random_passwords
        )

    def _take_turn(self) -> None:
        """Write the ledger's lock row; raises ConflictError where another run did so first."""
        # The named lock is one server's. In a cluster, a run on another node gets its own, and this
        # row is where the second writer is refused.
        turns = self.database.execute(
            "UPDATE directory_sync_lock SET revision = revision + 1 WHERE id = 1 AND revision = %s",
            (self.revision,),
            about="directory_sync_lock",
        )
        if turns != 1:
            raise ConflictError(
                "Another run wrote through the ledger since this one read it. Planning again."
            )

    def _execute(self, table: str, statement: str, parameters: tuple[str, ...] = ()) -> None:
        self.database.execute(statement, parameters, about=table)

    def _has_changes(self, condition: str, changes: str = USER_CHANGES_TABLE) -> bool:
        """Whether any sent change meets the condition."""
        # The server checks rights before it looks for rows. Since callers ask here first, the
        # account needs those to delete and to rename only where something is deleted or renamed.
        statement = f"SELECT 1 FROM {changes} t WHERE {condition} LIMIT 1"
        return bool(self.database.rows(statement, about=TEMPORARY_TABLE))

    def _write_groups(self) -> None:
        self._execute(
            "dir_group",
            "INSERT INTO dir_group (id, name, description, organizationId) SELECT after_id, "
            "after_name, '', "
            f"after_organizationId FROM {GROUP_CHANGES_TABLE} WHERE before_id IS NULL AND after_id "
            "IS NOT NULL ORDER BY group_id",
        )
        # An UPDATE with equal values would still start this database's triggers.
        self._execute(
            "dir_group",
            f"UPDATE {GROUP_CHANGES_TABLE} t STRAIGHT_JOIN dir_group d ON d.id = t.after_id SET "
            "d.name = t.after_name "
            f"WHERE t.before_id IS NOT NULL AND NOT {compare_columns(GROUP_COLUMNS, 'after')}",
        )

    def _evict_users(self) -> None:
        """Delete accounts that single sign-on made for a linked user's new login, before the
        rename. Raises TakenKeyError where Joget keeps more of an account by now.
        """
        evicted = "t.action = 'evict'"
        if not self._has_changes(evicted):
            return
        # Another role, a membership or an employment that came meanwhile stops the deletion by its
        # foreign key. What Joget keeps by username has none, so it is looked for here.
        for table, column in TABLES_BY_USERNAME:
            if table != "dir_user_extra":  # Joget notes each login there
                used = (
                    f"SELECT 1 FROM {_join_to_user_changes(table, column)} WHERE {evicted} LIMIT 1"
                )
                if self.database.rows(used, about=table):
                    raise TakenKeyError(
                        f"{table} got a row of an account that was to be evicted. Planning again."
                    )
        source = f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN"
        role = f"dir_user_role d ON d.userId = t.before_id AND d.roleId = %s WHERE {evicted}"
        self._execute("dir_user_role", f"DELETE d FROM {source} {role}", (self.tables.role_user,))
        for table, column in (("dir_user", "id"), ("dir_user_extra", "username")):
            self._execute(
                table,
                f"DELETE d FROM {source} {table} d ON d.{column} = t.before_id WHERE {evicted}",
            )

    def _write_users(self) -> None:
        """Rename, insert and update users."""
        self._rename_users()
        self._new_users.insert_users(self.database, has_random_passwords=self._has_random_passwords)
        columns = ", ".join(USER_COLUMNS)
        after = ", ".join(f"after_{column}" for column in USER_COLUMNS)
        # The id is the username too, since Joget deletes users by it (DirectoryManagerImpl).
        self._execute(
            "dir_user",
            f"INSERT INTO dir_user (id, username, password, {columns}) SELECT after_id, after_id, "
            f"password, {after} "
            f"FROM {USER_CHANGES_TABLE} WHERE before_id IS NULL AND after_id IS NOT NULL ORDER BY "
            "user_id",
        )
        values = ", ".join(f"d.{column} = t.after_{column}" for column in USER_COLUMNS)
        self._execute(
            "dir_user",
            f"UPDATE {USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_user d ON d.id = t.after_id SET "
            f"{values} WHERE t.before_id IS NOT NULL AND NOT "
            f"({compare_columns(USER_COLUMNS, 'after')})",
        )

    def _rename_users(self) -> None:
        """Insert a new row with every column of the old one, move every child to it, and delete the
        old row.
        """
        # MySQL refuses to change the id of a row with children: Joget's foreign keys don't cascade.
        renamed = (
            f"t.after_id IS NOT NULL AND NOT {cast_to_bytes('t.after_id')} = "
            f"{cast_to_bytes('t.before_id')}"
        )
        # Joget's releases differ in dir_user's columns, and a rename keeps all of them.
        others = [
            column
            for column in self.tables.user_columns
            if column.lower() not in {"id", "username"}
        ]
        columns = ", ".join(f"`{column}`" for column in others)
        copied = ", ".join(f"d.`{column}`" for column in others)
        moved = self.database.execute(
            f"INSERT INTO dir_user (id, username, {columns}) SELECT t.after_id, t.after_id, "
            f"{copied} FROM {USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_user d ON d.id = t.before_id "
            f"WHERE {renamed} ORDER BY t.after_id",
            about="dir_user",
        )
        # Only now are the rights to move children needed (part 3 of docs/joget-grants.sql).
        if moved:
            for table, column in TABLES_BY_USER_ID + TABLES_BY_USERNAME:
                self._execute(
                    table,
                    f"UPDATE {_join_to_user_changes(table, column)} SET d.{column} = t.after_id "
                    f"WHERE {renamed}",
                )
            self._execute(
                "dir_user",
                f"DELETE d FROM {USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_user d ON d.id = "
                f"t.before_id WHERE {renamed}",
            )

    def _write_roles(self) -> None:
        if self._has_changes("t.action = 'remove'", ROLE_CHANGES_TABLE):
            self._execute(
                "dir_user_role",
                f"DELETE d FROM {ROLE_CHANGES_TABLE} t STRAIGHT_JOIN dir_user_role d ON d.userId = "
                "t.user_id WHERE t.action = 'remove' AND d.roleId = %s",
                (self.tables.role_user,),
            )
        self._execute(
            "dir_user_role",
            "INSERT INTO dir_user_role (roleId, userId) SELECT %s, user_id FROM "
            f"{ROLE_CHANGES_TABLE} WHERE action = 'add' "
            f"ORDER BY user_id",
            (self.tables.role_user,),
        )
        self._new_users.insert_roles(self.database, self.tables)

    def _write_memberships(self) -> None:
        self._execute(
            "dir_user_group",
            f"DELETE d FROM {MEMBERSHIP_CHANGES_TABLE} t STRAIGHT_JOIN dir_user_group d "
            f"ON d.userId = t.user_id AND d.groupId = t.group_id WHERE t.action = 'remove'",
        )
        self._execute(
            "dir_user_group",
            "INSERT INTO dir_user_group (groupId, userId) SELECT group_id, user_id FROM "
            f"{MEMBERSHIP_CHANGES_TABLE} "
            f"WHERE action = 'add' ORDER BY user_id, group_id",
        )
        self._new_users.insert_memberships(self.database)

    def _delete_groups(self) -> None:
        """Delete groups; raises TakenKeyError where a group still has members."""
        # A member who joined meanwhile stops the deletion by the foreign key.
        deleted = "t.after_id IS NULL"
        if self._has_changes(f"{deleted} AND t.before_id IS NOT NULL", GROUP_CHANGES_TABLE):
            self._execute(
                "dir_group",
                f"DELETE d FROM {GROUP_CHANGES_TABLE} t STRAIGHT_JOIN dir_group d ON d.id = "
                f"t.before_id WHERE {deleted}",
            )

    def _delete_users(self) -> None:
        """Delete users in an order in which no row points to a deleted one and nothing that Joget
        keeps by username is left.
        """
        # Evicted accounts were deleted before the renames.
        deleted = "t.before_id IS NOT NULL AND t.after_id IS NULL AND t.action <> 'evict'"
        if not self._has_changes(deleted):
            return
        employments = (
            f"{USER_CHANGES_TABLE} t STRAIGHT_JOIN dir_employment e ON e.userId = t.before_id"
        )
        # Joget's own delete fails where the user heads another department: dir_department.hod
        # refers to employments, as both sides of report-to do.
        self._execute(
            "dir_department",
            f"UPDATE {employments} STRAIGHT_JOIN dir_department d ON d.hod = e.id SET d.hod = NULL "
            f"WHERE {deleted}",
        )
        for side in ("employmentId", "reportToId"):
            self._execute(
                "dir_employment_report_to",
                f"DELETE d FROM {employments} STRAIGHT_JOIN dir_employment_report_to d ON "
                f"d.{side} = e.id WHERE {deleted}",
            )
        for table, column in (
            *reversed(TABLES_BY_USER_ID),
            ("dir_user", "id"),
            *TABLES_BY_USERNAME,
        ):
            self._execute(
                table, f"DELETE d FROM {_join_to_user_changes(table, column)} WHERE {deleted}"
            )

    def _write_employments(self) -> None:
        if self._has_changes("t.action = 'remove'", EMPLOYMENT_CHANGES_TABLE):
            self._execute(
                "dir_employment",
                f"DELETE d FROM {EMPLOYMENT_CHANGES_TABLE} t STRAIGHT_JOIN dir_employment d ON "
                "d.id = t.employment_id "
                f"WHERE t.action = 'remove'",
            )
        self._execute(
            "dir_employment",
            "INSERT INTO dir_employment (id, userId, organizationId) SELECT employment_id, "
            f"user_id, %s FROM {EMPLOYMENT_CHANGES_TABLE} WHERE action = 'add' ORDER BY "
            "employment_id",
            (self.tables.organization,),
        )
        self._new_users.insert_employments(self.database, self.tables)

    def _write_ledger(self, row: RunRow) -> None:
        recording.record_run(self.database, self.tables, row)
        self._new_users.insert_links(self.database, row)

    def _verify(self) -> None:
        verify_written_rows(self.database, self.row.run.sync.name, self.row.key)
        self._new_users.verify(self.database, self.tables, self.row)
