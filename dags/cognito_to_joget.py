"""The DAG of each valid sync in the settings: extract, transform, load."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, ExceptionRetryPolicy, Param, RetryAction, RetryRule, get_current_context, task

from include.directory_sync import settings
from include.directory_sync.errors import PermanentError, TransientError
from include.directory_sync.settings import Sync

if TYPE_CHECKING:
    from include.directory_sync.steps import Attempt

RETRIES = {
    "retries": 5,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=15),
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule(exception=PermanentError, action=RetryAction.FAIL),
            # No retry_delay here: a rule's delay is fixed and would override the growing one above.
            RetryRule(exception=TransientError, action=RetryAction.RETRY),
        ]
    ),
}

DOC = """
### Users and groups from Cognito to Joget

Reads the user pool **{pool}** and makes the Joget organization **{organization}** know the same users and groups.

| task | what it does |
|---|---|
| `extract_users` | lists every user of the pool |
| `extract_groups` | lists every group and its members |
| `transform` | turns them into Joget's columns; what can't be turned is set aside with a reason |
| `load` | compares with Joget, writes the differences in one step, and reports |

**What it never does:** it doesn't touch users and groups that it didn't bring or adopt, passwords, other roles,
departments or metadata. A user who isn't in the pool any more stays as he is and is counted as *missing*.

**Why can't Ana see an app?** Look for her `sub` in the run's `directory.parquet` (the log of `load` names the folder):
*quarantined* means that she can't be matched, and says why; *frozen* that the settings leave her out; *held* that a
person has to decide; *deactivated in Joget* that an administrator of Joget switched her off.

**Try first:** trigger with `dry_run`; it reports what would change and writes nothing to Joget.
"""


def parameters(sync: Sync) -> dict[str, Param]:
    """The trigger form."""
    return {
        "dry_run": Param(
            False, type="boolean", title="Dry run", description="Plan and report only; write nothing to Joget."
        ),
        "user_pool_id": Param(
            None,
            type=["null", "string"],
            title="User pool",
            description=f"Another pool than {sync.user_pool_id}; makes this a dry run.",
            pattern=r"^[\w-]+_[0-9a-zA-Z]+$",
        ),
        "organization": Param(
            None,
            type=["null", "string"],
            title="Organization",
            description=f"Another Joget organization's id than {sync.organization}; makes this a dry run.",
        ),
        "users": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Only these users",
            description="Subs or logins, one a line. Only these are synchronised; nobody else is touched.",
        ),
    }


def make_dag(sync: Sync) -> DAG:
    """Wire the four steps for one sync."""
    pool = sync.airflow_pool or "default_pool"
    with DAG(
        dag_id=sync.dag_id,
        description=f"Users and groups of {sync.user_pool_id} to Joget's {sync.organization}",
        doc_md=DOC.format(pool=sync.user_pool_id, organization=sync.organization),
        schedule=sync.schedule,
        catchup=False,
        max_active_runs=1,
        params=parameters(sync),
        default_args=RETRIES,
        tags=["directory-sync"],
    ) as dag:

        @task(execution_timeout=timedelta(hours=4), pool=pool)
        def extract_users() -> dict[str, Any]:
            from include.directory_sync import steps

            context = get_current_context()
            return steps.extract_users(attempt(), sync.name, context["params"], context["dag_run"].conf or {}).reference

        @task(execution_timeout=timedelta(hours=4), pool=pool)
        def extract_groups(users: dict[str, Any]) -> dict[str, Any]:
            from include.directory_sync import steps

            return steps.extract_groups(attempt(), users["manifest"]).reference

        @task(execution_timeout=timedelta(hours=1))
        def transform(users: dict[str, Any], groups: dict[str, Any]) -> dict[str, Any]:
            from include.directory_sync import steps

            return steps.transform(attempt(), users["manifest"], groups["manifest"]).reference

        @task(execution_timeout=timedelta(hours=2))
        def load(transformed: dict[str, Any]) -> dict[str, Any]:
            from include.directory_sync import steps

            return steps.load(attempt(), transformed["manifest"]).reference

        users = extract_users()
        groups = extract_groups(users)
        load(transform(users, groups))
    return dag


def attempt() -> "Attempt":
    """This try of this task; a cleared task gets a new id, also where its try number begins again."""
    from include.directory_sync.steps import Attempt

    context = get_current_context()
    ti = context["ti"]
    return Attempt(name=f"{ti.task_id}.{ti.try_number}.{str(ti.id)[-12:]}", run_id=context["run_id"])


for valid in settings.load().syncs:
    globals()[valid.dag_id] = make_dag(valid)
