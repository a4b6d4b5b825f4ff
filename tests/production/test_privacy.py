"""A day of the sync in a real Airflow that logs at DEBUG, and a search of all that Airflow stored
or printed, for values of people and for secrets.
"""

import base64
import io
import json
import pickle
import re
import sqlite3
import threading
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from demo import airflow
from demo.aws import BUCKET, REGION, Aws
from demo.processes import free_port
from tests.company import settings
from tests.conftest import JogetDatabase
from tests.directory_sync.events.conftest import ServedQueue, create_queue
from tests.directory_sync.events.samples import make_envelope, make_record
from tests.directory_sync.orchestration.api import Api, quote_run_id, wait
from tests.production.marks import (
    ATTRIBUTES,
    GROUP,
    PERSON,
    SECRET,
    TYPED,
    Found,
    Search,
    decrypt,
    login,
    mark,
    person,
)
from tests.stand_in import POOL_ID, Faults, Pool, StandIn, stand_in, sub_of

SYNC, REVIEW, UNDO = "cognito_to_joget", "cognito_to_joget_review", "cognito_to_joget_undo"
SOME = "cognito_to_joget_some"
LIVE = "cognito_to_joget_live"
FAULTY = ("denied", "odd", "slow", "wrong")
"""Syncs that meet one fault each: Cognito refuses, answers what it never should, takes so long that
the task's process is killed; the database refuses the password.
"""

ROLES = {"olga": "admin", "vera": "viewer"}

FERNET_KEY = base64.urlsafe_b64encode(f"{SECRET}-fernet".ljust(32, "x").encode()).decode()
MYSQL_PASSWORD = f"{SECRET.capitalize()}-mysql"
AWS_KEY_ID = f"{SECRET.upper()}KEYID"
AWS_SECRETS = {
    "password": f"{SECRET.capitalize()}-aws/secret+key",
    "token": f"{SECRET.capitalize()}-aws-token==",
}
SERVER_SECRETS = {
    "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
    "AIRFLOW__API_AUTH__JWT_SECRET": f"{SECRET.capitalize()}-jwt" * 3,
    "AIRFLOW__API__SECRET_KEY": f"{SECRET.capitalize()}-api",
}

MAPPED = ("email", "given_name", "family_name", "zoneinfo", "locale", "nickname", "custom:badge")
"""Attributes that the syncs' mappings name."""

REFUSALS = {1062: "23000", 1406: "22001", 1644: "45000", 3819: "HY000"}
"""Error numbers of the database and their SQLSTATE: a duplicate key, a value that is too long, a
trigger's own error, a constraint.
"""

NEVER = 3_600.0
"""Seconds of an answer that nobody waits for."""

SALES, LOCAL_GROUP, REFUSED_GROUP = (
    f"{GROUP.capitalize()}-{name}" for name in ("sales", "local", "refused")
)


