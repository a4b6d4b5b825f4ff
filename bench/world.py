"""Where everything is measured: one MariaDB with Joget's tables, one staging folder, each task in a
new process.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.company import Company
from demo.airflow import ROOT, environment
from demo.database import DatabaseServer
from demo.mariadb import mariadb
from directory_sync.frames import make_frame
from directory_sync.run import resolve_run
from directory_sync.settings import find_sync
from directory_sync.staging import store
from tests.stand_in import POOL_ID

OPTIONS = ("--innodb-buffer-pool-size=3G", "--innodb-log-file-size=1G", "--max-allowed-packet=64M")
"""Options of a server that holds a million users: the same for everything that is measured."""

POOL = POOL_ID


@dataclass(frozen=True)
class World:
    """A running world; `variables` is the environment of the sync's tasks."""

    folder: Path
    joget: DatabaseServer
    variables: dict[str, str]

    def run(
        self, task: str, run_id: str, *urls: str, database: str = "", endpoint: str = ""
    ) -> dict[str, Any]:
        """One task of the sync: seconds, peak_mib, url."""
        variables = dict(self.variables)
        variables["AIRFLOW_CONN_JOGET_MYSQL"] = self.joget.uri(database)
        if endpoint:
            connection = json.loads(variables["AIRFLOW_CONN_COGNITO_AWS"])
            connection["extra"]["endpoint_url"] = endpoint
            variables["AIRFLOW_CONN_COGNITO_AWS"] = json.dumps(connection)
        return run([sys.executable, "-m", "bench.task", task, run_id, *urls], variables)

    def stage(self, company: Company, run_id: str) -> tuple[str, str]:
        """Leave what the extract tasks leave of a company; gives the two folders' URLs."""
        sync = find_sync("default")
        made = resolve_run(run_id, sync, {}, {})
        at, tables = datetime.now(UTC), company.snapshot(sync)
        users, groups = (
            store.open_folder(made, f"{task}.1.{uuid.uuid4().hex[:12]}")
            for task in ("extract_users", "extract_groups")
        )
        users.json("run.json", made.model_dump(mode="json"))
        for name, table in tables.items():
            (users if name == "users.parquet" else groups).frame(name, make_frame(table))
        listed = users.seal(snapshot_at=at, counts={}, complete=True)
        grouped = groups.seal(
            snapshot_at=at, counts={}, complete=True, inputs={"extract_users": listed.url}
        )
        return listed.url, grouped.url

    def new_database(self) -> str:
        """A fresh Joget directory's name."""
        name = f"joget_{uuid.uuid4().hex[:8]}"
        self.joget.create_joget(name)
        return name

    def drop(self, *names: str) -> None:
        """Drop databases, and what was made beside them."""
        connection = self.joget.connect()
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute(f"DROP DATABASE IF EXISTS {name}")
                cursor.execute(f"DROP DATABASE IF EXISTS {name}_staging")
        connection.close()


def run(
    command: list[str], variables: dict[str, str], timeout: float | None = None
) -> dict[str, Any]:
    """A process that ends with a line of JSON; raises CalledProcessError, with its output shown, or
    TimeoutExpired.
    """
    done = subprocess.run(
        command,
        env=variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode:
        print(done.stdout[-2000:], done.stderr[-4000:], file=sys.stderr)
        done.check_returncode()
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@contextmanager
def world(requests_per_second: float) -> Iterator[World]:
    """A world in a temporary folder, gone after the block."""
    with tempfile.TemporaryDirectory(prefix="directory-sync-bench-") as path:
        folder = Path(path)
        settings = {
            "name": "default",
            "user_pool_id": POOL,
            "region": "us-east-1",
            "organization": "ORG-001",
            "staging_url": f"file://{folder}/staging",
            "requests_per_second": requests_per_second,
        }
        (folder / "syncs.yaml").write_text(yaml.safe_dump({"syncs": [settings]}), encoding="utf-8")
        os.environ["DIRECTORY_SYNC_CONFIG"] = str(folder / "syncs.yaml")
        with mariadb(folder / "mariadb", *OPTIONS) as joget:
            variables = environment(
                folder / "airflow",
                settings=folder / "syncs.yaml",
                joget_uri="",
                endpoint="http://127.0.0.1:9",
            )
            yield World(folder, joget, variables)
