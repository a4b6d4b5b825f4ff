"""What happens when Joget's database goes, is full, takes no writes, or stops a session."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import MySQLdb
import pytest

from demo.database import DatabaseServer
from include.directory_sync.errors import TransientError
from include.directory_sync.snapshot import Manifest
from tests.between import Between, CutError
from tests.company import Company, counts, people
from tests.conftest import DATABASE_SERVERS, JogetDatabase, new_company
from tests.directory_sync.test_wrong_input import refused
from tests.stand_in import user

TAKES_TURN = "UPDATE directory_sync_lock SET revision"
"""The first statement of a writing transaction."""


def prepare_change(company: Company) -> Manifest:
    """A run whose load has one user to create, and two to update."""
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(2)
    company.run()
    company.pool.users = [user(f"person{at:03}@example.org", given_name="New") for at in range(3)]
    return company.prepare()


def check_recovery(company: Company, transformed: Manifest) -> None:
    """The next try applies all, and the next run has nothing to do."""
    report = company.load(transformed)
    assert report["outcome"] == "applied"
    assert counts(report) == {"read": 3, "created": 1, "updated": 2}
    assert company.run()["outcome"] == "nothing_to_do"


class Outage:
    """The database is gone from one moment on: before, during or after the COMMIT of a writing transaction."""

    def __init__(self, line: Between, moment: str) -> None:
        self._moment, self._writes, self._gone = moment, False, False
        line.before, line.after = self._before, self._after

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
def test_a_database_that_goes_around_the_commit_has_all_or_nothing_and_a_retry_finds_which(
    company: Company, line: Between, moment: str
) -> None:
    transformed = prepare_change(company)
    before = company.joget.contents()
    Outage(line, moment)
    with pytest.raises(TransientError):
        company.load(transformed)
    after = company.joget.contents()
    assert (after == before) == (moment == "before"), "the answer to COMMIT was lost, and Joget has all"
    line.before = line.after = lambda _: None
    check_recovery(company, transformed)
    assert moment == "before" or company.joget.contents() == after, "nothing was applied twice"


def test_a_session_that_an_administrator_kills_is_transient(company: Company, line: Between) -> None:
    transformed = prepare_change(company)
    before = company.joget.contents()

    def kill(statement: str) -> None:
        if statement.startswith("INSERT INTO dir_user "):
            sessions = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
            for session in company.joget.column(sessions, (company.joget.name,)):
                company.joget.execute(f"KILL {session}")

    line.before = kill
    with pytest.raises(TransientError):
        company.load(transformed)
    line.before = lambda _: None
    assert company.joget.contents() == before
    check_recovery(company, transformed)


def test_a_database_that_takes_no_writes_is_transient_and_says_so(
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


def test_a_database_whose_name_does_not_resolve_is_transient(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", "mysql://root:@joget-db.invalid:3306/jwdb")
    assert "does its host name resolve" in refused(company, TransientError)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseServer]:
    """A server of its own that keeps all tables in one file of limited size."""
    options = ("--innodb-data-file-path=ibdata1:12M:autoextend:max:64M", "--innodb-file-per-table=OFF")
    start = DATABASE_SERVERS[os.environ.get("JOGET_DATABASE", "mariadb")]
    with start(tmp_path_factory.mktemp("small"), *options) as server:
        yield server


@pytest.fixture
def small_company(small: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    small.create_joget("joget")
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", small.uri("joget"))
    with new_company(JogetDatabase(small, "joget"), tmp_path, monkeypatch) as company:
        yield company


def fill(joget: JogetDatabase, size: int) -> None:
    """Insert values of so many bytes until the server refuses one."""
    with pytest.raises(MySQLdb.OperationalError, match="is full"):  # noqa: PT012 - each of them may be the one
        while True:
            joget.execute("INSERT INTO filler (content) VALUES (REPEAT('x', %s))", (size,))


def test_a_full_database_is_transient_and_the_next_try_after_room_was_made_applies_all(small_company: Company) -> None:
    company, joget = small_company, small_company.joget
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(2)
    company.run()
    company.pool.users = people(2000)
    transformed = company.prepare()
    before = joget.contents()
    joget.execute("CREATE TABLE filler (id INT AUTO_INCREMENT PRIMARY KEY, content LONGBLOB)")
    # A full server can't even begin to delete, so who makes room has begun before.
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
        with suppress(TransientError):
            company.load(transformed)
            break
        time.sleep(0.5)
    report = company.load(transformed)
    assert counts(report)["created"] == 1998
