"""What happens when Joget's database goes down, is full, takes no writes, or stops a session."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import MySQLdb
import psutil
import pytest

from demo.database import DatabaseServer
from directory_sync.errors import TransientError
from directory_sync.joget import database
from directory_sync.joget.database import open_session
from directory_sync.staging.manifest import Manifest
from tests.company import Company, counts, people
from tests.conftest import DATABASE_SERVERS, JogetDatabase, new_company
from tests.database_proxy import CutError, DatabaseProxy, open_proxy
from tests.directory_sync.tasks.test_wrong_input import refused
from tests.stand_in import user

TAKES_TURN = "UPDATE directory_sync_lock SET revision"
"""The first statement of a writing transaction."""

PERSON = "person000@example.org"


@pytest.fixture
def console(joget: JogetDatabase) -> Iterator[Any]:
    """A session beside the sync's. The server ends it after a minute, so that its locks can't hang
    a test.
    """
    with closing(joget.server.connect(joget.name)) as opened:
        end = threading.Timer(60, joget.execute, (f"KILL {opened.thread_id()}",))
        end.start()
        yield opened
        end.cancel()


def prepare_change(company: Company) -> Manifest:
    """Prepare a run: its load has one user to create, and two to update."""
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(2)
    company.run()
    company.pool.users = [user(f"person{at:03}@example.org", given_name="New") for at in range(3)]
    return company.prepare()


def check_recovery(company: Company, transformed: Manifest) -> None:
    """Check that the next try applies everything, and that the next run has nothing to do."""
    report = company.load(transformed)
    assert report["outcome"] == "applied"
    assert counts(report) == {"read": 3, "created": 1, "updated": 2}
    assert company.run()["outcome"] == "nothing_to_do"


class Outage:
    """An outage of the database that begins before, during or after the COMMIT of a writing
    transaction.
    """

    def __init__(self, proxy: DatabaseProxy, moment: str) -> None:
        self._moment, self._writes, self._gone = moment, False, False
        proxy.before, proxy.after = self._before, self._after

    def _before(self, statement: str) -> None:
        self._writes |= statement.startswith(TAKES_TURN)
        self._gone |= self._writes and statement == "COMMIT" and self._moment == "before"
        if self._gone:
            raise CutError

    def _after(self, statement: str) -> None:
        if self._writes and statement == "COMMIT":
            self._gone = True
            if self._moment == "during":
                raise CutError


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_database_lost_around_the_commit_has_all_or_nothing_and_a_retry_finds_out_which(
    company: Company, proxy: DatabaseProxy, moment: str
) -> None:
    transformed = prepare_change(company)
    before = company.joget.contents()
    Outage(proxy, moment)
    with pytest.raises(TransientError):
        company.load(transformed)
    after = company.joget.contents()
    assert (after == before) == (moment == "before"), (
        "the answer to COMMIT was lost, and Joget has all"
    )
    proxy.before = proxy.after = lambda _: None
    check_recovery(company, transformed)
    assert moment == "before" or company.joget.contents() == after, "nothing was applied twice"


def test_a_session_that_an_administrator_kills_is_transient(
    company: Company, proxy: DatabaseProxy
) -> None:
    transformed = prepare_change(company)
    before = company.joget.contents()

    def kill(statement: str) -> None:
        if statement.startswith("INSERT INTO dir_user "):
            sessions = (
                "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> "
                "CONNECTION_ID()"
            )
            for session in company.joget.column(sessions, (company.joget.name,)):
                company.joget.execute(f"KILL {session}")

    proxy.before = kill
    with pytest.raises(TransientError):
        company.load(transformed)
    proxy.before = lambda _: None
    assert company.joget.contents() == before
    check_recovery(company, transformed)


def wait_until(joget: JogetDatabase, waits: str, seconds: float = 20) -> None:
    """Wait for the first row of a query."""
    until = time.monotonic() + seconds
    while not joget.column(waits):
        assert time.monotonic() < until, f"nothing came of {waits}"
        time.sleep(0.01)


def test_a_load_that_loses_a_deadlock_plans_again_and_applies_all(
    company: Company, proxy: DatabaseProxy, console: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    company.pool.users, company.pool.members = people(1), {"Sales": []}
    company.run()
    company.pool.users = [user(PERSON, given_name="New")]
    company.pool.members = {"Sales": company.pool.users}
    joget = company.joget
    joget.execute("CREATE TABLE weight (id INT PRIMARY KEY)")
    [sales] = joget.column("SELECT id FROM dir_group WHERE name = 'Sales'")
    # The server ends the transaction that changed fewer rows.
    cursor = console.cursor()
    # Or the new membership would lock its user.
    cursor.execute("SET SESSION foreign_key_checks = 0")
    cursor.execute("START TRANSACTION")
    cursor.executemany("INSERT INTO weight VALUES (%s)", [(number,) for number in range(500)])
    cursor.execute("INSERT INTO dir_user_group (groupId, userId) VALUES (%s, %s)", (sales, PERSON))
    asks = threading.Thread(
        target=cursor.execute, args=("SELECT 1 FROM dir_user WHERE id = %s FOR UPDATE", (PERSON,))
    )

    def cross(statement: str) -> None:
        if statement.startswith("INSERT INTO dir_user_group ") and not asks.ident:
            asks.start()
            wait_until(
                joget, "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            )

    def end_other(statement: str) -> None:
        if statement.startswith("INSERT INTO dir_user_group "):
            asks.join()
            console.rollback()

    proxy.before, proxy.after = cross, end_other
    assert company.run()["outcome"] == "applied"
    assert "planning 1 of 4: MySQL error 1213 on dir_user_group" in caplog.text
    assert company.memberships() == {(PERSON, "Sales")}
    assert company.user(PERSON)["firstName"] == "New"
    assert company.run()["outcome"] == "nothing_to_do"


def test_tables_that_another_session_locks_make_a_load_wait_for_a_short_time(
    company: Company,
    console: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 1)
    transformed = prepare_change(company)
    before = company.joget.contents()
    console.cursor().execute("LOCK TABLES dir_user WRITE")
    with pytest.raises(TransientError, match="was locked, during 4 plannings"):
        company.load(transformed)
    assert "planning 4 of 4: MySQL error 1205" in caplog.text
    console.cursor().execute("UNLOCK TABLES")
    assert company.joget.contents() == before
    check_recovery(company, transformed)


def test_a_backup_that_locks_all_tables_before_the_commit_makes_a_load_plan_again(
    company: Company,
    proxy: DatabaseProxy,
    console: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 1)
    transformed = prepare_change(company)
    writes: list[str] = []

    def lock(statement: str) -> None:
        if statement.startswith(TAKES_TURN):
            writes.append(statement)
        if statement == "COMMIT" and len(writes) == 1:
            console.cursor().execute("FLUSH TABLES WITH READ LOCK")

    def unlock(statement: str) -> None:
        if statement == "COMMIT":
            console.cursor().execute("UNLOCK TABLES")

    proxy.before, proxy.after = lock, unlock
    check_recovery(company, transformed)
    assert "planning 1 of 4: MySQL error 1205 on the transaction" in caplog.text


def test_the_system_is_asked_to_notice_a_vanished_server_after_two_minutes(
    company: Company,
) -> None:
    with (
        open_session("joget_mysql") as connected,
        socket.socket(fileno=os.dup(connected._connection.fileno())) as duplicate,
    ):
        assert duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle, interval, count, unanswered = (
            duplicate.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
                socket.TCP_USER_TIMEOUT,
            )
        )
    assert idle + interval * count == 120, "while we wait for an answer"
    assert unanswered == 120_000, "while we send"


class KillableServer:
    """A database server that a test kills and starts again, on the same port and files."""

    def __init__(self, server: DatabaseServer, folder: Path) -> None:
        self.server = server
        self._pid_file = folder / "pid"
        self._log = folder / "again.log"
        self._again: subprocess.Popen[bytes] | None = None

    def kill(self) -> None:
        process = psutil.Process(int(self._pid_file.read_text()))
        self._command = process.cmdline()
        process.kill()
        process.wait()

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._again = subprocess.Popen(
                self._command, stdout=output, stderr=output, start_new_session=True
            )
        until = time.monotonic() + 60
        while not self.server.accepts_logins():
            assert time.monotonic() < until, (
                f"the server didn't start again: {self._log.read_text()}"
            )
            time.sleep(0.1)

    def stop(self) -> None:
        if self._again:
            self._again.terminate()
            self._again.wait()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillableServer]:
    folder = tmp_path_factory.mktemp("machine")
    start = DATABASE_SERVERS[os.environ.get("JOGET_DATABASE", "mariadb")]
    with start(folder, "--innodb-flush-log-at-trx-commit=1") as server:
        made = KillableServer(server, folder)
        yield made
        made.stop()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_database_server_that_is_killed_around_the_commit_comes_back_with_all_or_nothing(
    machine: KillableServer, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joget = JogetDatabase(machine.server, f"joget_{moment}")
    machine.server.create_joget(joget.name)
    with open_proxy(machine.server.port) as proxy:
        uri = f"mysql://root:@127.0.0.1:{proxy.port}/{joget.name}?ssl_mode=DISABLED"
        monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", uri)
        with new_company(joget, tmp_path, monkeypatch) as company:
            transformed = prepare_change(company)
            before = joget.contents()
            kill_at_commit(machine, proxy, moment)
            with pytest.raises(TransientError, match="can't be reached"):
                company.load(transformed)
            proxy.before = proxy.after = lambda _: None
            machine.start()
            assert (joget.contents() == before) == (moment == "before")
            check_recovery(company, transformed)


def kill_at_commit(machine: KillableServer, proxy: DatabaseProxy, moment: str) -> None:
    """Kill the server before it gets the COMMIT of a writing transaction, or when it has
    answered.
    """
    writes: list[str] = []

    def count(statement: str) -> None:
        if statement.startswith(TAKES_TURN):
            writes.append(statement)

    def kill(statement: str) -> None:
        if statement == "COMMIT" and writes:
            machine.kill()
            raise CutError

    def before(statement: str) -> None:
        count(statement)
        if moment == "before":
            kill(statement)

    proxy.before, proxy.after = before, (kill if moment == "after" else lambda _: None)


def test_a_read_only_database_is_a_transient_error_and_the_message_says_so(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    joget = company.joget
    company.pool.users = people(2)
    company.run()
    company.pool.users = people(3)
    transformed = company.prepare()
    before = joget.contents()
    joget.execute("DROP USER IF EXISTS plain@'127.0.0.1'")
    joget.execute("CREATE USER plain@'127.0.0.1' IDENTIFIED BY 'pw'")
    joget.execute(f"GRANT ALL ON {joget.name}.* TO plain@'127.0.0.1'")
    joget.execute("SET GLOBAL read_only = 1")
    try:
        with monkeypatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", joget.server.uri(joget.name, "plain", "pw"))
            with pytest.raises(TransientError, match="takes no writes now"):
                company.load(transformed)
    finally:
        joget.execute("SET GLOBAL read_only = 0")
    assert joget.contents() == before
    assert counts(company.load(transformed)) == {"read": 3, "created": 1, "unchanged": 2}


def test_a_database_name_that_does_not_resolve_is_transient(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", "mysql://root:@joget-db.invalid:3306/jwdb")
    assert "does its host name resolve" in refused(company, TransientError)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A separate server that keeps all tables in one file of limited size."""
    options = (
        "--innodb-data-file-path=ibdata1:12M:autoextend:max:64M",
        "--innodb-file-per-table=OFF",
    )
    start = DATABASE_SERVERS[os.environ.get("JOGET_DATABASE", "mariadb")]
    with start(tmp_path_factory.mktemp("small"), *options) as server:
        yield server


