"""The leaver's clock: how long changes of the pool took until they were committed in Joget."""

from datetime import datetime
from enum import StrEnum

import pandas as pd
from pydantic import BaseModel, ConfigDict

DAYS_COUNTED = 7
"""How many days before a report its clock counts."""


class ChangeKind(StrEnum):
    """What a timed change did to a user."""

    LEAVER = "leaver"
    """It took the user's access."""
    CHANGE = "change"


class Way(StrEnum):
    """How the sync learned of a timed change."""

    LIVE = "live"
    """By an event of the pool."""
    SCHEDULED = "scheduled"
    """By listing the pool."""


class WayDelays(BaseModel):
    """How long the changes of one way took, in seconds; null where no change has a time."""

    model_config = ConfigDict(frozen=True)

    way: str
    """Way."""
    changes: int
    undated: int
    """How many of the changes have no time: users who were deleted in the pool."""
    median_seconds: float | None
    """From the change in the pool to its commit."""
    p95_seconds: float | None
    """The 95th percentile."""
    median_seconds_since_arrival: float | None
    """From the event's arrival to the commit."""
    p95_seconds_since_arrival: float | None


class SlowestLeaver(BaseModel):
    """The user whose access was taken last, counted from the change in the pool."""

    model_config = ConfigDict(frozen=True)

    sub: str
    run_id: str
    way: str
    seconds: float
    committed_at: datetime


class Clock(BaseModel):
    """How long the changes took that a sync committed in the last days."""

    model_config = ConfigDict(frozen=True)

    days: int = DAYS_COUNTED
    ways: tuple[WayDelays, ...] = ()
    slowest_leaver: SlowestLeaver | None = None
    slowest_minutes_of_run: float | None = None
    """How long the slowest of this run's own changes took; null where none has a time."""


def summarize_delays(delays: pd.DataFrame) -> tuple[WayDelays, ...]:
    """Summarize delays (columns is_live, delay, delay_since_arrival, in microseconds), by way."""
    is_live = delays["is_live"] == 1
    return tuple(
        _summarize_way(way, delays[rows])
        for way, rows in ((Way.LIVE, is_live), (Way.SCHEDULED, ~is_live))
        if rows.any()
    )


def _summarize_way(way: Way, delays: pd.DataFrame) -> WayDelays:
    median, high = _find_percentiles(delays["delay"])
    median_since_arrival, high_since_arrival = _find_percentiles(delays["delay_since_arrival"])
    return WayDelays(
        way=way,
        changes=len(delays),
        undated=int(delays["delay"].isna().sum()),
        median_seconds=median,
        p95_seconds=high,
        median_seconds_since_arrival=median_since_arrival,
        p95_seconds_since_arrival=high_since_arrival,
    )


def _find_percentiles(microseconds: "pd.Series[int]") -> tuple[float | None, float | None]:
    """The median and the 95th percentile, in seconds."""
    known = microseconds.dropna().astype("float64") / 1e6
    if known.empty:
        return None, None
    return round(float(known.quantile(0.5)), 1), round(float(known.quantile(0.95)), 1)
