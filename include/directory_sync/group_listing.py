"""Listing groups and their members, and asking by name for whom and what no list has."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from include.directory_sync import snapshot
from include.directory_sync.cognito import GroupGoneError, UserPool
from include.directory_sync.listing import find_user, from_its_start, most_questions, side_by_side
from include.directory_sync.run import Run
from include.directory_sync.vocabulary import Entity

log = logging.getLogger(__name__)

Write = Callable[[list[dict[str, Any]]], None]
"""Takes rows of a staged file, from several threads."""


class GroupListing:
    """One listing of a pool's groups, after its users: who is seen in any answer is present."""

    def __init__(self, pool: UserPool, run: Run, listed_subs: pa.Array) -> None:
        self._pool, self._run = pool, run
        self._groups: dict[str, dict[str, Any]] = {}
        self._gone = set[str]()
        self._seen = SeenUsers(listed_subs)
        self._absent_users: list[str] = []
        self._most_questions = most_questions(len(listed_subs))
        self.hidden: list[str] = []
        """Groups that exist and that the list of groups lacked."""
        self.asked_by_name = 0
        """How many users and groups the pool was asked for by name."""

    @property
    def names(self) -> list[str]:
        """The groups in scope that exist."""
        pool_id, scope = self._run.sync.user_pool_id, self._run.sync.scope
        return [name for name in self._groups if scope.has_group(name, pool_id)]

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
        found = from_its_start(lambda: [group for page in self._pool.groups() for group in page])
        self._groups = {group["GroupName"]: snapshot.group_row(group) for group in found}

    def list_members(self, memberships: Write, seen: Write, *, known: Mapping[str, int]) -> None:
        """List the members of each group in scope; known: members in Joget, by group name.

        The largest group first: its pages come one after the other, and as the last one it would be
        waited for alone.
        """
        largest_first = sorted(self.names, key=lambda name: -known.get(name, 0))
        self._list_all(largest_first, memberships, seen)

    def find_unlisted_groups(self, linked: Iterable[str], memberships: Write, seen: Write) -> None:
        """Ask by name for the linked groups that the list of groups lacks; those that exist join."""
        unlisted = [name for name in linked if name not in self._groups]
        self.asked_by_name += len(unlisted)
        self._list_all(unlisted, memberships, seen)
        self.hidden = [name for name in unlisted if name not in self._gone]
        for name in self.hidden:
            self._groups[name] = snapshot.group_row({"GroupName": name})

    def ask_for_users(self, expected: list[str], seen: Write) -> None:
        """Ask by name for each expected sub that no answer had; the users that exist join.

        Where a list of everybody costs fewer calls, nobody is asked for, and nobody's absence is
        proven.
        """
        unseen = [sub for sub in expected if not self._seen.has(sub)]
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

        def is_absent(sub: str) -> bool:
            found = find_user(self._pool, sub)
            self._write_seen(found or [], seen)
            return found == []

        answers = side_by_side(self._pool, is_absent, unseen)
        self._absent_users = [sub for sub, gone in zip(unseen, answers, strict=True) if gone]

    def list_again(self, names: list[str], memberships: Write, seen: Write) -> None:
        """List the members of some groups a second time: nobody leaves a group on one absence."""
        self._list_all(names, memberships, seen)
        for name in names:
            if name in self._groups:
                self._groups[name]["listed_twice"] = True

    def _list_all(self, names: list[str], memberships: Write, seen: Write) -> None:
        def list_pages(name: str) -> None:
            for page in self._pool.members(name):
                memberships([snapshot.member_row(name, user) for user in page])
                self._write_seen(page, seen)

        def list_one(name: str) -> None:
            try:
                from_its_start(lambda: list_pages(name))
            except GroupGoneError:
                self._groups.pop(name, None)
                self._gone.add(name)

        side_by_side(self._pool, list_one, names)

    def _write_seen(self, users: list[dict[str, Any]], seen: Write) -> None:
        new = self._seen.add(users)
        if new:
            seen([snapshot.user_row(user, self._run.attributes) for user in new])


class SeenUsers:
    """Who the list of users has, and who else was seen, from several threads.

    Of the listed users only numbers are kept, eight bytes each: a pool may have millions.
    """

    def __init__(self, listed_subs: pa.Array) -> None:
        numbers = (hash(sub) for sub in listed_subs.to_pylist())
        self._listed = np.sort(np.fromiter(numbers, dtype=np.int64, count=len(listed_subs)))
        self._others = set[str]()
        self._lock = threading.Lock()

    def add(self, users: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The users, of those given, that were not seen before."""
        new = []
        with self._lock:
            for user in users:
                sub = snapshot.sub_of(user)
                if sub is not None and not self.has(sub):
                    self._others.add(sub)
                    new.append(user)
        return new

    def has(self, sub: str) -> bool:
        """Whether any answer had the sub."""
        number = hash(sub)
        at = int(np.searchsorted(self._listed, number))
        listed = at < len(self._listed) and bool(self._listed[at] == number)
        return listed or sub in self._others
