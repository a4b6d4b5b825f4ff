"""Whether a listing may be believed when it lacks somebody: doubts in words, none where it is proven complete.

"HTTP 200 with data missing" is how directories get wiped: that a listing ended is no proof that it held everything.
"""

import pyarrow as pa
import pyarrow.compute as pc

from include.directory_sync.settings import Proof


def doubts_about_users(proof: Proof, subs: pa.Array, estimated: int | None) -> tuple[str, ...]:
    """Why a listing of users isn't proven complete. `estimated` is DescribeUserPool's EstimatedNumberOfUsers."""
    found, distinct = len(subs), pc.count_distinct(subs).as_py()
    doubts = []
    if not found:
        doubts.append("the pool lists no user")
    if distinct < found:
        doubts.append(f"{found - distinct} of {found} listed users came twice")
    if estimated is None:
        doubts.append("Cognito gave no estimate of the pool's users to compare with")
    elif not fits_estimate(proof, found, estimated):
        doubts.append(
            f"{found} users were listed, and Cognito estimates {estimated}: more than "
            f"{proof.count_tolerance_percent:g} % apart (proof.count_tolerance_percent)"
        )
    return tuple(doubts)


def fits_estimate(proof: Proof, found: int, estimated: int) -> bool:
    """Whether so many listed users may be all of them."""
    return abs(found - estimated) <= estimated * proof.count_tolerance_percent / 100


def doubts_about_members(proof: Proof, members: pa.Array, subs: pa.Array) -> tuple[str, ...]:
    """Why the members of groups say that the listing of users (`subs`) isn't complete."""
    known = pc.is_in(pc.unique(members.drop_null()), value_set=subs)
    strangers = len(known) - (pc.sum(known).as_py() or 0)
    if strangers <= proof.newcomers:
        return ()
    return (
        f"{strangers} members of groups aren't in the list of users; only {proof.newcomers} may be newcomers "
        f"(proof.newcomers)",
    )
