"""The pages under the FAB auth manager, with the role that the documentation's commands make."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.processes import free_port, listens, server
from tests.company import Company
from tests.conftest import ROOT
from tests.directory_sync.orchestration.api import answer, quote_run_id
from tests.stand_in import user

FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"

SYNC = "cognito_to_joget"
ANA = "ana.almeida@example.org"


class Fab:
    """An API server under the FAB auth manager, after one run of the sync."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.variables = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__CORE__AUTH_MANAGER": FAB,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test's own, and of nothing else, "
            "long enough",
        }

    def airflow(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "airflow", *arguments]
        done = subprocess.run(
            command, env=self.variables, capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def add_user(self, name: str, *roles: str) -> None:
        names = [
            "--username",
            name,
            "--firstname",
            name,
            "--lastname",
            name,
            "--email",
            f"{name}@example.com",
        ]
        self.airflow("users", "create", *names, "--password", name, "--role", roles[0])
        for role in roles[1:]:
            self.airflow("users", "add-role", "--username", name, "--role", role)

    def get(self, path: str, reader: str | None, method: str = "GET") -> tuple[int, str]:
        return answer(self.port, path, reader, method)


def find_documented_commands() -> list[list[str]]:
    """Find the documentation's commands that make the role."""
    text = (ROOT / "docs" / "pages.md").read_text(encoding="utf-8")
    found = re.findall(r"^airflow (roles .*)$", text, flags=re.MULTILINE)
    assert found
    return [shlex.split(command) for command in found]


@pytest.fixture
def fab(company: Company, tmp_path: Path) -> Iterator[Fab]:
    company.pool.users = [user(ANA, given_name="Ana", family_name="Almeida")]
    found = Fab(tmp_path / "airflow")
    found.airflow("db", "migrate")
    found.airflow("dags", "test", SYNC)
    for command in find_documented_commands():
        found.airflow(*command)
    found.add_user("vera", "Viewer")
    found.add_user("rita", "Viewer", "DirectoryReader")
    found.add_user("ulla", "User", "DirectoryReader")
    found.add_user("omar", "Op")
    with server(
        "Airflow's API server",
        [sys.executable, "-m", "airflow", "api-server"],
        log=tmp_path / "server.log",
        ready=lambda: listens(found.port),
        seconds=120,
        environment=found.variables,
    ):
        yield found


def test_the_documented_roles_see_what_they_may(fab: Fab, company: Company) -> None:
    runs = json.loads(fab.get(f"api/v2/dags/{SYNC}/dagRuns", "omar")[1])["dag_runs"]
    run_id = quote_run_id(runs[0]["dag_run_id"])
    dag = f"directory-sync/dags/{SYNC}"
    pages = [
        ("GET", f"{dag}/runs/{run_id}"),
        ("POST", f"{dag}/runs/{run_id}/changes.csv"),
        ("GET", dag),
        ("POST", dag),
    ]
    for method, path in pages:
        assert fab.get(path, None, method)[0] == 401
        status, text = fab.get(path, "vera", method)
        assert (status, "read plugins" in text) == (403, True), "Airflow shows no tab either"
        status, text = fab.get(path, "rita", method)
        assert status == 200
        assert "Almeida" not in text
        for reviewer in ("ulla", "omar"):
            assert fab.get(path, reviewer, method)[0] == 200
    assert "1 user created" in fab.get(pages[0][1], "rita")[1]
    for reviewer in ("ulla", "omar"):
        assert ANA in fab.get(pages[0][1], reviewer)[1]
    shown = [
        plugin["name"] for plugin in json.loads(fab.get("api/v2/plugins", "rita")[1])["plugins"]
    ]
    assert "directory_sync_pages" in shown
    listed = fab.airflow("users", "list", "--output", "json")
    ids = {
        user["username"]: user["id"] for user in json.loads(listed[listed.index("[{") :])
    }  # after lines of log
    company.configure(approval={"approvers": [str(ids["ulla"])]})
    assert ANA in fab.get(pages[0][1], "ulla")[1]
    assert ANA not in fab.get(pages[0][1], "omar")[1], "omar may edit, and isn't an approver"
