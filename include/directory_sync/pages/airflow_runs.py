"""What Airflow knows of the sync's runs: states, and where their files are. Only in the API server, synchronously."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from include.directory_sync.settings import Sync, load


@dataclass(frozen=True)
class Place:
    """A DAG of a sync's: which one, and the task whose report tells what it did."""

    sync: Sync
    kind: str
    """sync, review or undo."""

    @property
    def reporting_task(self) -> str:
        """The task that leaves report.json."""
        return {"sync": "load", "review": "load_held", "undo": "undo"}[self.kind]


@dataclass(frozen=True)
class AirflowRun:
    """A run, with the states of its tasks and what they passed on (`manifest` and counts), by task id."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    at: datetime
    started_by: str | None
    """Who triggered it by hand."""
    tasks: dict[str, str] = field(default_factory=dict)
    references: dict[str, dict[str, Any]] = field(default_factory=dict)

    def folder(self, task: str) -> str | None:
        """The URL of the folder that a task left."""
        url = self.references.get(task, {}).get("manifest")
        return str(url) if url else None


def place_of(dag_id: str) -> Place | None:
    """Which of whose DAGs it is; None where it is no sync's, or that sync's settings aren't valid any more."""
    for sync in load().syncs:
        kinds = {sync.dag_id: "sync", sync.review_dag_id: "review", sync.undo_dag_id: "undo"}
        if dag_id in kinds:
            return Place(sync, kinds[dag_id])
    return None


def find_run(dag_id: str, run_id: str) -> AirflowRun | None:
    """One run."""
    return next(iter(_runs(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))), None)


def newest_runs(dag_ids: Sequence[str], limit: int) -> list[AirflowRun]:
    """The newest runs of these DAGs together, the newest first."""
    newest = select(DagRun).where(DagRun.dag_id.in_(dag_ids)).order_by(DagRun.run_after.desc(), DagRun.id.desc())
    return _runs(newest.limit(limit))


def _runs(statement: Any) -> list[AirflowRun]:
    with create_session(scoped=False) as session:
        found = session.scalars(statement).all()
        keys = {(run.dag_id, run.run_id) for run in found}
        names = [run_id for _, run_id in keys]
        tasks = session.execute(
            select(TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.state).where(
                TaskInstance.run_id.in_(names)
            )
        ).all()
        passed = session.execute(
            select(XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.value).where(
                XComModel.run_id.in_(names), XComModel.key == "return_value"
            )
        ).all()
        runs = [
            AirflowRun(
                dag_id=run.dag_id,
                run_id=run.run_id,
                state=str(run.state),
                run_type=str(run.run_type),
                at=run.run_after,
                started_by=run.triggering_user_name if str(run.run_type) == "manual" else None,
            )
            for run in found
        ]
    by_key = {(run.dag_id, run.run_id): run for run in runs}
    for dag_id, run_id, task_id, state in tasks:
        if (dag_id, run_id) in by_key:
            by_key[dag_id, run_id].tasks[task_id] = str(state or "scheduled")
    for dag_id, run_id, task_id, value in passed:
        if (dag_id, run_id) in by_key:
            by_key[dag_id, run_id].references[task_id] = _as_dict(value)
    return runs


def _as_dict(value: Any) -> dict[str, Any]:
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}
