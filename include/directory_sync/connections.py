"""Airflow Connections, looked up before anything that would quietly do without one.

A Connection counts as absent only when each place where it could be has answered.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    ConnectionResult,
    DRCount,
    ErrorResponse,
    GetConnection,
    GetDRCount,
)
from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

from directory_sync.errors import PermanentError, TransientError

# At DEBUG, botocore logs whole answers of Cognito, whole files for S3, whole messages of the queue,
# and the key's id: the triggerer's too, which waits for messages through aiobotocore.
for _library in ("botocore", "aiobotocore"):
    logging.getLogger(_library).setLevel(logging.INFO)

_ENVIRONMENT_LOCK = threading.RLock()
"""Threads of the API server share their environment: one would remove what another one needs."""

BUILT_IN_BACKENDS = ("airflow.secrets.", "airflow.sdk.")
"""Modules of backends that raise their errors. Other backends may log an error and answer "none".
"""


def require_connection(conn_id: str, conn_type: str, setting: str) -> Connection:
    """The Connection of that id and type.

    AWS clients and object-store paths fall back to other credentials, or to none, when a Connection
    is missing. Raises PermanentError where there is none, TransientError where it can't be looked
    up now.
    """
    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        # Airflow 3.3 also says so when it couldn't look: it only logs the errors of secrets
        # backends (`_get_connection` in airflow.sdk.execution_time.context), and its API server
        # answers 404 while its database is away (`Connection.get_connection_from_secrets`).
        connection = _look_again(conn_id, conn_type, setting)
    if connection.conn_type != conn_type:
        raise PermanentError(
            f"Connection {conn_id!r} (setting {setting}) has type {connection.conn_type!r}; it "
            f"must be {conn_type!r}."
        )
    return connection


@contextmanager
def hold_connection(conn_id: str, conn_type: str, setting: str) -> Iterator[Connection]:
    """Require the Connection, and let a library that looks it up within the context find the same
    one.
    """
    connection = require_connection(conn_id, conn_type, setting)
    name = f"AIRFLOW_CONN_{conn_id.upper()}"
    with _ENVIRONMENT_LOCK:
        if name in os.environ:
            yield connection
            return
        # Airflow looks here before it asks its API server. If AwsBaseHook asked that again and got
        # no answer, it would go on with the worker's own credentials and a warning.
        os.environ[name] = connection.as_json()
        try:
            yield connection
        finally:
            os.environ.pop(name, None)


def _look_again(conn_id: str, conn_type: str, setting: str) -> Connection:
    """The Connection that Airflow called undefined, if it is there now; raises an error if it
    isn't.
    """
    about = f"Connection {conn_id!r} (setting {setting})"
    create = (
        f"Create it with type {conn_type!r} under Admin > Connections, or as "
        f"AIRFLOW_CONN_{conn_id.upper()}."
    )
    silent = _ask_each_backend(conn_id, about)
    _ask_api_server(conn_id, about)
    try:
        # Airflow's database may have come back since the first look.
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        if silent:
            raise TransientError(
                f"{about} wasn't found. {silent} has no answer: it may be down, or hold no such "
                f"Connection. The task tries again. If the Connection was never made: {create}"
            ) from None
        raise PermanentError(f"{about} doesn't exist. {create}") from None
    return connection


def _ask_each_backend(conn_id: str, about: str) -> str | None:
    """Raise TransientError if a secrets backend fails.

    Returns the name of the first backend that may have hidden an error; None where none could.
    """
    silent = None
    for backend in ensure_secrets_backend_loaded():
        name = type(backend).__name__
        try:
            backend.get_connection(conn_id=conn_id)
        except Exception as error:
            raise TransientError(
                f"{about} can't be looked up now: {name} gave no answer ({type(error).__name__}). "
                "Is it up, and may this machine ask it?"
            ) from None
        # Backends of Airflow's providers log some errors (AWS Secrets Manager:
        # InternalServiceError) and answer "none", so nobody can tell the two apart.
        if not type(backend).__module__.startswith(BUILT_IN_BACKENDS):
            silent = silent or name
    return silent


def _ask_api_server(conn_id: str, about: str) -> None:
    """Raise TransientError where the API server, or the database behind it, gives no answer."""
    supervisor = getattr(task_runner, "SUPERVISOR_COMMS", None)
    if supervisor is None:  # this is the API server itself, and its backends were asked
        return
    try:
        answer = supervisor.send(GetConnection(conn_id=conn_id))
        # "Not found" alone proves nothing: an API server that can count runs reaches its database.
        count = supervisor.send(GetDRCount(dag_id="cognito_to_joget"))
    except Exception as error:
        raise _make_no_answer_error(about, type(error).__name__) from None
    absent = isinstance(answer, ErrorResponse) and answer.error == ErrorType.CONNECTION_NOT_FOUND
    if not (absent or isinstance(answer, ConnectionResult)) or not isinstance(count, DRCount):
        raise _make_no_answer_error(about, "an error")


def _make_no_answer_error(about: str, kind: str) -> TransientError:
    return TransientError(
        f"{about} can't be looked up now: Airflow's API server gave no answer ({kind}). Are the "
        "API server and Airflow's database up?"
    )