@dataclass
class Day:
    """What the day left behind."""

    home: Path
    """Airflow's."""
    output: Path
    """What all of its processes printed."""
    temporary: Path
    """The folder for their temporary files."""
    port: int
    command_lines: set[str] = field(default_factory=set, repr=False)
    environments: set[str] = field(default_factory=set, repr=False)
    pages: dict[str, list[tuple[str, str]]] = field(default_factory=dict, repr=False)
    """By reader: address and text of each page that they opened."""
    staged: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Contents of the bucket, by key."""
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    """By reader: the token that signs them in."""

    @cached_property
    def tables(self) -> dict[str, dict[str, list[Any]]]:
        """Every value of Airflow's database, by table and column."""
        found: dict[str, dict[str, list[Any]]] = {}
        with sqlite3.connect(f"file:{self.home}/airflow.db?mode=ro", uri=True) as database:
            names = [
                row[0]
                for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for name in names:
                cursor = database.execute(f'SELECT * FROM "{name}"')
                rows = cursor.fetchall()
                found[name] = {
                    column[0]: [row[at] for row in rows]
                    for at, column in enumerate(cursor.description)
                }
        return found

    def states(self, dag_id: str) -> list[str]:
        """States of a DAG's runs, in order."""
        runs = self.tables["dag_run"]
        return [
            state for dag, state in zip(runs["dag_id"], runs["state"], strict=True) if dag == dag_id
        ]

    @cached_property
    def logs(self) -> dict[str, str]:
        """Texts of all log files, by their path below the home."""
        files = [
            path
            for path in (self.home / "logs").rglob("*")
            if path.is_file() and not path.is_symlink()
        ]
        texts = {
            str(path.relative_to(self.home)): path.read_text("utf-8", "replace") for path in files
        }
        return texts | {self.output.name: self.output.read_text("utf-8", "replace")}

    @property
    def secrets(self) -> dict[str, str]:
        """Whole values to look for, by name."""
        tokens = {f"{name}'s token": token for name, token in self.tokens.items()}
        return {"fernet key": FERNET_KEY, "mysql password": MYSQL_PASSWORD, **AWS_SECRETS, **tokens}

    def search(self, *stems: str) -> Search:
        """A search for marks with these beginnings, and for every secret."""
        return Search((*stems, SECRET), self.secrets)

    def search_table(self, search: Search, table: str, *skipped: str) -> list[Found]:
        """Search the columns of a table, what Airflow encrypted as well."""
        return [
            find
            for column, values in self.tables[table].items()
            if column not in skipped
            for value in values
            for find in search.search_value(f"{table}.{column}", decrypt(value, FERNET_KEY))
        ]


class World:
    """The day as it goes on."""

    def __init__(
        self,
        day: Day,
        joget: JogetDatabase,
        pools: dict[str, StandIn],
        *,
        moto: Aws,
        queue: ServedQueue,
    ) -> None:
        self.day, self.joget, self.pools, self.moto, self.queue = day, joget, pools, moto, queue
        self.olga = Api(day.port, "olga")

    @property
    def pool(self) -> Any:
        """The pool of most syncs."""
        return self.pools["cognito_aws"].pool

    def connect(self) -> None:
        """Enter Connections as people do, through Airflow's API."""
        mysql = {
            "conn_type": "mysql",
            "host": "127.0.0.1",
            "port": self.joget.server.port,
            "schema": self.joget.name,
        }
        self._add("joget_mysql", mysql | {"login": "directory_sync", "password": MYSQL_PASSWORD})
        self._add(
            "joget_wrong",
            mysql | {"login": "directory_sync", "password": f"{MYSQL_PASSWORD}-wrong"},
        )
        for name, pool in self.pools.items():
            endpoints = {
                "cognito-idp": {"endpoint_url": pool.endpoint},
                "s3": {"endpoint_url": self.moto.endpoint},
                "sqs": {"endpoint_url": self.moto.endpoint},
            }
            extra = {
                "aws_session_token": AWS_SECRETS["token"],
                "region_name": REGION,
                "service_config": endpoints,
            }
            keys = {"login": AWS_KEY_ID, "password": AWS_SECRETS["password"]}
            self._add(name, {"conn_type": "aws", **keys, "extra": json.dumps(extra)})

    def _add(self, conn_id: str, connection: dict[str, Any]) -> None:
        self.olga.call("POST", "connections", {"connection_id": conn_id, **connection})

    def start(self, dag_id: str, **conf: Any) -> str:
        """Start a run, again if SQLite was locked beside the scheduler; returns its id."""

        def trigger() -> str | None:
            try:
                return self.olga.trigger(dag_id, **conf)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                return None

        return str(wait(trigger, f"a run of {dag_id} to be made"))

    def run_to_end(self, dag_id: str, state: str, **conf: Any) -> str:
        """Start a run and wait for its end in that state; returns its id."""
        run_id = self.start(dag_id, **conf)
        assert self.olga.await_end_of_run(dag_id, run_id) == state, (dag_id, conf)
        return run_id

    def answer(self, answered: set[str], option: str) -> str:
        """Answer the review that isn't answered yet; returns its run."""
        (review,) = wait(lambda: set(self.olga.runs(REVIEW)) - answered, "the review's run")
        self.olga.await_question(REVIEW, review, "review_held")
        self.olga.answer(REVIEW, review, "review_held", option)
        assert self.olga.await_end_of_run(REVIEW, review) == "success"
        return str(review)

    def open(self, who: str, path: str, form: dict[str, str] | None = None) -> None:
        """Open one of the pages, or send its form."""
        address = f"directory-sync/{path}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.day.port}/{address}",
            headers={"Authorization": f"Bearer {self.day.tokens[who]}"},
            data=urllib.parse.urlencode(form).encode() if form else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as given:
                text = given.read().decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode()
        self.day.pages.setdefault(who, []).append((address, text))

    def folder(self, dag_id: str, run_id: str, task_id: str) -> str:
        """The folder of the bucket that a task left."""
        task = f"dags/{dag_id}/dagRuns/{quote_run_id(run_id)}/taskInstances/{task_id}"
        path = f"{task}/xcomEntries/return_value"
        value: Any = self.olga.call("GET", path)["value"]
        value = json.loads(value) if isinstance(value, str) else value
        return str(value["manifest"]).partition(f"{BUCKET}/")[2]

    def damage(self, folder: str, name: str, content: bytes) -> None:
        """Put other content into a staged file."""
        self.moto.client("s3").put_object(Bucket=BUCKET, Key=f"{folder}/{name}", Body=content)

    def staged(self) -> dict[str, bytes]:
        """What is in the bucket."""
        client, found = self.moto.client("s3"), {}
        for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix="privacy/"
        ):
            for key in (one["Key"] for one in page["Contents"]):
                found[key] = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return found


