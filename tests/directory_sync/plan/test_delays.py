"""Which changes of a plan are timed, and since when."""

from typing import Any

import pandas as pd
import pytest

from directory_sync.frames import make_empty_frame, make_frame_of_rows
from directory_sync.plan.changes import (
    CHANGES_SCHEMA,
    DIRECTORY_SCHEMA,
    Plan,
    split_by_entity,
)
from directory_sync.plan.delays import (
    ARRIVALS_SCHEMA,
    date_changes,
    find_changed_users,
    time_changes,
)

NOON = pd.Timestamp("2026-05-04 12:00", tz="UTC")


def plan_of(*rows: dict[str, Any]) -> Plan:
    changes = make_frame_of_rows(list(rows), CHANGES_SCHEMA)
    return Plan(split_by_entity(changes), make_empty_frame(DIRECTORY_SCHEMA), {})


def change(sub: str | None, action: str, entity: str = "user", **others: Any) -> dict[str, Any]:
    return {"entity": entity, "sub": sub, "action": action, **others}


def arrivals(*rows: tuple[str, Any, Any]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=ARRIVALS_SCHEMA.names)


def minutes_later(minutes: float) -> pd.Timestamp:
    return NOON + pd.Timedelta(minutes=minutes)


def describe(delays: pd.DataFrame) -> list[tuple[Any, ...]]:
    columns = delays.columns[:-2]
    return [
        (*row[columns], *(None if pd.isna(row[name]) else f"{row[name]:%H:%M}"
                          for name in ("happened_at", "arrived_at")))
        for _, row in delays.iterrows()
    ]  # fmt: skip


def test_a_user_who_loses_access_is_a_leaver_and_another_changed_user_is_not() -> None:
    plan = plan_of(
        change("a", "update"),
        change("b", "deactivate"),
        change("c", "delete"),
        change("d", "add", "membership"),
        change("b", "remove", "membership"),
        change("a", "remove", "membership"),
    )
    found = find_changed_users(plan)
    assert dict(zip(found["sub"], found["what"], strict=True)) == {
        "a": "change",
        "b": "leaver",
        "c": "leaver",
        "d": "change",
    }


def test_held_rows_and_rows_for_the_ledger_alone_are_never_timed() -> None:
    plan = plan_of(
        change("held", "deactivate", hold="removed_users_percent"),
        change("deferred", "update", hold="deferred"),
        change("held", "remove", "membership", hold="removed_memberships_percent"),
        change("missed", "miss"),
        change("seen", "seen"),
        change("local", "keep_local", "membership"),
        change("claimed", "claim", "membership"),
        change(None, "deactivate"),
    )
    assert find_changed_users(plan).empty
    heard = arrivals(*((sub, NOON, NOON) for sub in ("held", "deferred", "missed", "local")))
    assert time_changes(plan, heard).empty


def test_a_user_with_several_events_is_timed_once_from_the_earliest() -> None:
    plan = plan_of(change("a", "update"), change("a", "add", "membership"), change("b", "update"))
    heard = arrivals(
        ("a", minutes_later(2), minutes_later(3)),
        ("a", minutes_later(1), minutes_later(5)),
        ("unchanged", NOON, NOON),
    )
    assert describe(time_changes(plan, heard)) == [("a", "change", "live", "12:01", "12:03")]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", None])
def test_times_are_told_in_utc_whatever_their_zone(zone: str | None) -> None:
    at = NOON.tz_convert(zone) if zone else NOON.tz_localize(None)
    found = time_changes(plan_of(change("a", "delete")), arrivals(("a", at, at)))
    assert describe(found) == [("a", "leaver", "live", "12:00", "12:00")]


def test_an_event_without_a_time_is_counted_without_one() -> None:
    found = time_changes(plan_of(change("a", "delete")), arrivals(("a", None, NOON)))
    assert describe(found) == [("a", "leaver", "live", None, "12:00")]


def snapshot(**modified: pd.Timestamp | None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sub": pd.array(list(modified), "string[pyarrow]"),
            "modified_at": pd.to_datetime(pd.Series(list(modified.values())), utc=True),
        }
    )


def test_a_snapshot_dates_only_what_the_pool_changed_since_the_last_one() -> None:
    plan = plan_of(
        change("new", "update"),
        change("old", "update"),
        change("same", "deactivate"),
        change("disabled", "deactivate"),
        change("undated", "update"),
    )
    modified = snapshot(
        new=minutes_later(1),
        old=minutes_later(-1),
        same=NOON,
        disabled=minutes_later(2),
        undated=None,
        unchanged=minutes_later(3),
    )
    found = time_changes(plan, date_changes(find_changed_users(plan), modified, NOON))
    assert describe(found) == [
        ("disabled", "leaver", "scheduled", "12:02", None),
        ("new", "change", "scheduled", "12:01", None),
    ]


def test_a_leaver_that_the_pool_no_longer_has_is_counted_without_a_time() -> None:
    plan = plan_of(
        change("gone", "deactivate"),
        change("gone", "remove", "membership"),
        change("elsewhere", "remove", "membership"),
    )
    found = time_changes(plan, date_changes(find_changed_users(plan), snapshot(), NOON))
    assert describe(found) == [("gone", "leaver", "scheduled", None, None)]


def test_of_several_readings_of_a_user_the_newest_dates_the_change() -> None:
    plan = plan_of(change("a", "update"))
    twice = pd.concat([snapshot(a=minutes_later(5)), snapshot(a=minutes_later(-5))])
    found = time_changes(plan, date_changes(find_changed_users(plan), twice, NOON))
    assert describe(found) == [("a", "change", "scheduled", "12:05", None)]
