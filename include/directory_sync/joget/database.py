"""One connection to Joget's database, whose errors name codes and tables and never a value."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import MySQLdb
import MySQLdb.cursors
import pandas as pd
import pyarrow as pa
from airflow.providers.mysql.hooks.mysql import MySqlHook

from include.directory_sync import connections
from include.directory_sync.errors import (
    ConflictError,
    DirectorySyncError,
    PermanentError,
    RefusedRowError,
    TransientError,
)
from include.directory_sync.frames import from_table

ROWS_IN_A_BATCH = 5_000
ROWS_IN_A_READ = 50_000

CONFLICTS = {1020, 1062, 1205, 1213, 1451, 1452}
"""Changed since read, duplicate key, lock wait, deadlock, a row that gained a child or lost its parent meanwhile."""

UNREACHABLE = {1040, 1053, 1152, 1158, 1159, 1160, 1161, 1290, 1836, 1927, 2002, 2003, 2005, 2006, 2013, 2055, 4031}
"""Too many connections, shutting down, network errors, read-only during a fail-over, lost and refused connections."""

DENIED = {1044, 1045, 1142, 1143, 1227, 1370, 1698}
NOT_JOGET = {1049, 1054, 1146}


class Database:
    """Runs statements on one connection, in autocommit until `transaction`."""

    def __init__(self, connection: Any, conn_id: str, target: str) -> None:
        self._connection = connection
        self._conn_id = conn_id
        self.target = target
        """A short hash of the server's address and the schema: the same for every run to the same database."""

    def execute(self, statement: str, parameters: Sequence[Any] = (), *, about: str) -> int:
        """Run a statement; gives the count of its rows. `about` names the table for errors."""
        with self._errors(about), self._connection.cursor() as cursor:
            return int(cursor.execute(statement, parameters or None))

    def insert(self, statement: str, frame: pd.DataFrame, *, about: str) -> None:
        """Run a multi-row INSERT of a frame's columns, in batches; the statement ends with its VALUES."""
        with self._errors(about), self._connection.cursor() as cursor:
            for start in range(0, len(frame), ROWS_IN_A_BATCH):
                rows = frame.iloc[start : start + ROWS_IN_A_BATCH].astype(object)
                cursor.executemany(statement, rows.where(rows.notna(), None).values.tolist())

    def rows(self, statement: str, parameters: Sequence[Any] = (), *, about: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._errors(about), self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    def frame(self, statement: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, about: str) -> pd.DataFrame:
        """A result of any size as a frame in Arrow types, streamed; its columns come in the schema's order."""
        parts = []
        with self._errors(about), self._connection.cursor(MySQLdb.cursors.SSCursor) as cursor:
            cursor.execute(statement, parameters or None)
            while rows := cursor.fetchmany(ROWS_IN_A_READ):
                columns = zip(*rows, strict=True)
                arrays = [_column(values, field.type) for values, field in zip(columns, schema, strict=True)]
                parts.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        return from_table(pa.Table.from_batches(parts, schema=schema))

    @contextmanager
    def transaction(self, isolation: str, start: str = "START TRANSACTION") -> Iterator[None]:
        """A transaction that rolls back unless it comes to its end."""
        self.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}", about="the transaction")
        self.execute(start, about="the transaction")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self.execute("COMMIT", about="the transaction")

    def _roll_back(self) -> None:
        """After a lost connection the server has rolled back by itself."""
        with suppress(MySQLdb.Error):
            self._connection.rollback()

    @contextmanager
    def _errors(self, about: str) -> Iterator[None]:
        """Turn the driver's errors into ours, without its text: it quotes values."""
        try:
            yield
        except DirectorySyncError:
            raise
        except MySQLdb.Error as error:
            ours = translated(error, about, self._conn_id)
        else:
            return
        raise ours from None


def connect(conn_id: str) -> Database:
    """Open the sync's Joget database through its Connection; strict, in utf8mb4 and UTC.

    Raises PermanentError for a missing Connection or refused login, TransientError where the server can't be reached.
    """
    connection = connections.require(conn_id, "mysql", "joget_conn_id")
    if connection.extra_dejson.get("client", "mysqlclient") != "mysqlclient":
        raise PermanentError(f"Connection {conn_id!r} asks for another client; remove `client` from its extras.")
    try:
        opened: Any = MySqlHook(mysql_conn_id=conn_id).get_conn()
        opened.set_character_set("utf8mb4")
        opened.autocommit(True)
    except MySQLdb.Error as error:
        ours = translated(error, "the server", conn_id)
    else:
        address = f"{connection.host}:{connection.port or 3306}/{connection.schema}"
        database = Database(opened, conn_id, hashlib.sha256(address.encode()).hexdigest()[:16])
        database.execute("SET SESSION sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00'", about="the session")
        return database
    raise ours from None


@contextmanager
def session(conn_id: str) -> Iterator[Database]:
    """`connect`, closed at the end."""
    database = connect(conn_id)
    try:
        yield database
    finally:
        database._connection.close()


def translated(error: MySQLdb.Error, about: str, conn_id: str) -> DirectorySyncError:
    """The error of ours for one of the driver's."""
    code = int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
    if code in CONFLICTS:
        return ConflictError(f"MySQL error {code} on {about}: another writer was at the same rows. Planning again.")
    if code in UNREACHABLE or isinstance(error, MySQLdb.InterfaceError):
        return TransientError(
            f"Joget's database can't be reached through Connection {conn_id!r} (MySQL error {code}, {about}). "
            f"Is it up, and reachable from this worker?"
        )
    if code in DENIED:
        verb = re.match(r"([A-Z ]+) command denied", str(error.args[-1]))
        right = f"right {verb[1]} on " if verb else "access to "
        return PermanentError(
            f"Joget's database refuses Connection {conn_id!r} the {right}{about} (MySQL error {code}). "
            f"The README lists the rights that the account needs; nothing was written."
        )
    if code in NOT_JOGET:
        return PermanentError(
            f"The database of Connection {conn_id!r} isn't Joget's: {about} lacks what Joget's has "
            f"(MySQL error {code}). Correct the Connection's schema."
        )
    if isinstance(error, MySQLdb.OperationalError) and code >= 2000:  # noqa: PLR2004 - the client library's own codes
        return TransientError(f"MySQL error {code} on {about}; nothing was written.")
    return RefusedRowError(f"MySQL error {code} on {about}; the run was rolled back and nothing was written.")


def _column(values: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    return pa.array(values, pa.int64()).cast(kind) if kind == pa.bool_() else pa.array(values, kind)
