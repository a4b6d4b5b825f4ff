"""One connection to Joget's database. Its errors name codes and tables, and never a value."""

import gc
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import MySQLdb
import MySQLdb.cursors
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from airflow.providers.mysql.hooks.mysql import MySqlHook

from directory_sync import connections
from directory_sync.errors import PermanentError, TransientError
from directory_sync.frames import make_frame
from directory_sync.joget.database_errors import translate_error, translate_refused_tls

ROWS_IN_A_BATCH = 5_000
ROWS_IN_A_PARAMETER = 500
"""Even 500 rows of the greatest length fit into MariaDB's default max_allowed_packet of 16 MB."""

IDS_IN_A_QUERY = 1_000
ROWS_IN_A_READ = 20_000
ROWS_IN_A_FRAME = 200_000

FILES_REFUSED_CODES = {1148, 2068, 3948, 4166}
"""The server, or our own client library, doesn't let files through."""

SORT_BUFFER_BYTES = 64 * 1024 * 1024
"""The session's sort_buffer_size, in bytes."""

IDLE_SECONDS = 8 * 60 * 60
"""The session's wait_timeout outside a writing transaction. The connection is idle, and holds no
lock, while a plan is made.
"""

SHORT_IDLE_SECONDS = 120
"""The session's wait_timeout while it holds locks. If the worker's host vanishes, the server ends
the session after this time and releases its locks.
"""

LOCK_WAIT_SECONDS = 20
"""The session's innodb_lock_wait_timeout, by default 50, and its lock_wait_timeout for whole tables
that an ALTER or a backup has locked, by default a day or more. After either, the run plans again;
it leaves out rows that are still locked.
"""

VANISHED_SERVER = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
    "TCP_USER_TIMEOUT": 120_000,
}
"""The connection's socket options, in seconds, except the last one, which is in milliseconds. If
the server's machine is gone or cut off, it is noticed after two minutes, while a statement may run
for hours. A server that reads nothing of a LOAD DATA for two minutes counts as gone too. The
system's own default is two hours. Options that a system lacks (macOS) are left out.
"""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
VERIFYING_SSL_MODES = ("VERIFY_CA", "VERIFY_IDENTITY")
"""Values of ssl_mode that verify the server's identity. REQUIRED only encrypts: anybody in between
can pose as the server.
"""