def people() -> list[Any]:
    """Make the pool's users of the morning: some can't be mapped, some will be refused by the
    database, the logins of some will be typed into a form, and the last of the others will leave.
    """
    odd = [
        person("long", given_name=mark("given_name_long") * 20),
        person("comma", email=f"{PERSON}.a,b@example.org"),
        person("blank", email=""),
        person("local"),
        person("excluded"),
    ]
    refused = [person(f"refused{number}") for number in REFUSALS]
    typed = [person(number, stem=TYPED) for number in range(2)]
    return [*odd, *refused, *typed, *(person(number) for number in range(20))]


def write_settings(path: Path, queue: ServedQueue) -> None:
    """One sync for the day, one for runs by hand, one for each fault, and one that is refused."""
    own = settings(
        path.parent,
        staging_url=f"s3://cognito_aws@{BUCKET}/privacy",
        policies={"missing_minutes": 0, "missing_runs": 1},
        scope={"exclude_users": [login("excluded")], "include_groups": [f"{GROUP.capitalize()}*"]},
    )
    attributes = {
        "username": "cognito_username",
        "first_name": "nickname",
        "last_name": "custom:badge",
    }
    faulty = [
        own | {"name": name, "organization": f"ORG-{name}", "aws_conn_id": f"cognito_{name}"}
        for name in FAULTY
    ]
    first = own | {"events": {"queue_url": queue.url}}
    broken = {
        "name": "broken",
        "staging_url": f"s3://{AWS_KEY_ID}:{AWS_SECRETS['password']}@{BUCKET}/privacy",
        "scope": {"exclude_users": login("in_settings")},
        "limits": {"floor": mark("limit")},
        "password": MYSQL_PASSWORD,
    }
    some = {
        "name": "some",
        "events": {},
        "organization": "ORG-some",
        "mapping": attributes,
        "schedule": "0 0 1 1 *",
    }
    faulty[-1] |= {"joget_conn_id": "joget_wrong"}
    path.write_text(
        yaml.safe_dump({"syncs": [first, own | some, *faulty, own | broken]}), encoding="utf-8"
    )


