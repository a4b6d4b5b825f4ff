"""Reviews, undo and backfill with a real scheduler, answered through Airflow's REST API."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import airflow
from demo.processes import free_port
from directory_sync.report import Report
from tests.company import Company, people
from tests.conftest import JogetDatabase, new_company
from tests.directory_sync.orchestration.api import Api, quote_run_id, wait
from tests.stand_in import user

SYNC, REVIEW, UNDO = "cognito_to_joget", "cognito_to_joget_review", "cognito_to_joget_undo"


class Office:
    """A company with a sync that runs in an Airflow of its own."""

    def __init__(self, company: Company, api: Api, variables: dict[str, str]) -> None:
        self.company, self.api, self.variables = company, api, variables

    def start(self, leavers: int) -> str:
        """Synchronise 30 users, let so many leave, and run the sync, which holds that; returns the
        review's run id.
        """
        joget = self.company.joget
        for table in joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'"):
            joget.execute(f"DELETE FROM {table}")
        for table in ("dir_user_group", "dir_user_role", "dir_employment"):
            joget.execute(f"DELETE FROM {table} WHERE userId LIKE '%@example.org'")
        joget.execute("DELETE FROM dir_user WHERE id LIKE '%@example.org'")
        staged = Path(self.company.settings["staging_url"].removeprefix("file://"))
        for signpost in staged.glob("*/*/applied/*"):
            signpost.unlink()
        self.company.pool.users = people(30)
        self.company.run()
        self.company.pool.users = self.company.pool.users[leavers:]
        self.company.run()
        before = set(self.api.runs(REVIEW))
        self.api.run(SYNC)
        (review,) = wait(lambda: set(self.api.runs(REVIEW)) - before, "the review's run")
        return str(review)

    def backfills(self) -> list[dict[str, Any]]:
        """List the sync's backfills."""
        found: list[dict[str, Any]] = self.api.call("GET", f"backfills?dag_id={SYNC}")["backfills"]
        return found

    def report(self, dag_id: str, run_id: str, task_id: str) -> Report:
        """Read the report that a task of a run left."""
        task = f"dags/{dag_id}/dagRuns/{quote_run_id(run_id)}/taskInstances/{task_id}"
        value: Any = self.api.call("GET", f"{task}/xcomEntries/return_value")["value"]
        value = json.loads(value) if isinstance(value, str) else value
        return Report.model_validate_json(
            Path(f"{value['manifest']}/report.json".removeprefix("file://")).read_text()
        )


