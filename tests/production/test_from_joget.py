"""docs/from-joget.md, tried against a real Airflow under the FAB auth manager: its commands make
the account, and its calls are sent as Joget's JSON Tool sends them.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from demo.processes import free_port, listens, server
from tests.company import settings
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "from-joget.md").read_text(encoding="utf-8")
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
SYNC = "cognito_to_joget"
HOST = "https://airflow.example.com"
PASSWORD = 'what "Joget" keeps'

HASH_VALUES = {
    "envVariable.airflow_password?json": json.dumps(PASSWORD)[1:-1],
    "form.TABLE.FIELD?json": "01f0c9ae-5c2b-4f3a-9d1e-0a1b2c3d4e5f",
    "assignment.processId": "12_staff_onboarding",
}
"""What Joget puts in the place of its hash variables."""

RUN_COMMANDS = """
import json, sys
from airflow.cli import cli_parser
for arguments in json.load(sys.stdin):
    parsed = cli_parser.get_parser().parse_args(arguments)
    parsed.func(parsed)
"""
"""Runs several commands in one process, since each process imports Airflow for seconds."""


@dataclass(frozen=True)
class Call:
    """One JSON Tool of the page: its request, and the workflow variables that it fills."""

    method: str
    url: str
    headers: dict[str, str]
    payload: str
    mapping: dict[str, str]
    """The field of the answer, by workflow variable."""


def read_calls() -> list[Call]:
    """Read the page's calls, in order."""
    stored = r"((?:Store to|No Response) .*?\n)"
    blocks = re.findall(rf"^```http\n(.*?)\n```\n\n{stored}", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == PAGE.count("```http"), "each call says which variables it fills"
    return [read_call(block, stored) for block, stored in blocks]


def read_call(block: str, stored: str) -> Call:
    head, _, payload = block.partition("\n\n")
    first, *headers = head.splitlines()
    method, url = first.split()
    mapping = dict(re.findall(r"`(\w+)` from `(\w+)`", stored))
    return Call(method, url, dict(line.split(": ", 1) for line in headers), payload, mapping)


GET_TOKEN, FOR_ALL, FOR_PERSON, ONCE, ASK, GIVE_BACK = read_calls()


@dataclass
class JsonTool:
    """Joget's JSON Tool in a process with workflow variables: it sends calls to an Airflow."""

    port: int
    variables: dict[str, str]

    def send(self, call: Call) -> tuple[int, Any]:
        """Send a call, and map its answer's fields; returns status and answer."""
        status, answer = self.request(
            call.method,
            self.fill_in(call.url).removeprefix(HOST),
            self.fill_in(call.payload) or None,
            {name: self.fill_in(value) for name, value in call.headers.items()},
        )
        found = {name: answer[field] for name, field in call.mapping.items() if field in answer}
        self.variables |= found
        return status, answer

    def try_out(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send another request with the process's token; returns status and answer."""
        payload = None if body is None else json.dumps(body)
        headers = {"Authorization": f"Bearer {self.variables['token']}"}
        return self.request(method, path, payload, headers)

    def fill_in(self, text: str) -> str:
        """Put values in the place of hash variables; raises KeyError for an unknown one."""
        known = HASH_VALUES | {f"variable.{name}": value for name, value in self.variables.items()}
        return re.sub(r"#([^#\s]+)#", lambda found: known[found[1]], text)

    def request(
        self, method: str, path: str, payload: str | None, headers: dict[str, str]
    ) -> tuple[int, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if payload is None else payload.encode(),
            headers={"Content-type": "application/json"} | headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, read_answer(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, read_answer(error.read())


def read_answer(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()


def find_commands(heading: str) -> list[list[str]]:
    """Find the commands below a heading of the page, without the word `airflow`."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^airflow (.*)$", section, re.MULTILINE)]


def make_account(variables: dict[str, str]) -> None:
    """Make Airflow's database, the page's account, and `rita`, who only may read runs."""
    trigger, reader = find_commands("The account")[:4], find_commands("The account")[4:]
    assert [command[1] for command in reader] == ["create", "add-perms", "add-role"]
    trigger[-1] += ["--password", PASSWORD]
    rita = ["users", "create", "--username", "rita", "--firstname", "Rita", "--lastname", "R"]
    rita += ["--email", "rita@example.com", "--role", "JogetReader", "--password", PASSWORD]
    preparation = [["db", "migrate"], ["dags", "reserialize"]]
    run_airflow(variables, *preparation, *trigger, *reader[:2], rita)


def run_airflow(variables: dict[str, str], *commands: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_COMMANDS],
        env=variables,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """An API server under the FAB auth manager that knows the DAGs of two syncs."""
    folder = tmp_path_factory.mktemp("from_joget")
    other = {"name": "other", "user_pool_id": "us-east-1_Other", "organization": "ORG-002"}
    nightly = {"schedule": "0 4 * * *"}
    syncs = [settings(folder / "staging", **nightly), settings(folder / "staging", **other)]
    (folder / "syncs.yaml").write_text(yaml.safe_dump({"syncs": syncs}), encoding="utf-8")
    port = free_port()
    variables = {
        **os.environ,
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__CORE__AUTH_MANAGER": FAB,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test's own, and long enough " * 2,
        # Tokens of /auth/token/cli have expired an hour ago.
        "AIRFLOW__API_AUTH__JWT_CLI_EXPIRATION_TIME": "-3600",
        "DIRECTORY_SYNC_CONFIG": str(folder / "syncs.yaml"),
    }
    make_account(variables)
    with server(
        "Airflow's API server",
        [sys.executable, "-m", "airflow", "api-server"],
        log=folder / "server.log",
        ready=lambda: listens(port),
        seconds=180,
        environment=variables,
    ):
        yield port


@pytest.fixture
def tool(port: int) -> JsonTool:
    """A process that has its token."""
    tool = JsonTool(port, {})
    assert tool.send(GET_TOKEN)[0] == 201
    return tool


@pytest.fixture
def reader(port: int) -> JsonTool:
    """A process whose account has the role JogetReader alone."""
    reader = JsonTool(port, {})
    asked = {"username": "rita", "password": PASSWORD}
    _, answer = reader.request("POST", "/auth/token", json.dumps(asked), {})
    reader.variables["token"] = answer["access_token"]
    return reader


def read_conf(reader: JsonTool, run_id: str) -> Any:
    """The parameters with which Airflow keeps a run."""
    path = f"/api/v2/dags/{SYNC}/dagRuns/{urllib.parse.quote(run_id, safe='')}"
    return reader.try_out("GET", path)[1]["conf"]


@pytest.mark.parametrize(
    ("call", "conf"),
    [(FOR_ALL, {}), (FOR_PERSON, {"users": [HASH_VALUES["form.TABLE.FIELD?json"]]})],
    ids=["everybody", "the form's person"],
)
def test_each_call_of_the_page_starts_a_run_with_the_conf_shown(
    tool: JsonTool, reader: JsonTool, call: Call, conf: Any
) -> None:
    status, run = tool.send(call)
    assert (status, run["dag_id"], tool.variables["state"]) == (200, SYNC, "queued")
    assert read_conf(reader, run["dag_run_id"]) == conf


def test_a_process_starts_its_run_once_and_a_reader_finds_it_again(
    tool: JsonTool, reader: JsonTool
) -> None:
    assert tool.send(ONCE)[0] == 200
    status, answer = tool.send(ONCE)
    assert (status, answer["detail"]["reason"]) == (409, "Unique constraint violation")
    assert tool.send(ASK)[0] == 403, "the role JogetReader is missing"
    status, run = reader.send(ASK)
    assert (status, run["dag_run_id"]) == (200, "joget-12_staff_onboarding")
    assert reader.variables["state"] == "queued"


def test_a_token_that_was_given_back_is_refused(tool: JsonTool) -> None:
    assert "<html" in tool.send(GIVE_BACK)[1]
    assert tool.send(FOR_ALL) == (403, {"detail": "Invalid JWT token"})


RUN, REVIEW = f"/api/v2/dags/{SYNC}/dagRuns/joget-1", f"/api/v2/dags/{SYNC}_review/dagRuns/1"
QUESTION = f"{REVIEW}/taskInstances/review_held/-1/hitlDetails"
START: dict[str, Any] = {"logical_date": None, "conf": {}}
ELSEWHERE: list[tuple[str, str, Any]] = [
    *(
        ("POST", f"/api/v2/dags/{dag}/dagRuns", START)
        for dag in (f"{SYNC}_review", f"{SYNC}_undo", f"{SYNC}_other", "unknown", "~")
    ),
    ("GET", QUESTION, None),
    ("GET", "/api/v2/dags/~/dagRuns/~/hitlDetails", None),
    ("PATCH", QUESTION, {"chosen_options": ["Approve"], "params_input": {}}),
    ("GET", f"{RUN}/taskInstances", None),
    ("GET", f"{RUN}/taskInstances/load/xcomEntries/return_value", None),
    ("GET", f"{RUN}/taskInstances/load/logs/1", None),
    ("PATCH", RUN, {"state": "failed"}),
    ("DELETE", RUN, None),
    ("POST", f"{RUN}/clear", {"dry_run": True}),
    ("POST", f"/api/v2/dags/{SYNC}/clearTaskInstances", {"dry_run": True}),
    ("DELETE", f"/api/v2/dags/{SYNC}", None),
    ("PATCH", f"/api/v2/dags/{SYNC}_review", {"is_paused": True}),
    ("GET", f"/directory-sync/dags/{SYNC}", None),
    ("GET", f"/directory-sync/dags/{SYNC}/runs/joget-1", None),
    *(
        ("GET", f"/api/v2/{what}", None)
        for what in ("connections", "variables", "pools", "config", "eventLogs", "plugins")
    ),
    ("GET", f"/api/v2/dagSources/{SYNC}", None),
    ("GET", "/auth/fab/v1/users", None),
]
"""Requests that neither of the page's roles allows."""

READING: list[tuple[str, str, Any]] = [
    ("GET", f"/api/v2/dags/{SYNC}/dagRuns", None),
    ("GET", f"/api/v2/dags/{SYNC}/dagRuns/joget-1", None),
    ("GET", f"/api/v2/dags/{SYNC}", None),
    ("GET", "/api/v2/dags", None),
]
"""Requests that the role JogetTrigger doesn't allow."""


def find_allowed(tool: JsonTool, requests: list[tuple[str, str, Any]]) -> list[Any]:
    """The requests that aren't answered with 403, with their status."""
    answers = [
        (method, path, tool.try_out(method, path, body)[0]) for method, path, body in requests
    ]
    return [answer for answer in answers if answer[2] != 403]


def test_the_account_may_do_nothing_else(tool: JsonTool, reader: JsonTool) -> None:
    assert find_allowed(tool, [*ELSEWHERE, *READING]) == []
    assert find_allowed(reader, [*ELSEWHERE, ("POST", READING[0][1], START)]) == []


def test_the_account_may_pause_the_dag_and_start_a_backfill_as_the_page_says(
    tool: JsonTool,
) -> None:
    path = f"/api/v2/dags/{SYNC}"
    for paused in (True, False):
        status, dag = tool.try_out("PATCH", path, {"is_paused": paused})
        assert (status, dag["is_paused"]) == (200, paused)
    body = {"dag_id": SYNC, "from_date": "2026-11-01T00:00:00Z", "to_date": "2026-11-02T00:00:00Z"}
    status, backfill = tool.try_out("POST", "/api/v2/backfills", body)
    assert (status, backfill["dag_id"]) == (200, SYNC)


def test_each_refusal_of_the_page_is_airflows(tool: JsonTool, reader: JsonTool, port: int) -> None:
    rows = re.findall(r"^\| (4\d\d) \| (.*?) \|", PAGE, re.MULTILINE)
    given = {(str(status), str(answer)) for status, answer in refuse_all(tool, reader, port)}
    explained = [
        (status, sentence) for status, cell in rows for sentence in re.findall(r"`(.*?)`", cell)
    ]
    assert [row for row in explained if not is_given(row, given)] == []
    unexplained = [
        answer for answer in given if not any(is_given(row, {answer}) for row in explained)
    ]
    assert unexplained == []


def is_given(row: tuple[str, str], given: set[tuple[str, str]]) -> bool:
    return any(status == row[0] and row[1] in text for status, text in given)


def refuse_all(tool: JsonTool, reader: JsonTool, port: int) -> Iterator[tuple[int, Any]]:
    """Make each mistake that the page explains."""
    runs = f"/api/v2/dags/{SYNC}/dagRuns"
    yield tool.try_out("POST", runs, {"logical_date": None, "conf": {"users": [""]}})
    yield tool.try_out("POST", runs, {"logical_date": None, "conf": {"users": "ana"}})
    yield tool.try_out("POST", runs, {"conf": {}})
    form = {"Content-type": "application/x-www-form-urlencoded"}
    yield tool.request("POST", "/auth/token", "username=joget&password=1", form)
    yield tool.request("POST", "/auth/token", '{"username": "joget", "password": "1"}', {})
    yield tool.request("POST", runs, json.dumps(START), {})
    yield tool.request("POST", runs, json.dumps(START), {"Authorization": "Bearer "})
    expired = JsonTool(port, {})
    asked = json.dumps({"username": "joget", "password": PASSWORD})
    _, answer = expired.request("POST", "/auth/token/cli", asked, {})
    expired.variables["token"] = answer["access_token"]
    yield expired.send(FOR_ALL)
    yield JsonTool(port, {"token": "another"}).send(FOR_ALL)
    yield tool.try_out("POST", f"/api/v2/dags/{SYNC}_undo/dagRuns", START)
    yield reader.try_out("GET", f"{runs}/unknown")
    again = {"dag_run_id": "joget-again", **START}
    tool.try_out("POST", runs, again)
    yield tool.try_out("POST", runs, again)
