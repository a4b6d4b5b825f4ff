"""A Connection that can't be looked up now isn't the same as a missing Connection."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.sdk import Connection, ObjectStoragePath
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ConnectionResult, DRCount, ErrorResponse, GetConnection

from demo.aws import Aws
from directory_sync import connections
from directory_sync.errors import PermanentError, TransientError
from directory_sync.joget import database
from directory_sync.staging import store

ABSENT = ErrorResponse(error=ErrorType.CONNECTION_NOT_FOUND)


def make_found_answer(
    conn_id: str, conn_type: str, login: str, password: str | None = None, extra: str | None = None
) -> Any:
    """Make the API server's answer with a Connection."""
    empty: dict[str, Any] = {"host": None, "schema": None, "port": None}
    return ConnectionResult(
        conn_id=conn_id, conn_type=conn_type, login=login, password=password, extra=extra, **empty
    )


FOUND = make_found_answer("nowhere", "mysql", "from Airflow")
COUNTED = DRCount(count=0)
SERVER_ERROR = AirflowRuntimeError(
    ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 500})
)
TIME_OUT = AirflowRuntimeError(
    ErrorResponse(
        error=ErrorType.API_SERVER_ERROR,
        detail={"status_code": None, "exception_type": "ReadTimeout"},
    )
)


