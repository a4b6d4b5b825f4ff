"""Finding the users and groups whose rows Joget's database refuses, by trying parts of a plan.

Nothing here knows the database: `refuses` tells whether it refuses a plan without some rows.
"""

from collections.abc import Callable

from directory_sync.errors import RefusedRowError
from directory_sync.plan import Plan
from directory_sync.plan.deferral import Deferred
from directory_sync.vocabulary import Action, Entity

MOST_REFUSED_NAMES = 50
"""How many users, or groups, are left out at most because the database refuses them. If it refuses
more, something is wrong with the database, and the run fails.
"""

MOST_REFUSED_MEMBERS = 5
"""How many users are left out at most for a refused membership. If the database refuses more, the
group is at fault, and all its memberships are left out.
"""


def find_refused_rows(plan: Plan, refuses: Callable[[Deferred], bool]) -> Deferred:
    """The part of the plan that the database refuses, found by trying parts and rolling each
    back; empty where it refuses even an empty plan.
    """
    # Each kind of row is tried after the kinds that it builds on, so that no user is left out for a
    # group's fault: groups, then users, then memberships by group, then deleted groups.
    subs = _find_names(plan, "sub", [entity for entity in Entity if entity != Entity.GROUP])
    groups, members_of = (
        _find_names(plan, "group_name", [entity]) for entity in (Entity.GROUP, Entity.MEMBERSHIP)
    )
    rows = plan.safe_part(Entity.GROUP)
    deleted = frozenset(rows.loc[rows["action"] == Action.DELETE, "group_name"].dropna())
    if refuses(Deferred(subs, groups, members_of)):
        return Deferred()
    kept = groups - deleted
    bad_groups = _find_refused_names(
        kept, lambda names: Deferred(subs, groups - names, members_of), refuses
    )
    left = bad_groups | deleted
    bad_subs = _find_refused_names(
        subs, lambda names: Deferred(subs - names, left, members_of), refuses
    )
    bad_members = _find_refused_names(
        members_of, lambda names: Deferred(bad_subs, left, members_of - names), refuses
    )
    if bad_members:
        bad_subs, bad_members = _blame_members(plan, refuses, Deferred(bad_subs, left, bad_members))
    bad_deleted = _find_refused_names(
        deleted,
        lambda names: Deferred(bad_subs, bad_groups | (deleted - names), bad_members),
        refuses,
    )
    return Deferred(bad_subs, bad_groups | bad_deleted, bad_members)


def _blame_members(
    plan: Plan, refuses: Callable[[Deferred], bool], refused: Deferred
) -> tuple[frozenset[str], frozenset[str]]:
    """The users to leave out, and the groups with memberships to leave out: users where few are
    refused, else groups.
    """
    rows = plan.safe_part(Entity.MEMBERSHIP)
    inside = rows[rows["group_name"].isin(refused.members_of) & ~rows["sub"].isin(refused.subs)]
    subs = frozenset(inside["sub"].dropna())
    if len(subs) <= 1:
        return refused.subs | subs, frozenset()
    try:
        bad = _find_refused_names(
            subs,
            lambda names: Deferred(refused.subs | (subs - names), refused.groups),
            refuses,
            MOST_REFUSED_MEMBERS,
        )
    except RefusedRowError:
        return refused.subs, refused.members_of
    return (refused.subs | bad, frozenset()) if bad != subs else (refused.subs, refused.members_of)


def _find_names(plan: Plan, column: str, entities: list[Entity]) -> frozenset[str]:
    return frozenset(
        name for entity in entities for name in plan.safe_part(entity)[column].dropna()
    )


def _find_refused_names(
    names: frozenset[str],
    leave_out_others: Callable[[frozenset[str]], Deferred],
    refuses: Callable[[Deferred], bool],
    most: int = MOST_REFUSED_NAMES,
) -> frozenset[str]:
    """The names that the database refuses, found by trying halves, each with the names that it
    accepted before.

    leave_out_others: what to leave out so that only the given names are tried. Raises
    RefusedRowError where more than `most` are refused.
    """
    found, accepted = frozenset[str](), frozenset[str]()
    waiting = [sorted(names)] if names else []
    while waiting:
        part = waiting.pop()
        # With the accepted names, since two rows may be refused only together (a UNIQUE key).
        if not refuses(leave_out_others(accepted | frozenset(part))):
            accepted |= frozenset(part)
        elif len(part) == 1:
            found |= frozenset(part)
        else:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]
        if len(found) > most:
            raise RefusedRowError(
                f"Joget's database refuses the rows of more than {most} users or groups, "
                f"sub or name {min(found)} among them; the run was rolled back and nothing was "
                f"written. Look for a trigger or a constraint of this database's own."
            )
    return found