@pytest.fixture(scope="module")
def office(
    new_joget: Callable[[str], JogetDatabase], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Office]:
    folder, port = tmp_path_factory.mktemp("office"), free_port()
    joget = new_joget("utf8mb4")
    joget.server.create_account(joget.name)
    joget_uri = joget.server.account_uri(joget.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", joget_uri)
        with new_company(joget, folder, patch) as company:
            company.configure(schedule="0 0 1 1 *", requests_per_second=2000.0)
            home = folder / "airflow"
            home.mkdir()
            variables = airflow.environment(
                home,
                settings=company.settings_path,
                joget_uri=joget_uri,
                endpoint=company.cognito.endpoint,
            ) | {"AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1"}
            with airflow.standalone(variables, port, folder / "airflow.log"):
                yield Office(company, Api(port), variables)


def test_an_approved_review_is_applied_and_runs_go_on_meanwhile(office: Office) -> None:
    review = office.start(leavers=12)
    page = office.api.await_question(REVIEW, review, "review_held")
    assert page["subject"] == "12 changes of Joget's users and groups wait for you"
    assert "removed_users_percent" in page["body"]
    assert "held_sha256" in page["body"]
    assert "@example.org" not in json.dumps(page)
    office.company.pool.users.append(user("newcomer@example.org"))
    office.api.run(SYNC)
    assert "newcomer@example.org" in office.company.active()
    assert len(office.company.active()) == 31
    assert len(office.api.runs(REVIEW)) == 1, "one review is open"
    office.api.clear(REVIEW, review, "review_held")
    assert office.api.await_question(REVIEW, review, "review_held")["body"] == page["body"], (
        "cleared before the answer"
    )
    office.api.answer(REVIEW, review, "review_held", "Approve")
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    assert len(office.company.active()) == 19
    answer = office.report(REVIEW, review, "load_held").review
    assert answer
    assert (answer.answer, answer.applied, answer.changed_since) == ("approve", 12, 0)
    assert answer.answered_by
    office.api.clear(REVIEW, review, "review_held")
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    assert len(office.company.active()) == 19, (
        "cleared after the answer: nothing is asked or applied again"
    )


def test_a_rejected_review_leaves_everything_as_it_is(office: Office) -> None:
    review = office.start(leavers=12)
    office.api.await_question(REVIEW, review, "review_held")
    office.api.answer(REVIEW, review, "review_held", "Reject")
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    assert len(office.company.active()) == 30
    reviews = office.api.runs(REVIEW)
    run_id = office.api.run(SYNC)
    assert office.api.tasks(SYNC, run_id)["request_review"] == "skipped"
    assert office.api.runs(REVIEW) == reviews


def test_if_a_review_was_deleted_in_airflow_the_next_run_asks_again(
    office: Office,
) -> None:
    review = office.start(leavers=12)
    office.api.await_question(REVIEW, review, "review_held")
    run = f"dags/{REVIEW}/dagRuns/{quote_run_id(review)}"
    office.api.call("PATCH", run, {"state": "failed"})  # Airflow deletes no run that goes on
    office.api.call("DELETE", run)
    assert review not in office.api.runs(REVIEW)
    office.api.run(SYNC)
    office.api.await_question(REVIEW, review, "review_held")
    office.api.answer(REVIEW, review, "review_held", "Approve")
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    assert len(office.company.active()) == 18


def test_a_review_that_times_out_answers_nothing(office: Office) -> None:
    office.company.configure(approval={"timeout_hours": 0.002})
    review = office.start(leavers=12)
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    assert office.api.tasks(REVIEW, review) == {"review_held": "skipped", "load_held": "skipped"}
    assert len(office.company.active()) == 30
    office.company.configure(approval={"timeout_hours": 72.0})
    before = set(office.api.runs(REVIEW))
    office.api.run(SYNC)
    assert wait(lambda: set(office.api.runs(REVIEW)) - before, "the next question")


def test_rows_that_changed_in_between_stay_held(office: Office) -> None:
    review = office.start(leavers=12)
    office.api.await_question(REVIEW, review, "review_held")
    office.company.joget.execute(
        "UPDATE dir_user SET lastName = 'local' WHERE id = 'person003@example.org'"
    )
    office.api.answer(REVIEW, review, "review_held", "Approve")
    assert office.api.await_end_of_run(REVIEW, review) == "success"
    answer = office.report(REVIEW, review, "load_held").review
    assert answer
    assert (answer.applied, answer.changed_since) == (11, 1)
    assert len(office.company.active()) == 19


def test_an_undo_shows_first_and_then_takes_back(office: Office) -> None:
    office.company.pool.users = [user("only@example.org"), *office.company.pool.users]
    run_id = office.api.run(SYNC)
    assert "only@example.org" in office.company.active()
    office.api.run(UNDO, run_id=run_id)
    assert "only@example.org" in office.company.active(), "a dry run is the default"
    office.api.run(UNDO, run_id=run_id, dry_run=False)
    assert "only@example.org" not in office.company.usernames()


def backfill(office: Office, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run Airflow's own command. The DAG is paused meanwhile, since SQLite can't be written beside
    a scheduler that starts runs.
    """
    office.api.call("PATCH", f"dags/{SYNC}", {"is_paused": True})
    command = [sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", SYNC, *arguments]
    done = subprocess.run(
        command, env=office.variables, capture_output=True, text=True, check=False
    )
    office.api.call("PATCH", f"dags/{SYNC}", {"is_paused": False})
    return done


def backfilled(office: Office, first_year: int) -> list[str]:
    """List the runs that a backfill of four years made. There are fewer if SQLite was locked beside
    the scheduler (apache/airflow #68699); Airflow's other databases have no such lock.
    """
    before = set(office.api.runs(SYNC))
    done = backfill(
        office, "--from-date", f"{first_year}-01-01", "--to-date", f"{first_year + 3}-01-02"
    )
    assert done.returncode == 0 or "database is locked" in done.stderr, done.stdout + done.stderr
    runs = sorted(run for run in set(office.api.runs(SYNC)) - before if run.startswith("backfill"))
    assert len(runs) == 4 or done.returncode
    return runs


def test_a_backfill_over_any_range_reads_the_pool_once(office: Office) -> None:
    office.company.pool.users = people(70)
    for first_year in (1990, 2000, 2010):
        office.company.cognito.calls.clear()
        before = set(office.api.runs(SYNC))
        runs = backfilled(office, first_year)
        for run_id in runs:
            assert office.api.await_end_of_run(SYNC, run_id) == "success"
        # Unpausing may start the schedule's own run as well, which lists the pool for itself.
        own = [run for run in set(office.api.runs(SYNC)) - before if run.startswith("scheduled")]
        assert office.company.cognito.calls["DescribeUserPool"] <= 1 + len(own)
        assert office.company.cognito.calls["ListGroups"] <= 1 + len(own)
        if len(runs) > 1:
            break
        wait(
            lambda: all(one["completed_at"] for one in office.backfills()),
            "the backfill to be over",
        )
        # Longer than the slack by which a backfill's runs may be older than a listing.
        time.sleep(65)
    assert len(runs) > 1
    assert len(office.company.usernames()) >= 70


def test_a_backfill_of_a_sync_without_a_schedule_is_one_clear_error(
    office: Office,
) -> None:
    office.company.configure(schedule=None)
    wait(
        lambda: office.api.call("GET", f"dags/{SYNC}")["timetable_summary"] is None,
        "the new schedule",
    )
    done = backfill(office, "--from-date", "2020-01-01", "--to-date", "2023-01-02")
    assert done.returncode != 0
    assert "schedule" in (done.stdout + done.stderr)


def test_no_log_and_no_xcom_of_all_these_runs_names_anybody(office: Office) -> None:
    home = Path(office.variables["AIRFLOW_HOME"])
    logs = "\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in (home / "logs").rglob("*.log")
    )
    with sqlite3.connect(home / "airflow.db") as database:
        kept = [
            str(row)
            for table in ("xcom", "hitl_detail")
            for row in database.execute(f"SELECT * FROM {table}")
        ]
    assert "load_held" in logs
    assert kept
    assert "@example.org" not in logs + "\n".join(kept)
