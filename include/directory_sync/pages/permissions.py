"""What a reader may see, by Airflow's own permissions: Airflow guards no plugin's routes itself."""

import hashlib
import hmac
import secrets
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import (
    AccessView,
    DagAccessEntity,
    DagDetails,
)
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    requires_access_dag,
    requires_access_view,
)
from airflow.configuration import conf
from airflow.models.dag import DagModel
from fastapi import Depends

from directory_sync.settings import Sync

Reader = GetUserDep
"""The signed-in person, as Airflow knows them."""

SIGNED_IN_DEPENDENCY = Depends(requires_access_view(AccessView.PLUGINS))
"""For every route: the right without which Airflow doesn't show the tabs."""

MAY_READ_RUNS_DEPENDENCY = Depends(
    requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN)
)
"""For each route about the DAG in its path."""


def may_see_values(user: Any, sync: Sync) -> bool:
    """Whether this person may see names, emails and values: whether Airflow would let them answer
    the sync's reviews.
    """
    # A person who decides about a change must see it, and nobody else needs to (docs/pages.md). The
    # two checks below are those of Airflow's route that takes an answer
    # (core_api/routes/public/hitl.py): the right, and whether the task has assigned users.
    manager = get_auth_manager()
    details = DagDetails(
        id=sync.review_dag_id, team_name=DagModel.get_team_name(sync.review_dag_id)
    )
    allowed = manager.is_authorized_dag(
        method="PUT", access_entity=DagAccessEntity.HITL_DETAIL, details=details, user=user
    )
    approvers = set(sync.approval.approvers)
    return bool(
        allowed
        and (not approvers or manager.is_authorized_hitl_task(assigned_users=approvers, user=user))
    )


def may_read_runs(user: Any, dag_id: str) -> bool:
    """Whether this person may read the runs of another of the sync's DAGs."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(
            method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )


SECRET_OF_PROCESS = secrets.token_bytes(32)
"""Hides names where Airflow's configuration has no secret."""


def make_hidden_name(name: str) -> str:
    """What a reader sees in place of a group's name if they may see no values: the same for each
    row of one group. Empty for an empty name.
    """
    # Readers could check a plain hash against guessed names, but they don't have this secret.
    secret = conf.get("api", "secret_key", fallback="").encode() or SECRET_OF_PROCESS
    return (
        f"group {hmac.new(secret, name.encode(), hashlib.sha256).hexdigest()[:12]}" if name else ""
    )
