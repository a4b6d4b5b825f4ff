"""Alerts: after a load, and when a task has failed for good. Staging keeps each condition's state,
since a run that fails may not reach Joget's database.

Nothing here fails a run: what goes wrong is a warning in the task's log.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from airflow.configuration import conf

from directory_sync.alerts import (
    AlertState,
    Condition,
    Finding,
    NotedState,
    RunAddress,
    choose_alerts,
    choose_notes,
    find_conditions,
    find_failure,
    write_message,
)
from directory_sync.errors import DirectorySyncError, hide_values
from directory_sync.events.queue import open_queue
from directory_sync.report import Report
from directory_sync.run import Run
from directory_sync.settings import find_sync
from directory_sync.staging import signposts, store
from directory_sync.staging.manifest import Manifest
from directory_sync.staging.signposts import ALERT_SIGNPOSTS

log = logging.getLogger(__name__)

HEAD_START_SECONDS = 10
"""A failed task and the DAG processor alert at the same moment. So much later, the DAG processor
sees what the task has noted.
"""

TRIAL_PARAMETERS = ("dry_run", "user_pool_id", "organization", "replay_run_id")
"""Each of them makes a run a dry one (run.resolve_run), and the person who started it looks on."""


def alert_about_load(run: Run, loaded: Manifest) -> None:
    """Send the alerts of a load that has reported."""
    conn_id = run.sync.alerts.notifier
    if conn_id is None:
        return
    with _log_errors("alerts weren't sent"):
        noted = read_noted_states(run)
        report = Report.model_validate(store.read_json(loaded, "report.json"))
        findings = find_conditions(
            run.sync,
            report,
            noted,
            is_for_everybody=not run.is_for_some,
            slowest_minutes=report.clock.slowest_minutes_of_run if report.clock else None,
            queue_oldest_minutes=_measure_queue(run),
        )
        address = _make_address(run, run.sync.live_dag_id if run.is_live else run.sync.dag_id)
        _send_alerts(run, conn_id, address, findings, noted)


def _measure_queue(run: Run) -> float | None:
    """How long, in minutes, an event has waited in the queue; None where nobody knows. A live run
    has just taken what was there.
    """
    if run.sync.events.queue_url is None or run.is_live:
        return None
    with _log_errors("nobody knows whether the queue is read"):
        return open_queue(run.sync).find_longest_wait() / 60
    return None


def alert_about_failed_run(
    sync_name: str, dag_id: str, run_id: str, parameters: Mapping[str, Any]
) -> None:
    """Send the alert that a run has failed, if its failed task sent none, as when it was killed."""
    time.sleep(HEAD_START_SECONDS)
    alert_about_failure(sync_name, dag_id, run_id, parameters)


def alert_about_failure(
    sync_name: str,
    dag_id: str,
    run_id: str,
    parameters: Mapping[str, Any],
    *,
    task_id: str | None = None,
) -> None:
    """Send the alert that a run, or the task of that id, has failed for good. It isn't sent again
    until a load has succeeded.
    """
    if any(parameters.get(name) for name in TRIAL_PARAMETERS):
        return
    with _log_errors("the alert about a failure wasn't sent"):
        run = Run(run_id=run_id, sync=find_sync(sync_name), dry_run=False)
        conn_id = run.sync.alerts.notifier
        if conn_id is None:
            return
        noted: dict[Condition, NotedState] = {}
        # Staging may be what the task failed for. Then the alert is sent, perhaps once more. Nobody
        # can know then whether the task has sent it, so the run doesn't.
        advice = "alerts may come twice, since their states can't be read"
        with _log_errors(advice) if task_id else nullcontext():
            store.require_access(run.sync.staging_url)
            noted = read_noted_states(run)
        address = _make_address(run, dag_id)
        _send_alerts(run, conn_id, address, [find_failure(task_id)], noted)


def read_noted_states(run: Run) -> dict[Condition, NotedState]:
    """What was last noted about each condition."""
    noted = {}
    for name in _find_newest_names(run):
        _, condition, state = name.split(".")
        figure = signposts.read_signpost(run, ALERT_SIGNPOSTS, name)
        noted[Condition(condition)] = NotedState(AlertState(state), int(figure) if figure else None)
    return noted


def _find_newest_names(run: Run) -> Collection[str]:
    """The newest signpost of each condition that this release knows."""
    newest = {name.split(".")[1]: name for name in signposts.list_signposts(run, ALERT_SIGNPOSTS)}
    return [newest[condition] for condition in Condition if condition in newest]


def _send_alerts(
    run: Run,
    conn_id: str,
    address: RunAddress,
    findings: Collection[Finding],
    noted: Mapping[Condition, NotedState],
) -> None:
    alerts = choose_alerts(findings, noted)
    for finding in choose_notes(findings, noted):
        if finding in alerts:
            _send(conn_id, finding, address)
        # Only afterwards, so that the next run sends an alert that couldn't be sent.
        _note_state(run, finding)


def _send(conn_id: str, finding: Finding, address: RunAddress) -> None:
    from directory_sync import notifier  # noqa: PLC0415 - without alerts, nobody needs Apprise

    notifier.send_message(conn_id, write_message(finding, address))
    log.info("sent the alert %s: %s", finding.condition, finding.noted.state)


def _note_state(run: Run, finding: Finding) -> None:
    """Leave a signpost named `<time>.<condition>.<state>`; its content is the figure."""
    figure = finding.noted.figure
    # The names' order is what counts, and this worker's clock may be behind another's.
    earlier = signposts.list_signposts(run, ALERT_SIGNPOSTS)
    now = signposts.format_time(datetime.now(UTC))
    moment = max([now, *(signposts.format_later_time(name) for name in earlier[-1:])])
    signposts.write_signpost(
        run,
        ALERT_SIGNPOSTS,
        f"{moment}.{finding.condition}.{finding.noted.state}",
        "" if figure is None else str(figure),
    )


def _make_address(run: Run, dag_id: str) -> RunAddress:
    base_url = conf.get("api", "base_url", fallback="") or ""
    return RunAddress(run.sync.name, dag_id, run.run_id, base_url)


@contextmanager
def _log_errors(consequence: str) -> Iterator[None]:
    try:
        with hide_values("sending alerts"):
            yield
    except DirectorySyncError as error:
        log.warning("%s: %s", consequence, error)
