"""The compose file's processes on this machine, each as its container would run it.

Commands, environment and health checks are the file's own. What differs is said in this module:
hosts (ADDRESSES), ports (PORT_SETTINGS), names (SITECUSTOMIZE), and what the image and Docker give
to a container (`make_airflow`, `initialise`). PostgreSQL and Redis are Debian's instead of the
images'. log-groomer, which is a script of the image, isn't started.
"""

import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil

from demo.processes import free_port, server
from tests.directory_sync.orchestration.api import Api, wait
from tests.production.compose import COMPOSE, IMAGE_ROOT, ROOT, environment, interpolate
from tests.production.servers import Postgres, library_path, open_folder, redis_command

COPIED_FOLDERS = ("include", "dags", "plugins")
"""What the Dockerfile copies into the image."""

ADDRESSES = {
    "postgres": "@postgres/",
    "redis": "redis:6379",
    "airflow-apiserver": "airflow-apiserver:8080",
    "aws": "aws:5000",
}
"""Where the file's values name a service."""

PORT_SETTINGS = {
    "airflow-apiserver": ("AIRFLOW__API__PORT",),
    "airflow-scheduler": ("AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT",),
    "airflow-worker": ("AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT",),
    "airflow-triggerer": ("AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT",),
}
"""The ports that a service listens on. Containers have addresses of their own; processes share one.
"""

SITECUSTOMIZE = """\
import os
import socket

socket.gethostname = lambda: os.environ["HOSTNAME"]
socket.getfqdn = lambda name="": name or os.environ["HOSTNAME"]
"""
"""Gives a process the name that its container would have: two workers need two."""

