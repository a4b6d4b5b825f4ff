"""docker-compose.yaml and Dockerfile have what the code needs: each service's process runs
natively.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement

from demo.aws import Aws
from demo.database import ACCOUNT, DatabaseServer
from demo.world import World
from directory_sync import settings
from tests.production.compose import (
    AIRFLOW_SERVICES,
    COMPOSE,
    IMAGE_ROOT,
    ROOT,
    environment,
    interpolate,
    read_env_file,
)

SECRETS = {
    "AIRFLOW_FERNET_KEY": "ZmFrZS1mZXJuZXQta2V5LW9mLTMyLWJ5dGVzLWxvbmc=",
    "AIRFLOW_JWT_SECRET": "a secret",
    "AIRFLOW_API_SECRET_KEY": "another secret",
    "AIRFLOW_ADMIN_PASSWORD": "a password",
}

LOADS_EVERYTHING = """
import json
from airflow.dag_processing.dagbag import DagBag
from airflow.configuration import conf
import directory_sync.tasks.load
bag = DagBag(dag_folder=conf.get("core", "dags_folder"))
print("ANSWER", json.dumps({"dags": sorted(bag.dags), "errors": list(bag.import_errors.values()),
                            "executor": conf.get("core", "executor")}))
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the Dockerfile would fill, filled by the Dockerfile's own COPY lines."""
    folder = tmp_path_factory.mktemp("image")
    copies = re.findall(
        r"^COPY --chown=airflow:root (\S+)/ /opt/airflow/(\S+)/$", read_dockerfile(), re.MULTILINE
    )
    for source, target in copies:
        (folder / target).symlink_to(ROOT / source)
    return folder


