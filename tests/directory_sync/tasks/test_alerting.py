"""Alerts through Airflow's notifier, to a real server: after loads, and after failed tasks."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from directory_sync.errors import PermanentError
from directory_sync.tasks import alerting
from tests.alert_receiver import AlertReceiver, alert_receiver
from tests.company import Company, people
from tests.conftest import ROOT
from tests.stand_in import user

HELD, HELD_OVER = "Directory Sync default: held", "Directory Sync default: held, over"
FAILED, FAILED_OVER = "Directory Sync default: failed", "Directory Sync default: failed, over"
GROWN = "Directory Sync default: quarantine_grown"


@pytest.fixture
def receiver(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[AlertReceiver]:
    with alert_receiver() as receiver:
        monkeypatch.setenv("AIRFLOW_CONN_SYNC_ALERTS", receiver.connection)
        company.configure(alerts={"notifier": "sync_alerts"})
        yield receiver


def hold(company: Company) -> None:
    """Let most users leave, and run until their removal is held."""
    company.pool.users = people(40)
    company.run()
    company.pool.users = people(5)
    company.run()
    assert company.run()["to_review"] == 35


def fail(run_id: str = "manual__failing", dag_id: str = "cognito_to_joget", **params: Any) -> None:
    alerting.alert_about_failure("default", dag_id, run_id, params, task_id="load")


def list_signposts(company: Company) -> list[str]:
    """The alerts' signposts, oldest first, without their times."""
    paths = sorted(company.staging_folder.glob("*/*/alerts/*"), key=lambda path: path.name)
    return [path.name.partition(".")[2] for path in paths]


def test_a_run_that_holds_changes_and_one_that_holds_none_send_one_message_each(
    company: Company, receiver: AlertReceiver
) -> None:
    hold(company)
    company.run()
    company.pool.users = people(40)
    company.run()
    company.run()
    assert receiver.titles == [HELD, HELD_OVER]
    raised, cleared = receiver.messages
    assert raised["message"].startswith("35 changes of users, groups and memberships wait for a")
    assert (raised["type"], cleared["type"]) == ("warning", "success")
    assert "example.org" not in str(receiver.messages)


