"""What Airflow calls when a task or a run of a sync's DAGs has failed for good.

Airflow calls the task's callback in the task's own process. If that process was killed, only the
scheduler knows. It then has the run's callback called by the DAG processor, and the task's too
where the whole worker vanished.
"""

from typing import Any

from directory_sync.settings import Sync


def alert_when_a_task_fails(sync: Sync) -> dict[str, Any]:
    """An argument for each task of a DAG; none without alerts."""
    sync_name = sync.name

    def alert_about_task(context: Any) -> None:
        from directory_sync.tasks import alerting

        ti = context["ti"]
        alerting.alert_about_failure(
            sync_name, ti.dag_id, ti.run_id, context["params"], task_id=ti.task_id
        )

    return {"on_failure_callback": alert_about_task} if sync.alerts.notifier else {}


def alert_when_a_run_fails(sync: Sync) -> dict[str, Any]:
    """An argument for a DAG; none without alerts."""
    sync_name = sync.name

    def alert_about_run(context: Any) -> None:
        from directory_sync.tasks import alerting

        # If Airflow no longer knows the run's last task, the context has no parameters.
        parameters = context.get("params") or {}
        dag_id, run_id = context["dag"].dag_id, context["run_id"]
        alerting.alert_about_failed_run(sync_name, dag_id, run_id, parameters)

    return {"on_failure_callback": alert_about_run} if sync.alerts.notifier else {}