RUNNING = ("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
"""The services with one container each; airflow-worker has two."""


@dataclass
class Container:
    """A process of a service of the file, which can be stopped, killed and started again."""

    name: str
    command: Sequence[str]
    folder: Path
    variables: Mapping[str, str]
    ready: Callable[[], bool] = lambda: True
    _open: ExitStack = field(default_factory=ExitStack)
    _process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    @property
    def log(self) -> Path:
        """What the process prints, since its last start."""
        return self.folder / f"{self.name}.{self.starts}.log"

    def start(self) -> None:
        """Start the process, and don't wait for it."""
        self.starts += 1
        self._open = ExitStack()
        self._process = self._open.enter_context(
            server(
                self.name,
                self.command,
                log=self.log,
                ready=lambda: True,
                environment=self.variables,
            )
        )

    def await_ready(self) -> None:
        """Wait until the process does its work; fails if it ended."""

        def is_ready() -> bool:
            assert not self.ended, f"{self.name} ended, see {self.log}"
            return self.ready()

        wait(is_ready, f"{self.name} to be ready, see {self.log}")

    def stop(self) -> None:
        """Ask the process to end, as `docker stop` does, and wait until it has."""
        self._open.close()
        self._process = None

    def kill(self) -> None:
        """End the process and its descendants at once, as the kernel does with a container."""
        for process in self.list_processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.stop()

    def list_processes(self) -> list[psutil.Process]:
        """The process and its descendants."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        return []

    @property
    def ended(self) -> bool:
        """Whether the process was started and ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def has_printed(self, text: str) -> bool:
        """Whether the process printed a text since its last start."""
        return text in self.log.read_text(encoding="utf-8", errors="replace")


@dataclass
class Stack:
    """The running containers by name, and Airflow's API."""

    folder: Path
    containers: dict[str, Container]
    ports: dict[str, int]
    variables: dict[str, str]
    """The values for the file's variables, as an .env file gives them."""

    @cached_property
    def api(self) -> Api:
        """Airflow's API, asked by the first administrator, who logs in once."""
        return Api(self.ports["airflow-apiserver"], self.variables["AIRFLOW_ADMIN_USERNAME"])

    @property
    def workers(self) -> list[Container]:
        """The Celery workers."""
        return [one for name, one in self.containers.items() if name.startswith("airflow-worker")]

    def check_health(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Run the health check that the file has for a container, as Docker does: in its
        environment.
        """
        container = self.containers[name]
        form, *command = COMPOSE["services"][get_service(name)]["healthcheck"]["test"]
        command = [self._with_ports(interpolate(part, {}), container) for part in command]
        if form == "CMD-SHELL":
            command = ["/bin/sh", "-c", *command]
        if command[0] == "redis-cli":
            command[1:1] = ["-p", str(self.ports["redis"])]
        return subprocess.run(
            command, env=container.variables, capture_output=True, text=True, check=False
        )

    def _with_ports(self, text: str, container: Container) -> str:
        """A check's address, with this machine's port instead of the container's own."""
        own = {"localhost:8080": "AIRFLOW__API__PORT"}
        own["localhost:8974"] = "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT"
        for address, setting in own.items():
            text = text.replace(address, f"127.0.0.1:{container.variables.get(setting, '')}")
        return text

    def restart(self, *names: str) -> None:
        """Start containers that were stopped or killed, and wait until they work."""
        for name in names:
            self.containers[name].start()
        for name in names:
            self.containers[name].await_ready()

    def revive(self) -> None:
        """Start containers that ended by themselves, as Docker does: the file says `restart:
        always`.
        """
        for name, container in self.containers.items():
            if container.ended:
                assert COMPOSE["services"][get_service(name)]["restart"] == "always"
                container.stop()
                container.start()

    def memory(self) -> dict[str, int]:
        """Megabytes that each container's processes have for themselves, shared pages divided."""
        return {
            name: sum(_own_memory(process) for process in container.list_processes()) // 2**20
            for name, container in self.containers.items()
        }


def _own_memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0


def get_service(name: str) -> str:
    """The service of a container: airflow-worker-2 is one of airflow-worker."""
    return name if name in COMPOSE["services"] else name.rpartition("-")[0]


@contextmanager
def start_stack(
    folder: Path, *, variables: Mapping[str, str], aws: str, settings: Mapping[str, str]
) -> Iterator[Stack]:
    """Start everything as `docker compose up` does, in its order; stops it at the end.

    variables: what .env holds. aws: the address that the file calls aws:5000.
    settings: a test's own variables of Airflow, beside the file's.
    """
    names = ["postgres", "redis", *RUNNING, "airflow-worker-1", "airflow-worker-2"]
    ports = {name: free_port() for name in ("postgres", "redis", "airflow-apiserver")}
    addresses = {
        ADDRESSES["postgres"]: f"@127.0.0.1:{ports['postgres']}/",
        ADDRESSES["redis"]: f"127.0.0.1:{ports['redis']}",
        ADDRESSES["airflow-apiserver"]: f"127.0.0.1:{ports['airflow-apiserver']}",
        ADDRESSES["aws"]: aws,
    }
    stack = Stack(folder, {}, ports, {"AIRFLOW_ADMIN_USERNAME": "airflow", **variables})
    with open_folder() as postgres_folder, ExitStack() as running:
        stack.containers["postgres"] = make_postgres(postgres_folder, stack)
        stack.containers["redis"] = make_redis(folder, stack)
        for name in names[2:]:
            stack.containers[name] = make_airflow(name, stack, addresses, settings)
        for container in stack.containers.values():
            running.callback(container.kill)
        stack.restart("postgres", "redis")
        create_database(postgres_folder, stack)
        initialise(make_airflow("airflow-init", stack, addresses, settings))
        stack.restart(*names[2:])
        yield stack


def make_postgres(folder: Path, stack: Stack) -> Container:
    """PostgreSQL, with the user and password that the file gives to its image."""
    given = environment("postgres", stack.variables)
    port = stack.ports["postgres"]
    postgres = Postgres(
        folder, port, user=given["POSTGRES_USER"], password=given["POSTGRES_PASSWORD"]
    )
    variables = {
        **postgres.variables,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
    }
    return Container(
        "postgres", postgres.command, folder, variables, ready=lambda: is_healthy(stack, "postgres")
    )


def create_database(folder: Path, stack: Stack) -> None:
    """Do what PostgreSQL's image does at its first start: make the database that the file names."""
    given = environment("postgres", stack.variables)
    psql = ["psql", "--quiet", "--host", str(folder), "--username", given["POSTGRES_USER"]]
    command = [*psql, "postgres", "--command", f"CREATE DATABASE {given['POSTGRES_DB']}"]
    variables = stack.containers["postgres"].variables
    subprocess.run(command, env=dict(variables), check=True)


def make_redis(folder: Path, stack: Stack) -> Container:
    """Redis."""
    home = folder / "redis"
    home.mkdir()
    command = redis_command(home, stack.ports["redis"])
    variables = {**library_path(), "PATH": f"{Path(command[0]).parent}:{os.environ['PATH']}"}
    return Container("redis", command, home, variables, ready=lambda: is_healthy(stack, "redis"))


def make_airflow(
    name: str, stack: Stack, addresses: Mapping[str, str], settings: Mapping[str, str]
) -> Container:
    """A container of one of Airflow's services: a folder as its image has it, and its
    environment.
    """
    service = get_service(name)
    home = stack.folder / name
    home.mkdir()
    for copied in COPIED_FOLDERS:
        (home / copied).symlink_to(ROOT / copied)
    for volume in COMPOSE["services"][service]["volumes"]:
        _mount(interpolate(volume, stack.variables), home, stack.folder)
    (home / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    translated = {
        variable: _translate(value, {**addresses, IMAGE_ROOT: str(home)})
        for variable, value in environment(service, stack.variables).items()
    }
    ports = {
        setting: str(stack.ports.get(service) or free_port())
        for setting in PORT_SETTINGS.get(service, ())
    }
    docker = {
        "AIRFLOW_HOME": str(home),
        "HOME": str(home),
        "HOSTNAME": name,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "AIRFLOW__API__HOST": "127.0.0.1",
    }
    command = [sys.executable, "-m", "airflow"]
    given = COMPOSE["services"][service]["command"]
    command += given if isinstance(given, list) else shlex.split(given)
    container = Container(name, command, home, {**docker, **translated, **ports, **settings})
    container.ready = _readiness(service, container, ports)
    return container


def _translate(text: str, addresses: Mapping[str, str]) -> str:
    for in_file, here in addresses.items():
        text = text.replace(in_file, here)
    return text


def _mount(volume: str, home: Path, shared: Path) -> None:
    """A file of this machine, or a named volume that containers share, where the file puts it."""
    source, target, *_ = volume.split(":")
    if not source.startswith((".", "/")):
        source = str(shared / source)
        Path(source).mkdir(exist_ok=True)
    place = home / Path(target).relative_to(IMAGE_ROOT)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to((ROOT / source).resolve())


def _readiness(service: str, container: Container, ports: Mapping[str, str]) -> Callable[[], bool]:
    """Make a cheap check that a container works, since its health check may take seconds."""
    if service == "airflow-apiserver":
        return lambda: answers(f"http://127.0.0.1:{next(iter(ports.values()))}/api/v2/version")
    if service == "airflow-scheduler":
        return lambda: answers(f"http://127.0.0.1:{next(iter(ports.values()))}/health")
    words = {"airflow-worker": " ready.", "airflow-triggerer": "Starting"}
    return lambda: container.has_printed(words.get(service, ""))


def initialise(init: Container) -> None:
    """Do what the image's entrypoint does for airflow-init: the database, then the first user."""
    given = init.variables
    assert given["_AIRFLOW_DB_MIGRATE"] == given["_AIRFLOW_WWW_USER_CREATE"] == "true"
    user = ["--username", given["_AIRFLOW_WWW_USER_USERNAME"], "--firstname", "Airflow"]
    user += ["--lastname", "Admin", "--email", "airflowadmin@example.com", "--role", "Admin"]
    user += ["--password", given["_AIRFLOW_WWW_USER_PASSWORD"]]
    with init.log.open("wb") as output:
        airflow = [sys.executable, "-m", "airflow"]
        commands = [[*airflow, "db", "migrate"], [*airflow, "users", "create", *user]]
        for command in (*commands, init.command):
            subprocess.run(
                command,
                env=dict(given),
                stdout=output,
                stderr=output,
                check=True,
            )


def is_healthy(stack: Stack, name: str) -> bool:
    """Whether the health check of the file passes."""
    return stack.check_health(name).returncode == 0


def answers(url: str) -> bool:
    """Whether an address answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
