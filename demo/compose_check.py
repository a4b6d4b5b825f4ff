"""`make compose-check`: docker-compose.yaml on a Docker engine, from the build to a page in
Airflow.

It needs Docker with its compose plugin, and Python's standard library alone. DOCKER_HOST names the
engine as usual. The containers and volumes belong to a project of its own, and are always removed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROJECT = "directory-sync-check"
COMPOSE = [
    "docker",
    "compose",
    "--project-name",
    PROJECT,
    "--profile",
    "demo",
    "--env-file",
    "demo/compose.env",
]
RUN_ID = "compose-check"
DAG_URL = "/api/v2/dags/cognito_to_joget"
RUN_URL = f"{DAG_URL}/dagRuns/{RUN_ID}"
PAGE_URL = f"/directory-sync/dags/cognito_to_joget/runs/{RUN_ID}"
ONE_SHOT = frozenset({"airflow-init", "aws-seed"})
"""The services that end by themselves."""

EXPECTED_COUNTS = {"users_created": 2, "groups_created": 1, "memberships_added": 1}
"""What the demo's pool brings into an empty Joget."""


class CheckError(Exception):
    """The check can't go on; the text says why, and what to do."""


def main() -> int:
    """Run the check; gives the exit code."""
    try:
        require_engine()
        require_images()
        check()
    except CheckError as error:
        print(f"compose-check: {error}", file=sys.stderr)
        return 1
    print("The compose file works: built, healthy, synchronised, and read.")
    return 0


def require_engine() -> None:
    """Raise CheckError where there is no docker, no compose plugin, or no engine that answers."""
    if not shutil.which("docker"):
        raise CheckError(
            "there is no docker on PATH. Install Docker with its compose plugin, then run this "
            "again."
        )
    engine = run(["docker", "version", "--format", "{{.Server.Version}}"])
    if engine.returncode:
        where = os.environ.get("DOCKER_HOST", "the default socket")
        raise CheckError(
            f"no Docker engine answers at {where}. Start one, or name another one by DOCKER_HOST."
        )
    if run(["docker", "compose", "version"]).returncode:
        raise CheckError(
            "docker has no compose plugin. Install it (docker-compose-plugin), then run this again."
        )
    print(f"Docker engine {engine.stdout.strip()}")


def require_images() -> None:
    """Pull each image that isn't there; raises CheckError with the names of all that can't be
    pulled.
    """
    listed = run([*COMPOSE, "config", "--images"])
    if listed.returncode:
        raise CheckError(f"docker compose can't read docker-compose.yaml:\n{listed.stderr.strip()}")
    base = re.findall(
        r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )
    built = os.environ.get("DIRECTORY_SYNC_IMAGE", "directory-sync")
    others = [name for name in listed.stdout.split() if not name.startswith(f"{built}:")]
    images = sorted({*base, *others})
    missing = [name for name in images if not has_image(name)]
    if missing:
        raise CheckError(
            "these images aren't here, and can't be pulled:\n"
            + "\n".join(f"  {name}" for name in missing)
            + "\nGive the engine a registry that has them, or load them with docker load."
        )


def has_image(name: str) -> bool:
    """Whether the engine has an image, or can pull it."""
    if run(["docker", "image", "inspect", name]).returncode == 0:
        return True
    print(f"Pulling {name} …")
    return run(["docker", "pull", "--quiet", name]).returncode == 0


def check() -> None:
    """Start everything, run the DAG, read what came of it, and stop everything; raises
    CheckError.
    """
    try:
        print("Building and starting …")
        started = run([*COMPOSE, "up", "--build", "--detach"])
        if started.returncode:
            raise CheckError(f"docker compose up failed:\n{last_lines(started.stderr)}")
        wait_for("every health check", every_container_is_well)
        print("Every container is healthy. Running the DAG …")
        synchronise()
    except CheckError as error:
        logs = run([*COMPOSE, "logs", "--no-color", "--tail", "15"])
        raise CheckError(f"{error}\n{last_lines(logs.stdout, 150)}") from None
    finally:
        print("Stopping, and removing the check's containers and volumes …")
        run([*COMPOSE, "down", "--volumes", "--remove-orphans", "--timeout", "30"])


