"""Joining many messages into one set of questions to the pool.

Messages come late, doubled and in any order, so they say only which users and groups to ask for.
The same messages in another order, or twice, give the same questions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from directory_sync.events.messages import (
    Flaw,
    Malformed,
    ParsedMessage,
    PoolEvent,
    Skipped,
    SkipReason,
)

Key = TypeVar("Key")


class NamedBy(StrEnum):
    """What an event names a user by."""

    SUB = "sub"
    USERNAME = "username"


@dataclass(frozen=True, order=True)
class NamedUser:
    """A user as an event names them."""

    by: NamedBy
    value: str = field(repr=False)


@dataclass(frozen=True)
class Times:
    """When the earliest event about a user or a group happened, and when the earliest one arrived.
    `happened_at` is never after `arrived_at`.
    """

    happened_at: datetime
    arrived_at: datetime


@dataclass(frozen=True)
class Changes:
    """What the pool has to be asked about."""

    users: Mapping[NamedUser, Times] = field(default_factory=dict)
    """All named users, those in `leavers`, `disabled` and `removed_members` too."""
    groups: Mapping[str, Times] = field(default_factory=dict)
    """Groups by name, of events that name no user."""
    leavers: frozenset[NamedUser] = frozenset()
    """Users that an event calls deleted."""
    disabled: frozenset[NamedUser] = frozenset()
    """Users that an event calls disabled."""
    removed_members: frozenset[tuple[NamedUser, str]] = frozenset()
    """Users and group names: an event says that the user was taken out of the group."""
    skips: Mapping[SkipReason, int] = field(default_factory=dict)
    """How many messages asked for nothing, by reason."""
    malformed: Mapping[Flaw, int] = field(default_factory=dict)
    """How many messages nobody can read, by what is wrong with them."""

    @property
    def subs(self) -> frozenset[str]:
        """The subs of users."""
        return self._list_values(NamedBy.SUB)

    @property
    def usernames(self) -> frozenset[str]:
        """The Cognito usernames of users whom some event names without a sub."""
        return self._list_values(NamedBy.USERNAME)

    def _list_values(self, by: NamedBy) -> frozenset[str]:
        return frozenset(user.value for user in self.users if user.by is by)


def find_user(event: PoolEvent) -> NamedUser | None:
    """The user that an event names: by sub where it has one."""
    if event.sub:
        return NamedUser(NamedBy.SUB, event.sub)
    # No username is joined with the sub of another event: after a deletion, it may be a newcomer's.
    return NamedUser(NamedBy.USERNAME, event.username) if event.username else None


def join_messages(parsed: Iterable[tuple[ParsedMessage, datetime]]) -> Changes:
    """Join parsed messages, each with the time of its arrival in the queue (UTC)."""
    messages = list(parsed)
    events = [(message, at) for message, at in messages if isinstance(message, PoolEvent)]
    users = [(user, event, at) for event, at in events if (user := find_user(event))]
    return Changes(
        users=_find_times((user, _get_times(event, at)) for user, event, at in users),
        groups=_find_times(
            (event.group_name, _get_times(event, at))
            for event, at in events
            if event.group_name and not find_user(event)
        ),
        leavers=frozenset(user for user, event, _ in users if event.is_removal),
        disabled=frozenset(user for user, event, _ in users if event.is_disabling),
        removed_members=frozenset(
            (user, event.group_name)
            for user, event, _ in users
            if event.removes_member and event.group_name
        ),
        skips=Counter(one.reason for one, _ in messages if isinstance(one, Skipped)),
        malformed=Counter(one.flaw for one, _ in messages if isinstance(one, Malformed)),
    )


def _get_times(event: PoolEvent, arrived_at: datetime) -> Times:
    # Clocks differ: an event may carry a time after its own arrival.
    return Times(min(event.happened_at, arrived_at), arrived_at)


def _find_times(named: Iterable[tuple[Key, Times]]) -> dict[Key, Times]:
    earliest = dict[Key, Times]()
    for key, times in named:
        known = earliest.get(key, times)
        earliest[key] = Times(
            min(known.happened_at, times.happened_at), min(known.arrived_at, times.arrived_at)
        )
    return earliest
