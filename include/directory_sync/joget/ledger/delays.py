"""The ledger's delays: when a change happened in the pool, arrived, and was committed in Joget."""

from datetime import UTC
from urllib.parse import unquote

import pandas as pd
import pyarrow as pa

from directory_sync.clock import (
    DAYS_COUNTED,
    ChangeKind,
    Clock,
    SlowestLeaver,
    Way,
    summarize_delays,
)
from directory_sync.frames import TEXT_TYPE
from directory_sync.joget.database import Database
from directory_sync.joget.ledger import definition
from directory_sync.plan import Plan
from directory_sync.plan.delays import time_changes
from directory_sync.run import Run

DELAY_TABLE = "directory_sync_delay"

DAYS_KEPT = 30

READ_SCHEMA = pa.schema(
    [("is_live", pa.int64()), ("delay", pa.int64()), ("delay_since_arrival", pa.int64())]
)
"""Delays as they are read: whether live, and microseconds."""


def _count_microseconds(since: str, table: str = "d") -> str:
    """SQL of the time from a column to the commit; 0 where the pool's clock is ahead of the
    database's.
    """
    return f"GREATEST(0, TIMESTAMPDIFF(MICROSECOND, {table}.{since}, {table}.committed_at))"


def record_delays(
    database: Database, sync: str, run_key: str, plan: Plan, arrivals: pd.DataFrame
) -> None:
    """Write the delays of a run, within its transaction, and delete those of more than DAYS_KEPT
    days ago. The run's own row must be there: it has the time of the commit.
    """
    database.execute(
        f"DELETE FROM {DELAY_TABLE} WHERE sync = %s "
        f"AND committed_at < UTC_TIMESTAMP(6) - INTERVAL {DAYS_KEPT} DAY",
        (sync,),
        about=DELAY_TABLE,
    )
    delays = time_changes(plan, arrivals)
    if delays.empty:
        return
    committed_at = database.rows(
        "SELECT committed_at FROM directory_sync_run WHERE run_sha256 = %s",
        (run_key,),
        about="directory_sync_run",
    )[0][0]
    database.fill(
        DELAY_TABLE,
        delays.astype(TEXT_TYPE),
        constants={"sync": sync, "run_sha256": run_key, "committed_at": str(committed_at)},
        about=DELAY_TABLE,
    )


def read_clock(database: Database, run: Run, run_key: str) -> Clock | None:
    """The clock of the sync's last DAYS_COUNTED days; None in a ledger that has no delays yet."""
    if DELAY_TABLE not in definition.find_ledger_tables(database):
        return None
    delays = database.frame(
        f"SELECT way = '{Way.LIVE}', {_count_microseconds('happened_at')}, "
        f"{_count_microseconds('arrived_at')} FROM {DELAY_TABLE} d "
        f"WHERE d.sync = %s AND d.committed_at > UTC_TIMESTAMP(6) - INTERVAL {DAYS_COUNTED} DAY",
        (run.sync.name,),
        schema=READ_SCHEMA,
        about=DELAY_TABLE,
    )
    return Clock(
        ways=summarize_delays(delays),
        slowest_leaver=_find_slowest_leaver(database, run.sync.name),
        slowest_minutes_of_run=find_slowest_minutes(database, run_key),
    )


def find_slowest_minutes(database: Database, run_key: str) -> float | None:
    """How many minutes the slowest change of one run took; None where none has a time."""
    slowest = database.rows(
        f"SELECT MAX({_count_microseconds('happened_at')}) FROM {DELAY_TABLE} d "
        "WHERE d.run_sha256 = %s",
        (run_key,),
        about=DELAY_TABLE,
    )[0][0]
    return None if slowest is None else round(int(slowest) / 60e6, 2)


def _find_slowest_leaver(database: Database, sync: str) -> SlowestLeaver | None:
    delay = _count_microseconds("happened_at")
    found = database.rows(
        f"SELECT d.sub, r.run_id, d.way, {delay}, d.committed_at FROM {DELAY_TABLE} d "
        "STRAIGHT_JOIN directory_sync_run r ON r.run_sha256 = d.run_sha256 "
        f"WHERE d.sync = %s AND d.committed_at > UTC_TIMESTAMP(6) - INTERVAL {DAYS_COUNTED} DAY "
        f"AND d.what = '{ChangeKind.LEAVER}' AND d.happened_at IS NOT NULL "
        f"ORDER BY {delay} DESC, d.sub LIMIT 1",
        (sync,),
        about=DELAY_TABLE,
    )
    if not found:
        return None
    sub, run_id, way, microseconds, committed_at = found[0]
    return SlowestLeaver(
        sub=sub,
        run_id=unquote(run_id),
        way=way,
        seconds=round(int(microseconds) / 1e6, 1),
        committed_at=committed_at.replace(tzinfo=UTC),
    )