def every_container_is_well() -> bool:
    """Whether each container is healthy, or has ended by itself and well."""
    listed = run([*COMPOSE, "ps", "--all", "--format", "json"])
    containers = [json.loads(line) for line in listed.stdout.splitlines() if line.startswith("{")]
    if listed.stdout.startswith("["):  # before compose 2.21
        containers = json.loads(listed.stdout)
    return bool(containers) and all(is_well(container) for container in containers)


def is_well(container: dict[str, Any]) -> bool:
    """Whether one container of `docker compose ps` is as it has to be."""
    if container["State"] == "running":
        return bool(
            container["Service"] not in ONE_SHOT and container.get("Health", "") in {"", "healthy"}
        )
    return bool(container["State"] == "exited" and container["ExitCode"] == 0)


def synchronise() -> None:
    """Run the DAG, and read its result and its page; raises CheckError where either is wrong."""
    variables = env_file(ROOT / "demo/compose.env")
    token = log_in("airflow", variables["AIRFLOW_ADMIN_PASSWORD"])
    wait_for("the DAG", lambda: "dag_id" in ask(token, DAG_URL))
    ask(token, DAG_URL, "PATCH", {"is_paused": False})
    ask(token, f"{DAG_URL}/dagRuns", "POST", {"dag_run_id": RUN_ID, "logical_date": None})
    wait_for("the run's end", lambda: ask(token, RUN_URL).get("state") in {"success", "failed"})
    state = ask(token, RUN_URL).get("state")
    if state != "success":
        raise CheckError(f"the run ended as {state}.")
    counts = ask(token, f"{RUN_URL}/taskInstances/load/xcomEntries/return_value").get("value") or {}
    if isinstance(counts, str):
        counts = json.loads(counts)
    if not EXPECTED_COUNTS.items() <= counts.items():
        raise CheckError(f"the report counts {counts}; it should count {EXPECTED_COUNTS}.")
    page = http(["--header", f"Authorization: Bearer {token}", f"http://localhost:8080{PAGE_URL}"])
    if "demo.user1@example.com" not in page:
        raise CheckError(f"the page {PAGE_URL} doesn't show the run's changes:\n{page[:500]}")


def log_in(user: str, password: str) -> str:
    """A token for Airflow's API; raises CheckError."""
    answer = http(
        [*json_body({"username": user, "password": password}), "http://localhost:8080/auth/token"]
    )
    token = as_json(answer).get("access_token")
    if not token:
        raise CheckError(f"Airflow gives user {user} no token: {answer[:300]}")
    return str(token)


def ask(token: str, path: str, method: str = "GET", body: Any = None) -> dict[str, Any]:
    """Airflow's answer to one API call; empty where it has none."""
    given = json_body(body) if body is not None else []
    header = ["--request", method, "--header", f"Authorization: Bearer {token}"]
    return as_json(http([*header, *given, f"http://localhost:8080{path}"]))


def json_body(body: Any) -> list[str]:
    """Curl's arguments for a JSON body."""
    return ["--header", "Content-Type: application/json", "--data", json.dumps(body)]


def as_json(answer: str) -> dict[str, Any]:
    """An answer as an object; empty where it is none."""
    try:
        content = json.loads(answer)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def http(arguments: Sequence[str]) -> str:
    """What the API server answers, asked within its own container, so that no port of this machine
    matters.
    """
    curl = [
        "exec",
        "-T",
        "airflow-apiserver",
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "60",
    ]
    return run([*COMPOSE, *curl, *arguments]).stdout


def wait_for(what: str, is_there: Callable[[], bool]) -> None:
    """Ask every few seconds; raises CheckError after WAIT_SECONDS (900)."""
    patience = float(os.environ.get("WAIT_SECONDS", "900"))
    until = time.monotonic() + patience
    while not is_there():
        if time.monotonic() > until:
            raise CheckError(
                f"{what} didn't come within {patience:.0f} seconds (WAIT_SECONDS sets another "
                "time)."
            )
        time.sleep(min(5, patience))


def env_file(path: Path) -> dict[str, str]:
    """The variables of an env file."""
    lines = [
        line
        for line in path.read_text(encoding="utf-8").splitlines()
        if "=" in line and line[0] != "#"
    ]
    return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}


def last_lines(text: str, count: int = 20) -> str:
    """The end of a long output."""
    return "\n".join(text.strip().splitlines()[-count:])


def run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """One command's exit code and output, in the project's folder; the check has a port of its
    own.
    """
    variables = {"AIRFLOW_PORT": "18080"} | os.environ
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )


if __name__ == "__main__":
    sys.exit(main())
