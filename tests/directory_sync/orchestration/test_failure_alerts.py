"""What Airflow calls after a failure: in `dags test`, and under a scheduler."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import airflow as demo_airflow
from demo.processes import free_port
from tests.alert_receiver import AlertReceiver, alert_receiver
from tests.company import Company, people, settings
from tests.conftest import ROOT
from tests.directory_sync.orchestration.api import Api, wait
from tests.directory_sync.orchestration.test_runs import PrivateAirflow, airflow

__all__ = ["airflow"]

FAILED = "Directory Sync default: failed"

FAILING_DAGS = """
import os
import signal

from airflow.sdk import DAG, task
from directory_sync.orchestration.failure_callbacks import (
    alert_when_a_run_fails,
    alert_when_a_task_fails,
)
from directory_sync.settings import find_sync

sync = find_sync("default")


def raise_error():
    raise ValueError("secret.person@example.org")


def kill_task():
    os.kill(os.getpid(), signal.SIGKILL)


def kill_worker():
    os.kill(os.getppid(), signal.SIGKILL)
    kill_task()


for fail in (raise_error, kill_task, kill_worker):
    with DAG(
        fail.__name__,
        is_paused_upon_creation=False,
        params={"dry_run": False},
        default_args=alert_when_a_task_fails(sync),
        **alert_when_a_run_fails(sync),
    ):
        task(fail)()
"""
"""Tasks that fail at once: those of the sync's DAGs are tried again for many minutes."""


DAG_IDS = ("raise_error", "kill_task", "kill_worker")

SECONDS_FOR_A_SECOND_MESSAGE = 25
"""A run's message may come later than its task's, by alerting.HEAD_START_SECONDS and what Airflow
needs.
"""


@pytest.fixture
def receiver() -> Iterator[AlertReceiver]:
    with alert_receiver() as receiver:
        yield receiver


def test_a_task_that_fails_for_good_in_airflow_sends_one_message(
    company: Company, airflow: PrivateAirflow, receiver: AlertReceiver
) -> None:
    company.configure(alerts={"notifier": "sync_alerts"})
    airflow.variables["AIRFLOW_CONN_SYNC_ALERTS"] = receiver.connection
    output = airflow.run("dags", "test", "cognito_to_joget", "--conf", '{"dryrun": true}')
    assert airflow.rows("SELECT state FROM dag_run") == [("failed",)], output.stdout[-3000:]
    assert receiver.titles == [FAILED]
    assert "Task extract_users failed for good" in receiver.messages[0]["message"]
    lines = airflow.read_output(output).splitlines()
    quoting = [line for line in lines if f"127.0.0.1:{receiver.port}" in line]
    assert [line for line in quoting if "MaskSecret" not in line] == [], (
        "at DEBUG, Airflow itself logs the extras that it asks to mask; nobody else logs them"
    )
    company.pool.users = people(2)
    output = airflow.run("dags", "test", "cognito_to_joget")
    assert airflow.rows("SELECT state FROM dag_run ORDER BY id DESC")[0] == ("success",)
    assert receiver.titles == [FAILED, f"{FAILED}, over"]


def test_under_a_scheduler_each_way_of_failing_sends_one_message(
    receiver: AlertReceiver, tmp_path: Path
) -> None:
    """An error is sent by the task's process, a killed task or worker by the DAG processor."""
    settings_path, dags = tmp_path / "syncs.yaml", tmp_path / "dags"
    sync = settings(tmp_path / "staging", alerts={"notifier": "sync_alerts"})
    settings_path.write_text(yaml.safe_dump({"syncs": [sync]}), encoding="utf-8")
    dags.mkdir()
    (dags / "failing.py").write_text(FAILING_DAGS, encoding="utf-8")
    (dags / "sync.py").symlink_to(ROOT / "dags" / "cognito_to_joget.py")
    (tmp_path / "airflow").mkdir()
    variables = demo_airflow.environment(
        tmp_path / "airflow",
        settings=settings_path,
        joget_uri="mysql://nobody@127.0.0.1:1/nothing",
        endpoint="http://127.0.0.1:1",
    )
    port = free_port()
    with demo_airflow.standalone(variables | make_options(dags, receiver), port, tmp_path / "log"):
        api = Api(port)
        wait(lambda: has_dag(api, "kill_worker"), "the DAGs")
        assert fail(api, "kill_task", dry_run=True) == "failed", "and nobody is told"
        for number, dag_id in enumerate(DAG_IDS, start=1):
            for signpost in list_signposts(tmp_path):
                signpost.unlink()  # as if a load had succeeded meanwhile
            assert fail(api, dag_id) == "failed"
            wait(lambda: list_signposts(tmp_path), f"the message about {dag_id}, and its note")
            assert len(receiver.messages) == number
            # The task has sent it, or the DAG processor for the task. The run's callback follows.
            time.sleep(0 if dag_id == "kill_task" else SECONDS_FOR_A_SECOND_MESSAGE)
    assert receiver.titles == [FAILED] * len(DAG_IDS)
    assert f"127.0.0.1:{receiver.port}" not in (tmp_path / "log").read_text(encoding="utf-8")
    bodies = [message["message"] for message in receiver.messages]
    assert "Task raise_error failed for good" in bodies[0]
    assert "A run failed for good" in bodies[1]
    assert "DAG: kill_task\nRun: manual__" in bodies[1]
    assert "Task kill_worker failed for good" in bodies[2]
    assert "secret.person" not in str(bodies)


def make_options(dags: Path, receiver: AlertReceiver) -> dict[str, str]:
    return {
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW_CONN_SYNC_ALERTS": receiver.connection,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    }


def list_signposts(folder: Path) -> list[Path]:
    return list((folder / "staging").glob("*/*/alerts/*"))


def has_dag(api: Api, dag_id: str) -> bool:
    return dag_id in {dag["dag_id"] for dag in api.call("GET", "dags?limit=100")["dags"]}


def fail(api: Api, dag_id: str, **conf: Any) -> str:
    """Do a run; returns its state at the end."""
    return api.await_end_of_run(dag_id, api.trigger(dag_id, **conf))
