"""Leaving out of a plan what Joget's database refuses or somebody is changing in Joget (rule 8)."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from directory_sync.frames import is_true
from directory_sync.plan.changes import Plan, split_by_entity
from directory_sync.plan.dependencies import find_dependent_holds
from directory_sync.plan.memberships import count_memberships
from directory_sync.vocabulary import Cause, Entity, Outcome


@dataclass(frozen=True)
class Deferred:
    """What waits for the next run."""

    subs: frozenset[str] = frozenset()
    """Users, with their roles, employments and memberships."""
    groups: frozenset[str] = frozenset()
    """Groups themselves, by name."""
    members_of: frozenset[str] = frozenset()
    """Groups, by name: only their memberships wait."""

    def __bool__(self) -> bool:
        return bool(self.subs or self.groups or self.members_of)

    def join(
        self,
        subs: Collection[str] = (),
        groups: Collection[str] = (),
        members_of: Collection[str] = (),
    ) -> "Deferred":
        """A Deferred with more users and groups."""
        return Deferred(
            self.subs | frozenset(subs),
            self.groups | frozenset(groups),
            self.members_of | frozenset(members_of),
        )

    def join_all(self, other: "Deferred") -> "Deferred":
        """A Deferred with the users and groups of both."""
        return self.join(other.subs, other.groups, other.members_of)


def defer_rows(plan: Plan, deferred: Deferred) -> Plan:
    """Hold the safe rows of these users and groups as `deferred`, and the rows that depend on them.

    Deferring the same rows twice gives the same plan as doing it once.
    """
    if not deferred:
        return plan
    changes = plan.changes
    groups = (changes["entity"] == Entity.GROUP) & changes["group_name"].isin(deferred.groups)
    members = (changes["entity"] == Entity.MEMBERSHIP) & changes["group_name"].isin(
        deferred.members_of
    )
    chosen = changes["sub"].isin(deferred.subs) | groups | members
    changes = changes.assign(
        hold=changes["hold"].mask(chosen & changes["hold"].isna(), Cause.DEFERRED)
    )
    for _ in range(2):  # a user's membership, then the deletion of its group
        waits = find_dependent_holds(changes) == Cause.DEFERRED
        changes["hold"] = changes["hold"].mask(
            is_true(waits) & changes["hold"].isna(), Cause.DEFERRED
        )
    rows = changes[changes["hold"] == Cause.DEFERRED]
    directory = plan.directory
    for entity, key in ((Entity.USER, "sub"), (Entity.GROUP, "group_name")):
        names = rows.loc[rows["entity"] == entity, key].dropna()
        is_deferred = (directory["entity"] == entity) & directory[key].isin(names)
        outcome = directory["outcome"].mask(is_deferred, Outcome.DEFERRED)
        directory = directory.assign(outcome=outcome)
    counts = plan.memberships
    if counts:
        counts = count_memberships(changes, read=counts["read"], unchanged=counts["unchanged"])
    return replace(plan, parts=split_by_entity(changes), directory=directory, memberships=counts)
