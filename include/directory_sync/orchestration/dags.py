"""The DAGs of each valid sync in the settings: the sync itself, the review of what it holds, the
undo, and the live DAG where there is a queue of events.
"""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import (
    DAG,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    get_current_context,
    task,
)
from airflow.sdk.execution_time.hitl import HITLUser

from directory_sync.errors import PermanentError, TransientError
from directory_sync.orchestration.failure_callbacks import (
    alert_when_a_run_fails,
    alert_when_a_task_fails,
)
from directory_sync.orchestration.operators import RequestReview, ReviewHeld
from directory_sync.orchestration.queue_watch import make_queue_asset
from directory_sync.settings import Sync, load_settings

if TYPE_CHECKING:
    from directory_sync.run import Attempt

RETRY_SETTINGS = {
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

SYNC_DAG_DOC = """
### Users and groups from Cognito to Joget

Reads the user pool **{pool}** and makes the Joget organization **{organization}** know the same
users and groups.

| task | what it does |
|---|---|
| `extract_users` | lists every user of the pool |
| `extract_groups` | lists every group and its members |
| `transform` | turns them into Joget's columns; what can't be turned is set aside with a reason |
| `load` | compares with Joget, writes the differences in one step, and reports |
| `request_review` | asks a person, in DAG `{review}`, where something looks dangerous |

**What it never does:** it doesn't touch users and groups that it didn't create or adopt, nor
passwords, other roles, departments or metadata. A user who isn't in the pool any more is counted
as *missing*, and deactivated only after {missing_runs} complete readings in a row that lack them;
many at once wait for a person.

**Only some users:** with the parameter `users`, the run reads these and touches nobody else. It
deactivates those of them who aren't in the pool any more at once.

**Taking a run back:** trigger `{undo}` with the run's id.

**What did a run change?** Each run's tab *Directory changes* shows it, before and after.

**Why can't Ana see an app?** Ask on this DAG's tab *Directory*: it shows each step from the pool
to Joget, and what stops the user.

**Try first:** trigger with `dry_run`; it reports what would change and writes nothing to Joget.
"""

REVIEW_DOC = """
### A person decides

Started by `{dag_id}` when it holds changes that look dangerous: `review_held` shows them by
cause, on *Required actions*, and `load_held` applies what was approved and is still the same.
**Reject** leaves everything as it is, and nobody is asked again until a change differs. Without
an answer in time nothing happens, and the next run asks again.

Trigger it by hand to be asked about everything that the newest run holds, rejected and undone
changes too.
"""

UNDO_DOC = """
### Taking a run back

Give the id of a run of `{dag_id}`. The dry run, which is the default, reports what would be taken
back. Without it, the changes are taken back, except where somebody changed something since: that
is listed as *changed_since* and left alone. A change that was taken back isn't made again until
the pool's value changes, or a person approves it.
"""


LIVE_DOC = """
### Changes as they happen

Started when the queue of the pool's events has something. `apply_events` takes the messages, reads
again the users and groups that they name, and applies what differs, under the limits of
`{dag_id}`. Messages are deleted after that; what nobody can read goes to the dead-letter queue. If
the task fails, the messages come back by themselves.

AWS delivers events within minutes, in any order, and may lose some: the next run of `{dag_id}`
repairs what an event missed. A person who is signed in to Joget keeps roles and name until the
session ends.
"""


def make_parameters(sync: Sync) -> dict[str, Param]:
    """The trigger form."""
    return {
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Plan and report only; write nothing to Joget.",
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
            description=f"The id of another Joget organization than {sync.organization}; makes "
            "this a dry run.",
        ),
        "users": Param(
            [],
            type=["null", "array"],
            items={"type": "string", "minLength": 1},
            title="Only these users",
            description="Subs, logins, emails or usernames, one a line. Only these are read; "
            "nobody else is touched. Those who left the pool are deactivated at once. Airflow "
            "keeps what you type here for everybody who may see this DAG's runs: subs reveal no "
            "names.",
        ),
        "replay_run_id": Param(
            None,
            type=["null", "string"],
            title="Replay a run",
            description="The id of an earlier run: its snapshot is compared with Joget now. Makes "
            "this a dry run.",
        ),
    }


