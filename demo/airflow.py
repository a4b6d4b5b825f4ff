"""A private Airflow: its environment, its database, and a run of the DAG."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.aws import REGION
from demo.processes import free_port, server

ROOT = Path(__file__).parent.parent
DAG_ID = "cognito_to_joget"


def environment(home: Path, *, settings: Path, joget_uri: str, endpoint: str) -> dict[str, str]:
    """The variables that production sets too, with folders, ports and Connections of the demo's
    own.
    """
    connection = {
        "conn_type": "aws",
        "login": "demo-access-key",
        "password": "demo-secret-key",
        "extra": {"endpoint_url": endpoint, "region_name": REGION},
    }
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "AWS_"))
    }
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW_CONN_COGNITO_AWS": json.dumps(connection),
        "AIRFLOW_CONN_JOGET_MYSQL": joget_uri,
        "DIRECTORY_SYNC_CONFIG": str(settings),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": f"{ROOT}/include:{ROOT}",
    }


@contextmanager
def standalone(
    variables: dict[str, str], port: int, log: Path, *, roles: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """All of Airflow's processes, its UI and API on the port of the loopback interface; raises
    StartError.

    No login, unless `roles` names users of Airflow's simple auth manager; each user's password is
    their name.
    """
    ports = {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        **_logins(Path(variables["AIRFLOW_HOME"]), roles),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
    }
    with server(
        "Airflow",
        [sys.executable, "-m", "airflow", "standalone"],
        log=log,
        ready=lambda: _serves_dag(port, next(iter(roles)) if roles else None),
        seconds=300,
        environment=variables | ports,
    ) as process:
        yield process


def _logins(home: Path, roles: dict[str, str] | None) -> dict[str, str]:
    if roles is None:
        return {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"}
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({name: name for name in roles}), encoding="utf-8")
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{name}:{role}" for name, role in roles.items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }


def token(port: int, user: str) -> str:
    """A token for the API, for a user with their name as password; raises URLError."""
    body = json.dumps({"username": user, "password": user}).encode()
    url = f"http://127.0.0.1:{port}/auth/token"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
        return str(json.load(answer)["access_token"])


def _serves_dag(port: int, user: str | None) -> bool:
    """Whether the API answers for the DAG, which is when somebody can trigger it."""
    try:
        headers = {"Authorization": f"Bearer {token(port, user)}"} if user else {}
        url = f"http://127.0.0.1:{port}/api/v2/dags/{DAG_ID}"
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - ours
            return json.load(answer).get("is_paused") is False
    except (urllib.error.URLError, OSError, ValueError):
        return False


def migrate(variables: dict[str, str], log: Path) -> None:
    """Create Airflow's database; raises CalledProcessError."""
    _run(["db", "migrate"], variables, log)


def run_dag(variables: dict[str, str], log: Path) -> None:
    """Run the DAG in one process, as `airflow dags test` does; raises CalledProcessError if it
    didn't succeed.
    """
    _run(["dags", "test", DAG_ID], variables, log)


def _run(arguments: list[str], variables: dict[str, str], log: Path) -> None:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "airflow", *arguments]
        subprocess.run(command, env=variables, cwd=ROOT, stdout=output, stderr=output, check=True)
