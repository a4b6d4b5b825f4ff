"""This machine's clock against those of AWS and of Joget's database."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from directory_sync.cognito.client import UserPool
from directory_sync.command_line.doctor.findings import Finding, Status
from directory_sync.joget.database import Database
from directory_sync.joget.ledger.definition import read_clock

AWS_CLOCK_CHECK = "clock, against AWS"
DATABASE_CLOCK_CHECK = "clock, against Joget's database"

LARGEST_SKEW = timedelta(seconds=5)
"""AWS's Date header is in whole seconds, and an answer takes some time."""

REFUSED_SKEW = timedelta(minutes=5)
"""AWS refuses requests that were signed so long before or after its own time (IAM user guide,
Signature Version 4).
"""

SET_CLOCK = "Let both machines keep time by NTP."


def check_aws_clock(pool: UserPool) -> Finding:
    """Compare with the Date header of Cognito's answer."""
    skew = _measure_skew(pool.read_clock)
    if skew is None:
        what = "the answer has no Date header, so this couldn't be tried"
        return Finding(AWS_CLOCK_CHECK, Status.UNKNOWN, what)
    why = "AWS refuses requests that are off by more than 5 minutes"
    status = Status.WRONG if abs(skew) >= REFUSED_SKEW else Status.WARNING
    return _judge_skew(AWS_CLOCK_CHECK, skew, why, status)


def check_database_clock(database: Database) -> Finding:
    """Compare with UTC_TIMESTAMP of Joget's database."""
    skew = _measure_skew(lambda: read_clock(database)) or timedelta()
    why = (
        "snapshots have this machine's time, and runs are remembered by the database's: a snapshot "
        "from the future makes later runs superseded"
    )
    return _judge_skew(DATABASE_CLOCK_CHECK, skew, why, Status.WARNING)


def _measure_skew(read: Callable[[], datetime | None]) -> timedelta | None:
    """How far the other clock is ahead."""
    before = datetime.now(UTC)
    other = read()
    after = datetime.now(UTC)
    # Nobody knows how long the answer was under way. From the middle of the call, the figure is off
    # by half of its time at most.
    return None if other is None else other - (before + (after - before) / 2)


def _judge_skew(name: str, skew: timedelta, why: str, status: Status) -> Finding:
    if abs(skew) <= LARGEST_SKEW:
        return Finding(name, Status.OK, f"within {LARGEST_SKEW.seconds} seconds")
    seconds = f"{abs(skew).total_seconds():,.0f}"
    what = f"this machine is {seconds} seconds {'behind' if skew > timedelta() else 'ahead'}: {why}"
    return Finding(name, status, what, SET_CLOCK)