def prepare_joget(joget: JogetDatabase) -> None:
    """Organizations, an account with a secret, a local user and group, and triggers that quote
    values in their errors, as real databases do.
    """
    for name in ("some", *FAULTY):
        joget.execute(
            "INSERT INTO dir_organization (id, name) VALUES (%s, 'Another')", (f"ORG-{name}",)
        )
    joget.execute("DROP USER IF EXISTS directory_sync@'%'")
    joget.execute(f"CREATE USER directory_sync@'%' IDENTIFIED BY '{MYSQL_PASSWORD}'")
    joget.execute(f"GRANT ALL ON {joget.name}.* TO directory_sync@'%'")
    joget.add_user(login("local"), password=mark("password"))
    joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES (%s, %s, 'ORG-001')",
        (LOCAL_GROUP,) * 2,
    )
    joget.execute("INSERT INTO dir_user_group (groupId, userId) VALUES (%s, 'cat')", (LOCAL_GROUP,))
    users = "".join(
        _refusal("NEW.id", login(f"refused{number}"), number, state)
        for number, state in REFUSALS.items()
    )
    group = _refusal("NEW.name", REFUSED_GROUP, 1644, "45000")
    joget.execute(
        f"CREATE TRIGGER refuse_users BEFORE UPDATE ON dir_user FOR EACH ROW BEGIN {users} END"
    )
    joget.execute(
        f"CREATE TRIGGER refuse_group BEFORE INSERT ON dir_group FOR EACH ROW BEGIN {group} END"
    )


def _refusal(column: str, value: str, number: int, state: str) -> str:
    text = f"{mark('family_name')} {login(3)} {value}".encode("ascii", "ignore").decode()
    return (
        f"IF {column} = '{value}' THEN SIGNAL SQLSTATE '{state}' "
        f"SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{text}'; END IF; "
    )


@pytest.fixture(scope="module")
def day(
    new_joget: Callable[[str], JogetDatabase], moto: Aws, tmp_path_factory: pytest.TempPathFactory
) -> Day:
    folder = tmp_path_factory.mktemp("privacy")
    day = Day(folder / "airflow", folder / "airflow.log", folder / "tmp", free_port())
    day.home.mkdir()
    day.temporary.mkdir()
    joget = new_joget("utf8mb4")
    prepare_joget(joget)
    moto.client("s3").create_bucket(Bucket=BUCKET)
    queue = create_queue(moto)
    write_settings(folder / "syncs.yaml", queue)
    with ExitStack() as stack:
        pools = {name: stack.enter_context(pool) for name, pool in make_pools().items()}
        variables = airflow.environment(
            day.home, settings=folder / "syncs.yaml", joget_uri="", endpoint=""
        )
        variables = {
            name: value for name, value in variables.items() if not name.startswith("AIRFLOW_CONN_")
        }
        variables |= SERVER_SECRETS | {
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "TMPDIR": str(day.temporary),
        }
        with airflow.standalone(variables, day.port, day.output, roles=ROLES) as process:
            day.tokens = {name: airflow.token(day.port, name) for name in ROLES}
            world = World(day, joget, pools, moto=moto, queue=queue)
            with watch_processes(day, process.pid):
                live_day(world)
        day.staged = world.staged()
    joget.execute("DROP USER directory_sync@'%'")
    return day


def make_pools() -> dict[str, Any]:
    """The pools, by the id of the Connection that leads to them."""
    users = people()
    members = {SALES: users[5:20], LOCAL_GROUP: [], REFUSED_GROUP: users[12:14]}
    denial = f"{login('denied')} {mark('denial')}"
    odd = person("odd") | {"UserCreateDate": mark("date")}
    return {
        "cognito_aws": stand_in(Pool(users, members)),
        "cognito_denied": stand_in(Pool(users), Faults(denied="DescribeUserPool", denial=denial)),
        "cognito_odd": stand_in(Pool([odd])),
        "cognito_slow": stand_in(Pool(users), Faults(latency=NEVER)),
        "cognito_wrong": stand_in(Pool(users)),
    }


