"""What Airflow knows of the sync's runs: their states, and where their files are. The API
server and the command line call this: it reads Airflow's database, synchronously.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import Select, and_, select, tuple_

from directory_sync.settings import Sync, load_settings
from directory_sync.vocabulary import Outcome

REPORTING_TASKS = {
    "sync": "load",
    "review": "load_held",
    "undo": "undo",
    "live": "apply_events",
}
"""By kind of DAG: the task that leaves the report of what a run did."""

ASKING_TASK = "review_held"

UNCHANGING_COUNTS = (
    "read",
    Outcome.UNCHANGED,
    Outcome.FROZEN,
    Outcome.MISSING,
    Outcome.QUARANTINED,
    Outcome.HELD,
    Outcome.DEFERRED,
)
"""Counts of what a run leaves as it is; in an XCom, the entity's name comes before each."""

ROWS_AT_ONCE = 200


@dataclass(frozen=True)
class SyncDag:
    """One of a sync's DAGs."""

    sync: Sync
    kind: str
    """sync, review, undo or live."""

    @property
    def dag_id(self) -> str:
        """The DAG's id in Airflow."""
        return {
            "sync": self.sync.dag_id,
            "review": self.sync.review_dag_id,
            "undo": self.sync.undo_dag_id,
            "live": self.sync.live_dag_id,
        }[self.kind]

    @property
    def reporting_task(self) -> str:
        """The task that leaves report.json."""
        return REPORTING_TASKS[self.kind]


@dataclass(frozen=True)
class AirflowRun:
    """A run, with the state and the end of each of its tasks, by task id."""

    dag_id: str
    run_id: str
    state: str
    run_type: str
    at: datetime
    started_by: str | None
    """The person who triggered it by hand, or who created its backfill."""
    tasks: dict[str, str] = field(default_factory=dict)
    ended: dict[str, datetime] = field(default_factory=dict)
    references: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the reporting task passed on, by task id: Manifest.reference, from XCom."""

    def folder(self, task: str) -> str | None:
        """The URL of the folder that a task left."""
        url = self.references.get(task, {}).get("manifest")
        return str(url) if url else None


def list_sync_dags(sync: Sync) -> list[SyncDag]:
    """A sync's DAGs."""
    kinds = [kind for kind in REPORTING_TASKS if kind != "live" or sync.events.queue_url]
    return [SyncDag(sync, kind) for kind in kinds]


def find_sync_dag(dag_id: str) -> SyncDag | None:
    """The sync that a DAG belongs to, and its kind. None where it belongs to no sync, or the sync's
    settings aren't valid any more.
    """
    return next(
        (
            sync_dag
            for sync in load_settings().syncs
            for sync_dag in list_sync_dags(sync)
            if sync_dag.dag_id == dag_id
        ),
        None,
    )


@dataclass(frozen=True)
class KnownDag:
    """A DAG as Airflow's DAG processor left it in Airflow's database."""

    dag_id: str
    is_paused: bool
    is_stale: bool
    """Whether its file is gone, or doesn't make it any more."""
    has_import_errors: bool
    parsed_at: datetime | None


def list_known_dags(dag_ids: Sequence[str]) -> list[KnownDag]:
    """Those of the DAGs that Airflow knows."""
    columns = (
        DagModel.dag_id,
        DagModel.is_paused,
        DagModel.is_stale,
        DagModel.has_import_errors,
        DagModel.last_parsed_time,
    )
    # As Airflow's own routes do (api_fastapi/common/db/common.py). A scoped session is shared by
    # everything that runs in this thread, and would be closed for all of it here.
    with create_session(scoped=False) as session:
        rows = session.execute(select(*columns).where(DagModel.dag_id.in_(dag_ids))).all()
    return [
        KnownDag(dag_id, bool(paused), bool(stale), bool(faulty), parsed_at)
        for dag_id, paused, stale, faulty, parsed_at in rows
    ]


def find_run(dag_id: str, run_id: str) -> AirflowRun | None:
    """One run of a DAG; None where Airflow has no such run."""
    return next(
        iter(_list_runs(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))),
        None,
    )


def list_newest_runs(dag_ids: Sequence[str], limit: int) -> list[AirflowRun]:
    """The `limit` runs of all these DAGs that Airflow made last, the newest first."""
    # Sorted by id and not by date, since a backfill makes its runs now, for dates in the past.
    return _list_runs(
        select(DagRun).where(DagRun.dag_id.in_(dag_ids)).order_by(DagRun.id.desc()).limit(limit)
    )


