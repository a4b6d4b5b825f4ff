"""The DAG files: what Airflow shows for valid and for faulty settings."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from demo.aws import Aws
from directory_sync.errors import ConflictError, PermanentError, SettingsError, TransientError
from tests.conftest import ROOT, make_aws_connection
from tests.directory_sync.events.conftest import create_queue
from tests.directory_sync.tasks.test_live import tell
from tests.directory_sync.test_settings import sync

if TYPE_CHECKING:
    from tests.company import Company


@pytest.fixture
def dag_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    def load(*syncs: Any) -> Any:
        path = tmp_path / "syncs.yaml"
        path.write_text(yaml.safe_dump({"syncs": list(syncs)}), encoding="utf-8")
        monkeypatch.setenv("DIRECTORY_SYNC_CONFIG", str(path))
        return DagBag(dag_folder=str(ROOT / "dags"))

    return load


def test_each_valid_sync_is_a_dag_of_tasks_one_after_the_other_a_review_and_an_undo(
    dag_bag: Any,
) -> None:
    bag = dag_bag(
        sync(schedule="0 * * * *"), sync(name="emea", organization="ORG-2", airflow_pool="cognito")
    )
    assert bag.import_errors == {}
    assert sorted(bag.dags) == [
        "cognito_to_joget",
        "cognito_to_joget_emea",
        "cognito_to_joget_emea_review",
        "cognito_to_joget_emea_undo",
        "cognito_to_joget_review",
        "cognito_to_joget_undo",
    ]
    dag = bag.dags["cognito_to_joget"]
    downstream = {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}
    assert downstream == {
        "extract_users": ["extract_groups", "transform"],
        "extract_groups": ["transform"],
        "transform": ["load"],
        "load": ["request_review"],
        "request_review": [],
    }
    assert (dag.catchup, dag.max_active_runs, dag.schedule) == (False, 1, "0 * * * *")
    assert all(task.execution_timeout >= timedelta(minutes=30) for task in dag.tasks)
    extracts = [task.execution_timeout for task in dag.tasks if task.task_id.startswith("extract_")]
    assert extracts == [timedelta(hours=12)] * 2
    pools = {task.task_id: task.pool for task in bag.dags["cognito_to_joget_emea"].tasks}
    assert pools == {
        "extract_users": "cognito",
        "extract_groups": "cognito",
        "transform": "default_pool",
        "load": "default_pool",
        "request_review": "default_pool",
    }
    assert bag.dags["cognito_to_joget_emea"].schedule is None, "by hand only"


def test_a_sync_with_a_queue_has_a_live_dag_that_its_asset_starts(dag_bag: Any) -> None:
    queue = {"queue_url": "https://sqs.us-east-1.amazonaws.com/111122223333/events"}
    bag = dag_bag(sync(events=queue), sync(name="emea", organization="ORG-2"))
    assert bag.import_errors == {}
    assert [dag_id for dag_id in bag.dags if dag_id.endswith("_live")] == ["cognito_to_joget_live"]
    dag = bag.dags["cognito_to_joget_live"]
    assert {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks} == {
        "apply_events": ["request_review"],
        "request_review": [],
    }
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert [asset.name for asset in dag.timetable.asset_condition.objects] == [dag.dag_id]


REACHES_JOGET = {
    "apply_events",
    "extract_users",
    "extract_groups",
    "load",
    "request_review",
    "review_held",
    "load_held",
    "undo",
}


def find_queues(bag: Any) -> dict[str, str]:
    return {task.task_id: task.queue for dag in bag.dags.values() for task in dag.tasks}


def test_every_task_that_reaches_joget_runs_in_the_load_queue_and_no_other_task_does(
    dag_bag: Any,
) -> None:
    events = {"queue_url": "https://sqs.us-east-1.amazonaws.com/111122223333/events"}
    queues = find_queues(dag_bag(sync(load_queue="joget", events=events)))
    assert {task for task, queue in queues.items() if queue == "joget"} == REACHES_JOGET
    assert {task for task, queue in queues.items() if queue == "default"} == {"transform"}


def test_without_a_load_queue_every_task_stays_in_airflows_default_queue(dag_bag: Any) -> None:
    assert set(find_queues(dag_bag(sync())).values()) == {"default"}


def test_a_task_outside_the_load_queue_never_opens_jogets_database_and_each_other_task_does(
    company: "Company", moto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow has no Connection to Joget here, so each task that opens the database fails, and the
    error names the Connection.
    """
    from directory_sync.tasks import extract, live, load, review, transform, undo
    from tests.company import attempt, people

    queue = create_queue(moto)
    endpoints = make_aws_connection(company.cognito.endpoint, sqs=moto.endpoint)
    monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", endpoints)
    company.configure(limits={"created_users": 0, "floor": 0}, events={"queue_url": queue.url})
    company.pool.users = people(1)
    run_id = "manual__queues"
    users = extract.extract_users(attempt("extract_users", run_id), "default", {}, {})
    groups = extract.extract_groups(attempt("extract_groups", run_id), users.url)
    transformed = transform.transform_snapshot(attempt("transform", run_id), users.url, groups.url)
    loaded = load.load_snapshot(attempt("load", run_id), transformed.url)

    monkeypatch.delenv("AIRFLOW_CONN_JOGET_MYSQL")
    transform.transform_snapshot(attempt("transform", run_id), users.url, groups.url)
    tasks: dict[str, Callable[[], object]] = {
        "extract_users": lambda: extract.extract_users(
            attempt("extract_users", run_id), "default", {}, {}
        ),
        "extract_groups": lambda: extract.extract_groups(
            attempt("extract_groups", run_id), users.url
        ),
        "load": lambda: load.load_snapshot(attempt("load", run_id), transformed.url),
        "request_review": lambda: review.request_review(loaded.url),
        "review_held": lambda: review.read_question("default", "some-review", by_hand=False),
        "load_held": lambda: review.load_held(
            attempt("load_held", run_id), "default", "some-review"
        ),
        "undo": lambda: undo.undo_run(attempt("undo", run_id), "default", {}, {"run_id": run_id}),
    }
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    tasks["apply_events"] = lambda: live.apply_events(attempt("apply_events", run_id), "default")
    assert tasks.keys() == REACHES_JOGET
    for run_task in tasks.values():
        with pytest.raises(PermanentError, match="Connection 'joget_mysql'"):
            run_task()


