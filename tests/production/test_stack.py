"""The compose file's processes, run natively: five syncs at once, while Airflow's processes and
servers are killed. docs/faults.md has the same rows.
"""

import json
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil
import psycopg2
import pytest
import yaml

from demo.aws import BUCKET, REGION, Aws
from demo.processes import runs
from tests.conftest import JogetDatabase, make_aws_connection
from tests.directory_sync.events.conftest import ServedQueue, create_queue
from tests.directory_sync.events.samples import make_envelope, make_record
from tests.directory_sync.orchestration.api import answer, quote_run_id, wait
from tests.production.compose import ROOT, read_env_file
from tests.production.stack import Stack, start_stack
from tests.stand_in import Faults, Pool, StandIn, stand_in, sub_of, user

NAMES = ("one", "two", "three", "four", "five")
LONGEST_RUN = 900
"""Seconds that a test waits for a run under faults, on a machine that others use too."""

FASTER = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
}
"""The only difference from the file: a dead worker is noticed sooner."""

HELD_INSERT = (
    "CREATE TRIGGER hold BEFORE INSERT ON dir_user FOR EACH ROW "
    "IF NEW.id LIKE 'three%' THEN DO GET_LOCK('hold', 600); END IF"
)
"""Makes the load of the sync named three wait within its transaction while a test has the lock."""

State = tuple[frozenset[tuple[Any, ...]], ...]


@dataclass
class Company:
    """A company: a pool, an organization of the Joget database, and a sync between them."""

    name: str
    pool: Pool
    cognito: StandIn
    changes: int = 0
    queue: ServedQueue | None = None
    """Of the pool's events; the sync then has a live DAG too."""

    @property
    def dag_id(self) -> str:
        return f"cognito_to_joget_{self.name}"

    @property
    def organization(self) -> str:
        return f"ORG-{self.name}"

    @property
    def connection(self) -> str:
        return f"pool_{self.name}"

    def settings(self) -> dict[str, Any]:
        # The file gives this Connection to every container; the others are made in Airflow's UI.
        staging = "cognito_aws" if self.name == "one" else "staging"
        return {
            "name": self.name,
            "user_pool_id": f"us-east-1_{self.name}",
            "region": REGION,
            "organization": self.organization,
            "aws_conn_id": self.connection,
            "staging_url": f"s3://{staging}@{BUCKET}/staging",
            "requests_per_second": 2000,
            "events": {"queue_url": self.queue.url if self.queue else None},
        }

    def change(self) -> None:
        """Add a newcomer in a group, and change somebody's name."""
        self.changes += 1
        first, *others = self.pool.users
        renamed = user(f"{self.name}0@example.org", family_name=f"Family {self.changes}")
        newcomer = user(f"{self.name}.new{self.changes}@example.org")
        self.pool.users = [renamed, *others, newcomer]
        (group,) = self.pool.members
        members = [renamed if one is first else one for one in self.pool.members[group]]
        self.pool.members = {group: [*members, newcomer]}

    def expected(self) -> State:
        """What Joget holds once it has what the pool says."""
        people = [
            {pair["Name"]: pair["Value"] for pair in one["Attributes"]} for one in self.pool.users
        ]
        members = {
            (pair["Value"], group)
            for group, users in self.pool.members.items()
            for one in users
            for pair in one["Attributes"]
            if pair["Name"] == "email"
        }
        return (
            frozenset((one["email"], one["family_name"], 1) for one in people),
            frozenset(members),
            frozenset((one["email"], self.organization) for one in people),
        )


READINGS = (
    "SELECT id, lastName, CAST(active AS SIGNED) FROM dir_user WHERE id LIKE %s",
    "SELECT userId, name FROM dir_user_group JOIN dir_group ON dir_group.id = groupId WHERE userId "
    "LIKE %s",
    "SELECT userId, organizationId FROM dir_employment WHERE userId LIKE %s",
)