def get_load_queue(sync: Sync) -> dict[str, Any]:
    """The queue of each task that opens Joget's database: every task except `transform`.

    Without the setting, Airflow's own default queue stays.
    """
    return {"queue": sync.load_queue} if sync.load_queue else {}


def make_sync_dag(sync: Sync) -> DAG:
    """Wire the four steps for one sync, and the question to a person."""
    # There are few tasks, since each task instance costs Airflow seconds: pages and groups are
    # listed side by side within the extract tasks.
    pool, reaches_joget = sync.airflow_pool or "default_pool", get_load_queue(sync)
    extract_timeout = timedelta(hours=sync.extract_timeout_hours)
    with DAG(
        dag_id=sync.dag_id,
        description=f"Users and groups of {sync.user_pool_id} to Joget's {sync.organization}",
        doc_md=SYNC_DAG_DOC.format(
            pool=sync.user_pool_id,
            organization=sync.organization,
            review=sync.review_dag_id,
            undo=sync.undo_dag_id,
            missing_runs=sync.policies.missing_runs,
        ),
        schedule=sync.schedule,
        # Cognito keeps no history, so a missed interval would read what the newest one reads.
        catchup=False,
        max_active_runs=1,
        params=make_parameters(sync),
        default_args=RETRY_SETTINGS | alert_when_a_task_fails(sync),
        **alert_when_a_run_fails(sync),
        tags=["directory-sync"],
    ) as dag:

        @task(execution_timeout=extract_timeout, pool=pool, **reaches_joget)
        def extract_users() -> dict[str, Any]:
            # Imported within each task: Airflow parses DAG files all the time, and mustn't load
            # pandas or a database driver each time (ARCHITECTURE.md).
            from directory_sync.tasks import extract

            context = get_current_context()
            return extract.extract_users(
                make_attempt(), sync.name, context["params"], context["dag_run"].conf or {}
            ).reference

        @task(execution_timeout=extract_timeout, pool=pool, **reaches_joget)
        def extract_groups(users: dict[str, Any]) -> dict[str, Any]:
            from directory_sync.tasks import extract

            return extract.extract_groups(make_attempt(), users["manifest"]).reference

        @task(execution_timeout=timedelta(hours=1))
        def transform(users: dict[str, Any], groups: dict[str, Any]) -> dict[str, Any]:
            from directory_sync.tasks.transform import transform_snapshot

            return transform_snapshot(
                make_attempt(), users["manifest"], groups["manifest"]
            ).reference

        @task(execution_timeout=timedelta(hours=2), **reaches_joget)
        def load(transformed: dict[str, Any]) -> dict[str, Any]:
            from directory_sync.tasks.load import load_snapshot

            return load_snapshot(make_attempt(), transformed["manifest"]).reference

        # One after the other: both draw on one quota, and no limiter spans two processes.
        users = extract_users()
        groups = extract_groups(users)
        loaded: Any = load(transform(users, groups))
        _request_review(sync, loaded["manifest"])
    return dag


def _request_review(sync: Sync, load_url: Any) -> None:
    RequestReview(
        task_id="request_review",
        trigger_dag_id=sync.review_dag_id,
        load_url=load_url,
        execution_timeout=timedelta(minutes=30),
        **get_load_queue(sync),
    )


def make_live_dag(sync: Sync) -> DAG:
    """Apply what the pool's events tell, as soon as the queue has something."""
    with DAG(
        dag_id=sync.live_dag_id,
        description=f"Changes of {sync.user_pool_id} as they happen, to Joget's "
        f"{sync.organization}",
        doc_md=LIVE_DOC.format(dag_id=sync.dag_id),
        schedule=[make_queue_asset(sync)],
        # While one run ends, the next one takes what came meanwhile. Loads take turns by their
        # lock, and no older reading changes what a newer one set.
        max_active_runs=2,
        default_args=RETRY_SETTINGS | alert_when_a_task_fails(sync),
        **alert_when_a_run_fails(sync),
        tags=["directory-sync"],
    ) as dag:
        # Not in airflow_pool: a listing holds its slot for as long as it takes. One task, since
        # each costs Airflow seconds.
        @task(execution_timeout=timedelta(hours=sync.extract_timeout_hours), **get_load_queue(sync))
        def apply_events() -> dict[str, Any]:
            from directory_sync.tasks import live

            return live.apply_events(make_attempt(), sync.name)

        applied: Any = apply_events()
        _request_review(sync, applied["manifest"])
    return dag


