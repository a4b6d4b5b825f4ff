"""How long changes took until they were in Joget, as the tab "Directory" shows it."""

from dataclasses import dataclass
from datetime import datetime

from directory_sync.clock import Clock, SlowestLeaver, Way, WayDelays
from directory_sync.pages.run_history import PastRun
from directory_sync.settings import Sync

MINUTE, HOUR, DAY = 60, 3_600, 86_400


@dataclass(frozen=True)
class DelayRow:
    """The delays of one way, in a reader's words."""

    way: str
    changes: int
    median: str
    high: str
    """The 95th percentile."""
    since_arrival: str
    """Median and 95th percentile from the event's arrival; empty for scheduled runs."""


@dataclass(frozen=True)
class RunAddress:
    """What a link to a run needs."""

    dag_id: str
    run_id: str


@dataclass(frozen=True)
class SlowestChange:
    """The slowest leaver, in a reader's words."""

    sub: str
    took: str
    committed_at: datetime
    run_id: str
    run: RunAddress | None
    """None where it isn't known which DAG the run is of."""


@dataclass(frozen=True)
class DelaySummary:
    """The clock of the newest run that has one."""

    days: int
    told_by: PastRun
    rows: tuple[DelayRow, ...]
    undated: int
    """How many users who were deleted in the pool have no time."""
    slowest_leaver: SlowestChange | None


def summarize_delays(past: list[PastRun], sync: Sync) -> DelaySummary | None:
    """What the newest run that has a clock says; None where no run has one."""
    timed = [run for run in past if run.published and run.published.report.clock]
    newest = max(timed, key=lambda run: run.ended, default=None)
    clock = newest.published.report.clock if newest and newest.published else None
    return _summarize(clock, newest, past, sync) if clock and newest else None


def _summarize(clock: Clock, newest: PastRun, past: list[PastRun], sync: Sync) -> DelaySummary:
    slowest = clock.slowest_leaver
    return DelaySummary(
        days=clock.days,
        told_by=newest,
        rows=tuple(_make_row(way) for way in clock.ways),
        undated=sum(way.undated for way in clock.ways),
        slowest_leaver=_describe_slowest(slowest, past, sync) if slowest else None,
    )


def _make_row(way: WayDelays) -> DelayRow:
    since_arrival = ""
    if way.median_seconds_since_arrival is not None:
        since_arrival = (
            f"{format_duration(way.median_seconds_since_arrival)}, "
            f"{format_duration(way.p95_seconds_since_arrival)}"
        )
    return DelayRow(
        way=way.way,
        changes=way.changes,
        median=format_duration(way.median_seconds),
        high=format_duration(way.p95_seconds),
        since_arrival=since_arrival,
    )


def _describe_slowest(slowest: SlowestLeaver, past: list[PastRun], sync: Sync) -> SlowestChange:
    found = next((one.run for one in past if one.run.run_id == slowest.run_id), None)
    run = RunAddress(found.dag_id, found.run_id) if found else None
    # The ledger keeps a run's id without its DAG. A scheduled run is of the sync's own DAG.
    if run is None and slowest.way == Way.SCHEDULED:
        run = RunAddress(sync.dag_id, slowest.run_id)
    return SlowestChange(
        slowest.sub, format_duration(slowest.seconds), slowest.committed_at, slowest.run_id, run
    )


def format_duration(seconds: float | None) -> str:
    """`4 min 10 s`: the two largest units of a duration; `unknown` for None."""
    if seconds is None:
        return "unknown"
    whole = round(seconds)
    if whole < 1:
        return "under 1 s"
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE} min"
    return f"{whole // DAY} d {whole % DAY // HOUR} h"
