"""Which alerts a sync sends: one when a condition begins to hold, and one when it holds no more.

An alert has no name, email or attribute of a user: only ids of the sync and the run, and counts.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from directory_sync.report import Report
from directory_sync.settings import Sync

QUEUE_STALLED_MINUTES = 15.0
"""How long an event may wait in the queue. A live run takes all events that wait, so one that waits
longer shows that no such run comes to its end.
"""


class Condition(StrEnum):
    """What an alert is about."""

    HELD = "held"
    """A run holds something that waits for a person."""
    FAILED = "failed"
    """A run of the sync, a review or an undo failed for good, after its task's retries."""
    INCOMPLETE = "incomplete"
    """A snapshot wasn't proven complete."""
    QUARANTINE_GROWN = "quarantine_grown"
    """More records are in quarantine than in the run before."""
    PROMISE_BROKEN = "promise_broken"
    """A change took longer to reach Joget than events.promise_minutes."""
    QUEUE_STALLED = "queue_stalled"
    """An event waits in the queue for longer than QUEUE_STALLED_MINUTES."""


class AlertState(StrEnum):
    """Whether a condition holds, by the newest alert."""

    RAISED = "raised"
    CLEARED = "cleared"


@dataclass(frozen=True)
class NotedState:
    """What an earlier run noted about a condition."""

    state: AlertState = AlertState.CLEARED
    figure: int | None = None
    """The count that the next run compares its own with; None for conditions without one."""


@dataclass(frozen=True)
class Finding:
    """What a run says about a condition."""

    condition: Condition
    noted: NotedState
    """What is to be noted."""
    sentence: str


@dataclass(frozen=True)
class RunAddress:
    """The run that an alert is about."""

    sync_name: str
    dag_id: str
    run_id: str
    base_url: str = ""
    """Of Airflow's pages; empty where [api] base_url isn't set."""


@dataclass(frozen=True)
class Message:
    """An alert as people read it."""

    title: str
    body: str
    state: AlertState


def find_conditions(
    sync: Sync,
    report: Report,
    noted: Mapping[Condition, NotedState],
    *,
    is_for_everybody: bool,
    slowest_minutes: float | None,
    queue_oldest_minutes: float | None,
) -> list[Finding]:
    """What a load that succeeded says about each condition. It says nothing about a condition that
    it can't know, which then stays as it was noted.

    slowest_minutes: how long the slowest change of the run took to reach Joget. None: not known.
    queue_oldest_minutes: how long the oldest event has waited in the queue. None: not known.
    """
    findings = [find_recovery()] if is_for_everybody else []
    # A run for some users sees only their holds and quarantine, and a superseded one plans nothing.
    if is_for_everybody and report.outcome != "superseded":
        findings += [
            find_held_changes(report.to_review),
            find_doubts(len(report.incomplete_reasons)),
            find_quarantine_growth(len(report.quarantine), noted),
        ]
    # What a run for some users holds waits too. Only one for everybody can tell that nothing does.
    elif not is_for_everybody and report.to_review:
        findings.append(find_held_changes(report.to_review))
    promised = sync.events.promise_minutes
    if slowest_minutes is not None and promised is not None:
        broken = find_broken_promise(slowest_minutes, promised)
        # Only a run for everybody says that all is well again: live runs come every minute.
        if is_for_everybody or broken.noted.state is AlertState.RAISED:
            findings.append(broken)
    if queue_oldest_minutes is not None:
        findings.append(find_stalled_queue(queue_oldest_minutes))
    return findings


def find_failure(task_id: str | None = None) -> Finding:
    """A run failed for good; task_id: its failed task, where that is known."""
    sentence = (
        f"Task {task_id} failed for good, and nobody tries it again. Its log says why."
        if task_id
        else "A run failed for good, and nobody tries it again. Its failed task's log says why."
    )
    return _make_finding(Condition.FAILED, sentence, holds=True)


