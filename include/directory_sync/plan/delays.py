"""Which changes of a plan are timed, and since when: how long each of them took is known once they
are committed.
"""

import numpy as np
import pandas as pd
import pyarrow as pa

from directory_sync.clock import ChangeKind, Way
from directory_sync.frames import (
    TEXT_TYPE,
    TIME_TYPE,
    conform_to_schema,
    find_positions,
    is_true,
    make_empty_frame,
    take_values,
)
from directory_sync.plan.changes import Plan
from directory_sync.vocabulary import LEDGER_ACTIONS, REMOVAL_ACTIONS, Entity

ARRIVALS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("happened_at", pa.timestamp("us")),
        ("arrived_at", pa.timestamp("us")),
    ]
)
"""Users whose changes are timed; a user may have several rows.

happened_at (UTC): when the pool changed, null where nothing tells. arrived_at (UTC): when the sync
heard of it by an event, null where it found the change by listing the pool.
"""

DELAYS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("what", pa.string()),
        ("way", pa.string()),
        ("happened_at", pa.timestamp("us")),
        ("arrived_at", pa.timestamp("us")),
    ]
)
"""A row for each timed user. what: clock.ChangeKind; way: clock.Way."""


def find_changed_users(plan: Plan) -> pd.DataFrame:
    """Columns sub, what (clock.ChangeKind): the users that the plan's safe rows change in Joget, by
    themselves or by a membership.
    """
    users, members = (
        _find_joget_changes(plan, entity) for entity in (Entity.USER, Entity.MEMBERSHIP)
    )
    subs = pd.concat([users["sub"], members["sub"]], ignore_index=True).dropna().drop_duplicates()
    leaving = subs.isin(users.loc[users["action"].isin(REMOVAL_ACTIONS), "sub"])
    what = np.where(leaving, str(ChangeKind.LEAVER), str(ChangeKind.CHANGE))
    return pd.DataFrame(
        {"sub": subs, "what": pd.Series(what, index=subs.index, dtype=TEXT_TYPE)}
    ).reset_index(drop=True)


def _find_joget_changes(plan: Plan, entity: str) -> pd.DataFrame:
    rows = plan.safe_part(entity)
    return rows.loc[~rows["action"].isin(LEDGER_ACTIONS), ["sub", "action"]]


def date_changes(
    changed: pd.DataFrame, modified: pd.DataFrame, since: pd.Timestamp
) -> pd.DataFrame:
    """Columns ARRIVALS_SCHEMA: the changed users (`find_changed_users`) that a snapshot dates later
    than the last one, and leavers that it lacks, without a time.

    modified: columns sub, modified_at (UTC) of the snapshot. since: the time of the last snapshot
    that was applied.
    """
    newest = modified.dropna().sort_values("modified_at").drop_duplicates("sub", keep="last")
    at = take_values(newest["modified_at"], find_positions(changed["sub"], newest["sub"]))
    # An older date is no change of the pool's: it was adopted, or the settings changed.
    is_newer = is_true(at > since)
    is_gone = (changed["what"] == ChangeKind.LEAVER) & ~changed["sub"].isin(modified["sub"])
    dated = pd.DataFrame({"sub": changed["sub"], "happened_at": at, "arrived_at": None})
    return _conform(dated[is_newer | is_gone])


def time_changes(plan: Plan, arrivals: pd.DataFrame) -> pd.DataFrame:
    """Columns DELAYS_SCHEMA: a row for each user among the arrivals (ARRIVALS_SCHEMA) that the
    plan's safe rows change, with their earliest times, in the order of subs.
    """
    if arrivals.empty:
        return make_empty_frame(DELAYS_SCHEMA)
    earliest = _conform(arrivals).groupby("sub", as_index=False).min()
    changed = find_changed_users(plan).merge(earliest, on="sub").sort_values("sub")
    way = np.where(changed["arrived_at"].notna(), str(Way.LIVE), str(Way.SCHEDULED))
    return conform_to_schema(changed.assign(way=way), DELAYS_SCHEMA).reset_index(drop=True)


def _conform(arrivals: pd.DataFrame) -> pd.DataFrame:
    """The frame in Arrow types; its times may have any time zone, and none means UTC."""
    # Arrow's cast keeps the moment, and says it in UTC.
    times = {
        column: pd.Series(
            pa.array(arrivals[column]).cast(pa.timestamp("us"), safe=False),
            index=arrivals.index,
            dtype=TIME_TYPE,
        )
        for column in ("happened_at", "arrived_at")
    }
    return conform_to_schema(arrivals.assign(**times), ARRIVALS_SCHEMA)