@contextmanager
def watch_processes(day: Day, pid: int) -> Iterator[None]:
    """Record the command line and environment of each process below this one, again and again."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.5):
            with suppress(psutil.NoSuchProcess):
                for process in psutil.Process(pid).children(recursive=True):
                    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        day.command_lines.add(" ".join(process.cmdline()).strip())
                        day.environments.update(
                            f"{name}={value}" for name, value in process.environ().items()
                        )

    with ThreadPoolExecutor(1) as beside:
        looked = beside.submit(look)
        try:
            yield
        finally:
            over.set()
        looked.result()


def live_day(world: World) -> None:
    """Live the day: its runs, answers and undos, with faults beside them, and readers."""
    world.connect()
    olga, pool = world.olga, world.pool
    with ThreadPoolExecutor(1) as beside:
        others = beside.submit(cause_faults, world)
        first = world.run_to_end(SYNC, "success")
        rejected = world.answer(set(), "Reject")
        for at, one in enumerate(pool.users):
            if "refused" in one["Username"]:
                refused = (
                    one["Username"].partition("-")[2].removeprefix("username").partition("-")[0]
                )
                pool.users[at] = person(refused, given_name=mark("given_name_new"))
        del pool.users[-6:]
        second = world.run_to_end(SYNC, "success")
        approved = world.answer({rejected}, "Approve")
        undos = [
            world.start(UNDO, run_id=approved),
            world.start(UNDO, run_id=second, dry_run=False),
        ]
        assert {olga.await_end_of_run(UNDO, undo) for undo in undos} == {"success"}
        send_events(world)
        read_pages(world, [first, second])
        some = others.result()
    damage_staging(world, first, some)


def send_events(world: World) -> None:
    """Let the queue tell of a changed user, and of something that nobody can read."""
    before = set(world.olga.runs(LIVE))
    at, found = next(
        (at, one) for at, one in enumerate(world.pool.users) if one["Username"] == mark("username3")
    )
    world.pool.users[at] = person(3, given_name=mark("given_name_told"))
    record = make_record(
        "AdminUpdateUserAttributes",
        requestParameters={"userPoolId": POOL_ID, "username": found["Username"]},
        additionalEventData={"sub": sub_of(found), "email": login(3)},
    )
    world.queue.send(json.dumps(make_envelope(record)), mark("unreadable"))
    wait(lambda: world.queue.count() == (0, 0), "the messages to be deleted")
    for run in set(world.olga.runs(LIVE)) - before:
        assert world.olga.await_end_of_run(LIVE, run) == "success"


def cause_faults(world: World) -> str:
    """Cause faults, and do runs for some users; returns the id of such a run."""
    olga = world.olga
    runs = {name: world.start(f"{SYNC}_{name}") for name in FAULTY}
    slow = world.pools["cognito_slow"]
    wait(lambda: kill_client(slow), "the process that waits for an answer")
    slow.faults.latency, slow.faults.denied = 0, "DescribeUserPool"  # which ends the retry soon
    for name, run in runs.items():
        wait(partial(has_failed, olga, f"{SYNC}_{name}", run), f"{name} to fail")
    typed = mark("username0", TYPED)
    world.run_to_end(SOME, "failed", user=typed)
    world.run_to_end(SOME, "failed", organization=typed)
    world.run_to_end(SOME, "failed", replay_run_id=typed)
    world.run_to_end(UNDO, "failed", run_id=typed)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        world.start(SOME, users=typed)
    some = world.run_to_end(SOME, "success", users=[typed, mark("username1", TYPED)])
    world.run_to_end(SOME, "success", replay_run_id=some)
    dates = {
        "from_date": "2020-12-31T00:00:00Z",
        "to_date": "2021-01-02T00:00:00Z",
        "max_active_runs": 1,
    }
    before = set(olga.runs(SOME))
    wait(
        lambda: create_backfill(
            olga, {"dag_id": SOME, "run_backwards": False, "dag_run_conf": {}, **dates}
        ),
        "the backfill",
    )
    for run in wait(lambda: set(olga.runs(SOME)) - before, "the backfill's run"):
        assert olga.await_end_of_run(SOME, run) == "success"
    return some


def has_failed(olga: Api, dag_id: str, run_id: str, task_id: str = "extract_users") -> bool:
    """Whether a task's try failed."""
    return olga.tasks(dag_id, run_id).get(task_id) in ("failed", "up_for_retry")


