"""`make compose-check` against a stand-in for docker: what it says, and that it always cleans up.

The stand-in answers as Docker and Airflow do, as far as the check asks. It shows nothing of the
compose file itself: that takes an engine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.compose_check import EXPECTED_COUNTS, PAGE_URL, RUN_URL

ROOT = Path(__file__).parents[2]
STAND_IN = """
import json, sys
from pathlib import Path
arguments = sys.argv[1:]
world = json.loads(Path("WORLD").read_text())
with Path("CALLS").open("a") as calls:
    calls.write(" ".join(arguments) + "\\n")
if arguments[0] == "compose" and arguments[1] != "version":
    arguments = arguments[7:]
command = " ".join(arguments)
if arguments[0] == "exec":
    url = arguments[-1].removeprefix("http://localhost:8080")
    print(world["web"].get(url, "{}"))
    sys.exit(0)
found = [answer for begin, answer in world["docker"].items() if command.startswith(begin)]
answer = next(iter(found), [0, ""])
print(answer[1])
print(answer[1], file=sys.stderr)
sys.exit(answer[0])
"""
IMAGES = [
    "apache/airflow:3.3.2-python3.12",
    "motoserver/moto:5.2.5",
    "mysql:8.4",
    "postgres:16",
    "redis:7.2-bookworm",
]


class Machine:
    """A machine with the stand-in on its PATH, and what its engine and its Airflow answer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker: dict[str, tuple[int, str]] = {
            "version": (0, "28.2.2"),
            "config --images": (0, "\n".join(["directory-sync:0.1.0", *IMAGES[1:]])),
            "ps": (0, "\n".join(json.dumps(each) for each in containers())),
        }
        self.web: dict[str, Any] = {
            "/auth/token": {"access_token": "a token"},
            "/api/v2/dags/cognito_to_joget": {"dag_id": "cognito_to_joget"},
            RUN_URL: {"state": "success"},
            f"{RUN_URL}/taskInstances/load/xcomEntries/return_value": {
                "value": EXPECTED_COUNTS | {"users_read": 2}
            },
            PAGE_URL: "<td>demo.user1@example.com</td>",
        }

    def check(self, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run the check to its end."""
        path = self.folder / "path"
        path.mkdir(exist_ok=True)
        script = STAND_IN.replace("WORLD", str(self.folder / "world")).replace(
            "CALLS", str(self.folder / "calls")
        )
        (path / "docker.py").write_text(script, encoding="utf-8")
        (path / "docker").write_text(
            f'#!/bin/sh\nexec {sys.executable} -I -S {path}/docker.py "$@"\n', encoding="utf-8"
        )
        (path / "docker").chmod(0o755)
        web = {
            url: answer if isinstance(answer, str) else json.dumps(answer)
            for url, answer in self.web.items()
        }
        (self.folder / "world").write_text(
            json.dumps({"docker": self.docker, "web": web}), encoding="utf-8"
        )
        return check({"PATH": f"{path}:{os.environ['PATH']}", "WAIT_SECONDS": "0", **variables})

    @property
    def calls(self) -> list[str]:
        """What docker was called with."""
        return (self.folder / "calls").read_text(encoding="utf-8").splitlines()


def check(variables: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "demo.compose_check"]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


def containers(**health: str) -> list[dict[str, Any]]:
    """What `docker compose ps --format json` lists when all is well; `health` differs for some
    services.
    """
    lasting = ["postgres", "airflow-apiserver", "airflow-worker"]
    listed: list[dict[str, Any]] = [
        {
            "Service": name,
            "State": "running",
            "Health": health.get(name.replace("-", "_"), "healthy"),
            "ExitCode": 0,
        }
        for name in lasting
    ]
    ended = [
        {"Service": name, "State": "exited", "Health": "", "ExitCode": 0}
        for name in ("airflow-init", "aws-seed")
    ]
    return [
        *listed,
        {"Service": "log-groomer", "State": "running", "Health": "", "ExitCode": 0},
        *ended,
    ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_docker_it_says_so(tmp_path: Path) -> None:
    done = check({"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr == (
        "compose-check: there is no docker on PATH. Install Docker with its compose plugin, then "
        "run this again.\n"
    )


def test_without_an_engine_it_says_where_it_looked(machine: Machine) -> None:
    machine.docker["version"] = (1, "Cannot connect to the Docker daemon")
    done = machine.check(DOCKER_HOST="tcp://127.0.0.1:1")
    assert done.returncode == 1
    assert "no Docker engine answers at tcp://127.0.0.1:1. Start one" in done.stderr
    assert machine.calls == ["version --format {{.Server.Version}}"]


def test_every_image_that_cannot_be_pulled_is_named_and_nothing_starts(machine: Machine) -> None:
    machine.docker |= {
        "image inspect mysql:8.4": (0, ""),
        "image inspect": (1, ""),
        "pull": (1, "no route"),
    }
    done = machine.check()
    assert done.returncode == 1
    named = [line.strip() for line in done.stderr.splitlines() if line.startswith("  ")]
    assert named == [name for name in IMAGES if name != "mysql:8.4"]
    assert not [call for call in machine.calls if " up " in call]


def test_it_builds_waits_runs_the_dag_reads_report_and_page_and_stops(machine: Machine) -> None:
    done = machine.check()
    assert done.returncode == 0, done.stderr
    assert "The compose file works" in done.stdout
    calls = [call for call in machine.calls if call.startswith("compose")]
    mine = "compose --project-name directory-sync-check --profile demo --env-file demo/compose.env"
    assert all(call.startswith(mine) for call in calls if call != "compose version")
    order = [
        " up --build",
        " ps ",
        "/auth/token",
        "PATCH",
        "POST",
        "xcomEntries",
        PAGE_URL,
        " down --volumes",
    ]
    places = [next(place for place, call in enumerate(calls) if part in call) for part in order]
    assert places == sorted(places)
    assert calls[-1].endswith("down --volumes --remove-orphans --timeout 30")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"docker": {"up": (1, "the build failed at step 3")}}, "the build failed at step 3"),
        (
            {"docker": {"ps": (0, json.dumps(containers(airflow_worker="starting")))}},
            "every health check didn't come",
        ),
        ({"web": {RUN_URL: {"state": "failed"}}}, "the run ended as failed"),
        ({"web": {"/auth/token": {"detail": "no"}}}, "gives user airflow no token"),
        (
            {"web": {f"{RUN_URL}/taskInstances/load/xcomEntries/return_value": {"value": {}}}},
            "the report counts",
        ),
        ({"web": {PAGE_URL: "nothing here"}}, "doesn't show the run's changes"),
    ],
)
def test_each_failure_is_reported_and_everything_is_removed(
    machine: Machine, change: dict[str, dict[str, Any]], said: str
) -> None:
    machine.docker |= change.get("docker", {})
    machine.web |= change.get("web", {})
    done = machine.check()
    assert done.returncode == 1
    assert said in done.stderr
    assert machine.calls[-1].endswith("down --volumes --remove-orphans --timeout 30")
