"""The user pool, and each right of docs/iam-policy.json on it, by the calls of a run."""

from collections.abc import Callable, Iterator
from typing import Any

from directory_sync.cognito.client import (
    GroupGoneError,
    ReplicatedPool,
    ThrottledError,
    UserPool,
)
from directory_sync.cognito.regions import RegionDownError
from directory_sync.command_line.doctor.findings import Finding, Status, run_check, skip_check
from directory_sync.settings import Sync

DESCRIBE_RIGHT = "cognito-idp:DescribeUserPool"
POOL_CHECK = f"user pool ({DESCRIBE_RIGHT})"
USERS_CHECK = "cognito-idp:ListUsers"
GROUPS_CHECK = "cognito-idp:ListGroups"
MEMBERS_CHECK = "cognito-idp:ListUsersInGroup"
REGION_CHECK = "region that is read"
RIGHTS_CHECK = "rights on the pool"
"""Stands for the three checks of lists, where none of them is tried."""


def check_pool(sync: Sync, pool: UserPool) -> Iterator[Finding]:
    """Whether the pool is there, and each right on it, in each Region. Asks for one row of each
    list.
    """
    if not isinstance(pool, ReplicatedPool):
        yield from _check_sign_in_region(sync, pool)
        return
    of_sign_in = list(_check_sign_in_region(sync, pool.sign_in))
    yield from of_sign_in
    states = {pool.sign_in.region: Status.OK if is_answered(of_sign_in) else Status.WARNING}
    for replica in pool.in_order:
        if replica is not pool.sign_in:
            finding = _check_replica(replica)
            states[replica.region] = finding.status
            yield finding
    yield _name_region_in_use({one.region: states[one.region] for one in pool.in_order})


def _check_sign_in_region(sync: Sync, pool: UserPool) -> Iterator[Finding]:
    described = _ask(POOL_CHECK, lambda: _describe_pool(sync, pool))
    yield described
    if not is_answered([described]):
        yield skip_check(RIGHTS_CHECK, "the pool")
        return
    yield _ask(USERS_CHECK, lambda: _try_list(USERS_CHECK, pool, "ListUsers", []))
    groups: list[dict[str, Any]] = []
    finding = _ask(GROUPS_CHECK, lambda: _try_list(GROUPS_CHECK, pool, "ListGroups", groups))
    yield finding
    if finding.status is not Status.OK:
        yield skip_check(MEMBERS_CHECK, "the name of a group")
    else:
        yield _ask(MEMBERS_CHECK, lambda: _try_members(pool, groups))


def _check_replica(pool: UserPool) -> Finding:
    """Whether a replica answers, and each right on it."""
    name = f"replica in {pool.region}"

    def ask() -> Finding:
        try:
            return _try_replica(name, pool)
        except RegionDownError as error:
            to_do = "Runs read the next region meanwhile."
            return Finding(name, Status.WARNING, str(error), to_do)

    return _ask(name, ask)


def _try_replica(name: str, pool: UserPool) -> Finding:
    estimated = pool.estimated_users()
    rows = {
        operation: pool.read_first_rows(operation, 1) for operation in ("ListUsers", "ListGroups")
    }
    if rows["ListGroups"]:
        _try_members(pool, rows["ListGroups"])
    users = "" if estimated is None else f", with about {estimated:,} users"
    return Finding(name, Status.OK, f"answers{users}")


def _name_region_in_use(states: dict[str, Status]) -> Finding:
    """The Region that a run would read now; states: of the Regions, in their order."""
    for region, status in states.items():
        if status is Status.WRONG:
            break  # a run fails there, and doesn't try the next one
        if status is not Status.WARNING:
            return Finding(REGION_CHECK, Status.OK, f"runs read the pool in {region} now")
    return skip_check(REGION_CHECK, "a region that answers")


def is_answered(findings: list[Finding]) -> bool:
    """Whether Cognito answered for this pool."""
    described = findings[0]
    # A missing right on the pool is an answer too: the lists have rights of their own.
    return described.status is not Status.WRONG or DESCRIBE_RIGHT in described.what


def _ask(name: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds; UNKNOWN where Cognito throttles it."""

    def ask() -> Finding:
        try:
            return check()
        except ThrottledError:
            # The quota is the whole account's, and others use it up just now. Nothing is wrong.
            what = "Cognito throttles this account now, so this couldn't be tried"
            return Finding(name, Status.UNKNOWN, what, "Run this again.")

    return run_check(name, ask)


def _describe_pool(sync: Sync, pool: UserPool) -> Finding:
    estimated = pool.estimated_users()
    users = "" if estimated is None else f", with about {estimated:,} users"
    what = f"{sync.user_pool_id} is in region {sync.region}{users}"
    return Finding(POOL_CHECK, Status.OK, what)


def _try_list(
    name: str, pool: UserPool, operation: str, rows: list[dict[str, Any]], **parameters: str
) -> Finding:
    """Ask for one row, and put it into `rows`."""
    rows += pool.read_first_rows(operation, 1, **parameters)
    return Finding(name, Status.OK, "works")


def _try_members(pool: UserPool, groups: list[dict[str, Any]]) -> Finding:
    if not groups:
        what = "the pool has no group, so this couldn't be tried"
        return Finding(MEMBERS_CHECK, Status.UNKNOWN, what)
    group = groups[0]["GroupName"]
    try:
        return _try_list(MEMBERS_CHECK, pool, "ListUsersInGroup", [], GroupName=group)
    except GroupGoneError:
        what = "the group was deleted meanwhile, so this couldn't be tried"
        return Finding(MEMBERS_CHECK, Status.UNKNOWN, what, "Run this again.")