def create_backfill(olga: Api, backfill: dict[str, Any]) -> bool:
    """Create a backfill; returns False if SQLite was locked beside the scheduler (apache/airflow
    #68699).
    """
    try:
        olga.call("POST", "backfills", backfill)
    except urllib.error.HTTPError as error:
        return bool(error.code == 409)  # it is there already
    return True


def kill_client(pool: StandIn) -> bool:
    """Kill the process that waits for an answer of this pool; returns whether one was found."""
    port, found = int(pool.endpoint.rpartition(":")[2]), False
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            asks = any(one.raddr and one.raddr.port == port for one in process.net_connections())
            if asks and process.pid != psutil.Process().pid:
                process.kill()
                found = True
    return found


def read_pages(world: World, runs: Iterable[str]) -> None:
    """Open every page, search and download, as two people."""
    sought = login(3)
    sub = next(sub_of(one) for one in world.pool.users if one["Username"] == mark("username3"))
    for who in ROLES:
        for run in runs:
            page = f"dags/{SYNC}/runs/{quote_run_id(run)}"
            world.open(who, page)
            world.open(who, page, {"text": sought, "sort_by": "who"})
            world.open(who, f"{page}/changes.csv", {"entity": "user"})
            world.open(who, page, {"text": sought * 20})
        for asked in (sought, mark("username3"), sub, f"{sought}{mark('unknown')}"):
            world.open(who, f"dags/{SYNC}", {"who": asked})
        world.open(who, f"dags/{SOME}")


def damage_staging(world: World, first: str, some: str) -> None:
    """Put marked content into staged files, then use them: on the pages, in a replay and an
    undo.
    """
    load, users = world.folder(SYNC, first, "load"), world.folder(SOME, some, "extract_users")
    staged = world.staged()
    plan = pq.read_table(io.BytesIO(staged[f"{load}/plan.parquet"]))
    fewer = io.BytesIO()
    pq.write_table(plan.select(["user_id", "after_email"]), fewer)
    for content in (fewer.getvalue(), mark("plan").encode()):
        world.damage(load, "plan.parquet", content)
        for who in ROLES:
            world.open(who, f"dags/{SYNC}/runs/{quote_run_id(first)}")
            world.open(who, f"dags/{SYNC}", {"who": login(3)})
    world.damage(users, "users.parquet", mark("users").encode())
    world.run_to_end(SOME, "failed", replay_run_id=some)
    undo = world.start(UNDO, run_id=first)
    wait(lambda: has_failed(world.olga, UNDO, undo, "undo"), "the undo to fail")


def list_finds(finds: Iterable[Found]) -> list[str]:
    """Each find once, as text."""
    return list(dict.fromkeys(str(find) for find in finds))


