"""What the pages read about runs in Airflow's database, where runs of other DAGs have the same
ids.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, update

from directory_sync.pages import airflow_runs

SYNC, REVIEW, OTHER = "cognito_to_joget", "cognito_to_joget_review", "sales_report"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module", autouse=True)
def tables() -> None:
    initdb()


@pytest.fixture(autouse=True)
def no_runs(tables: None) -> None:
    forget_runs()


def forget_runs() -> None:
    with create_session(scoped=False) as session:
        for table in (XComModel, TaskInstance, DagRun):
            session.execute(delete(table))


def add_run(
    dag_id: str, hour: int, task: str = "load", state: str | None = "success", **passed_on: Any
) -> str:
    """Add a run of an hour, with one task that passed counts on; returns its id."""
    run_id = f"scheduled__{NOON + timedelta(hours=hour):%Y-%m-%dT%H:%M:%S}"
    run: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id}
    with create_session(scoped=False) as session:
        made = {
            "run_type": "scheduled",
            "state": "success",
            "run_after": NOON + timedelta(hours=hour),
        }
        number = session.scalars(insert(DagRun).values(**run, **made).returning(DagRun.id)).one()
        ended = NOON + timedelta(hours=hour) + MINUTE
        instance = {
            "task_id": task,
            "state": state,
            "pool": "default_pool",
            "end_date": ended,
            "map_index": -1,
        }
        session.execute(insert(TaskInstance).values(**run, **instance))
        passed = {
            "task_id": task,
            "key": "return_value",
            "value": {"manifest": f"{dag_id}/{hour}", **passed_on},
        }
        session.execute(insert(XComModel).values(**run, dag_run_id=number, map_index=-1, **passed))
    return run_id


def list_hours(runs: list[airflow_runs.AirflowRun]) -> list[int]:
    return [int((run.at - NOON) / timedelta(hours=1)) for run in runs]


def test_a_run_comes_with_its_tasks_and_without_those_of_other_dags() -> None:
    for dag_id in (SYNC, OTHER):
        run_id = add_run(dag_id, 1)
    run = airflow_runs.find_run(SYNC, run_id)
    assert run
    assert (run.tasks, run.references) == ({"load": "success"}, {"load": {"manifest": f"{SYNC}/1"}})
    assert run.ended == {"load": NOON + timedelta(hours=1) + MINUTE}
    assert run.folder("load") == f"{SYNC}/1"
    assert airflow_runs.find_run(SYNC, "scheduled__never") is None


def test_a_task_without_a_state_is_not_started() -> None:
    run = airflow_runs.find_run(SYNC, add_run(SYNC, 1, state=None))
    assert run
    assert run.tasks == {"load": "not started"}


@pytest.mark.parametrize(
    ("run_type", "started_by"),
    [("manual", "olga"), ("backfill", "olga"), ("scheduled", None)],
)
def test_a_run_names_the_person_who_triggered_it_or_created_its_backfill(
    run_type: str, started_by: str | None
) -> None:
    run_id = add_run(SYNC, 1)
    with create_session(scoped=False) as session:
        session.execute(update(DagRun).values(run_type=run_type, triggering_user_name="olga"))
    run = airflow_runs.find_run(SYNC, run_id)
    assert run
    assert run.started_by == started_by


def test_the_newest_runs_are_the_ones_that_airflow_made_last() -> None:
    for hour in (5, 6, 1):  # the last one is a backfill's
        add_run(SYNC, hour)
    add_run(OTHER, 9)
    assert list_hours(airflow_runs.list_newest_runs([SYNC], 2)) == [1, 6]
    assert airflow_runs.list_newest_runs([], 2) == []


def test_runs_that_changed_something_are_found_however_far_back() -> None:
    add_run(SYNC, 1, users_created=3)
    add_run(SYNC, 2, memberships_removed=1)
    for hour in range(3, 300):
        add_run(
            SYNC,
            hour,
            users_read=9,
            users_unchanged=9,
            users_held=2,
            users_quarantined=1,
            groups_missing=1,
        )
    add_run(OTHER, 300, users_created=1)
    assert list_hours(airflow_runs.list_changing_runs([SYNC], 10)) == [2, 1]
    assert list_hours(airflow_runs.list_changing_runs([SYNC], 1)) == [2]


def test_a_review_waits_however_many_runs_came_since() -> None:
    add_run(REVIEW, 1, task="review_held", state="awaiting_input")
    add_run(REVIEW, 2, task="review_held")
    for hour in range(3, 60):
        add_run(SYNC, hour)
    assert list_hours(airflow_runs.list_waiting_reviews(REVIEW)) == [1]
