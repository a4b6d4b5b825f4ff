"""Which alerts are sent: on a change of a condition's state, and with no personal data."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from directory_sync.alerts import (
    QUEUE_STALLED_MINUTES,
    AlertState,
    Condition,
    Finding,
    NotedState,
    RunAddress,
    choose_alerts,
    choose_notes,
    find_broken_promise,
    find_conditions,
    find_doubts,
    find_failure,
    find_held_changes,
    find_quarantine_growth,
    find_recovery,
    find_stalled_queue,
    write_message,
)
from directory_sync.report import Quarantined, Report
from directory_sync.settings import Sync, parse_settings
from tests.directory_sync.test_settings import sync as settings

RAISED, CLEARED = AlertState.RAISED, AlertState.CLEARED
ADDRESS = RunAddress("default", "cognito_to_joget", "manual__1+00:00")

QUIET_REPORT = Report(
    run_id="manual__1",
    sync="default",
    user_pool_id="us-east-1_Example1",
    organization="ORG-001",
    snapshot_at=datetime(2026, 11, 25, tzinfo=UTC),
    dry_run=False,
    outcome="applied",
    complete=True,
    incomplete_reasons=(),
    users={},
    groups={},
    memberships={},
    holds=(),
    quarantine=(),
    plan_sha256="0",
    held_sha256=None,
    timings={},
    to_review=0,
)
TROUBLED_REPORT = QUIET_REPORT.model_copy(
    update={
        "to_review": 12,
        "incomplete_reasons": ("group Sales ended early", "a user came twice"),
        "quarantine": (Quarantined(entity="user", key="sub-1", reason="no login"),) * 3,
    }
)


def make_sync(**changes: object) -> Sync:
    (valid,), faults = parse_settings({"syncs": [settings(**changes)]})
    assert faults == ()
    return valid


def find_states(report: Report, **options: object) -> dict[Condition, AlertState]:
    """The states that a load finds, beside a quarantine of 2 in the run before."""
    asked = {
        "is_for_everybody": True,
        "slowest_minutes": None,
        "queue_oldest_minutes": None,
        **options,
    }
    noted = {Condition.QUARANTINE_GROWN: NotedState(CLEARED, 2)}
    sync = make_sync(events={"promise_minutes": 5})
    found = find_conditions(sync, report, noted, **asked)  # type: ignore[arg-type]
    return {finding.condition: finding.noted.state for finding in found}


def follow(*findings: Finding) -> list[AlertState]:
    """The states that are sent when one run after the other finds this about one condition."""
    noted: dict[Condition, NotedState] = {}
    sent = []
    for finding in findings:
        sent += [alert.noted.state for alert in choose_alerts([finding], noted)]
        noted |= {note.condition: note.noted for note in choose_notes([finding], noted)}
    return sent


def test_an_alert_is_sent_when_a_condition_begins_and_when_it_ends_and_not_in_between() -> None:
    held, free = find_held_changes(12), find_held_changes(0)
    assert follow(free, free) == []
    assert follow(free, held, held, find_held_changes(3), free, free, held) == [
        RAISED,
        CLEARED,
        RAISED,
    ]


def test_a_load_that_succeeds_clears_a_failure() -> None:
    failure = find_failure("load")
    assert follow(failure, failure, find_recovery(), find_recovery()) == [RAISED, CLEARED]


def test_a_load_says_what_is_held_incomplete_and_grown_in_the_quarantine() -> None:
    assert find_states(TROUBLED_REPORT) == {
        Condition.FAILED: CLEARED,
        Condition.HELD: RAISED,
        Condition.INCOMPLETE: RAISED,
        Condition.QUARANTINE_GROWN: RAISED,
    }
    assert set(find_states(QUIET_REPORT).values()) == {CLEARED}


@pytest.mark.parametrize(
    ("report", "options", "states"),
    [
        (TROUBLED_REPORT, {"is_for_everybody": False}, {Condition.HELD: RAISED}),
        (
            TROUBLED_REPORT.model_copy(update={"outcome": "superseded"}),
            {},
            {Condition.FAILED: CLEARED},
        ),
    ],
    ids=["for some users", "superseded"],
)
def test_a_run_for_some_users_or_a_superseded_one_says_nothing_about_everybody(
    report: Report, options: dict[str, object], states: dict[Condition, AlertState]
) -> None:
    assert find_states(report, **options) == states


def test_a_quarantine_counts_as_grown_against_the_count_that_was_last_noted() -> None:
    noted: dict[Condition, NotedState] = {}
    states = []
    for count in (5, 7, 7, 9, 4, 5):
        finding = find_quarantine_growth(count, noted)
        states.append(finding.noted.state)
        noted |= {note.condition: note.noted for note in choose_notes([finding], noted)}
    assert states == [CLEARED, RAISED, CLEARED, RAISED, CLEARED, RAISED]


def test_growth_of_the_quarantine_is_found_again_if_its_alert_could_not_be_sent() -> None:
    noted = {Condition.QUARANTINE_GROWN: NotedState(CLEARED, 5)}
    assert find_quarantine_growth(7, noted).noted.state is RAISED
    assert find_quarantine_growth(7, noted).noted.state is RAISED, "nothing was noted meanwhile"


def test_a_changed_figure_is_noted_and_not_sent() -> None:
    noted = {Condition.QUARANTINE_GROWN: NotedState(CLEARED, 5)}
    finding = find_quarantine_growth(4, noted)
    assert choose_alerts([finding], noted) == []
    assert choose_notes([finding], noted) == [finding]


@pytest.mark.parametrize(("minutes", "state"), [(5, CLEARED), (5.1, RAISED)])
def test_a_promise_is_broken_by_a_change_that_took_longer(
    minutes: float, state: AlertState
) -> None:
    assert find_broken_promise(minutes, 5).noted.state is state
    assert find_states(QUIET_REPORT, slowest_minutes=minutes)[Condition.PROMISE_BROKEN] is state


@pytest.mark.parametrize(
    ("minutes", "state"), [(QUEUE_STALLED_MINUTES, CLEARED), (QUEUE_STALLED_MINUTES + 1, RAISED)]
)
def test_a_queue_is_stalled_when_its_oldest_event_waits_for_longer_than_a_quarter_of_an_hour(
    minutes: float, state: AlertState
) -> None:
    assert find_stalled_queue(minutes).noted.state is state
    assert find_states(QUIET_REPORT, queue_oldest_minutes=minutes)[Condition.QUEUE_STALLED] is state


def test_without_a_promise_no_change_breaks_one() -> None:
    found = find_conditions(
        make_sync(),
        QUIET_REPORT,
        {},
        is_for_everybody=True,
        slowest_minutes=1000,
        queue_oldest_minutes=None,
    )
    assert Condition.PROMISE_BROKEN not in {finding.condition for finding in found}


def test_a_message_has_ids_counts_and_a_sentence_and_nothing_of_what_the_report_quotes() -> None:
    found = find_conditions(
        make_sync(),
        TROUBLED_REPORT,
        {Condition.QUARANTINE_GROWN: NotedState(CLEARED, 2)},
        is_for_everybody=True,
        slowest_minutes=None,
        queue_oldest_minutes=None,
    )
    bodies = {finding.condition: write_message(finding, ADDRESS).body for finding in found}
    assert bodies[Condition.HELD] == (
        "12 changes of users, groups and memberships wait for a person.\n"
        "Sync: default\nDAG: cognito_to_joget\nRun: manual__1+00:00"
    )
    assert (
        "3 records are in quarantine; the run before had 2." in bodies[Condition.QUARANTINE_GROWN]
    )
    assert "Sales" not in str(bodies)
    assert "sub-1" not in str(bodies)


def test_a_message_links_to_its_run_where_airflows_address_is_known() -> None:
    address = replace(ADDRESS, base_url="https://airflow.example.org/sync/")
    assert write_message(find_doubts(1), address).body.endswith(
        "\nhttps://airflow.example.org/sync/dags/cognito_to_joget/runs/manual__1%2B00%3A00"
    )


def test_the_title_tells_a_recovery_from_an_alert() -> None:
    assert write_message(find_doubts(1), ADDRESS).title == "Directory Sync default: incomplete"
    assert write_message(find_doubts(0), ADDRESS).title == (
        "Directory Sync default: incomplete, over"
    )
