"""Airflow Connections, looked up before anything that would quietly do without one."""

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.directory_sync.errors import PermanentError


def require(conn_id: str, conn_type: str, setting: str) -> Connection:
    """The Connection of that id and type; raises PermanentError where there is none.

    AWS clients and object-store paths fall back to other credentials, or to none, when a Connection is missing.
    """
    try:
        connection: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise PermanentError(
            f"Connection {conn_id!r} (setting {setting}) doesn't exist. Create it with type {conn_type!r} under "
            f"Admin > Connections, or as AIRFLOW_CONN_{conn_id.upper()}."
        ) from None
    if connection.conn_type != conn_type:
        raise PermanentError(
            f"Connection {conn_id!r} (setting {setting}) has type {connection.conn_type!r}; it must be {conn_type!r}."
        )
    return connection