def test_the_day_had_runs_reviews_undos_and_faults(day: Day) -> None:
    said = "\n".join(day.logs.values())
    assert day.states(SYNC) == ["success"] * 2
    assert day.states(REVIEW) == ["success"] * 2
    assert day.states(UNDO).count("success") == 2
    assert set(day.states(LIVE)) == {"success"}
    assert day.states(SOME).count("success") >= 3, "for some users, a replay, a backfill"
    assert day.states(SOME).count("failed") >= 4, "wrong parameters, damaged staging"
    assert any("sync 'broken'" in text for text in day.tables["import_error"]["stacktrace"])
    for fault in (
        "Cognito refused DescribeUserPool",
        "extract_users failed unexpectedly: ValueError",
        "MySQL error 1045",
        "Unknown parameter(s) user",
        "Joget has no organization with the id",
        "Staging has no snapshot of the run in parameter replay_run_id",
        "knows no applied run with the id in parameter run_id",
        "isn't what its manifest says",
        "a page failed",
        "Leaving out 4 users",
    ):
        assert fault in said, fault
    assert REFUSED_GROUP in said
    assert (
        sum(
            "directory-sync/dags" in line and "POST" in line
            for line in day.logs[day.output.name].splitlines()
        )
        > 10
    )
    assert "[debug" in day.logs[day.output.name]
    assert any("3 users updated" in text or "quarantined" in text for _, text in day.pages["vera"])
    assert login(3) in "".join(text for _, text in day.pages["olga"])


def test_the_search_finds_a_mark_in_each_form(day: Day) -> None:
    search, found = day.search(PERSON), mark("family_name")
    for text in (
        found,
        found.upper(),
        urllib.parse.quote(found),
        json.dumps({"a": [found]}),
        f"/x?who={login(1)}",
    ):
        assert search.search_text("text", f"one line\n{text}\nanother"), text
    for before in range(3):
        packed = base64.b64encode(b"." * before + found.encode())
        assert search.search_bytes("base64", b"before " + packed + b" after")
        assert search.search_value(
            "base64 of JSON", base64.b64encode(json.dumps({"a": found}).encode()).decode()
        )
    assert search.search_value("hex", pickle.dumps({"a": found}).hex())
    assert search.search_value("compressed", zlib.compress(found.encode()))
    assert search.search_bytes(
        "percent", "".join(f"%{byte:02X}" for byte in found.encode()).encode()
    )
    assert search.search_bytes("UTF-16", found.encode("utf-16"))
    assert search.search_text("secret", f"Bearer {day.tokens['olga']}")
    (find,) = search.search_text("a log", f"one\nname={found}, and {login(1)}")
    assert "a log:2" in str(find)
    assert "family_name" in str(find)
    assert PERSON not in str(find).lower().replace("«", "")


def test_no_log_file_holds_a_value_of_a_person_or_a_secret(day: Day) -> None:
    files = {name: text for name, text in day.logs.items() if name != day.output.name}
    assert len(files) > 50
    assert not list_finds(
        find for name, text in files.items() for find in day.search(PERSON).search_text(name, text)
    )


def test_airflow_prints_no_value_of_a_person_or_secret_not_even_in_addresses(day: Day) -> None:
    assert not list_finds(
        day.search(PERSON).search_text(day.output.name, day.logs[day.output.name])
    )


def test_no_address_of_a_page_or_of_a_link_on_it_holds_a_value_of_a_person_or_a_secret(
    day: Day,
) -> None:
    pages = [page for opened in day.pages.values() for page in opened]
    links = [
        link for _, text in pages for link in re.findall(r'(?:href|action|src)="([^"]*)"', text)
    ]
    assert links
    addresses = "\n".join([*(address for address, _ in pages), *links])
    assert not list_finds(day.search(PERSON, TYPED, GROUP).search_text("addresses", addresses))


@pytest.mark.parametrize(
    "table",
    [
        "xcom",
        "rendered_task_instance_fields",
        "hitl_detail",
        "import_error",
        "asset_event",
        "serialized_dag",
        "trigger",
    ],
)
def test_no_row_of_the_table_holds_a_value_of_a_person_or_a_secret(day: Day, table: str) -> None:
    assert day.tables[table] is not None
    assert not list_finds(day.search_table(day.search(PERSON, TYPED), table))


def test_no_other_table_of_airflows_database_holds_a_value_of_a_person_or_a_secret(
    day: Day,
) -> None:
    finds = [
        find
        for table in set(day.tables) - {"connection", "log"}
        for find in day.search_table(day.search(PERSON), table)
    ]
    assert not list_finds(finds)
    assert not list_finds(day.search_table(Search((PERSON,), day.secrets), "log")), (
        "the audit log has a Connection's login"
    )