def read_states(connection: Any) -> dict[str, State]:
    """What Joget holds of each company, at one moment."""
    states = {}
    with connection.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        for name in NAMES:
            found = []
            for reading in READINGS:
                cursor.execute(reading, (f"{name}%",))
                found.append(frozenset(cursor.fetchall()))
            states[name] = tuple(found)
        cursor.execute("COMMIT")
    return states


@dataclass
class Outcome:
    """How one run went, and everything that Joget held of its company meanwhile."""

    state: str
    tries: dict[str, int]
    before: State
    after: State
    seen: set[State] = field(default_factory=set)
    at_last: State = ()

    def assert_whole_and_converged(self) -> None:
        assert self.state == "success"
        assert self.seen <= {self.before, self.after}, "Joget was as before or as after, whole"
        assert self.at_last == self.after


@dataclass
class Town:
    """Five companies with syncs that run in one stack."""

    stack: Stack
    joget: JogetDatabase
    companies: dict[str, Company]
    runs: dict[str, str] = field(default_factory=dict)

    def states(self) -> dict[str, State]:
        connection = self.joget.server.connect(self.joget.name)
        try:
            return read_states(connection)
        finally:
            connection.close()

    @contextmanager
    def change_and_watch(self, *names: str) -> Iterator[dict[str, Outcome]]:
        """Change these pools and start their syncs; after the block, wait for the runs' ends."""
        before = self.states()
        outcomes = {name: Outcome("", {}, before[name], ()) for name in names}
        companies = {name: self.companies[name] for name in names}
        for name, company in companies.items():
            company.change()
            outcomes[name].after = company.expected()
            company.cognito.waiting.clear()
        over = threading.Event()
        reader = threading.Thread(target=self._watch, args=(outcomes, over))
        reader.start()
        try:
            for name, company in companies.items():
                self.runs[name] = self.stack.api.trigger(company.dag_id)
            yield outcomes
            for name, outcome in outcomes.items():
                outcome.state = self.await_end(name)
                outcome.tries = {
                    task: found["try_number"] for task, found in self.tasks(name).items()
                }
        finally:
            over.set()
            reader.join()
        at_last = self.states()
        for name, outcome in outcomes.items():
            outcome.at_last = at_last[name]

    def _watch(self, outcomes: dict[str, Outcome], over: threading.Event) -> None:
        connection = self.joget.server.connect(self.joget.name)
        while not over.wait(0.2):
            states = read_states(connection)
            for name, outcome in outcomes.items():
                outcome.seen.add(states[name])
        connection.close()

    def await_end(self, name: str) -> str:
        """Wait for the end of a sync's run; returns its state. Ended containers are started
        again.
        """
        deadline = time.monotonic() + LONGEST_RUN
        dag_id, run_id = self.companies[name].dag_id, self.runs[name]
        while time.monotonic() < deadline:
            self.stack.revive()
            with suppress(urllib.error.URLError):  # the API server may miss its database
                state = self.stack.api.runs(dag_id)[run_id]
                if state in ("success", "failed"):
                    return state
            time.sleep(1)
        raise AssertionError(f"the run of {name} didn't end: {self.tasks(name)}")

    def tasks(self, name: str) -> dict[str, Any]:
        """The task instances of a sync's run, by task."""
        run = f"dags/{self.companies[name].dag_id}/dagRuns/{quote_run_id(self.runs[name])}"
        found = self.stack.api.call("GET", f"{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in found}

    def await_gate(self, *names: str) -> None:
        """Wait until syncs list their users, and get no answer."""
        for name in names:
            waiting = self.companies[name].cognito.waiting
            wait(partial(bool, waiting), f"{name} to list users")

    def await_task(self, name: str, task: str, state: str) -> None:
        """Wait until a task has a state."""
        wait(lambda: self.tasks(name)[task]["state"] == state, f"{task} of {name} to be {state}")

    def find_process(self, name: str, task: str) -> psutil.Process:
        """The process of a running task."""
        found = wait(lambda: self.tasks(name)[task]["pid"], f"the process of {task} of {name}")
        return psutil.Process(found)

    def await_failure(self, name: str, task: str, process: psutil.Process) -> None:
        """Wait until a task has logged an error, or its worker has ended it for its lost
        heartbeats.
        """

        def failed() -> bool:
            return '"level":"error"' in self.task_log(name, task) or not runs(process)

        wait(failed, f"{task} of {name} to fail")

    def task_log(self, name: str, task: str) -> str:
        """What a task of a sync's run logged, in all its tries."""
        found = self.stack.folder.glob(f"airflow-logs/dag_id={self.companies[name].dag_id}/*/*/*")
        paths = [
            path
            for path in found
            if self.runs[name] in str(path) and f"task_id={task}" in str(path)
        ]
        return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def close_gates(self, *names: str) -> dict[str, threading.Event]:
        """From now on, let these pools answer no list; returns what opens each gate."""
        gates = {name: threading.Event() for name in names}
        for name, gate in gates.items():
            self.companies[name].cognito.faults.gate = gate
        return gates


@contextmanager
def serve_pools() -> Iterator[dict[str, Company]]:
    """A stand-in for Cognito for each company."""
    with ExitStack() as serving:
        companies = {}
        for name in NAMES:
            users = [user(f"{name}{number}@example.org") for number in range(12)]
            pool = Pool(users, {f"Staff {name}": users[:6]})
            served = serving.enter_context(stand_in(pool, Faults()))
            served.pool_ids = {f"us-east-1_{name}"}
            companies[name] = Company(name, pool, served)
        yield companies


@pytest.fixture(scope="module")
def town(
    new_joget: Callable[[str], JogetDatabase],
    moto: Aws,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Town]:
    """The whole stack, before its first run."""
    folder, joget = tmp_path_factory.mktemp("stack"), new_joget("utf8mb4")
    moto.client("s3").create_bucket(Bucket=BUCKET)
    with serve_pools() as companies:
        companies["one"].queue = create_queue(moto)
        for company in companies.values():
            joget.execute(
                "INSERT INTO dir_organization (id, name) VALUES (%s, %s)",
                (company.organization, company.name),
            )
        settings = folder / "syncs.yaml"
        written = {"syncs": [company.settings() for company in companies.values()]}
        settings.write_text(yaml.safe_dump(written), encoding="utf-8")
        variables = {
            **read_env_file(ROOT / "demo/compose.env"),
            "AIRFLOW_CONN_JOGET_MYSQL": joget.server.uri(joget.name),
            "DIRECTORY_SYNC_SETTINGS": str(settings),
        }
        host = moto.endpoint.removeprefix("http://")
        with start_stack(folder, variables=variables, aws=host, settings=FASTER) as stack:
            prepare(stack, companies, moto.endpoint)
            yield Town(stack, joget, companies)


def prepare(stack: Stack, companies: dict[str, Company], aws: str) -> None:
    """What an administrator does in the UI: make Connections, and unpause the DAGs."""
    endpoints = {one.connection: one.cognito.endpoint for one in companies.values()}
    for conn_id, endpoint in {**endpoints, "staging": aws}.items():
        given = json.loads(make_aws_connection(endpoint, sqs=aws))
        body = {"connection_id": conn_id, **given, "extra": json.dumps(given["extra"])}
        stack.api.call("POST", "connections", body)
    dag_ids = {company.dag_id for company in companies.values()}
    dag_ids |= {f"{company.dag_id}_live" for company in companies.values() if company.queue}

    def known() -> set[str]:
        return {dag["dag_id"] for dag in stack.api.call("GET", "dags?limit=100")["dags"]}

    wait(lambda: dag_ids <= known(), "the DAGs")
    for dag_id in dag_ids:
        stack.api.call("PATCH", f"dags/{dag_id}", {"is_paused": False})


@pytest.fixture(scope="module")
def synced(town: Town) -> dict[str, Outcome]:
    """Five syncs at once, each for the first time."""
    with town.change_and_watch(*NAMES) as outcomes:
        pass
    return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_five_syncs_at_once_apply_and_none_harms_another(
    synced: dict[str, Outcome], name: str
) -> None:
    synced[name].assert_whole_and_converged()


def test_an_event_reaches_joget_by_itself_and_airflow_keeps_nothing_of_it(
    town: Town, synced: dict[str, Outcome]
) -> None:
    company = town.companies["one"]
    queue = company.queue
    assert queue is not None
    company.pool.users[1] = changed = user("one1@example.org", family_name="Told")
    record = make_record(
        "AdminUpdateUserAttributes",
        requestParameters={"userPoolId": "us-east-1_one", "username": changed["Username"]},
        additionalEventData={"sub": sub_of(changed)},
    )
    queue.send(json.dumps(make_envelope(record)))
    statement = "SELECT lastName FROM dir_user WHERE id = 'one1@example.org'"
    wait(lambda: town.joget.column(statement) == ["Told"], "the event's change in Joget")
    events = town.stack.api.call("GET", "assets/events?limit=100")["asset_events"]
    assert events, "the queue's asset started the run"
    assert sub_of(changed) not in json.dumps(events)
    wait(lambda: queue.count() == (0, 0), "the message to be deleted")


def test_every_health_check_of_the_file_passes(town: Town, synced: dict[str, Outcome]) -> None:
    with ThreadPoolExecutor() as at_once:
        checks = dict(
            zip(
                town.stack.containers,
                at_once.map(town.stack.check_health, town.stack.containers),
                strict=True,
            )
        )
    failed = {name: done.stdout + done.stderr for name, done in checks.items() if done.returncode}
    assert not failed


def test_nobody_reaches_the_api_or_the_pages_without_a_login(town: Town) -> None:
    port = town.stack.ports["airflow-apiserver"]
    dag = town.companies["one"].dag_id
    for path in ("api/v2/dags", "api/v2/connections", f"directory-sync/dags/{dag}"):
        assert answer(port, path, None)[0] == 401, path


@pytest.fixture(scope="module")
def workers_killed(town: Town, synced: dict[str, Outcome]) -> dict[str, Outcome]:
    """Two syncs list users, and one is in its transaction, when a task's process dies, then both
    workers.
    """
    gates = town.close_gates("one", "two", "four", "five")
    town.joget.execute(HELD_INSERT)
    holder = town.joget.server.connect(town.joget.name)
    holder.query("DO GET_LOCK('hold', 0)")
    with town.change_and_watch(*NAMES) as outcomes:
        town.await_gate("one", "two", "four", "five")
        wait(lambda: is_held(town.joget), "the load of sync three to write")
        town.find_process("two", "extract_users").kill()
        town.await_task("two", "extract_users", "up_for_retry")
        for worker in town.stack.workers:
            worker.kill()
        holder.close()
        for gate in gates.values():
            gate.set()
        town.stack.restart(*(worker.name for worker in town.stack.workers))
    town.joget.execute("DROP TRIGGER hold")
    return outcomes


def is_held(joget: JogetDatabase) -> bool:
    """Whether a load waits within its transaction."""
    statement = "SELECT info FROM information_schema.processlist WHERE state = 'User lock'"
    return any("SELECT GET_LOCK" not in (info or "") for info in joget.column(statement))


def test_a_worker_killed_in_extract_is_noticed_and_its_run_converges(
    workers_killed: dict[str, Outcome],
) -> None:
    workers_killed["one"].assert_whole_and_converged()
    assert workers_killed["one"].tries["extract_users"] == 2


def test_a_worker_killed_in_the_open_transaction_leaves_joget_whole_and_its_run_converges(
    workers_killed: dict[str, Outcome],
) -> None:
    workers_killed["three"].assert_whole_and_converged()
    assert workers_killed["three"].tries["load"] == 2


def test_a_killed_task_process_is_retried_and_its_run_converges(
    workers_killed: dict[str, Outcome],
) -> None:
    workers_killed["two"].assert_whole_and_converged()
    assert workers_killed["two"].tries["extract_users"] == 2


@pytest.fixture(scope="module")
def servers_killed(town: Town, synced: dict[str, Outcome]) -> dict[str, Outcome]:
    """One server after the other is away while a sync needs it."""
    gates = town.close_gates("one", "two", "five")
    containers = town.stack.containers
    with town.change_and_watch(*NAMES) as outcomes:
        containers["airflow-triggerer"].kill()
        town.await_gate("one", "two", "five")

        containers["airflow-scheduler"].kill()
        gates["two"].set()
        town.await_task("two", "extract_users", "success")
        town.stack.restart("airflow-scheduler")

        containers["redis"].stop()
        gates["five"].set()
        town.await_task("five", "extract_users", "success")
        wait(
            lambda: containers["airflow-scheduler"].has_printed("Error sending Celery"),
            "the scheduler to miss Redis",
        )
        town.stack.restart("redis")

        process = town.find_process("one", "extract_users")
        containers["airflow-apiserver"].kill()
        gates["one"].set()
        town.await_failure("one", "extract_users", process)
        town.stack.restart("airflow-apiserver")
    town.stack.restart("airflow-triggerer")
    return outcomes


def test_a_killed_scheduler_is_started_again_and_runs_go_on(
    servers_killed: dict[str, Outcome],
) -> None:
    servers_killed["two"].assert_whole_and_converged()


def test_redis_away_while_a_task_is_to_be_sent_fails_no_run(
    servers_killed: dict[str, Outcome],
) -> None:
    servers_killed["five"].assert_whole_and_converged()


def test_an_api_server_killed_while_a_task_needs_it_fails_no_run(
    servers_killed: dict[str, Outcome],
) -> None:
    servers_killed["one"].assert_whole_and_converged()


def test_a_killed_triggerer_holds_no_run_up(servers_killed: dict[str, Outcome]) -> None:
    servers_killed["three"].assert_whole_and_converged()


@contextmanager
def locked_connections(stack: Stack) -> Iterator[Callable[[], bool]]:
    """Let lookups of Connections wait in Airflow's database; yields a function that says whether
    one does.
    """
    database = psycopg2.connect(
        host="127.0.0.1",
        port=stack.ports["postgres"],
        user="airflow",
        password="airflow",
        dbname="airflow",
    )
    cursor = database.cursor()
    cursor.execute('LOCK TABLE "connection" IN ACCESS EXCLUSIVE MODE')

    def one_waits() -> bool:
        cursor.execute("SELECT relation::regclass::text FROM pg_locks WHERE NOT granted")
        return any("connection" in (name or "") for (name,) in cursor.fetchall())

    try:
        yield one_waits
    finally:
        database.close()


@pytest.fixture(scope="module")
def database_killed(town: Town, synced: dict[str, Outcome]) -> dict[str, Outcome]:
    """Airflow's database dies while it is asked for a Connection, and stays away until that
    failed.
    """
    with locked_connections(town.stack) as one_waits, town.change_and_watch("four") as outcomes:
        wait(one_waits, "a task to ask for a Connection")
        process = town.find_process("four", "extract_users")
        town.stack.containers["postgres"].kill()
        town.await_failure("four", "extract_users", process)
        town.stack.restart("postgres")
    return outcomes


def test_airflows_database_away_while_a_task_asks_for_a_connection_fails_no_run(
    database_killed: dict[str, Outcome],
) -> None:
    database_killed["four"].assert_whole_and_converged()
    assert database_killed["four"].tries["extract_users"] > 1
