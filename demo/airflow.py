"""A private Airflow: its environment, its database, and a run of the DAG."""

import json
import os
import subprocess
import sys
from pathlib import Path

from demo.aws import REGION

ROOT = Path(__file__).parent.parent
DAG_ID = "cognito_to_joget"


def environment(home: Path, *, settings: Path, joget_uri: str, endpoint: str) -> dict[str, str]:
    """The variables that production sets too, with folders, ports and Connections of the demo's own."""
    connection = {
        "conn_type": "aws",
        "login": "demo-access-key",
        "password": "demo-secret-key",
        "extra": {"endpoint_url": endpoint, "region_name": REGION},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "AWS_"))}
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
        "PYTHONPATH": str(ROOT),
    }


def migrate(variables: dict[str, str], log: Path) -> None:
    """Create Airflow's database; raises CalledProcessError."""
    _run(["db", "migrate"], variables, log)


def run_dag(variables: dict[str, str], log: Path) -> None:
    """Run the DAG in one process, as `airflow dags test` does; raises CalledProcessError if it didn't succeed."""
    _run(["dags", "test", DAG_ID], variables, log)


def _run(arguments: list[str], variables: dict[str, str], log: Path) -> None:
    with log.open("ab") as output:
        command = [sys.executable, "-m", "airflow", *arguments]
        subprocess.run(command, env=variables, cwd=ROOT, stdout=output, stderr=output, check=True)
