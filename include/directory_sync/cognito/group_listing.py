"""Listing groups and their members, and asking by name for users and groups that no list has."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from directory_sync.cognito import snapshot
from directory_sync.cognito.client import GroupGoneError, UserPool
from directory_sync.cognito.regions import AbsenceUnprovenError
from directory_sync.cognito.user_listing import (
    count_affordable_questions,
    find_user,
    restart_on_dead_token,
    run_side_by_side,
)
from directory_sync.run import Run
from directory_sync.vocabulary import Entity

log = logging.getLogger(__name__)

WriteRows = Callable[[list[dict[str, Any]]], None]
"""Takes rows of a staged file, from several threads."""


class GroupListing:
    """One listing of a pool's groups, after its users. A user seen in any answer is present."""

    def __init__(self, pool: UserPool, run: Run, listed_subs: pa.Array) -> None:
        self._pool, self._run = pool, run
        self._groups: dict[str, dict[str, Any]] = {}
        self._gone = set[str]()
        self._unproven_groups = set[str]()
        self._unproven_users = 0
        self._seen = SeenUsers(listed_subs)
        self._absent_users: list[str] = []
        self._most_questions = count_affordable_questions(len(listed_subs))
        self.hidden: list[str] = []
        """Groups that exist and that the list of groups lacked."""
        self.asked_by_name = 0
        """How many users and groups the pool was asked for by name."""

    @property
    def names(self) -> list[str]:
        """The groups in scope that exist."""
        pool_id, scope = self._run.sync.user_pool_id, self._run.sync.scope
        return [name for name in self._groups if scope.has_group(name, pool_id)]

    @property
    def unproven(self) -> tuple[int, int]:
        """How many users and groups lack the word of the sign-in Region, which is down: a replica
        lacks the user, the group, or a member of the group.
        """
        return self._unproven_users, len(self._unproven_groups)

    def group_rows(self) -> list[dict[str, Any]]:
        """Rows of groups.parquet."""
        return list(self._groups.values())

    def absent_rows(self) -> list[dict[str, Any]]:
        """Rows of absent.parquet."""
        users = [{"entity": str(Entity.USER), "key": sub} for sub in self._absent_users]
        unlisted = sorted(self._gone - set(self._groups))
        return users + [{"entity": str(Entity.GROUP), "key": name} for name in unlisted]

    def list_groups(self) -> None:
        """List every group of the pool."""
        found = restart_on_dead_token(
            lambda: [group for page in self._pool.groups() for group in page]
        )
        self._groups = {group["GroupName"]: snapshot.make_group_row(group) for group in found}

    def list_members(
        self, memberships: WriteRows, seen: WriteRows, *, known: Mapping[str, int]
    ) -> None:
        """List the members of each group in scope. known: how many members Joget has, by group
        name.
        """
        # The pages of one group come one after the other. If the largest group came last, all
        # others would be done and wait for it.
        largest_first = sorted(self.names, key=lambda name: -known.get(name, 0))
        self._list_all(largest_first, memberships, seen)

    def find_unlisted_groups(
        self, linked: Iterable[str], memberships: WriteRows, seen: WriteRows
    ) -> None:
        """Ask by name for linked groups that the list of groups lacks, and add those that exist."""
        unlisted = [name for name in linked if name not in self._groups]
        self.asked_by_name += len(unlisted)
        # ListUsersInGroup tells whether a group exists, and needs no right beyond those of a
        # listing (docs/iam-policy.json).
        self._list_all(unlisted, memberships, seen)
        self.hidden = [name for name in unlisted if name not in self._gone | self._unproven_groups]
        for name in self.hidden:
            self._groups[name] = snapshot.make_group_row({"GroupName": name})

    def ask_for_users(self, expected: list[str], seen: WriteRows) -> None:
        """Ask by name for each expected sub that no answer had, and add the users that exist.

        Asks for nobody if there are more than count_affordable_questions allows.
        """
        unseen = self._seen.find_unseen(expected)
        # The pool then says nothing about these users, so their removal is held as
        # `unproven_absence` (rule 5 of docs/design.md).
        if len(unseen) > self._most_questions:
            log.warning(
                "%d users that Joget knows are in no list: too many to ask for by name. Their "
                "removal is held, and they are asked for when it is approved",
                len(unseen),
            )
            return
        if unseen:
            log.info("asking by name for %d users that Joget knows and no list has", len(unseen))
        self.asked_by_name += len(unseen)

        def is_absent(sub: str) -> bool | None:
            try:
                found = find_user(self._pool, sub)
            except AbsenceUnprovenError:
                return None
            self._write_seen(found or [], seen)
            # None says that the pool couldn't be asked, which proves no absence.
            return found == []

        answers = run_side_by_side(self._pool, is_absent, unseen)
        self._unproven_users = answers.count(None)
        self._absent_users = [sub for sub, gone in zip(unseen, answers, strict=True) if gone]

    def list_again(self, names: list[str], memberships: WriteRows, seen: WriteRows) -> None:
        """List the members of some groups a second time, in the sign-in Region: nobody leaves a
        group on one absence, or because replication lags.
        """

        def list_one(name: str) -> bool:
            try:
                with self._pool.confirming() as sign_in:
                    self._list_one(sign_in, name, memberships, seen)
            except AbsenceUnprovenError:
                self._unproven_groups.add(name)
                return False
            except GroupGoneError:
                # Where a replica still lists the group, that counts: presence is evidence.
                if not self._pool.reads_replica:
                    self._drop_group(name)
                return False
            return True

        listed = run_side_by_side(self._pool, list_one, names)
        for name, is_listed in zip(names, listed, strict=True):
            if is_listed:
                self._groups[name]["listed_twice"] = True

    def _list_all(self, names: list[str], memberships: WriteRows, seen: WriteRows) -> None:
        def list_one(name: str) -> None:
            try:
                self._list_one(self._pool, name, memberships, seen)
            except GroupGoneError:
                self._drop_group(name)
            except AbsenceUnprovenError:
                self._unproven_groups.add(name)

        run_side_by_side(self._pool, list_one, names)

    def _list_one(self, pool: UserPool, name: str, memberships: WriteRows, seen: WriteRows) -> None:
        def list_pages() -> None:
            for page in pool.members(name):
                memberships([snapshot.make_membership_row(name, user) for user in page])
                self._write_seen(page, seen)

        restart_on_dead_token(list_pages)

    def _drop_group(self, name: str) -> None:
        self._groups.pop(name, None)
        self._gone.add(name)

    def _write_seen(self, users: list[dict[str, Any]], seen: WriteRows) -> None:
        new = self._seen.add(users)
        if new:
            seen([snapshot.make_user_row(user, self._run.attributes) for user in new])