def find_recovery() -> Finding:
    """A load succeeded."""
    return _make_finding(Condition.FAILED, "A run has loaded into Joget again.", holds=False)


def find_held_changes(count: int) -> Finding:
    """Whether a person is asked about changes."""
    sentence = (
        f"{count} changes of users, groups and memberships wait for a person."
        if count
        else "No change waits for a person any more."
    )
    return _make_finding(Condition.HELD, sentence, holds=count > 0)


def find_doubts(count: int) -> Finding:
    """Whether the snapshot is proven complete; count: of the reasons why it isn't."""
    # Without the reasons themselves, since some of them name groups.
    sentence = (
        f"The run's snapshot isn't proven complete, for {count} reason(s): nobody is removed. The "
        "run's report has the reasons."
        if count
        else "The run's snapshot is proven complete again."
    )
    return _make_finding(Condition.INCOMPLETE, sentence, holds=count > 0)


def find_quarantine_growth(count: int, noted: Mapping[Condition, NotedState]) -> Finding:
    """Whether the quarantine has more records than when a run last noted its count."""
    before = noted.get(Condition.QUARANTINE_GROWN, NotedState()).figure
    has_grown = before is not None and count > before
    sentence = (
        f"{count} records are in quarantine; the run before had {before}."
        if has_grown
        else f"The quarantine no longer grows: it has {count} records."
    )
    return _make_finding(Condition.QUARANTINE_GROWN, sentence, holds=has_grown, figure=count)


def find_broken_promise(slowest_minutes: float, promised_minutes: float) -> Finding:
    """Whether a change took longer than promised."""
    is_broken = slowest_minutes > promised_minutes
    sentence = (
        f"A change took {slowest_minutes:.1f} minutes to reach Joget; promised are "
        f"{promised_minutes:g} (events.promise_minutes)."
        if is_broken
        else f"Changes reach Joget within {promised_minutes:g} minutes again."
    )
    return _make_finding(Condition.PROMISE_BROKEN, sentence, holds=is_broken)


def find_stalled_queue(oldest_minutes: float) -> Finding:
    """Whether an event waits in the queue for too long."""
    is_stalled = oldest_minutes > QUEUE_STALLED_MINUTES
    sentence = (
        f"The oldest event has waited in the queue for {oldest_minutes:.0f} minutes."
        if is_stalled
        else "The queue is read again."
    )
    return _make_finding(Condition.QUEUE_STALLED, sentence, holds=is_stalled)


def choose_alerts(
    findings: Collection[Finding], noted: Mapping[Condition, NotedState]
) -> list[Finding]:
    """The findings to send: those that change a condition's state."""
    return [
        finding
        for finding in findings
        if finding.noted.state != noted.get(finding.condition, NotedState()).state
    ]


def choose_notes(
    findings: Collection[Finding], noted: Mapping[Condition, NotedState]
) -> list[Finding]:
    """The findings to note: those to send, and those with another figure."""
    return [
        finding
        for finding in findings
        if finding.noted != noted.get(finding.condition, NotedState())
    ]


def write_message(finding: Finding, address: RunAddress) -> Message:
    """An alert's text, with a link to the run where Airflow's address is known."""
    state = finding.noted.state
    ending = "" if state is AlertState.RAISED else ", over"
    lines = [
        finding.sentence,
        f"Sync: {address.sync_name}",
        f"DAG: {address.dag_id}",
        f"Run: {address.run_id}",
    ]
    if address.base_url:
        run_id = quote(address.run_id, safe="")
        lines.append(f"{address.base_url.rstrip('/')}/dags/{address.dag_id}/runs/{run_id}")
    return Message(
        title=f"Directory Sync {address.sync_name}: {finding.condition}{ending}",
        body="\n".join(lines),
        state=state,
    )


def _make_finding(
    condition: Condition, sentence: str, *, holds: bool, figure: int | None = None
) -> Finding:
    state = AlertState.RAISED if holds else AlertState.CLEARED
    return Finding(condition, NotedState(state, figure), sentence)
