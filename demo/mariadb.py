"""A private MariaDB with Joget's directory tables, in a folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import MySQLdb

from demo.processes import StartError, free_port, server, tail

JOGET_SQL = Path(__file__).parent / "joget.sql"
SYSTEM_SQL = ("mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql")
COLLATIONS = {"utf8mb4": "utf8mb4_unicode_ci", "utf8mb3": "utf8mb3_unicode_ci"}


@dataclass(frozen=True)
class MariaDB:
    """A running server; root may log in from the loopback interface without a password."""

    port: int

    def connect(self, database: str = "", user: str = "root", password: str = "") -> Any:
        """A connection in utf8mb4 and autocommit."""
        return MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            passwd=password,
            db=database,
            charset="utf8mb4",
            autocommit=True,
        )

    def uri(self, database: str, user: str = "root", password: str = "") -> str:
        """The database as an Airflow Connection."""
        return f"mysql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create_joget(self, database: str, charset: str = "utf8mb4") -> None:
        """A fresh Joget directory."""
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database} CHARACTER SET {charset} COLLATE {COLLATIONS[charset]}")
            cursor.execute(f"USE {database}")
            for statement in JOGET_SQL.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    cursor.execute(statement)
        connection.close()


@contextmanager
def mariadb(folder: Path, *options: str) -> Iterator[MariaDB]:
    """A server with its data in the folder, for the length of a block; raises StartError where there is none.

    `options` come after our own.
    """
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec")
    if program is None:
        raise StartError("mariadbd isn't installed. Run make setup, or install the package mariadb-server-core.")
    folder.mkdir(parents=True, exist_ok=True)
    data, port = folder / "data", free_port()
    # Two servers that start at once would take the same names for their temporary files.
    common = [program, "--no-defaults", f"--datadir={data}", f"--tmpdir={folder}"]
    if os.geteuid() == 0:
        common.append("--user=root")
    _install(common, data, folder / "install.log")
    own = [
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / 's'}",
        f"--pid-file={folder / 'pid'}",
        "--skip-name-resolve",
        "--performance-schema=OFF",
        "--innodb-flush-log-at-trx-commit=0",
        "--innodb-buffer-pool-size=256M",
    ]
    running = MariaDB(port)
    with server("MariaDB", [*common, *own, *options], log=folder / "mariadb.log", ready=lambda: _answers(running)):
        yield running


def _install(common: list[str], data: Path, log: Path) -> None:
    """System tables by the server's own bootstrap: mariadb-install-db needs a package that we don't."""
    data.mkdir()
    share = next((path for path in (Path("/usr/share/mysql"), Path("/usr/share/mariadb")) if path.exists()), None)
    if share is None:
        raise StartError("MariaDB's system tables aren't in /usr/share/mysql. Install the package mariadb-server-core.")
    scripts = "".join((share / name).read_text(encoding="utf-8") for name in SYSTEM_SQL)
    script = f"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n{scripts}\nFLUSH PRIVILEGES;\n"
    with log.open("wb") as output:
        done = subprocess.run(
            [*common, "--bootstrap"], input=script.encode(), stdout=output, stderr=output, check=False
        )
    if done.returncode:
        raise StartError(f"MariaDB's data folder can't be made.\n{tail(log)}")


def _answers(running: MariaDB) -> bool:
    try:
        running.connect().close()
    except MySQLdb.Error:
        return False
    return True
