"""A private PostgreSQL and a private Redis, with this machine's programs or those that
bin/setup-servers fetched.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.processes import StartError, tail

FETCHED = Path(__file__).parents[2] / ".servers" / "root"
UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root, so it runs as this user if we are root."""


def find_program(name: str) -> Path:
    """Find a server's program on PATH, where Debian keeps PostgreSQL's, or among the fetched ones;
    raises StartError.
    """
    if found := shutil.which(name):
        return Path(found).resolve()
    for root in (Path("/"), FETCHED):
        for folder in sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True):
            if (folder / name).exists():
                return folder / name
    if (FETCHED / "usr/bin" / name).exists():
        return FETCHED / "usr/bin" / name
    raise StartError(f"{name} isn't installed. Run bin/setup-servers.")


def library_path(root: Path = FETCHED) -> dict[str, str]:
    """Make the variable by which fetched programs find the libraries that were fetched with
    them.
    """
    folders = [*root.glob("usr/lib/*-linux-gnu*"), *root.glob("lib/*-linux-gnu*")]
    return {"LD_LIBRARY_PATH": ":".join(map(str, folders))} if folders else {}


class Postgres:
    """The command and the data of a PostgreSQL server, in a folder that its user may reach."""

    def __init__(self, folder: Path, port: int, *, user: str, password: str) -> None:
        self._folder, self._port, self._user = folder, port, user
        self._root = FETCHED
        self._programs = self._reachable_programs()
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED)
        self._initialise(password)

    @property
    def command(self) -> list[str]:
        """What starts the server in the foreground."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self._folder),
            "jit": "off",
            "fsync": "off",
        }
        given = [f"--{name}={value}" for name, value in options.items()]
        return [*self._as_user(), str(self._programs / "postgres"), "-D", self._data, *given]

    @property
    def variables(self) -> dict[str, str]:
        """What the server and its clients, psql and pg_isready, need in their environment."""
        return {**library_path(self._root), "PATH": f"{self._programs}:{os.environ['PATH']}"}

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _as_user(self) -> list[str]:
        if os.geteuid() != 0:
            return []
        return ["setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups"]

    def _reachable_programs(self) -> Path:
        """The programs' folder, or a copy if we are root and the folder is closed to other
        users.
        """
        programs = find_program("initdb").parent
        test = [*self._as_user(), "test", "-x", str(programs / "initdb")]
        if subprocess.run(test, check=False).returncode == 0:
            return programs
        self._root = self._folder / "root"
        shutil.copytree(FETCHED, self._root, symlinks=True)
        return self._root / programs.relative_to(FETCHED)

    def _initialise(self, password: str) -> None:
        secret = self._folder / "password"
        secret.write_text(password, encoding="utf-8")
        secret.chmod(0o644)  # the folder itself is closed
        command = [str(self._programs / "initdb"), "-D", self._data, f"--username={self._user}"]
        command += [f"--pwfile={secret}", "--auth-host=scram-sha-256", "--auth-local=trust"]
        log = self._folder / "initdb.log"
        with log.open("wb") as output:
            done = subprocess.run(
                [*self._as_user(), *command, "--encoding=UTF8", "--no-sync"],
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env={**os.environ, **self.variables},
                check=False,
            )
        if done.returncode:
            raise StartError(f"PostgreSQL's data folder can't be made.\n{tail(log)}")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A temporary folder that another user can be given: pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(prefix="directory-sync-postgres-") as name:
        yield Path(name)


def redis_command(folder: Path, port: int) -> list[str]:
    """What starts Redis in the foreground. Like its image, it keeps its data when it is stopped."""
    program = str(find_program("redis-server"))
    return [program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder)]
