"""Real servers for the tests that need them: Joget's database, moto, and Airflow's database.

JOGET_DATABASE chooses the database server: mariadb (the default) or mysql.
JOGET_DATABASE_OPTIONS are its command-line options.
"""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import botocore.session
import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.company import Company
    from tests.stand_in import Faults

# No test asserts a time: a pause of a shared machine isn't a fault.
# Shrinking a world of frames takes minutes, and its first counterexample is small enough to read.
PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate)
hypothesis.settings.register_profile("shared", deadline=None, max_examples=25, phases=PHASES)
hypothesis.settings.register_profile("quick", deadline=None, max_examples=3, phases=PHASES)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "shared"))

# Airflow reads its environment when it is first imported.
AIRFLOW_HOME = tempfile.TemporaryDirectory(prefix="directory-sync-tests-")
ROOT = Path(__file__).parent.parent
os.environ |= {
    "AIRFLOW_HOME": AIRFLOW_HOME.name,
    "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{AIRFLOW_HOME.name}/airflow.db",
    "PYTHONPATH": f"{ROOT}/include:{ROOT}",
}

from demo.aws import REGION, Aws, aws  # noqa: E402
from demo.database import DatabaseServer  # noqa: E402
from demo.mariadb import mariadb  # noqa: E402
from demo.mysql import mysql  # noqa: E402

BOTH_CHARSETS = pytest.mark.parametrize("joget", ["utf8mb4", "utf8mb3"], indirect=True)
"""Joget DX 8 creates its database in utf8mb4, DX 7 in utf8mb3."""

DATABASE_SERVERS = {"mariadb": mariadb, "mysql": mysql}


@dataclass(frozen=True)
class JogetDatabase:
    """A Joget database of one test's own."""

    server: DatabaseServer
    name: str

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement as root, and commit it; returns its rows."""
        connection = self.server.connect(self.name)
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            rows = list(cursor.fetchall())
        connection.close()
        return rows

    def column(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """The first column of a statement's rows."""
        return [row[0] for row in self.execute(statement, parameters)]

    def contents(self, prefix: str = "dir_") -> dict[str, list[str]]:
        """Every row of the tables with that prefix, by table."""
        tables = [name for name in self.column("SHOW TABLES") if name.startswith(prefix)]
        return {
            table: sorted(map(repr, self.execute(f"SELECT * FROM {table}"))) for table in tables
        }

    def add_user(
        self, login: str, *, password: str | None = None, active: int = 1, role: str = "ROLE_USER"
    ) -> None:
        """Add a user that the sync didn't make. Without a password, it is an account from single
        sign-on.
        """
        self.execute(
            "INSERT INTO dir_user (id, username, password, firstName, lastName, email, active, "
            "timeZone) VALUES (%s, %s, %s, 'Local', 'User', '', %s, '0')",
            (login, login, password, active),
        )
        self.execute("INSERT INTO dir_user_role (roleId, userId) VALUES (%s, %s)", (role, login))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `-m database` select the tests that ask for a database, also through other fixtures."""
    for item in items:
        if "database_server" in getattr(item, "fixturenames", ()):
            item.add_marker("database")


@pytest.fixture(scope="session", autouse=True)
def service_models_are_read_once() -> Iterator[None]:
    """Let all AWS clients share what botocore reads of a service. Each run makes two clients, and
    to read Cognito's model takes ten times as long as the rest of making one.
    """
    make_loader = cache(botocore.session.create_loader)

    def share_loader(search_path: str | None = None) -> Any:
        loader = make_loader(search_path)
        # boto3 adds its own path for each of its sessions.
        loader.search_paths[:] = dict.fromkeys(loader.search_paths)
        return loader

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", share_loader)
        yield


@pytest.fixture(scope="session")
def database_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    start = DATABASE_SERVERS[os.environ.get("JOGET_DATABASE", "mariadb")]
    options = os.environ.get("JOGET_DATABASE_OPTIONS", "").split()
    with start(tmp_path_factory.mktemp("database"), *options) as server:
        yield server


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def new_joget(database_server: DatabaseServer) -> Callable[[str], JogetDatabase]:
    numbers = itertools.count()

    def create(charset: str = "utf8mb4") -> JogetDatabase:
        name = f"joget_{next(numbers)}"
        database_server.create_joget(name, charset)
        return JogetDatabase(database_server, name)

    return create


@pytest.fixture
def joget(
    new_joget: Callable[[str], JogetDatabase],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[JogetDatabase]:
    """The database of Joget DX 8, or of DX 7 if a test asks for utf8mb3 (BOTH_CHARSETS)."""
    database = new_joget(getattr(request, "param", "utf8mb4"))
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", database.server.uri(database.name))
    yield database
    database.execute(f"DROP DATABASE {database.name}")


def make_aws_connection(endpoint: str, **others: str) -> str:
    """Make the Connection cognito_aws to an endpoint, and to others by service."""
    services = {service: {"endpoint_url": other} for service, other in others.items()}
    connection = json.loads(make_aws_uri(endpoint))
    connection["extra"]["service_config"] = services
    return json.dumps(connection)


def make_aws_uri(endpoint: str) -> str:
    """Make the URI of the Connection cognito_aws to an endpoint."""
    connection = {
        "conn_type": "aws",
        "login": "test-access-key",
        "password": "test-secret-key",
        "extra": {"endpoint_url": endpoint, "region_name": REGION},
    }
    return json.dumps(connection)


@pytest.fixture
def aws_connection(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Point the Connection cognito_aws at an endpoint."""
    return lambda endpoint: monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", make_aws_uri(endpoint))


@contextmanager
def new_company(
    joget: JogetDatabase, folder: Path, patch: pytest.MonkeyPatch, faults: "Faults | None" = None
) -> Iterator["Company"]:
    """A company of its own, and the environment that makes the sync work for it."""
    from tests.company import Company, settings
    from tests.stand_in import Faults, Pool, stand_in

    pool, faults = Pool(), faults or Faults()
    with stand_in(pool, faults) as cognito:
        patch.setenv("AIRFLOW_CONN_COGNITO_AWS", make_aws_uri(cognito.endpoint))
        path = folder / "syncs.yaml"
        patch.setenv("DIRECTORY_SYNC_CONFIG", str(path))
        company = Company(pool, cognito, joget, path, settings(folder / "staging"), faults)
        company.configure()
        yield company


@pytest.fixture
def company(
    joget: JogetDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator["Company"]:
    with new_company(joget, tmp_path, monkeypatch) as company:
        yield company
