"""Who may see what: Airflow's own permissions. Airflow guards no route of a plugin's by itself."""

import hashlib
import hmac
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
"""The person who asks, as Airflow knows them."""

SIGNED_IN_DEPENDENCY = Depends(requires_access_view(AccessView.PLUGINS))
"""For every route: the right that Airflow shows the tabs by."""

MAY_READ_RUNS_DEPENDENCY = Depends(
    requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN)
)
"""For what tells of the DAG in the path."""


def may_see_values(user: Any, sync: Sync) -> bool:
    """Whether Airflow would let this person answer the sync's reviews: then names, emails and
    values are shown.
    """
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
    """Whether this person may read the runs of another DAG of the sync's."""
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(
        get_auth_manager().is_authorized_dag(
            method="GET", access_entity=DagAccessEntity.RUN, details=details, user=user
        )
    )


def make_hidden_name(name: str) -> str:
    """What stands for a group's name where values aren't to be seen: the same for the same group,
    and nothing that a guess could be held against, since Airflow's own secret is in it.
    """
    secret = conf.get("api", "secret_key", fallback="") or ""
    return (
        f"group {hmac.new(secret.encode(), name.encode(), hashlib.sha256).hexdigest()[:12]}"
        if name
        else ""
    )