class Database:
    """Runs statements on one connection, in autocommit until `transaction`."""

    def __init__(
        self, connection: Any, conn_id: str, target: str, *, sends_files: bool = True
    ) -> None:
        self._connection = connection
        self._sends_files = sends_files
        self._conn_id = conn_id
        self.target = target
        """A short hash of the server's address and the schema: the same for every run to the same
        database.
        """

    def execute(self, statement: str, parameters: Sequence[Any] = (), *, about: str) -> int:
        """Run a statement; gives the count of its rows. `about` names the table for errors."""
        with self._errors(about), self._connection.cursor() as cursor:
            # With None the driver formats nothing, so a bare % is allowed (LIKE in joget.schema).
            return int(cursor.execute(statement, parameters or None))

    def fill(
        self,
        table: str,
        frame: pd.DataFrame,
        *,
        about: str,
        constants: Mapping[str, str] | None = None,
    ) -> None:
        """Put a frame's rows into a table, by column name, as fast as the server allows. constants:
        values of further columns, the same in each row.

        Raises RefusedRowError, or TakenKeyError, where the server would change or leave out a row.
        """
        if frame.empty:
            return
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        with self._errors(about), _pause_garbage_collector():
            if self._takes_files:
                try:
                    self._load(table, rows, constants or {})
                except MySQLdb.Error as error:
                    if error.args[0] not in FILES_REFUSED_CODES:
                        raise
                    # A refused file has brought no row, so all of them may go as JSON.
                    self._takes_files = False
            if not self._takes_files:
                self._insert_json(table, rows, constants or {})

    def insert(self, statement: str, frame: pd.DataFrame, *, about: str) -> None:
        """Run a multi-row INSERT of a frame's columns, in batches; the statement ends with its
        VALUES.
        """
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        with self._errors(about), self._connection.cursor() as cursor:
            for batch in rows.to_batches(ROWS_IN_A_BATCH):
                cursor.executemany(
                    statement,
                    list(zip(*(column.to_pylist() for column in batch.columns), strict=True)),
                )

    @cached_property
    def _takes_files(self) -> bool:
        """Whether rows may go as a file: MySQL 8 takes none unless its administrator says so."""
        # A cluster that commits parts of a file would keep half a run after a roll-back.
        if not self._sends_files or self._splits_files:
            return False
        # LOAD DATA LOCAL turns errors into warnings, and `_load` needs their codes. On MySQL our
        # account lacks the right to set max_error_count itself.
        question = "SELECT @@local_infile AND @@max_error_count > 0"
        return bool(self.rows(question, about="the server's settings")[0][0])

    @property
    def _splits_files(self) -> bool:
        """Whether this is a Galera cluster that commits LOAD DATA every 10,000 rows."""
        found = self.rows(
            "SHOW VARIABLES LIKE 'wsrep_load_data_splitting'", about="the server's settings"
        )
        return bool(found) and found[0][1] == "ON"

    def _load(self, table: str, rows: pa.Table, constants: Mapping[str, str]) -> None:
        """LOAD DATA LOCAL. A value that all rows share is sent once."""
        # The first column always stays, since each row needs a line in the file.
        shared = {
            name: rows[name][0].as_py() for name in rows.column_names[1:] if _is_shared(rows[name])
        }
        rows = rows.drop_columns(list(shared))
        shared |= constants
        statement = f"INTO TABLE {table} CHARACTER SET utf8mb4 ({', '.join(rows.column_names)})"
        if shared:
            statement += " SET " + ", ".join(f"{name} = %s" for name in shared)
        with (
            tempfile.TemporaryDirectory(prefix="directory-sync-") as folder,
            ThreadPoolExecutor(1) as beside,
            self._connection.cursor() as cursor,
        ):
            # A pipe: no personal value is ever on a worker's disk.
            pipe = Path(folder) / "rows"
            os.mkfifo(pipe, 0o600)
            written = beside.submit(_write_rows, pipe, rows)
            try:
                loaded = cursor.execute(
                    f"LOAD DATA LOCAL INFILE '{pipe}' {statement}", list(shared.values()) or None
                )
            finally:
                while not written.done():  # LOAD ended: free a writer that waits for a reader
                    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
                    wait([written], timeout=0.01)
            written.result()
            # With LOCAL, errors become warnings, and the server cuts values and leaves out rows.
            if self._connection.warning_count() or loaded != len(rows):
                warnings = self._connection.show_warnings()
                # The code tells a taken key from a refused value. Without one, it is a refused one.
                raise MySQLdb.DataError(warnings[0][1] if warnings else 0, "rows were refused")

    def rows(
        self, statement: str, parameters: Sequence[Any] = (), *, about: str
    ) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._errors(about), self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall())

    def _insert_json(self, table: str, rows: pa.Table, constants: Mapping[str, str]) -> None:
        """Send each batch as one parameter."""
        # Half as fast as LOAD DATA, and twice as fast as executemany (docs/speed.md). JSON_TABLE
        # makes NULL of a value that is too long, unless it is told to fail (ERROR ON ERROR).
        # VARCHAR(1000) is wider than any column that we fill, so that none is cut here.
        columns = ", ".join(
            f"c{at} {'INT' if pa.types.is_integer(field.type) else 'VARCHAR(1000)'} PATH '$[{at}]' "
            "ERROR ON ERROR"
            for at, field in enumerate(rows.schema)
        )
        statement = (
            f"INSERT INTO {table} ({', '.join([*rows.column_names, *constants])}) "
            f"SELECT {', '.join(['sent.*', *['%s'] * len(constants)])} FROM "
            f"JSON_TABLE(%s, '$[*]' COLUMNS ({columns})) AS sent"
        )
        with self._connection.cursor() as cursor:
            for batch in rows.to_batches(ROWS_IN_A_PARAMETER):
                values = zip(*(column.to_pylist() for column in batch.columns), strict=True)
                sent = json.dumps(list(values), ensure_ascii=False)
                cursor.execute(statement, (*constants.values(), sent))

    def frame(
        self, statement: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, about: str
    ) -> pd.DataFrame:
        """A result of any size as a frame in Arrow types, streamed; its columns come in the
        schema's order.
        """
        parts = list(self._record_batches(statement, parameters, schema=schema, about=about))
        return make_frame(pa.Table.from_batches(parts, schema=schema))

    def frames(
        self, statement: str, parameters: Sequence[Any] = (), *, schema: pa.Schema, about: str
    ) -> Generator[pd.DataFrame]:
        """The same in frames of ROWS_IN_A_FRAME rows, so that memory is bounded. Read them all, or
        close the generator, before the next statement.
        """
        batches = self._record_batches(statement, parameters, schema=schema, about=about)
        while parts := list(islice(batches, ROWS_IN_A_FRAME // ROWS_IN_A_READ)):
            yield make_frame(pa.Table.from_batches(parts))

    def _record_batches(
        self, statement: str, parameters: Sequence[Any], *, schema: pa.Schema, about: str
    ) -> Iterator[pa.RecordBatch]:
        # The default cursor would hold all rows of a million users as Python tuples.
        cursors = MySQLdb.cursors.SSCursor
        with (
            self._errors(about),
            self._raw(),
            _pause_garbage_collector(),
            self._connection.cursor(cursors) as cursor,
        ):
            cursor.execute(statement, parameters or None)
            while rows := cursor.fetchmany(ROWS_IN_A_READ):
                columns = zip(*rows, strict=True)
                arrays = [
                    _make_arrow_column(values, field.type)
                    for values, field in zip(columns, schema, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    @contextmanager
    def _raw(self) -> Iterator[None]:
        """Get values as the server sends them."""
        # Arrow converts columns faster than the driver converts cells.
        converter = self._connection.converter
        self._connection.converter = {}
        try:
            yield
        finally:
            self._connection.converter = converter

    def prepare_session(self) -> None:
        """Set the new connection to autocommit, utf8mb4, strict mode and UTC, with our
        time-outs.
        """
        _notice_vanished_server(self._connection.fileno())
        with self._errors("the session"):
            self._connection.set_character_set("utf8mb4")
            self._connection.autocommit(True)
        # A server that isn't strict cuts long values with only a warning. The ledger's times are in
        # UTC. A million rows are sorted by key before they are written: with the default sort
        # buffer of 2 MB, that would take hundreds of passes.
        settings = (
            "sql_mode = 'STRICT_ALL_TABLES', time_zone = '+00:00', sort_buffer_size = "
            f"{SORT_BUFFER_BYTES}"
        )
        settings += (
            f", innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = "
            f"{LOCK_WAIT_SECONDS}"
        )
        settings += f", wait_timeout = {IDLE_SECONDS}"
        self.execute(f"SET SESSION {settings}", about="the session")

    def limit_idle_time(self, seconds: int) -> None:
        """Set how long the session may be idle before the server ends it and releases its locks."""
        self.execute("SET SESSION wait_timeout = %s", (seconds,), about="the session")

    @contextmanager
    def writing_transaction(self) -> Iterator[None]:
        """A transaction at READ COMMITTED."""
        # If the worker's host vanishes, the server ends the session soon and releases its locks.
        self.limit_idle_time(SHORT_IDLE_SECONDS)
        try:
            # At REPEATABLE READ, a row that Joget committed between our read and our write was
            # invisible to our check, and INSERT ... SELECT made Joget's own insert wait until error
            # 1205 (tried on MariaDB 10.11).
            with self.transaction("READ COMMITTED"):
                yield
        finally:
            with suppress(TransientError):  # a lost connection has no settings any more
                self.limit_idle_time(IDLE_SECONDS)

    @contextmanager
    def transaction(self, isolation: str, start: str = "START TRANSACTION") -> Iterator[None]:
        """A transaction that is rolled back on any exception, and else committed."""
        self.execute(f"SET TRANSACTION ISOLATION LEVEL {isolation}", about="the transaction")
        self.execute(start, about="the transaction")
        try:
            yield
            # Servers roll back by themselves when a COMMIT fails. A proxy that refuses it may not.
            self.execute("COMMIT", about="the transaction")
        # Airflow ends a task with a BaseException (AirflowTaskTimeout, AirflowTaskTerminated).
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        """Roll back. Where the connection is lost, the server has done so by itself."""
        with suppress(MySQLdb.Error):
            self._connection.rollback()

    @contextmanager
    def open_another(self) -> Iterator["Database"]:
        """Another connection to the same database, closed at the end."""
        with open_session(self._conn_id) as database:
            yield database

    @contextmanager
    def _errors(self, about: str) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except MySQLdb.Error as error:
            ours = translate_error(error, about, self._conn_id)
        else:
            return
        raise ours from None  # the driver's text quotes values, and a traceback would show it


def open_database(conn_id: str) -> Database:
    """Open the sync's Joget database through its Connection; strict, in utf8mb4 and UTC.

    Rows go as files (LOAD DATA LOCAL) only where nobody can stand between us and the server. The
    Connection's extra `local_infile`, true or false, overrides that.

    Raises PermanentError for a missing Connection or refused login, TransientError where the server
    can't be reached or the Connection can't be looked up now.
    """
    connection = connections.require_connection(conn_id, "mysql", "joget_conn_id")
    # The cursors, converters and errors in this module are mysqlclient's.
    if connection.extra_dejson.get("client", "mysqlclient") != "mysqlclient":
        raise PermanentError(
            f"Connection {conn_id!r} asks for another client; remove `client` from its extras."
        )
    extras = connection.extra_dejson
    # A connection with local_infile lets the server ask for any file that the worker may read. In a
    # Connection's URI an extra is a text: ?local_infile=false.
    sends_files = str(extras.get("local_infile", _is_private(connection.host, extras))).lower() in (
        "true",
        "1",
    )
    try:
        # The hook gets our Connection, since Airflow's own look-up calls a Connection undefined
        # when it couldn't look it up (directory_sync.connections).
        hook = MySqlHook(mysql_conn_id=conn_id, connection=connection, local_infile=sends_files)
        opened: Any = hook.get_conn()
    except MySQLdb.Error as error:
        ours = translate_refused_tls(error, conn_id) or translate_error(
            error, "the server", conn_id
        )
    else:
        address = f"{connection.host}:{connection.port or 3306}/{connection.schema}"
        target = hashlib.sha256(address.encode()).hexdigest()[:16]
        database = Database(opened, conn_id, target, sends_files=sends_files)
        with ExitStack() as on_error:
            on_error.callback(opened.close)
            _require_tls(database, extras)
            database.prepare_session()
            on_error.pop_all()
        return database
    raise ours from None


def _notice_vanished_server(descriptor: int) -> None:
    """Set VANISHED_SERVER on a connection's socket, unless it is a local one."""
    is_blocking = os.get_blocking(descriptor)
    # Options belong to the socket, so that the driver's descriptor has them too.
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if duplicate.family != socket.AF_UNIX:
            with suppress(OSError):  # a sandboxed system may refuse an option
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in VANISHED_SERVER.items():
                    if hasattr(socket, option):
                        duplicate.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    os.set_blocking(descriptor, is_blocking)  # socket.setdefaulttimeout would have changed it


def _require_tls(database: Database, extras: Mapping[str, Any]) -> None:
    """Raise PermanentError where the Connection asks for TLS and there is none."""
    mode = str(extras.get("ssl_mode", "")).upper()
    wants = bool(mode or extras.get("ssl")) and mode not in ("DISABLED", "PREFERRED")
    # MariaDB's client library goes on without TLS, unless it is told to verify the server.
    if (
        wants
        and not database.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'", about="the session")[0][1]
    ):
        raise PermanentError(
            f"Connection {database._conn_id!r} asks for TLS, and Joget's database has none. Switch "
            "TLS on at the server, or remove `ssl` and `ssl_mode` from the Connection's extras."
        )


def _is_private(host: str | None, extras: Mapping[str, Any]) -> bool:
    """Whether nobody can stand between us and the server, or pose as the server."""
    verified = str(extras.get("ssl_mode", "")).upper() in VERIFYING_SSL_MODES
    return host in LOOPBACK_HOSTS or bool(extras.get("unix_socket")) or verified


@contextmanager
def open_session(conn_id: str) -> Iterator[Database]:
    """`open_database`, closed at the end."""
    database = open_database(conn_id)
    try:
        yield database
    finally:
        database._connection.close()


def split_into_batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Parts that are short enough for one statement's parameters."""
    return (ids[start : start + IDS_IN_A_QUERY] for start in range(0, len(ids), IDS_IN_A_QUERY))


@contextmanager
def _pause_garbage_collector() -> Iterator[None]:
    """Turn the garbage collector off for the length of a block."""
    # Rows contain no reference cycles, and looking for them took five times as long as reading the
    # rows.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _make_arrow_column(values: tuple[bytes | None, ...], kind: pa.DataType) -> pa.Array:
    texts = pa.array(values, pa.binary()).cast(pa.string())
    return texts.cast(pa.int64()).cast(kind) if kind == pa.bool_() else texts.cast(kind)


def _is_shared(column: pa.ChunkedArray) -> bool:
    """Whether all rows have one value, or none has any."""
    if column.null_count:
        return bool(column.null_count == len(column))
    # Most columns differ between the first and the last row already, and are never scanned.
    return bool(column[0] == column[-1] and pc.all(pc.equal(column, column[0])).as_py())


def _write_rows(pipe: Path, rows: pa.Table) -> None:
    # LOAD DATA ended early, and says itself why.
    with suppress(BrokenPipeError), pipe.open("wb") as file:
        for start in range(0, len(rows), ROWS_IN_A_READ):
            file.write(format_tab_separated(rows.slice(start, ROWS_IN_A_READ)))


def format_tab_separated(rows: pa.Table) -> memoryview:
    """Rows in LOAD DATA's default format: tabs between values, backslashes before literal tabs,
    line ends and backslashes, and MySQL's escape for NULL.
    """
    # Joining the last column with "" by a line end puts the line end behind it.
    *others, last = [_escape_texts(column.combine_chunks()) for column in rows.columns]
    ended = pc.binary_join_element_wise(last, "", "\n")
    lines = pc.binary_join_element_wise(*others, ended, "\t") if others else ended
    # In Arrow's buffer the lines already follow one another, so no Python text is made of them.
    offsets = lines.buffers()[1]
    ends = memoryview(offsets).cast("i")
    return memoryview(lines.buffers()[2])[ends[lines.offset] : ends[lines.offset + len(lines)]]


def _escape_texts(column: pa.Array) -> pa.Array:
    texts = column.cast(pa.string())
    if (
        not pa.types.is_integer(column.type)
        and pc.any(pc.match_substring_regex(texts, r"[\\\t\n]")).as_py()
    ):
        texts = pc.replace_substring_regex(texts, r"([\\\t\n])", r"\\\1")
    # By now a value that is the text \N has two backslashes, and so differs from NULL.
    return pc.fill_null(texts, r"\N")
