"""Sending frames to the database and reading them back, by each way that a server allows."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from directory_sync.errors import (
    ConflictError,
    PermanentError,
    RefusedRowError,
    TakenKeyError,
    TransientError,
)
from directory_sync.frames import make_frame_of_rows
from directory_sync.joget.database import Database, _is_private, open_session
from tests.conftest import JogetDatabase

SCHEMA = pa.schema([("id", pa.string()), ("name", pa.string()), ("active", pa.int64())])
ODD = [
    "plain",
    "",
    None,
    "NULL",
    "\\N",
    "\\",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "'\"`;--",
    "%s",
    "é ß ﬁ 名",
    "🎉",
    "\x00\x1a",
    '["x"]',
]


@pytest.fixture(params=["files", "refused", "not wanted"])
def database(
    joget: JogetDatabase, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Database]:
    """A server that takes files from clients; one that refuses them, as MySQL 8 does by default; or
    one to which we aren't to send any.
    """
    [before] = joget.column("SELECT @@GLOBAL.local_infile")
    joget.execute(f"SET GLOBAL local_infile = {int(request.param != 'refused')}")
    if request.param == "not wanted":
        uri = f"{joget.server.uri(joget.name)}?local_infile=false"
        monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", uri)
    with open_session("joget_mysql") as opened:
        assert opened._takes_files == (request.param == "files")
        text = "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci"
        opened.execute(
            f"CREATE TEMPORARY TABLE sent (id {text}, name {text}, active INT, PRIMARY KEY (id))",
            about="sent",
        )
        yield opened
    joget.execute(f"SET GLOBAL local_infile = {before}")


@pytest.mark.parametrize(
    ("host", "extras", "private"),
    [
        ("127.0.0.1", {}, True),
        ("joget-db", {}, False),
        ("joget-db", {"ssl": {"ca": "/ca.pem"}}, False),
        ("joget-db", {"ssl_mode": "REQUIRED"}, False),
        ("joget-db", {"ssl_mode": "VERIFY_IDENTITY"}, True),
        ("joget-db", {"ssl_mode": "DISABLED"}, False),
        ("joget-db", {"ssl_mode": "PREFERRED"}, False),
        (None, {"unix_socket": "/run/mysqld.sock"}, True),
    ],
)
def test_rows_go_as_files_only_where_nobody_can_pose_as_the_server(
    host: str | None, extras: dict[str, Any], private: bool
) -> None:
    assert _is_private(host, extras) == private


def make_names(names: list[str | None]) -> pd.DataFrame:
    rows = [
        {"id": f"{at:06}", "name": name, "active": None if at % 3 else at}
        for at, name in enumerate(names)
    ]
    return make_frame_of_rows(rows, SCHEMA)


def read_rows(database: Database) -> pd.DataFrame:
    return database.frame(
        "SELECT id, name, active FROM sent ORDER BY id", schema=SCHEMA, about="sent"
    )


def test_every_value_arrives_and_comes_back_as_it_was(database: Database) -> None:
    sent = make_names(ODD)
    database.fill("sent", sent, about="sent")
    assert read_rows(database).equals(sent)


def test_more_rows_than_go_at_once_all_arrive(database: Database) -> None:
    sent = make_names([f"name {number}" for number in range(45_001)])
    database.fill("sent", sent, about="sent")
    assert read_rows(database).equals(sent)


def test_nothing_is_sent_for_no_rows(database: Database) -> None:
    database.fill("sent", make_names([]), about="sent")
    assert read_rows(database).empty


def test_a_value_that_does_not_fit_is_refused_and_never_cut(database: Database) -> None:
    for name in ("x" * 256, "x" * 2000):
        with pytest.raises(RefusedRowError):
            database.fill("sent", make_names(["fits", name]), about="sent")
        database.execute("DELETE FROM sent", about="sent")


def test_a_value_is_not_cut_by_a_server_that_keeps_no_warnings(database: Database) -> None:
    database.execute("SET SESSION max_error_count = 0", about="the session")
    with pytest.raises(RefusedRowError):
        database.fill("sent", make_names(["x" * 300]), about="sent")


def test_a_server_that_keeps_no_warnings_is_sent_no_file_so_a_taken_key_is_still_known(
    joget: JogetDatabase,
) -> None:
    [before] = joget.column("SELECT @@GLOBAL.max_error_count")
    joget.execute("SET GLOBAL max_error_count = 0")
    try:
        with open_session("joget_mysql") as opened:
            assert not opened._takes_files
            opened.execute("CREATE TEMPORARY TABLE sent (id INT PRIMARY KEY)", about="sent")
            with pytest.raises(TakenKeyError):
                opened.fill("sent", pd.DataFrame({"id": [1, 1]}), about="sent")
    finally:
        joget.execute(f"SET GLOBAL max_error_count = {before}")


def test_a_key_that_comes_twice_is_a_conflict_and_never_left_out(database: Database) -> None:
    rows = make_names(["one", "two"]).assign(id="same")
    with pytest.raises(ConflictError):
        database.fill("sent", rows, about="sent")


def test_a_missing_table_is_an_error_and_no_sender_waits(database: Database) -> None:
    for _ in range(20):
        with pytest.raises(PermanentError):
            database.fill("no_such_table", make_names(["one"]), about="no_such_table")


def test_a_statement_amid_another_ones_rows_is_a_fault_of_the_connection(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.fill("sent", make_names(["one", "two", "three"]), about="sent")
    monkeypatch.setattr("directory_sync.joget.database.ROWS_IN_A_READ", 1)
    monkeypatch.setattr("directory_sync.joget.database.ROWS_IN_A_FRAME", 1)
    rows = database.frames("SELECT id, name, active FROM sent", schema=SCHEMA, about="sent")
    with closing(rows) as frames:
        next(frames)
        with pytest.raises(TransientError, match="2014"):
            database.execute("DELETE FROM sent", about="sent")


def test_the_connection_is_usable_after_a_refusal(database: Database) -> None:
    with pytest.raises(RefusedRowError):
        database.fill("sent", make_names(["x" * 256]), about="sent")
    database.execute("DELETE FROM sent", about="sent")
    database.fill("sent", make_names(["fits"]), about="sent")
    assert read_rows(database)["name"].tolist() == ["fits"]


class ClusterDatabase(Database):
    """Answers as a node of a Galera cluster that splits LOAD DATA into transactions, or doesn't."""

    def __init__(self, splitting: str) -> None:
        super().__init__(None, "joget_mysql", "target")
        self.splitting = splitting

    def rows(self, statement: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        if statement.startswith("SHOW VARIABLES"):
            return [("wsrep_load_data_splitting", self.splitting)]
        return [(1,)]


@pytest.mark.parametrize(("splitting", "takes_files"), [("ON", False), ("OFF", True)])
def test_a_cluster_that_commits_parts_of_a_file_gets_no_file(
    splitting: str, takes_files: bool
) -> None:
    assert ClusterDatabase(splitting)._takes_files == takes_files