def test_an_incomplete_snapshot_is_told_and_its_recovery_too(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = people(60)
    company.run()
    company.faults.cut_users_after = 20
    assert not company.run()["complete"]
    company.faults.cut_users_after = 0
    assert company.run()["complete"]
    assert receiver.titles == [
        "Directory Sync default: incomplete",
        "Directory Sync default: incomplete, over",
    ]


def test_a_quarantine_that_grows_is_told_and_the_first_one_of_a_sync_is_not(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = [*people(3), user("with,comma@example.org")]
    assert len(company.run()["quarantine"]) == 1
    assert receiver.titles == []
    company.pool.users.append(user("another,comma@example.org"))
    company.run()
    company.run()
    assert receiver.titles == [GROWN, f"{GROWN}, over"]


def test_a_dry_run_and_a_run_for_some_users_change_no_state_of_what_is_held(
    company: Company, receiver: AlertReceiver
) -> None:
    hold(company)
    company.run(dry_run=True)
    company.run(users=["person000@example.org"])
    assert receiver.titles == [HELD]


def test_a_task_that_failed_for_good_is_told_once_until_a_load_succeeds(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = people(2)
    fail()
    fail("manual__next")
    company.run()
    fail(dag_id="cognito_to_joget_undo")
    assert receiver.titles == [FAILED, FAILED_OVER, FAILED]
    body = receiver.messages[-1]["message"]
    assert "Task load failed for good" in body
    assert "DAG: cognito_to_joget_undo\nRun: manual__failing" in body


@pytest.mark.parametrize(
    "params", [{"dry_run": True}, {"replay_run_id": "manual__1"}, {"organization": "ORG-002"}]
)
def test_a_dry_run_that_failed_is_not_told_since_a_person_looks_on(
    company: Company, receiver: AlertReceiver, params: dict[str, Any]
) -> None:
    fail(**params)
    assert receiver.titles == []


def test_an_alert_that_could_not_be_sent_fails_no_run_and_the_next_run_sends_it(
    company: Company, receiver: AlertReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 503
    hold(company)
    assert receiver.refused == 1
    assert (
        "alerts weren't sent: A service of Connection 'sync_alerts' (setting alerts.notifier) took "
        "no message (HTTP 503)." in caplog.text
    )
    receiver.status = 200
    company.run()
    company.run()
    assert receiver.titles == [HELD]


def test_growth_of_the_quarantine_that_could_not_be_sent_is_sent_by_the_next_run(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = people(3)
    company.run()
    company.pool.users.append(user("with,comma@example.org"))
    receiver.status = 500
    company.run()
    receiver.status = 200
    company.run()
    assert receiver.titles == [GROWN]


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        (None, "Connection 'sync_alerts' (setting alerts.notifier) doesn't exist"),
        ('{"conn_type": "http"}', "has type 'http'; it must be 'apprise'"),
        ('{"conn_type": "apprise"}', "holds an address that Apprise doesn't understand"),
        (
            '{"conn_type": "apprise", "extra": {"config": {"path": "nowhere://token-1"}}}',
            "holds an address that Apprise doesn't understand",
        ),
    ],
)
def test_a_wrong_connection_of_alerts_is_a_warning_that_says_what_is_wrong(
    request: pytest.FixtureRequest, company: Company, connection: str | None, said: str
) -> None:
    monkeypatch, caplog = map(request.getfixturevalue, ("monkeypatch", "caplog"))
    company.configure(alerts={"notifier": "sync_alerts"})
    if connection is None:
        monkeypatch.delenv("AIRFLOW_CONN_SYNC_ALERTS", raising=False)
    else:
        monkeypatch.setenv("AIRFLOW_CONN_SYNC_ALERTS", connection)
    fail()
    assert said in caplog.text
    assert list_signposts(company) == []


def test_no_log_line_holds_the_address_of_a_service(
    company: Company,
    receiver: AlertReceiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for path in (f"json://127.0.0.1:{receiver.port}/hidden-token", "json://hidden-token:x:y/@"):
        connection = f'{{"conn_type": "apprise", "extra": {{"config": {{"path": "{path}"}}}}}}'
        monkeypatch.setenv("AIRFLOW_CONN_SYNC_ALERTS", connection)
        receiver.status = 404
        fail()
    assert receiver.refused == 1
    assert "the alert about a failure wasn't sent" in caplog.text
    assert "hidden-token" not in caplog.text


def test_a_run_id_with_braces_is_no_template(company: Company, receiver: AlertReceiver) -> None:
    fail("manual__{{ 7 * 7 }}")
    assert "Run: manual__{{ 7 * 7 }}" in receiver.messages[0]["message"]


def test_a_failure_is_told_even_if_staging_is_away(
    company: Company, receiver: AlertReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    company.configure(staging_url="s3://nowhere_aws@bucket/prefix")
    fail()
    assert receiver.titles == [FAILED]
    assert "alerts may come twice, since their states can't be read" in caplog.text
    alerting.alert_about_failure("default", "cognito_to_joget", "manual__failing", {})
    assert receiver.titles == [FAILED], "the failed task has sent it, and its run doesn't"


def test_a_message_links_to_the_run(
    company: Company, receiver: AlertReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example.org")
    fail("manual__1+00:00")
    assert receiver.messages[0]["message"].endswith(
        "https://airflow.example.org/dags/cognito_to_joget/runs/manual__1%2B00%3A00"
    )


def test_a_state_that_was_noted_by_a_clock_ahead_of_ours_is_followed_by_a_later_one(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = people(2)
    fail()
    [signpost] = company.staging_folder.glob("*/*/alerts/*")
    signpost.rename(signpost.with_name("29991231T235959999999Z.failed.raised"))
    company.run()
    company.run()
    assert receiver.titles == [FAILED, FAILED_OVER]


def test_retention_keeps_the_newest_signpost_of_each_condition(
    company: Company, receiver: AlertReceiver
) -> None:
    company.pool.users = people(2)
    for _ in range(3):
        fail()
        company.run()
    fail()
    company.let_days_pass(400)
    receiver.status = 503  # so that the next run notes nothing
    company.run()
    assert sorted(list_signposts(company)) == ["failed.raised", "quarantine_grown.cleared"]


def test_without_a_notifier_nothing_is_sent_noted_or_imported(
    company: Company, tmp_path: Path
) -> None:
    """In a process of its own, since other tests import Apprise."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from directory_sync.tasks import alerting, load\n"
        "from directory_sync.orchestration.dags import make_dags\n"
        "dags = make_dags()\n"
        "assert dags\n"
        "assert not any(d.has_on_failure_callback for d in dags.values())\n"
        "assert not any(t.has_on_failure_callback for d in dags.values() for t in d.tasks)\n"
        "alerting.alert_about_failure('default', 'cognito_to_joget', 'manual__1', {})\n"
        "sys.exit('apprise' in sys.modules)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, str(script)], env=os.environ, capture_output=True, text=True, check=False,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    company.pool.users = people(2)
    company.run()
    assert list_signposts(company) == []


def test_counting_the_services_of_a_connection_sends_nothing(
    company: Company, receiver: AlertReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from directory_sync import notifier

    assert notifier.count_services("sync_alerts") == 1
    monkeypatch.setenv("AIRFLOW_CONN_SYNC_ALERTS", '{"conn_type": "apprise"}')
    with pytest.raises(PermanentError, match="Apprise doesn't understand"):
        notifier.count_services("sync_alerts")
    assert receiver.messages == []