def read_dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("service", AIRFLOW_SERVICES)
def test_each_service_imports_dag_and_include_in_its_own_environment(
    service: str, image: Path, tmp_path: Path
) -> None:
    settings_file = tmp_path / "syncs.yaml"
    settings_file.write_text(
        (ROOT / "include/syncs.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    translated = {
        name: value.replace(f"{IMAGE_ROOT}/settings", str(tmp_path)).replace(IMAGE_ROOT, str(image))
        for name, value in environment(service, SECRETS).items()
    }
    # Importing doesn't need the database, and only the image has its driver.
    translated["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{tmp_path}/airflow.db"
    # Nor does it need FAB, which guards only the UI.
    del translated["AIRFLOW__CORE__AUTH_MANAGER"]
    answer = subprocess.run(
        [sys.executable, "-c", LOADS_EVERYTHING],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AIRFLOW_HOME": str(tmp_path),
            **translated,
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.rpartition("ANSWER ")[2])
    assert found == {
        "dags": ["cognito_to_joget", "cognito_to_joget_review", "cognito_to_joget_undo"],
        "errors": [],
        "executor": "CeleryExecutor",
    }


def test_the_services_are_those_of_the_official_file() -> None:
    assert AIRFLOW_SERVICES == [
        "airflow-apiserver",
        "airflow-dag-processor",
        "airflow-init",
        "airflow-scheduler",
        "airflow-triggerer",
        "airflow-worker",
    ]
    assert {"postgres", "redis"} <= set(COMPOSE["services"])


def test_all_services_share_the_secrets_the_settings_and_the_stagings_connection() -> None:
    names = [
        "AIRFLOW__API_AUTH__JWT_SECRET",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "DIRECTORY_SYNC_CONFIG",
        "AIRFLOW_CONN_COGNITO_AWS",
        "PYTHONPATH",
    ]
    first, *others = (
        {name: environment(service, SECRETS)[name] for name in names}
        for service in AIRFLOW_SERVICES
    )
    assert all(other == first for other in others)
    assert first["AIRFLOW__API_AUTH__JWT_SECRET"] == SECRETS["AIRFLOW_JWT_SECRET"]
    assert first["AIRFLOW__API__SECRET_KEY"] == SECRETS["AIRFLOW_API_SECRET_KEY"]


def test_only_the_worker_has_jogets_password() -> None:
    holders = [
        name
        for name in AIRFLOW_SERVICES
        if "AIRFLOW_CONN_JOGET_MYSQL" in environment(name, SECRETS)
    ]
    assert holders == ["airflow-worker"]


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_secret_that_is_not_set_is_named_and_has_no_default(missing: str) -> None:
    variables = {name: value for name, value in SECRETS.items() if name != missing}
    with pytest.raises(LookupError, match=missing):
        environment("airflow-init", variables)


def test_every_host_in_an_environment_is_a_service() -> None:
    hosts = set()
    for service in AIRFLOW_SERVICES:
        values = environment(service, SECRETS | read_env_file(ROOT / "demo/compose.env")).values()
        hosts |= {
            urlsplit(url.strip('"')).hostname
            for value in values
            for url in re.findall(r'\S+://[^\s"]+', value)
        }
    assert hosts == {"airflow-apiserver", "postgres", "redis", "aws", "joget-mysql"}
    assert hosts <= set(COMPOSE["services"])


def test_every_file_that_is_mounted_exists() -> None:
    mounted = {
        interpolate(volume, variables).partition(":")[0]
        for variables in ({}, read_env_file(ROOT / "demo/compose.env"))
        for service in COMPOSE["services"].values()
        for volume in service.get("volumes", [])
    }
    files = {path for path in mounted if path.startswith("./")}
    assert files == {
        "./include/syncs.yaml",
        "./demo/syncs.yaml",
        "./demo/joget.sql",
        "./demo/account.sql",
        "./docs/joget-grants.sql",
        "./demo",
    }
    assert all((ROOT / path).exists() for path in files)
    assert mounted - files == set(COMPOSE["volumes"])


def test_the_ui_listens_only_on_the_loopback_interface() -> None:
    published = [
        port for service in COMPOSE["services"].values() for port in service.get("ports", [])
    ]
    assert [interpolate(port, {}) for port in published] == ["127.0.0.1:8080:8080"]


def test_the_demo_profile_adds_joget_and_aws_and_its_settings_are_valid() -> None:
    demo = {
        name for name, service in COMPOSE["services"].items() if service.get("profiles") == ["demo"]
    }
    assert demo == {"joget-mysql", "aws", "aws-seed"}
    assert COMPOSE["services"]["joget-mysql"]["image"].startswith("mysql:8")
    assert COMPOSE["services"]["joget-mysql"]["command"][-1].endswith("utf8mb4_unicode_ci")
    loaded = settings.load_settings(ROOT / "demo/syncs.yaml")
    assert (len(loaded.syncs), loaded.faults) == (1, ())
    variables = read_env_file(ROOT / "demo/compose.env")
    assert (
        json.loads(environment("airflow-worker", variables)["AIRFLOW_CONN_COGNITO_AWS"])[
            "conn_type"
        ]
        == "aws"
    )


def test_the_demo_reaches_joget_by_an_account_with_the_documented_rights() -> None:
    connection = environment("airflow-worker", read_env_file(ROOT / "demo/compose.env"))[
        "AIRFLOW_CONN_JOGET_MYSQL"
    ]
    assert urlsplit(connection).username == ACCOUNT
    assert urlsplit(World(Path(), DatabaseServer(3306), Aws(""), "").joget_uri).username == ACCOUNT
    run_in_order = [
        volume.partition(":")[0]
        for volume in sorted(
            COMPOSE["services"]["joget-mysql"]["volumes"], key=lambda volume: volume.split(":")[1]
        )
    ]
    assert run_in_order == ["./demo/joget.sql", "./demo/account.sql", "./docs/joget-grants.sql"]


def test_the_example_of_the_environment_names_every_secret_and_holds_none() -> None:
    example = read_env_file(ROOT / ".env.example")
    assert set(SECRETS) <= set(example)
    assert not any(example[name] for name in SECRETS)


def test_each_value_of_the_example_stands_in_single_quotes() -> None:
    lines = [line.removeprefix("# ") for line in text(".env.example").splitlines()]
    values = [line.partition("=")[2] for line in lines if re.match(r"[A-Z_]+=", line)]
    assert len(values) == 8
    assert all(re.fullmatch(r"'[^']*'", value) for value in values)


def test_a_redeploy_lets_the_running_tasks_end() -> None:
    seconds = {
        name: parse_duration(service["stop_grace_period"])
        for name, service in list_lasting_services().items()
    }
    assert seconds["airflow-worker"] == 600
    assert all(period >= 30 for period in seconds.values())
    assert environment("airflow-worker", SECRETS)["DUMB_INIT_SETSID"] == "0", (
        "the signal reaches only Celery"
    )


def test_the_readme_stops_the_worker_before_the_api_server_that_its_tasks_need() -> None:
    # Compose replaces what a service depends on first, and the worker depends on the API server.
    assert "airflow-apiserver" in COMPOSE["services"]["airflow-worker"]["depends_on"]
    blocks = re.findall(r"^```\n(.*?)^```", text("README.md"), re.MULTILINE | re.DOTALL)
    redeploys = [block.splitlines() for block in blocks if "stop airflow-worker" in block]
    assert redeploys == [
        ["docker compose build", "docker compose stop airflow-worker", "docker compose up -d"],
        [
            "docker compose stop airflow-worker",
            "DIRECTORY_SYNC_VERSION=0.1.0 docker compose up --no-build -d",
        ],
    ]


def test_if_the_database_was_not_migrated_the_init_container_fails_and_nothing_starts(
    tmp_path: Path,
) -> None:
    init = COMPOSE["services"]["airflow-init"]
    assert init["restart"] == "on-failure"
    waiting = [
        service["depends_on"]["airflow-init"]["condition"]
        for service in list_lasting_airflow_services().values()
    ]
    assert set(waiting) == {"service_completed_successfully"}
    folder = {"AIRFLOW_HOME": str(tmp_path), "HOME": str(tmp_path)}
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db"}
    checked = subprocess.run(
        [sys.executable, "-m", "airflow", *init["command"]],
        env={"PATH": os.environ["PATH"], **folder, **database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode != 0
    assert "unapplied migrations" in checked.stderr, checked.stderr


def test_a_slow_first_start_does_not_count_as_unhealthy() -> None:
    checks = {name: service["healthcheck"] for name, service in list_lasting_services().items()}
    assert all(
        parse_duration(checks[name]["start_period"]) == 300
        for name in checks
        if name.startswith("airflow-")
    )
    assert all(
        check["retries"] * parse_duration(check["interval"]) >= 50 for check in checks.values()
    )


def test_a_task_is_tried_again_a_minute_and_a_half_after_its_worker_died() -> None:
    from airflow.configuration import conf

    values = [environment(name, SECRETS) for name in AIRFLOW_SERVICES]
    assert {each["AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL"] for each in values} == {"60"}
    timeouts = {each["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"] for each in values}
    assert timeouts == {"90"}, (
        "the worker reads it too, and shows itself after 75 % of it at the latest"
    )
    beats = conf.getint("workers", "min_heartbeat_interval") * conf.getint(
        "workers", "max_failed_heartbeats"
    )
    assert beats * 4 < 90, "a worker gives its task up by itself long before the scheduler does"


def test_redis_hands_no_task_to_a_second_worker_while_it_may_still_run() -> None:
    from airflow.dag_processing.dagbag import DagBag

    values = [environment(name, SECRETS) for name in AIRFLOW_SERVICES]
    seconds = {
        each["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"] for each in values
    }
    assert seconds == {"86400"}
    assert settings.LONGEST_EXTRACT_HOURS * 3600 < 86400
    tasks = [task for dag in DagBag(dag_folder=ROOT / "dags").dags.values() for task in dag.tasks]
    limits = [
        task.execution_timeout or timedelta.max for task in tasks if task.task_id != "review_held"
    ]
    assert max(limits) < timedelta(days=1), "a review waits without a worker"


def test_the_images_tag_and_label_name_the_projects_version() -> None:
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    images = {interpolate(service["image"], {}) for service in list_our_services().values()}
    labels = {
        interpolate(service["build"]["args"]["VERSION"], {})
        for service in list_our_services().values()
    }
    assert images == {f"directory-sync:{version}"}
    assert labels == {version}
    assert 'org.opencontainers.image.version="${VERSION}"' in read_dockerfile()


def test_an_older_version_can_be_started_without_building_it() -> None:
    assert {
        interpolate(service["image"], {"DIRECTORY_SYNC_VERSION": "0.0.9"})
        for service in list_our_services().values()
    } == {"directory-sync:0.0.9"}


def test_no_containers_output_grows_without_limit() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["logging"] == {
            "driver": "json-file",
            "options": {"max-size": "10m", "max-file": "5"},
        }, name


def test_old_task_logs_are_deleted_by_the_official_images_script() -> None:
    groomer = COMPOSE["services"]["log-groomer"]
    assert groomer["entrypoint"] == ["bash", "/clean-logs"]
    assert environment("log-groomer", {})["AIRFLOW__LOG_RETENTION_DAYS"] == "30"
    assert "airflow-logs:/opt/airflow/logs" in groomer["volumes"]
    assert not [name for name in groomer["environment"] if "CONN" in name or "SECRET" in name]


def test_each_service_that_others_wait_for_or_people_use_has_a_health_check() -> None:
    assert set(list_lasting_services()) == {*AIRFLOW_SERVICES, "postgres", "redis"} - {
        "airflow-init"
    }
    for service in COMPOSE["services"].values():
        waited_for = service.get("depends_on") or {}
        healthy = [
            name for name, how in waited_for.items() if how["condition"] == "service_healthy"
        ]
        assert all("healthcheck" in COMPOSE["services"][name] for name in healthy)


def list_our_services() -> dict[str, Any]:
    """The services that run this project's image."""
    return {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def list_lasting_services() -> dict[str, Any]:
    """The services with a health check that run all the time, also without the demo."""
    services = COMPOSE["services"].items()
    return {
        name: service
        for name, service in services
        if "healthcheck" in service and "profiles" not in service
    }


def list_lasting_airflow_services() -> dict[str, Any]:
    """Those of them that run Airflow."""
    return {
        name: service
        for name, service in list_lasting_services().items()
        if name.startswith("airflow-")
    }


def parse_duration(written: str) -> int:
    """A duration of the compose file in seconds."""
    return int(written[:-1]) * {"s": 1, "m": 60}[written[-1]]


def test_the_versions_of_image_requirements_and_lock_agree() -> None:
    lock = dict(
        re.findall(
            r"^([\w.-]+)(?:\[[\w,]+\])?==([^\s;\\]+)", text("requirements.lock"), re.MULTILINE
        )
    )
    required = [
        Requirement(line)
        for line in text("requirements.txt").splitlines()
        if line and not line.startswith("#")
    ]
    for requirement in required:
        assert requirement.specifier.contains(lock[requirement.name]), requirement
    assert f"FROM apache/airflow:{lock['apache-airflow']}-python3.12" in read_dockerfile()
    assert {
        "apache-airflow",
        "apache-airflow-providers-amazon",
        "apache-airflow-providers-mysql",
        "pandas",
    } <= {requirement.name for requirement in required}


def test_the_lock_holds_hashes_and_no_address() -> None:
    lock = text("requirements.lock")
    assert "://" not in lock
    pinned: list[Any] = re.findall(
        r"^[\w.-]+==[^\n]*\\\n(?: +--hash=sha256:\w+)", lock, re.MULTILINE
    )
    assert len(pinned) == len(re.findall(r"^[\w.-]+==", lock, re.MULTILINE))


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")