class Supervisor:
    """A task's way to the API server. It gives the answers that the test sets, and the last one
    again and again.
    """

    def __init__(self) -> None:
        self.connection: list[Any] = [ABSENT]
        self.count: Any = COUNTED

    def send(self, message: Any) -> Any:
        """Answer one message. If the answer is an exception, it is raised, as the real one raises a
        server's error.
        """
        answer = self.count
        if isinstance(message, GetConnection):
            answer = self.connection.pop(0) if len(self.connection) > 1 else self.connection[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


class Vault:
    """An installation's own secrets backend, as `[secrets] backend` names it."""

    answer: Any = None

    def get_connection(self, **asked: str | None) -> Any:  # noqa: ARG002 - one answer for all
        """Return what the test sets; an exception is raised."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def _set_connection_class(self, conn_class: type) -> None:
        """Airflow tells each backend which class to make."""


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch, supervisor: Supervisor) -> Iterator[type[Vault]]:
    from airflow.sdk import configuration

    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", f"{__name__}.Vault")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Vault.__module__])
    configuration._secrets_backend_cache.clear()
    yield Vault
    Vault.answer = None
    configuration._secrets_backend_cache.clear()


def require() -> Connection:
    return connections.require_connection("nowhere", "mysql", "joget_conn_id")


def test_a_connection_that_was_never_made_is_a_permanent_error(supervisor: Supervisor) -> None:
    with pytest.raises(
        PermanentError, match=r"'nowhere' \(setting joget_conn_id\) doesn't exist\. Create it"
    ):
        require()


@pytest.mark.parametrize(
    "answer", [SERVER_ERROR, TIME_OUT, OSError("the supervisor is gone"), None]
)
def test_an_api_server_that_does_not_answer_for_a_connection_is_transient(
    supervisor: Supervisor, answer: Any
) -> None:
    supervisor.connection = [answer]
    with pytest.raises(
        TransientError, match=r"'nowhere' \(setting joget_conn_id\) can't be looked up now"
    ):
        require()


@pytest.mark.parametrize("answer", [SERVER_ERROR, TIME_OUT, None])
def test_not_found_by_an_api_server_without_its_database_is_transient(
    supervisor: Supervisor, answer: Any
) -> None:
    supervisor.count = answer
    with pytest.raises(TransientError, match="Airflow's database"):
        require()


def test_a_connection_that_is_there_again_at_the_second_look_is_used(
    supervisor: Supervisor,
) -> None:
    supervisor.connection = [SERVER_ERROR, ABSENT, FOUND]
    assert require().login == "from Airflow"


def test_a_secrets_backend_that_fails_is_transient(vault: type[Vault]) -> None:
    vault.answer = ConnectionError("vault.example.org is sealed: token s.4711")
    with pytest.raises(
        TransientError, match=r"can't be looked up now: Vault gave no answer \(ConnectionError\)"
    ) as said:
        require()
    assert "4711" not in str(said.value)


def test_not_found_with_a_secrets_backend_says_both_possibilities_and_is_tried_again(
    vault: type[Vault],
) -> None:
    with pytest.raises(
        TransientError, match=r"Vault has no answer.*may be down.*Create it with type 'mysql'"
    ):
        require()


def test_a_secrets_backend_that_fails_does_not_hide_a_connection_of_airflows(
    vault: type[Vault], supervisor: Supervisor
) -> None:
    vault.answer = ConnectionError("sealed")
    supervisor.connection = [FOUND]
    assert require().login == "from Airflow"


def test_a_library_looks_up_the_same_connection_even_when_airflow_stopped_answering(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor.connection = [make_found_answer("nowhere", "aws", "key", "secret")]
    with connections.hold_connection("nowhere", "aws", "aws_conn_id"):
        supervisor.connection = [SERVER_ERROR]
        credentials = (
            AwsBaseHook(aws_conn_id="nowhere", client_type="sts").get_session().get_credentials()
        )
    assert (credentials.access_key, credentials.secret_key) == ("key", "secret")
    assert "AIRFLOW_CONN_NOWHERE" not in os.environ


def test_the_object_store_never_falls_back_to_other_credentials(
    supervisor: Supervisor,
    moto: Aws,
    aws_connection: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aws_connection(moto.endpoint)
    ours = Connection.get("cognito_aws")
    monkeypatch.delenv("AIRFLOW_CONN_COGNITO_AWS")
    moto.client("s3").create_bucket(Bucket="hiccups")
    supervisor.connection = [
        make_found_answer("hiccup", "aws", ours.login, ours.password, ours.extra),
        SERVER_ERROR,
    ]
    url = "s3://hiccup@hiccups/staging"
    store.require_access(url)
    assert store.list_names(url) == []
    assert not ObjectStoragePath(url).fs.anon


def test_jogets_database_is_opened_with_the_connection_that_was_found(
    supervisor: Supervisor, joget: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Connection.get("joget_mysql")
    answer = make_found_answer("nowhere", "mysql", ours.login, ours.password).model_copy(
        update={"host": ours.host, "port": ours.port, "schema_": ours.schema}
    )
    supervisor.connection = [answer, SERVER_ERROR]
    with database.open_session("nowhere") as opened:
        assert opened.rows("SELECT 1", about="nothing") == [(1,)]


DATABASE_AWAY = """
import contextlib, os, sys
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time import supervisor, task_runner
from airflow.sdk.execution_time.comms import DRCount, GetConnection
from airflow.sdk.execution_time.request_handlers import handle_get_connection
from directory_sync import connections
from directory_sync.errors import DirectorySyncError

transport = supervisor.in_process_api_server().transport
client = Client(base_url=None, token="", dry_run=True, transport=transport)
client.base_url = "http://in-process.invalid./"

class Comms:
    def send(self, message):
        with supervisor.set_supervisor_comms(None):
            if isinstance(message, GetConnection):
                return handle_get_connection(client, message)[0]
            return DRCount(count=client.dag_runs.get_count(dag_id=message.dag_id).count)

def ask():
    try:
        connections.require_connection("nowhere", "mysql", "joget_conn_id")
    except DirectorySyncError as error:
        return type(error).__name__

def ask_as_task():
    with supervisor.set_supervisor_comms(Comms()):
        return ask()

def ask_as_server():
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    return ask()

away = ask_as_task(), ask_as_server()
from airflow.models.base import Base
from airflow import settings
import airflow.models
airflow.models.import_all_models()
Base.metadata.create_all(settings.engine)
print("ANSWER", *away, ask_as_task(), ask_as_server())
"""


def test_a_real_api_server_without_its_database_is_not_taken_for_a_missing_connection(
    tmp_path: Path,
) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", DATABASE_AWAY],
        env=os.environ
        | {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    told = answer.stdout.rpartition("ANSWER ")[2].split()
    assert told == ["TransientError", "TransientError", "PermanentError", "PermanentError"], (
        answer.stderr[-3000:]
    )