def make_review_dag(sync: Sync) -> DAG:
    """Ask a person, then do what they answered."""
    # A DAG of its own: a run that waits for an answer counts against max_active_runs, so the sync
    # would make no scheduled run meanwhile.
    reaches_joget = get_load_queue(sync)
    with DAG(
        dag_id=sync.review_dag_id,
        description=f"A person decides on changes of {sync.organization} that look dangerous",
        doc_md=REVIEW_DOC.format(dag_id=sync.dag_id),
        schedule=None,
        # A run of a paused DAG stays queued, and so nobody would be asked.
        is_paused_upon_creation=False,
        default_args=RETRY_SETTINGS | alert_when_a_task_fails(sync),
        **alert_when_a_run_fails(sync),
        tags=["directory-sync"],
    ) as dag:
        review_held = ReviewHeld(
            task_id="review_held",
            sync_name=sync.name,
            # No `defaults`: a time-out then answers nothing, and the next run asks again.
            response_timeout=timedelta(hours=sync.approval.timeout_hours),
            # Airflow 3.3 may lose an answer that comes within some five seconds. The person is then
            # asked again, soon.
            retry_delay=timedelta(seconds=5),
            assigned_users=[HITLUser(id=name, name=name) for name in sync.approval.approvers]
            or None,
            **reaches_joget,
        )

        @task(execution_timeout=timedelta(hours=2), **reaches_joget)
        def load_held() -> dict[str, Any]:
            from directory_sync.tasks import review

            context = get_current_context()
            review_id = review.get_review_id(context["run_id"], context["dag_run"].conf or {})
            return review.load_held(make_attempt(), sync.name, review_id).reference

        review_held >> load_held()
    return dag


def make_undo_dag(sync: Sync) -> DAG:
    """Undo a run, by hand."""
    reaches_joget = get_load_queue(sync)
    with DAG(
        dag_id=sync.undo_dag_id,
        description=f"Takes back what a run of {sync.dag_id} applied",
        doc_md=UNDO_DOC.format(dag_id=sync.dag_id),
        schedule=None,
        is_paused_upon_creation=False,
        params={
            "run_id": Param(
                type="string",
                minLength=1,
                title="Run",
                description=f"The id of the run of {sync.dag_id} to take back.",
            ),
            "dry_run": Param(
                True,
                type="boolean",
                title="Dry run",
                description="Show what would be taken back; write nothing.",
            ),
        },
        default_args=RETRY_SETTINGS | alert_when_a_task_fails(sync),
        **alert_when_a_run_fails(sync),
        tags=["directory-sync"],
    ) as dag:

        @task(execution_timeout=timedelta(hours=2), **reaches_joget)
        def undo() -> dict[str, Any]:
            from directory_sync.tasks.undo import undo_run

            context = get_current_context()
            return undo_run(
                make_attempt(), sync.name, context["params"], context["dag_run"].conf or {}
            ).reference

        undo()
    return dag


def make_attempt() -> "Attempt":
    """This try of this task."""
    from directory_sync.run import Attempt

    context = get_current_context()
    ti = context["ti"]
    # A cleared task gets a new id, even if its try number begins again. The id's end is random.
    name = f"{ti.task_id}.{ti.try_number}.{str(ti.id)[-12:]}"
    # The run's id doesn't tell: if a backfill reprocesses a date, it stays `scheduled__...`.
    since = read_creation_time(str(ti.id)) if context["dag_run"].run_type == "backfill" else None
    return Attempt(name, context["run_id"], since)


def read_creation_time(task_instance_id: str) -> datetime:
    """When Airflow made, or cleared, a task instance."""
    # No task is told when a backfill began, but it makes or clears all its runs at once. The id is
    # a UUID of version 7: its first 48 bits are the time in milliseconds.
    return datetime.fromtimestamp(int(task_instance_id.replace("-", "")[:12], 16) / 1000, UTC)


def make_dags() -> dict[str, DAG]:
    """The DAGs of each valid sync in the settings, by DAG id."""
    syncs = load_settings().syncs
    dags = [
        make(sync) for sync in syncs for make in (make_sync_dag, make_review_dag, make_undo_dag)
    ]
    dags += [make_live_dag(sync) for sync in syncs if sync.events.queue_url]
    return {dag.dag_id: dag for dag in dags}
