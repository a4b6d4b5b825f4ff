"""The ids of employments that a plan makes."""

import hashlib
from collections.abc import Collection, Iterable

MOST_EMPLOYMENT_IDS = 3
"""How many ids an employment may choose from. The first may be taken: a row that Joget moved to
another user or organization keeps its id.
"""


def choose_employment_ids(
    organization: str, user_ids: Iterable[str], used_ids: Collection[str] = ()
) -> list[str]:
    """The ids of these users' new employments: the first of each user's ids that isn't used."""
    chosen = []
    for user_id in user_ids:
        ids = [make_employment_id(organization, user_id, at) for at in range(MOST_EMPLOYMENT_IDS)]
        chosen.append(next((one for one in ids if one not in used_ids), ids[0]))
    return chosen


def make_employment_id(organization: str, user_id: str, at: int) -> str:
    """Make 32 hex characters, always the same for one user, organization and `at`, so that the same
    input gives the same plan.

    The first half is the user id's first bytes: rows are written twice as fast when their ids come
    roughly in the users' order. joget.reading has the same formula in SQL.
    """
    text = user_id.encode()
    of = hashlib.sha256(b"%b\0%b\0%d" % (organization.encode(), text, at)).hexdigest()
    return text[:8].hex().ljust(16, "0") + of[:16]