def test_airflows_database_keeps_the_secrets_of_connections_encrypted(day: Day) -> None:
    files = list(day.home.glob("airflow.db*"))
    search = Search((PERSON,), day.secrets)
    assert not list_finds(
        find for path in files for find in search.search_bytes(path.name, path.read_bytes())
    )


def test_no_command_line_or_environment_holds_a_value_of_a_person_or_a_secret(day: Day) -> None:
    assert any("airflow" in line for line in day.command_lines)
    assert day.environments
    finds = [
        find
        for line in day.command_lines
        for find in day.search(PERSON, TYPED).search_text("command line", line)
    ]
    for one in day.environments:
        if one.partition("=")[2] in SERVER_SECRETS.values():
            continue  # given to Airflow in this way
        finds += day.search(PERSON, TYPED).search_text(f"environment, {one.partition('=')[0]}", one)
    assert not list_finds(finds)


def test_no_temporary_file_that_is_left_holds_a_value_of_a_person_or_a_secret(day: Day) -> None:
    files = [path for path in day.temporary.rglob("*") if path.is_file()]
    assert not list_finds(
        find
        for path in files
        for find in day.search(PERSON).search_bytes(path.name, path.read_bytes())
    )


def test_a_reader_who_may_not_answer_reviews_sees_no_value_of_a_person_or_secret(day: Day) -> None:
    finds = []
    for address, text in day.pages["vera"]:
        for asked in (login(3) * 20, login(3), mark("username3"), mark("unknown")):
            text = text.replace(asked, "")  # noqa: PLW2901 - the form shows what was typed into it
        finds += day.search(PERSON, TYPED, GROUP).search_text(address, text)
    assert not list_finds(finds)


def test_text_typed_into_a_form_is_only_in_the_runs_conf_the_audit_log_and_debug_lines(
    day: Day,
) -> None:
    search = Search((TYPED,))
    kept = {"dag_run": "conf", "log": "extra"}
    for table in day.tables:
        assert not list_finds(day.search_table(search, table, kept.get(table, "")))
    assert day.search_table(search, "dag_run")
    lines = [
        (name, line)
        for name, text in day.logs.items()
        for line in text.splitlines()
        if TYPED in line.lower()
    ]
    louder = [one for one in lines if '"level":"debug"' not in one[1] and "[debug" not in one[1]]
    assert not list_finds(find for name, line in louder for find in search.search_text(name, line))


def test_names_of_groups_are_only_on_the_approval_page_and_in_lines_about_groups_left_out(
    day: Day,
) -> None:
    search = Search((GROUP,))
    asking = {"hitl_detail", "rendered_task_instance_fields", "trigger"}
    assert day.search_table(search, "hitl_detail")
    assert not list_finds(
        find for table in set(day.tables) - asking for find in day.search_table(search, table)
    )
    for name, text in day.logs.items():
        # At DEBUG, Airflow logs the text of the approval page, which ends with the plan's hash.
        others = [
            line
            for line in text.splitlines()
            if "Leaving out" not in line and "held_sha256" not in line
        ]
        assert not list_finds(search.search_text(name, "\n".join(others)))


def test_staging_holds_the_attributes_that_the_mappings_name_and_no_secret(day: Day) -> None:
    assert len([key for key in day.staged if key.endswith("plan.parquet")]) > 5
    unmapped = [name for name in ATTRIBUTES if name not in MAPPED]
    search = Search(
        (SECRET,), day.secrets | {name: mark(f"{name.replace(':', '_')}3") for name in unmapped}
    )
    texts = dict(day.staged)
    for key, content in day.staged.items():
        if content[:4] == b"PAR1":
            texts[key] = str(pq.read_table(io.BytesIO(content)).to_pydict()).encode()
    assert any(mark("family_name3").encode() in text for text in texts.values())
    assert not list_finds(
        find for key, text in texts.items() for find in search.search_bytes(key, text)
    )
