"""Listing all of a pool: users in one chain of pages or in parts side by side, and the members of
many groups.
"""

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.cognito import client
from directory_sync.cognito.client import USERS_IN_A_PAGE, UserPool
from directory_sync.cognito.completeness import is_within_estimate
from directory_sync.cognito.regions import RegionLeftError
from directory_sync.cognito.snapshot import get_sub
from directory_sync.errors import TransientError
from directory_sync.settings import Proof

log = logging.getLogger(__name__)

SMALLEST_POOL_IN_PARTS = 3_000
"""A pool with at least so many users is listed in parts. For a smaller one, one chain takes seconds
and fewer calls.
"""

SUB_PREFIXES = "0123456789abcdef"
"""The first hex digit of a sub names its part. Two digits would split no further: the second is the
same for all recent subs of a Region.
"""

TOKEN_LIFE_SECONDS = 3_000
"""Seconds that a chain of pages may take. A token dies after an hour, and it isn't known whether
that ends the whole chain.
"""

MOST_RESTARTS = 4
"""How often one list is begun, at most, before the task fails and is retried later."""

PARTS_TOLERANCE_PERCENT = 1.0
"""Percent by which the parts' sum may differ from the estimate, even where
`proof.count_tolerance_percent` allows more: a filter is trusted less than one chain of pages.
"""

FEWEST_QUESTIONS = 100
"""Up to so many users are asked for by name even where a list costs fewer calls, so that a small
company's leavers are always asked for. At 15 calls a second that takes seven seconds.
"""

SAFE_FILTER_VALUE = re.compile(r"[\w-]+")

Users = list[dict[str, Any]]
Name = TypeVar("Name")
Result = TypeVar("Result")


class PartsError(Exception):
    """The parts can't be trusted to add up to the pool; the text says why."""


class UserListing:
    """One listing of all users. `write` is called with each page, from several threads."""

    def __init__(self, pool: UserPool, write: Callable[[Users], None]) -> None:
        self._pool = pool
        self._write = write
        self._chains: list[pa.Array] = []
        self.in_parts = False
        """Whether `subs` comes from the parts, not from one chain."""
        self.parts_failed = False
        """Whether the pool was listed in parts and they couldn't be trusted."""
        self.asked_by_name = 0
        """How many users were asked for by their sub."""

    @property
    def subs(self) -> pa.ChunkedArray:
        """The sub of each user of the chains that ended, null where a user has none."""
        # A chain that began again has written its first pages too, since presence is evidence. They
        # aren't counted here: their users would seem to be listed twice (completeness.py).
        return pa.chunked_array(self._chains, pa.string())

    def list_all(
        self,
        proof: Proof,
        estimated: int | None,
        expected: Callable[[], pa.Array],
        may_part: Callable[[], bool] = lambda: True,
    ) -> None:
        """List everybody: in parts if the pool is large, `may_part` allows it and the parts add up;
        else in one chain of pages.

        `estimated` is DescribeUserPool's; `expected` gives the subs for which a miss may count.
        """
        if estimated is not None and estimated >= SMALLEST_POOL_IN_PARTS and may_part():
            try:
                self._list_parts(count_parallel_parts(estimated, self._pool.requests_per_second))
                self._require_sum(proof, estimated, expected())
            except client.FilterRefusedError:
                log.warning(
                    "listing everybody in one chain of pages, since the pool doesn't take a filter "
                    "by sub"
                )
            except PartsError as why:
                log.warning("listing everybody in one chain of pages, since %s", why)
            else:
                return
            self.in_parts, self.parts_failed = False, True
        self._chains = [self._chain(None)]

    def _list_parts(self, at_once: int) -> None:
        log.info(
            "listing in %d parts by the first digit of sub, %d at once", len(SUB_PREFIXES), at_once
        )
        self._chains = run_side_by_side(self._pool, self._chain, SUB_PREFIXES, at_once)
        self.in_parts = True

    def _require_sum(self, proof: Proof, estimated: int, expected: pa.Array) -> None:
        closely = proof.model_copy(
            update={
                "count_tolerance_percent": min(
                    PARTS_TOLERANCE_PERCENT, proof.count_tolerance_percent
                )
            }
        )
        if not is_within_estimate(closely, len(self.subs), estimated):
            raise PartsError(
                f"the parts have {len(self.subs)} users, and Cognito estimates {estimated}"
            )
        # A sum that fits may still lack a few users (docs/design.md, Proof of completeness).
        absent = expected.filter(pc.invert(pc.is_in(expected, value_set=self.subs))).to_pylist()
        if len(absent) > estimated / USERS_IN_A_PAGE:
            raise PartsError(
                f"no part has {len(absent)} users that Joget knows: asking for each costs more "
                "calls"
            )
        if absent:
            log.info("asking for %d users that Joget knows and no part has", len(absent))
        # One such user shows that the filter skips some, and nobody knows how many.
        if any(run_side_by_side(self._pool, self._is_listed, absent)):
            raise PartsError("the parts lack users that the pool has")

    def _is_listed(self, sub: str) -> bool:
        self.asked_by_name += 1
        # Only in the Region of the parts: a user that another Region has says nothing about them.
        found = _ask_for_user(self._pool, sub)
        if found is None:
            raise PartsError("the parts lack a user that the pool can't be asked for by sub")
        self._write(found)
        return bool(found)

    def _chain(self, first_digit: str | None) -> pa.Array:
        """Read one list from its first page to its last; returns the subs."""
        return restart_on_dead_token(lambda: self._pages(first_digit))

    def _pages(self, first_digit: str | None) -> pa.Array:
        pages = []
        for page in self._pool.users(f'sub ^= "{first_digit}"' if first_digit else None):
            subs = [get_sub(user) for user in page]
            # A pool that ignores the filter would list everybody in each part. Nobody knows whether
            # the filter ignores case, so capitals belong to the part too.
            if first_digit and not all(sub and sub.lower().startswith(first_digit) for sub in subs):
                raise PartsError("a part has users of another part")
            self._write(page)
            pages.append(pa.array(subs, pa.string()))
        return pa.concat_arrays(pages) if pages else pa.array([], pa.string())