def list_waiting_reviews(dag_id: str) -> list[AirflowRun]:
    """All runs of a review DAG that wait for an answer."""
    return _list_runs(
        select(DagRun)
        .join(
            TaskInstance,
            and_(TaskInstance.dag_id == DagRun.dag_id, TaskInstance.run_id == DagRun.run_id),
        )
        .where(
            DagRun.dag_id == dag_id,
            TaskInstance.task_id == ASKING_TASK,
            # The run's own state is running while its task waits, so it doesn't tell.
            TaskInstance.state == "awaiting_input",
        )
        .order_by(DagRun.id.desc())
    )


def list_changing_runs(dag_ids: Sequence[str], limit: int) -> list[AirflowRun]:
    """The `limit` newest runs of these DAGs that changed something by their counts, however far
    back, the newest first.
    """
    statement = (
        select(DagRun.id, XComModel.value)
        .join(XComModel, and_(XComModel.dag_id == DagRun.dag_id, XComModel.run_id == DagRun.run_id))
        .where(DagRun.dag_id.in_(dag_ids), *_find_reporting_task())
        .order_by(DagRun.id.desc())
        # The counts are inside JSON, so rows are chosen here, until there are enough. The rows of
        # years may follow, and are never read.
        .execution_options(yield_per=ROWS_AT_ONCE)
    )
    found: list[int] = []
    with create_session(scoped=False) as session:
        for number, value in session.execute(statement):
            if _has_changes(_require_dict(value)):
                found.append(number)
            if len(found) == limit:
                break
    return _list_runs(select(DagRun).where(DagRun.id.in_(found)).order_by(DagRun.id.desc()))


def _has_changes(reference: dict[str, Any]) -> bool:
    # Counts are ints under names such as users_created (Report.flat_counts). The other value is the
    # manifest's URL.
    return any(
        isinstance(count, int) and count and name.partition("_")[2] not in UNCHANGING_COUNTS
        for name, count in reference.items()
    )


def _find_reporting_task() -> tuple[Any, ...]:
    return XComModel.task_id.in_(REPORTING_TASKS.values()), XComModel.key == "return_value"


def _list_runs(statement: Select[Any]) -> list[AirflowRun]:
    with create_session(scoped=False) as session:
        runs = {
            (run.dag_id, run.run_id): _make_airflow_run(run) for run in session.scalars(statement)
        }
        for keys in _split_into_batches(list(runs)):
            # By both columns: scheduled runs of different DAGs have the same run ids.
            tasks = select(
                TaskInstance.dag_id,
                TaskInstance.run_id,
                TaskInstance.task_id,
                TaskInstance.state,
                TaskInstance.end_date,
            ).where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(keys))
            for dag_id, run_id, task_id, state, ended in session.execute(tasks):
                run = runs[dag_id, run_id]
                run.tasks[task_id] = str(state or "not started")
                if ended:
                    run.ended[task_id] = ended
            passed = select(
                XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.value
            ).where(tuple_(XComModel.dag_id, XComModel.run_id).in_(keys), *_find_reporting_task())
            for dag_id, run_id, task_id, value in session.execute(passed):
                runs[dag_id, run_id].references[task_id] = _require_dict(value)
    return list(runs.values())


def _make_airflow_run(run: DagRun) -> AirflowRun:
    return AirflowRun(
        dag_id=run.dag_id,
        run_id=run.run_id,
        state=str(run.state),
        run_type=str(run.run_type),
        # Not logical_date: runs by hand may have none, and runs triggered by an asset have none.
        at=run.run_after,
        # Each run of a backfill has the name of the person who created the backfill
        # (airflow/models/backfill.py).
        started_by=run.triggering_user_name
        if str(run.run_type) in ("manual", "backfill")
        else None,
    )


def _split_into_batches(keys: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    return (keys[start : start + ROWS_AT_ONCE] for start in range(0, len(keys), ROWS_AT_ONCE))


def _require_dict(value: Any) -> dict[str, Any]:
    # XComModel.set stores JSON as a text, the Task Execution API the value itself
    # (airflow/models/xcom.py, deserialize_value).
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}
