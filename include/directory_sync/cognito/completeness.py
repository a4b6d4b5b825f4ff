"""Doubts, in words, whether a listing is complete; none if it is proven.

"HTTP 200 with data missing" is how directories get wiped: that a listing came to its end doesn't
prove that it is complete.
"""

from datetime import datetime

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.settings import Proof


def find_doubts_about_users(proof: Proof, subs: pa.Array, estimated: int | None) -> tuple[str, ...]:
    """Why a listing of users isn't proven complete. `estimated` is DescribeUserPool's
    EstimatedNumberOfUsers.
    """
    found, distinct = len(subs), pc.count_distinct(subs).as_py()
    doubts = []
    if not found:
        doubts.append("the pool lists no user")
    if distinct < found:
        doubts.append(f"{found - distinct} of {found} listed users came twice")
    if estimated is None:
        doubts.append("Cognito gave no estimate of the pool's users to compare with")
    elif not is_within_estimate(proof, found, estimated):
        doubts.append(
            f"{found} users were listed, and Cognito estimates {estimated}: more than "
            f"{proof.count_tolerance_percent:g} % apart (proof.count_tolerance_percent)"
        )
    return tuple(doubts)


TOLERATED_DIFFERENCE = 2
"""The listing and the estimate may always differ by so many users: in a small pool, one newcomer
exceeds the percentage. That is safe, since each missing user is asked for by name as well.
"""


def is_within_estimate(proof: Proof, found: int, estimated: int) -> bool:
    """Whether the number of listed users is near enough to the estimate to be everybody."""
    tolerance = max(
        estimated * proof.count_tolerance_percent / 100, TOLERATED_DIFFERENCE if found else 0
    )
    return abs(found - estimated) <= tolerance


def find_doubts_about_presence(
    proof: Proof, seen: pd.DataFrame, began: datetime, *, groups: int
) -> tuple[str, ...]:
    """Why users and groups that were seen elsewhere show that the lists aren't complete.

    seen: the users that the list of users lacks and another answer had (column created_at, null
    where Cognito doesn't tell).
    groups: how many existing groups the list of groups lacked.
    """
    unknown = int(seen["created_at"].isna().sum())
    # A user who was created after the list began may be absent from it, and proves nothing.
    older = int((seen["created_at"] < pd.Timestamp(began)).fillna(False).sum())
    doubts = []
    if older:
        doubts.append(
            f"{older} users were seen elsewhere, were created before the list of users began, and "
            "aren't in it"
        )
    if unknown > proof.newcomers:
        doubts.append(
            f"{unknown} users were seen elsewhere and aren't in the list of users; only "
            f"{proof.newcomers} may be newcomers (proof.newcomers)"
        )
    if groups:
        doubts.append(f"the list of groups lacked {groups} that exist")
    return tuple(doubts)


def find_doubts_about_replica(unproven: tuple[int, int]) -> tuple[str, ...]:
    """Why what a replica lacks isn't proven absent: the sign-in Region can't be asked.

    unproven: how many users and how many groups it should be asked about.
    """
    users, groups = unproven
    doubts = []
    if users or groups:
        doubts.append(
            f"the sign-in region can't be asked about what the pool's replica lacks: {users} "
            f"users, and {groups} groups or members of them"
        )
    return tuple(doubts)