def find_user(pool: UserPool, sub: str) -> Users | None:
    """Ask the pool for one sub; returns a list of one user or none, or None if the pool can't be
    asked. If a replica lacks the user, the sign-in Region decides.

    Raises AbsenceUnprovenError where the sign-in Region is down.
    """
    # Looked up before and after, since another thread may leave a Region meanwhile.
    was_replica = pool.reads_replica
    found = _ask_for_user(pool, sub)
    if found == [] and (was_replica or pool.reads_replica):
        with pool.confirming() as sign_in:
            return _ask_for_user(sign_in, sub)
    return found


def _ask_for_user(pool: UserPool, sub: str) -> Users | None:
    # The filter quotes the sub, so a quote within the sub would change the question.
    if not SAFE_FILTER_VALUE.fullmatch(sub):
        return None
    try:
        # ListUsers isn't billed. AdminGetUser would make each user count as a monthly active one.
        found = restart_on_dead_token(
            lambda: [user for page in pool.users(f'sub = "{sub}"') for user in page]
        )
    except client.FilterRefusedError:
        return None
    return [user for user in found if get_sub(user) == sub]


def count_affordable_questions(users: int) -> int:
    """How many users are asked for by name at most: as many as a list costs calls, or
    FEWEST_QUESTIONS if that is more.
    """
    return max(-(-users // USERS_IN_A_PAGE), FEWEST_QUESTIONS)


def count_parallel_parts(estimated: int, requests_per_second: float) -> int:
    """How many parts are listed side by side, so that none takes longer than a token lives."""
    seconds = estimated / USERS_IN_A_PAGE / requests_per_second
    at_once = len(SUB_PREFIXES)
    while at_once > 1 and seconds * at_once / len(SUB_PREFIXES) > TOKEN_LIFE_SECONDS:
        at_once //= 2  # a power of two, so that the sixteen parts fill every round
    return at_once


def restart_on_dead_token(listing: Callable[[], Result]) -> Result:
    """Run a listing; when its token or Region dies, run it again from its start."""
    for beginning in range(1, MOST_RESTARTS + 1):
        try:
            return listing()
        except (client.TokenDiedError, RegionLeftError):
            log.info(
                "a page token or a Region died; this was attempt %d of %d at one list",
                beginning,
                MOST_RESTARTS,
            )
    raise TransientError(
        f"Cognito's page tokens died in {MOST_RESTARTS} attempts at one list. Retrying later."
    )


def run_side_by_side(
    pool: UserPool,
    work: Callable[[Name], Result],
    names: Iterable[Name],
    at_once: int = client.MOST_LISTS_AT_ONCE,
) -> list[Result]:
    """Run `work` for all names at once; returns the results in the names' order. The first failure
    stops the others and is raised.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="listing") as threads:
        futures = [threads.submit(work, name) for name in names]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:  # Airflow's AirflowTaskTimeout is no Exception
            # Else the other lists would go on for minutes before the failure is seen. `shutdown`
            # waits for them, so they end while the pool is stopped.
            with pool.stopped():
                threads.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in futures]
