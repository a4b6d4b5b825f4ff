"""TLS to Joget's database, by the Connection's extras, with a real server and real certificates."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from demo.database import ACCOUNT, PASSWORD, DatabaseServer
from directory_sync.errors import PermanentError
from directory_sync.joget.database import open_session
from tests.conftest import DATABASE_SERVERS, JogetDatabase
from tests.tls import Authority, make_authority

Connect = Callable[..., None]


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    """The server's authority, and another one."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_authority(folder, "joget"), make_authority(folder, "other")


@pytest.fixture(scope="module")
def tls_server(
    authorities: tuple[Authority, Authority], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DatabaseServer]:
    """A server with a certificate. The sync's account has to use TLS."""
    own, _ = authorities
    start = DATABASE_SERVERS[os.environ.get("JOGET_DATABASE", "mariadb")]
    options = (
        f"--ssl-ca={own.ca}",
        f"--ssl-cert={own.certificate}",
        f"--ssl-key={own.key}",
        "--local-infile=ON",
    )
    with start(tmp_path_factory.mktemp("tls"), *options) as server:
        server.create_joget("jwdb")
        server.create_account("jwdb")
        JogetDatabase(server, "jwdb").execute(f"ALTER USER {ACCOUNT}@'%' REQUIRE SSL")
        yield server


@pytest.fixture
def connect(tls_server: DatabaseServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Set the Connection joget_mysql, with these extras."""

    def set_extras(server: DatabaseServer = tls_server, **extras: Any) -> None:
        values = {"conn_type": "mysql", "host": "127.0.0.1", "port": server.port, "schema": "jwdb"}
        values |= {"login": ACCOUNT, "password": PASSWORD, "extra": extras}
        monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", json.dumps(values))

    return set_extras


@pytest.mark.parametrize("mode", ["VERIFY_CA", "VERIFY_IDENTITY"])
def test_every_connection_accepts_a_certificate_of_the_trusted_authority(
    connect: Connect, authorities: tuple[Authority, Authority], mode: str
) -> None:
    connect(ssl={"ca": str(authorities[0].ca)}, ssl_mode=mode)
    with open_session("joget_mysql") as database, database.open_another() as another:
        for opened in (database, another):
            assert opened.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'", about="the session")[0][1]
            assert opened._takes_files, "nobody else can pose as the server"


@pytest.mark.parametrize("extras", [{}, {"ssl_mode": "VERIFY_CA"}, {"ssl_mode": "VERIFY_IDENTITY"}])
def test_a_certificate_of_another_authority_is_refused_for_good(
    connect: Connect, authorities: tuple[Authority, Authority], extras: dict[str, str]
) -> None:
    connect(ssl={"ca": str(authorities[1].ca)}, **extras)
    with (
        pytest.raises(PermanentError, match="offers no TLS that Connection 'joget_mysql' trusts"),
        open_session("joget_mysql"),
    ):
        pass


def test_an_authoritys_file_that_is_not_there_is_refused_for_good(
    connect: Connect, tmp_path: Path
) -> None:
    connect(ssl={"ca": str(tmp_path / "nowhere.pem")}, ssl_mode="VERIFY_CA")
    with (
        pytest.raises(PermanentError, match="which each worker must have"),
        open_session("joget_mysql"),
    ):
        pass


def test_an_account_that_requires_tls_is_refused_without_it_and_the_error_says_so(
    connect: Connect,
) -> None:
    connect()
    with pytest.raises(PermanentError, match="requires TLS"), open_session("joget_mysql"):
        pass


def test_a_server_without_tls_is_refused_if_the_connection_asks_for_tls(
    connect: Connect, authorities: tuple[Authority, Authority], tmp_path: Path
) -> None:
    no_tls = {"mariadb": "--skip-ssl", "mysql": "--tls-version="}
    which = os.environ.get("JOGET_DATABASE", "mariadb")
    with DATABASE_SERVERS[which](tmp_path / "plain", no_tls[which]) as server:
        server.create_joget("jwdb")
        server.create_account("jwdb")
        for extras in ({"ssl_mode": "REQUIRED"}, {"ssl": {"ca": str(authorities[0].ca)}}):
            connect(server, **extras)
            with pytest.raises(
                PermanentError,
                match=r"asks for TLS, and Joget's database has none|refuses the login",
            ):
                open_session("joget_mysql").__enter__()
        connect(server)
        with open_session("joget_mysql"):
            pass
        assert count_sessions(server) == 0, "nothing stays open"


def count_sessions(server: DatabaseServer) -> int:
    """Count the sessions of the sync's account, once the server has noticed which ones were
    closed.
    """
    until = time.monotonic() + 10
    with closing(server.connect()) as console, console.cursor() as cursor:
        while True:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s", (ACCOUNT,)
            )
            [(count,)] = cursor.fetchall()
            if not count or time.monotonic() > until:
                return int(count)
            time.sleep(0.05)
