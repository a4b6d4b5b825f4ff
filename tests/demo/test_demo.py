"""`make demo` and `make up`, as a new user runs them."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from demo.__main__ import differences
from demo.aws import Aws
from demo.processes import free_port, listens, runs
from demo.world import SETTINGS
from directory_sync import settings

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "demo", *arguments]


def test_the_documented_demo_arrives_and_then_only_one_cell_changes() -> None:
    done = subprocess.run(demo("run"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, _, second = done.stdout.partition("Second run")
    assert "users:       2 read, 2 created" in first
    for row in (
        "│ demo.user1@example.com │ Demo      │ User 1   │",
        "│ JogetGroup1 │ demo.user1@example.com │",
    ):
        assert row in first
    assert "users:       2 read, 1 updated, 1 unchanged" in second
    changed = [line for line in second.splitlines() if line.startswith("│")]
    assert changed == ["│ dir_user │ demo.user2@example.com │ lastName │ User 2 │ User Two │"]
    assert "Everything is stopped again" in second


def test_the_readme_shows_what_the_demo_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    source = (ROOT / "demo/__main__.py").read_text(encoding="utf-8")
    shown = readme.partition("and prints:\n\n```\n")[2].partition("```")[0]
    for text in (
        "Starting MariaDB with Joget's tables, and AWS's Cognito and S3 (moto) …",
        "Creating Airflow's database …",
    ):
        assert text in shown
        assert text in source


def test_a_taken_port_is_one_line_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            demo("up", "--port", str(port)), cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Port {port} is in use; try make up PORT=")
    assert done.stderr.count("\n") == 1


def test_up_serves_a_dag_ready_to_trigger_and_stops_everything_at_ctrl_c() -> None:
    port = free_port()
    process = subprocess.Popen(
        demo("up", "--port", str(port)), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "Ctrl-C" in line:
            break
    try:
        assert f"http://127.0.0.1:{port}" in "".join(printed)
        assert _request(port, "monitor/health")["scheduler"]["status"] == "healthy"
        url = "dags/cognito_to_joget/dagRuns"
        good = _request(port, url, {"logical_date": None, "conf": {}})["dag_run_id"]
        assert _ended(port, good) == "success"
        bad = _request(port, url, {"logical_date": None, "conf": {"dryrun": True}})["dag_run_id"]
        assert _ended(port, bad) == "failed"
        tasks = _request(port, f"{url}/{urllib.request.quote(bad)}/taskInstances")["task_instances"]  # type: ignore[attr-defined]
        assert {task["task_id"]: task["try_number"] for task in tasks}["extract_users"] == 1
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert process.returncode == 130
    assert len(children) > 3
    assert [child for child in children if runs(child)] == []
    assert not listens(port)


def test_the_demos_pool_has_the_id_that_its_settings_name(moto: Aws) -> None:
    assert moto.seed() == settings.load_settings(SETTINGS).syncs[0].user_pool_id
    assert moto.seed() == settings.load_settings(SETTINGS).syncs[0].user_pool_id, (
        "the second time, it is there already"
    )


def test_differences_are_cells_and_whole_rows() -> None:
    before = {"t": [{"id": "1", "a": "x"}, {"id": "2", "a": "y"}]}
    after = {"t": [{"id": "1", "a": "z"}, {"id": "3", "a": "y"}]}
    assert differences(before, before) == []
    assert differences(before, after) == [
        ["t", "2", "the row", "was there", ""],
        ["t", "3", "the row", "", "is there"],
        ["t", "1", "a", "x", "z"],
    ]


def _request(port: int, path: str, body: Any = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v2/{path}", data=content)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def _ended(port: int, run_id: str) -> str:
    for _ in range(120):
        runs = _request(port, "dags/cognito_to_joget/dagRuns?limit=50")["dag_runs"]
        state = next(str(run["state"]) for run in runs if run["dag_run_id"] == run_id)
        if state in {"success", "failed"}:
            return state
        time.sleep(1)
    return "never"
