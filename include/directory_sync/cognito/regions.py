"""The Regions in which a pool is read: one of them is in use, and the next one follows when it is
down.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from directory_sync.errors import TransientError

log = logging.getLogger(__name__)


class RegionDownError(TransientError):
    """Cognito can't be reached in a Region, or answers with errors of its own."""


class RegionLeftError(Exception):
    """A list's Region went down after the first page: the list has to begin again, in the next
    Region.
    """


class AbsenceUnprovenError(TransientError):
    """A replica lacks a user or a group, and the sign-in Region can't be asked."""


class ReadInRegion(Protocol):
    """A pool, as one Region has it."""

    @property
    def region(self) -> str:
        """The Region's name."""


Pool = TypeVar("Pool", bound=ReadInRegion)
Answer = TypeVar("Answer")
Page = list[dict[str, Any]]


class RegionOrder(Generic[Pool]):
    """One pool in each of its Regions, in the order in which they are read; used by several
    threads. A Region that was left isn't tried again.
    """

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._left = list(pools)
        self._lock = threading.Lock()

    @property
    def in_use(self) -> Pool:
        """The pool in the first Region that isn't known to be down, or in the last one."""
        return self._left[0]

    def ask(self, question: Callable[[Pool], Answer]) -> Answer:
        """Ask in the Region in use. Raises RegionDownError where the last Region is down too."""
        while True:
            pool = self.in_use
            try:
                return question(pool)
            except RegionDownError as error:
                self._leave(pool, error)

    def list_pages(self, list_in: Callable[[Pool], Iterator[Page]]) -> Iterator[Page]:
        """Pages of one list, all of them from one Region. Raises RegionLeftError where the list has
        to begin again, RegionDownError where the last Region is down too.
        """
        while True:
            pool, has_begun = self.in_use, False
            try:
                for page in list_in(pool):
                    has_begun = True
                    yield page
                return
            except RegionDownError as error:
                self._leave(pool, error)
                # A token belongs to the Region that gave it.
                if has_begun:
                    raise RegionLeftError from None

    def _leave(self, pool: Pool, error: RegionDownError) -> None:
        with self._lock:
            if pool is not self._left[0]:
                return  # another thread's call has found that it is down
            if len(self._left) == 1:
                raise error
            self._left.pop(0)
            log.warning("%s Going on in region %s", error, self._left[0].region)
