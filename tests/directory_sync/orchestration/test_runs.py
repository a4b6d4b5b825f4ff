"""Whole runs through Airflow itself, over a stand-in for Cognito and a real MariaDB."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.company import Company, people
from tests.conftest import ROOT
from tests.stand_in import user

PRIVATE = ("Geheim", "secret.person", "Unsagbar", "local-secret")


class PrivateAirflow:
    """An Airflow of one test's own, in the environment that the company set."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.variables = {
            **os.environ,
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        }
        self.run("db", "migrate")

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "airflow", *arguments]
        return subprocess.run(
            command, env=self.variables, capture_output=True, text=True, cwd=ROOT, check=False
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.home / "airflow.db") as database:
            return database.execute(statement).fetchall()

    def read_output(self, *outputs: "subprocess.CompletedProcess[str]") -> str:
        """Read the log files, what the commands printed, and XCom."""
        logs = [path.read_text(encoding="utf-8") for path in (self.home / "logs").rglob("*.log")]
        xcom = [str(row) for row in self.rows("SELECT * FROM xcom")]
        return "\n".join([*logs, *xcom, *(output.stdout + output.stderr for output in outputs)])


@pytest.fixture
def airflow(tmp_path: Path, company: Company, monkeypatch: pytest.MonkeyPatch) -> PrivateAirflow:
    server, name = company.joget.server, company.joget.name
    server.create_account(name)
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", server.account_uri(name))
    return PrivateAirflow(tmp_path / "airflow")


def test_a_run_through_airflow_reveals_no_name_email_or_attribute(
    company: Company, airflow: PrivateAirflow
) -> None:
    company.joget.add_user("local-secret@example.org", password="local-secret")
    someone = user("secret.person@example.org", given_name="Geheim", family_name="Unsagbar")
    long_name = user("secret.person.too@example.org", given_name="Geheim" * 100)
    local = user("local-secret@example.org", given_name="Geheim")
    company.pool.users, company.pool.members = (
        [someone, long_name, local],
        {"Sales": [someone, local]},
    )
    output = airflow.run("dags", "test", "cognito_to_joget")
    assert airflow.rows("SELECT state FROM dag_run") == [("success",)], output.stdout[-3000:]
    assert company.user("secret.person@example.org")["firstName"] == "Geheim"
    said = airflow.read_output(output)
    assert "3 users read, 1 users created, 2 users quarantined" in said.replace(
        "1 users unchanged, ", ""
    )
    assert not [word for word in PRIVATE if word in said]
    handed_on = [
        json.loads(row[0])
        for row in airflow.rows("SELECT value FROM xcom WHERE key = 'return_value'")
    ]
    assert len(handed_on) == 4
    for value in handed_on:
        counts = {name: count for name, count in value.items() if name != "manifest"}
        assert all(isinstance(count, int) for count in counts.values())


def test_a_failing_run_reveals_no_name_email_or_attribute_either(
    company: Company, airflow: PrivateAirflow
) -> None:
    company.pool.users = [
        user("secret.person@example.org", given_name="Geheim", family_name="Unsagbar")
    ]
    company.pool.users += people(60)
    company.joget.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON dir_user FOR EACH ROW "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'Geheim Unsagbar, secret.person@example.org'"
    )
    output = airflow.run("dags", "test", "cognito_to_joget")
    assert airflow.rows("SELECT state FROM dag_run") == [("failed",)]
    said = airflow.read_output(output)
    assert "MySQL error 1644 on dir_user" in said
    assert not [word for word in PRIVATE if word in said]
    tries = dict(airflow.rows("SELECT task_id, try_number FROM task_instance"))
    assert tries["load"] == 1, "a permanent error fails at once"


def test_unknown_keys_in_the_configuration_fail_the_first_task(
    company: Company, airflow: PrivateAirflow
) -> None:
    output = airflow.run("dags", "test", "cognito_to_joget", "--conf", '{"dryrun": true}')
    states = dict(airflow.rows("SELECT task_id, state FROM task_instance"))
    assert (states["extract_users"], states["load"]) == ("failed", "upstream_failed")
    assert "Unknown parameter(s) dryrun" in airflow.read_output(output)
    assert company.cognito.calls.total() == 0


def test_the_same_date_tested_twice_stages_twice(company: Company, airflow: PrivateAirflow) -> None:
    company.pool.users = [user("ana@example.org")]
    for _ in range(2):
        airflow.run("dags", "test", "cognito_to_joget", "2026-11-23T00:00:00+00:00")
        assert airflow.rows("SELECT state FROM dag_run") == [("success",)]
    staged = Path(company.settings["staging_url"].removeprefix("file://"))
    assert len(list(staged.rglob("report.json"))) == 2