class SeenUsers:
    """Which users the list of users has, and which were seen elsewhere; used by several threads."""

    def __init__(self, listed_subs: pa.Array) -> None:
        # Hashes of eight bytes instead of the subs: a pool may have millions of users. They fit
        # within this process only, since each process hashes texts in its own way.
        self._listed = np.sort(_hash_subs(listed_subs.to_pylist()))
        self._others = set[str]()
        self._lock = threading.Lock()

    def add(self, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Record the users as seen; returns those that weren't seen before."""
        by_sub = {sub: user for user in users if (sub := snapshot.get_sub(user)) is not None}
        with self._lock:
            unseen = self.find_unseen(list(by_sub))
            self._others.update(unseen)
        return [by_sub[sub] for sub in unseen]

    def find_unseen(self, subs: list[str]) -> list[str]:
        """The given subs that no answer had."""
        numbers = _hash_subs(subs)
        at = np.searchsorted(self._listed, numbers)
        listed = np.zeros(len(subs), dtype=bool)
        inside = at < len(self._listed)
        listed[inside] = self._listed[at[inside]] == numbers[inside]
        return [
            sub
            for sub, known in zip(subs, listed, strict=True)
            if not known and sub not in self._others
        ]


def _hash_subs(subs: list[str]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.fromiter((hash(sub) for sub in subs), dtype=np.int64, count=len(subs))
