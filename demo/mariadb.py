"""A private MariaDB in a folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.database import DatabaseServer
from demo.processes import StartError, free_port, server, tail

SYSTEM_SQL = (
    "mysql_system_tables.sql",
    "mysql_performance_tables.sql",
    "mysql_system_tables_data.sql",
)


@contextmanager
def mariadb(folder: Path, *options: str) -> Iterator[DatabaseServer]:
    """A server with its data in the folder, for the length of a block; raises StartError where
    there is none.

    `options` come after our own.
    """
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec")
    if program is None:
        raise StartError(
            "mariadbd isn't installed. Run make setup, or install the package mariadb-server-core."
        )
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
    running = DatabaseServer(port)
    log = folder / "mariadb.log"
    with server("MariaDB", [*common, *own, *options], log=log, ready=running.accepts_logins):
        yield running


def _install(common: list[str], data: Path, log: Path) -> None:
    """Make the system tables by the server's own bootstrap: mariadb-install-db needs a package that
    nothing else here needs.
    """
    data.mkdir()
    share = next(
        (path for path in (Path("/usr/share/mysql"), Path("/usr/share/mariadb")) if path.exists()),
        None,
    )
    if share is None:
        raise StartError(
            "MariaDB's system tables aren't in /usr/share/mysql. Install the package "
            "mariadb-server-core."
        )
    scripts = "".join((share / name).read_text(encoding="utf-8") for name in SYSTEM_SQL)
    script = (
        f"CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\n{scripts}\nFLUSH "
        "PRIVILEGES;\n"
    )
    with log.open("wb") as output:
        done = subprocess.run(
            [*common, "--bootstrap"],
            input=script.encode(),
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise StartError(f"MariaDB's data folder can't be made.\n{tail(log)}")