@pytest.fixture
def small_company(
    small: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Company]:
    small.create_joget("joget")
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", small.uri("joget"))
    with new_company(JogetDatabase(small, "joget"), tmp_path, monkeypatch) as company:
        yield company


def fill(joget: JogetDatabase, size: int) -> None:
    """Insert values of so many bytes until the server refuses one."""
    with pytest.raises(MySQLdb.OperationalError, match="is full"):  # noqa: PT012 - each of them may be the one
        while True:
            joget.execute("INSERT INTO filler (content) VALUES (REPEAT('x', %s))", (size,))


def test_a_full_database_is_transient_and_the_next_try_after_room_was_made_applies_all(
    small_company: Company,
) -> None:
    company, joget = small_company, small_company.joget
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(2)
    company.run()
    company.pool.users = people(2000)
    transformed = company.prepare()
    before = joget.contents()
    joget.execute("CREATE TABLE filler (id INT AUTO_INCREMENT PRIMARY KEY, content LONGBLOB)")
    # A full server can't even begin to delete, so a session that makes room must have begun before.
    console = joget.server.connect(joget.name)
    console.autocommit(False)
    console.cursor().execute("INSERT INTO filler (content) VALUES ('')")
    for size in (10**6, 3 * 10**5):
        fill(joget, size)
    with pytest.raises(TransientError, match="has no room"):
        company.load(transformed)
    assert joget.contents() == before
    console.cursor().execute("DELETE FROM filler WHERE id BETWEEN 2 AND 21")
    console.commit()
    for _ in range(120):  # the server frees the space some time after the COMMIT
        with suppress(TransientError, MySQLdb.OperationalError):
            joget.execute("DROP TABLE IF EXISTS filler")
            company.load(transformed)
            break
        time.sleep(0.5)
    report = company.load(transformed)
    assert counts(report)["created"] == 1998