def test_a_dag_is_paused_when_it_is_first_seen_as_airflow_is_set_by_default(dag_bag: Any) -> None:
    from airflow.configuration import conf

    assert dag_bag(sync()).dags["cognito_to_joget"].is_paused_upon_creation is None
    assert conf.getboolean("core", "dags_are_paused_at_creation")


def test_a_faulty_sync_is_an_import_error_with_every_fault_and_the_valid_dags_stay(
    dag_bag: Any,
) -> None:
    bag = dag_bag(
        sync(), sync(name="emea", organization="ORG-2", colour="blue", limits={"floor": "x"})
    )
    assert sorted(bag.dags) == [
        "cognito_to_joget",
        "cognito_to_joget_review",
        "cognito_to_joget_undo",
    ]
    ((path, error),) = bag.import_errors.items()
    assert path.endswith("cognito_to_joget_faults.py")
    assert SettingsError.__name__ in error
    assert "sync 'emea': colour: unknown setting" in error
    assert "sync 'emea': limits.floor: Input should be a valid integer" in error


def test_the_review_asks_the_approvers_for_as_long_as_the_settings_say(dag_bag: Any) -> None:
    bag = dag_bag(sync(approval={"timeout_hours": 5, "approvers": ["olga"]}))
    review = bag.dags["cognito_to_joget_review"]
    assert (review.schedule, review.is_paused_upon_creation) == (None, False)
    asks = review.get_task("review_held")
    assert asks.response_timeout == timedelta(hours=5)
    assert asks.assigned_users == [{"id": "olga", "name": "olga"}]
    assert asks.options == ["Approve", "Reject"]
    assert asks.downstream_task_ids == {"load_held"}


def test_an_undo_needs_a_run_id_and_is_a_dry_run_by_default(dag_bag: Any) -> None:
    undo = dag_bag(sync()).dags["cognito_to_joget_undo"]
    assert undo.schedule is None
    assert undo.params["dry_run"] is True
    assert undo.params.get_param("run_id").schema["type"] == "string"


def test_a_task_instances_id_says_when_a_backfill_made_it() -> None:
    from airflow.models.taskinstance import uuid7

    from directory_sync.orchestration.dags import read_creation_time

    assert abs((read_creation_time(str(uuid7())) - datetime.now(UTC)).total_seconds()) < 60


def test_a_missing_settings_file_is_an_import_error(
    dag_bag: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("DIRECTORY_SYNC_CONFIG", str(tmp_path / "nowhere.yaml"))
    bag = DagBag(dag_folder=str(ROOT / "dags"))
    assert not bag.dags
    assert "set DIRECTORY_SYNC_CONFIG" in next(iter(bag.import_errors.values()))


def test_the_form_is_described_and_every_default_is_valid(dag_bag: Any) -> None:
    from directory_sync.run import Parameters

    dag = dag_bag(sync())
    params = dag.dags["cognito_to_joget"].params
    assert set(params) == set(Parameters.model_fields)
    params.validate()
    for name in params:
        schema = params.get_param(name).schema
        assert params.get_param(name).description, name
        assert schema["title"], name
    assert "Joget" in dag.dags["cognito_to_joget"].doc_md


def test_permanent_errors_fail_at_once_and_transient_ones_are_retried_with_growing_delays(
    dag_bag: Any,
) -> None:
    from airflow.sdk import RetryAction

    for task in dag_bag(sync()).dags["cognito_to_joget"].tasks:
        decide = task.retry_policy.evaluate
        assert decide(PermanentError("x"), 1, 5).action is RetryAction.FAIL
        assert decide(SettingsError("x"), 1, 5).action is RetryAction.FAIL
        for error in (TransientError("x"), ConflictError("x")):
            decision = decide(error, 1, 5)
            assert decision.action is RetryAction.RETRY
            assert decision.retry_delay is None, (
                "a delay in a rule is fixed, and would override the growing one"
            )
        assert task.retry_exponential_backoff == 2.0
        assert (task.retries, task.retry_delay) == (5, timedelta(seconds=30))
        assert task.max_retry_delay == timedelta(minutes=15)


def test_parsing_imports_neither_pandas_nor_a_database_driver(tmp_path: Path) -> None:
    """Airflow parses DAG files all the time, so modules that only tasks need are imported by
    tasks.
    """
    import subprocess
    import sys

    code = (
        "import sys; sys.path.insert(0, '.'); import airflow.sdk; before = set(sys.modules); "
        "import dags.cognito_to_joget; new = set(sys.modules) - before; "
        "print(sorted({'pandas', 'pyarrow', 'MySQLdb', 'botocore'} & new))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"
