"""A running Airflow, asked as its UI asks it: through the REST API."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from demo.airflow import token

PATIENCE = 600
"""Seconds that a test waits for Airflow, on a machine that others use too."""


def answer(port: int, path: str, reader: str | None, method: str = "GET") -> tuple[int, str]:
    """Request one of Airflow's pages as a user, or signed out; returns its status and text."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/{path}",
        headers={"Authorization": f"Bearer {token(port, reader)}"} if reader else {},
        method=method,
        data=b"" if method == "POST" else None,
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as given:
            return given.status, given.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@dataclass(frozen=True)
class Api:
    """Airflow's API on a port of the loopback interface."""

    port: int
    user: str | None = None
    """The user to sign in as, if Airflow asks for a token."""

    @cached_property
    def headers(self) -> dict[str, str]:
        """Headers that sign the user in."""
        signed = {"Authorization": f"Bearer {token(self.port, self.user)}"} if self.user else {}
        return {"Content-Type": "application/json", **signed}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Request a path below /api/v2; raises HTTPError."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.headers,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run by hand; returns its id."""
        return str(
            self.call("POST", f"dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})[
                "dag_run_id"
            ]
        )

    def runs(self, dag_id: str) -> dict[str, str]:
        """Read the states of a DAG's runs, by id."""
        found = self.call("GET", f"dags/{dag_id}/dagRuns?limit=100")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in found}

    def tasks(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Read the states of a run's tasks, by id."""
        found = self.call("GET", f"dags/{dag_id}/dagRuns/{quote_run_id(run_id)}/taskInstances")[
            "task_instances"
        ]
        return {task["task_id"]: task["state"] for task in found}

    def await_end_of_run(self, dag_id: str, run_id: str) -> str:
        """Wait for a run's end; returns its state."""
        return str(wait(lambda: self._ended(dag_id, run_id), f"{dag_id} {run_id} to end"))

    def _ended(self, dag_id: str, run_id: str) -> str | None:
        state = self.runs(dag_id).get(run_id)
        return state if state in ("success", "failed") else None

    def run(self, dag_id: str, **conf: Any) -> str:
        """Start a run and wait for its end; returns its id."""
        run_id = self.trigger(dag_id, **conf)
        assert self.await_end_of_run(dag_id, run_id) == "success", self.tasks(dag_id, run_id)
        return run_id

    def await_question(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Wait until a task waits for a person; returns what the page shows."""
        wait(
            lambda: self.tasks(dag_id, run_id).get(task_id) == "awaiting_input", f"{task_id} to ask"
        )
        # Airflow 3.3 loses an answer that comes before its scheduler has noticed that the task's
        # process ended, which takes it up to five seconds; the task is retried then, and asks
        # again. A person reads before answering.
        time.sleep(10)
        page: dict[str, Any] = self.call("GET", f"{self._hitl(dag_id, run_id, task_id)}")
        return page

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Answer as the page's button does."""
        body = {"chosen_options": [option], "params_input": {}}
        self.call("PATCH", self._hitl(dag_id, run_id, task_id), body)

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear one task of a run, as the UI does."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", {**body, "reset_dag_runs": True})

    def _hitl(self, dag_id: str, run_id: str, task_id: str) -> str:
        return (
            f"dags/{dag_id}/dagRuns/{quote_run_id(run_id)}/taskInstances/{task_id}/-1/hitlDetails"
        )


def wait(found: Callable[[], Any], what: str) -> Any:
    """Call a function until it returns something; fails after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.5)
    raise AssertionError(f"waited {PATIENCE} seconds for {what}")


def quote_run_id(run_id: str) -> str:
    return urllib.parse.quote(run_id, safe="")
