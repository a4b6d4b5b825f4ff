"""A private MySQL in a folder of its own, run from the packages that bin/setup-mysql unpacked."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.database import DatabaseServer
from demo.processes import StartError, free_port, server, tail

ROOT = Path(__file__).parent.parent / ".mysql" / "root"
ACCOUNTS_SQL = """\
CREATE USER root@'127.0.0.1' IDENTIFIED BY '';
GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;
"""
"""MySQL itself makes root@localhost only, and 127.0.0.1 isn't localhost with --skip-name-resolve.
"""


@contextmanager
def mysql(folder: Path, *options: str) -> Iterator[DatabaseServer]:
    """Start a server with its data in the folder, for the length of a block.

    `options` are added after our own, so that they win.
    Raises StartError where bin/setup-mysql hasn't run, or the server doesn't start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    common = [*_program(), f"--datadir={folder / 'data'}", f"--tmpdir={folder}"]
    if os.geteuid() == 0:
        common.append("--user=root")
    _install(common, folder)
    own = [
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / 's'}",
        f"--pid-file={folder / 'pid'}",
        "--mysqlx=0",
        "--skip-name-resolve",
        "--performance-schema=OFF",
        "--innodb-flush-log-at-trx-commit=0",
        "--sync-binlog=0",
        "--innodb-buffer-pool-size=256M",
    ]
    running = DatabaseServer(port)
    log = folder / "mysql.log"
    with server("MySQL", [*common, *own, *options], log=log, ready=running.accepts_logins):
        yield running


def _program() -> list[str]:
    """The command that runs mysqld with the C library that it was built for."""
    # Debian puts the loader into lib64 on x86-64 and into lib on ARM.
    loader = next((ROOT / "usr").glob("lib*/ld-linux-*.so.*"), None)
    libraries = next((ROOT / "usr/lib").glob("*-linux-gnu"), None)
    if loader is None or libraries is None:
        raise StartError("There is no MySQL in .mysql. Run bin/setup-mysql.")
    return [
        str(loader),
        "--library-path",
        f"{libraries}:{libraries / 'mysql'}",
        str(ROOT / "usr/sbin/mysqld"),
        "--no-defaults",
        f"--basedir={ROOT / 'usr'}",
        f"--lc-messages-dir={ROOT / 'usr/share/mysql'}",
        f"--plugin-dir={ROOT / 'usr/lib/mysql/plugin'}",
        f"--character-sets-dir={ROOT / 'usr/share/mysql/charsets'}",
        "--secure-file-priv=NULL",
    ]


def _install(common: list[str], folder: Path) -> None:
    """Let the server make its data folder, with a root that may log in over TCP."""
    accounts, log = folder / "accounts.sql", folder / "install.log"
    accounts.write_text(ACCOUNTS_SQL, encoding="utf-8")
    with log.open("wb") as output:
        done = subprocess.run(
            [*common, "--initialize-insecure", f"--init-file={accounts}"],
            stdout=output,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise StartError(f"MySQL's data folder can't be made.\n{tail(log)}")
