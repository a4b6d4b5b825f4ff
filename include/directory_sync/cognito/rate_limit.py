"""How fast a pool is read: the rate of calls, for all threads and all attempts, and a line of
progress.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

CATCH_UP_SECONDS = 0.1
"""Seconds of unused calls that may be made up for: a thread that wakes late costs no call."""

RATE_CUT = 0.8
"""Throttling multiplies the rate by this."""

SECONDS_OF_ONE_THROTTLING = 0.5
"""Throttled calls within so many seconds count as one: they were under way together."""

QUICK, NEAR, SLOW = 0.1, 0.97, 0.01
"""Recovery, as shares of the rate that was throttled: the rate rises by QUICK a second up to NEAR,
and then grows by SLOW of itself a second. They are shares of that rate, not of the setting, so few
more calls are throttled where other clients leave a tenth of the quota than where they leave half.
"""

LOWEST_RATE = 0.2
"""Calls a second: no throttling cuts the rate further."""

FULL_RECOVERY_SECONDS = 3_600.0
"""Seconds after which any rate has recovered."""

SECONDS_BETWEEN_LINES = 5.0


class RateLimiter:
    """Spaces calls evenly at a rate, across threads. It slows down for a while when the quota,
    which other clients share, is used up.
    """

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._setting = per_second
        self._clock, self._sleep = clock, sleep
        self._next = 0.0
        # Two locks: a thread sleeps while it holds the turn, and `throttled` mustn't wait for it.
        self._turn, self._rate = threading.Lock(), threading.Lock()
        self._cut_to = self._throttled_at = per_second
        self._cut_at = float("-inf")

    def take(self) -> None:
        """Wait for the next free moment."""
        with self._turn:
            now = self._clock()
            moment = max(self._next, now - CATCH_UP_SECONDS)
            self._next = moment + 1 / self.per_second
            # The turn is held meanwhile, so that a changed rate holds from the next call on.
            if moment > now:
                self._sleep(moment - now)

    @property
    def per_second(self) -> float:
        """The rate now."""
        with self._rate:
            return self._rate_now()

    def _rate_now(self) -> float:
        since = self._clock() - self._cut_at
        # Where LOWEST_RATE ended a cut, the rate may still be above NEAR.
        near = max(NEAR * self._throttled_at, self._cut_to)
        a_second = QUICK * self._throttled_at
        slowly = since - (near - self._cut_to) / a_second
        if slowly < 0:
            return self._cut_to + a_second * since
        # Uncapped, the power raises OverflowError some twenty hours after a cut.
        return min(near * float((1 + SLOW) ** min(slowly, FULL_RECOVERY_SECONDS)), self._setting)

    def throttled(self) -> bool:
        """Slow down after a call was throttled. Returns False if the rate was cut a moment ago,
        when this call was under way already.
        """
        with self._rate:
            now, rate = self._clock(), self._rate_now()
            if now - self._cut_at < SECONDS_OF_ONE_THROTTLING:
                return False
            self._throttled_at, self._cut_to, self._cut_at = (
                rate,
                max(RATE_CUT * rate, LOWEST_RATE),
                now,
            )
            return True


@dataclass
class ProgressLine:
    """A line in the log every few seconds while a listing goes on."""

    doing: str
    every: float = SECONDS_BETWEEN_LINES
    """Seconds between two lines."""
    calls: int = 0
    throttled: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> None:
        """Count one request, retries included."""
        with self._lock:
            self.calls += 1

    def throttle(self) -> None:
        """Count one request that was throttled."""
        with self._lock:
            self.throttled += 1

    def add(self, what: str, count: int) -> None:
        """Count what a page brought, and log the counts when it is time."""
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + count
            if time.monotonic() - self._said >= self.every:
                self._said = time.monotonic()
                self.say()

    def say(self) -> None:
        """Log the counts so far."""
        seconds = max(time.monotonic() - self._began, 0.001)
        found = (
            ", ".join(f"{count:,} {what}" for what, count in self.counts.items()) or "nothing yet"
        )
        throttled = f", {self.throttled} of them throttled" if self.throttled else ""
        rate = self.calls / seconds
        log.info(
            "%s: %s; %d calls%s, %.1f a second", self.doing, found, self.calls, throttled, rate
        )
