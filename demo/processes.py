"""Servers as processes of our own: started on free ports, awaited, and stopped by their process
id.
"""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

STOP_SECONDS = 20


class StartError(Exception):
    """A server didn't start; the text says which, and shows the end of its log."""


def free_port() -> int:
    """A port of the loopback interface that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(port: int) -> bool:
    """Whether something answers on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def server(
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], bool],
    seconds: float = 60,
    environment: Mapping[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server for the length of a block, in a process group of its own that is stopped with it.

    Raises StartError with the end of the log if it ends, or isn't ready after `seconds`.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        _await(name, process, log, ready, seconds)
        yield process
    finally:
        _stop(process)


def _await(
    name: str,
    process: "subprocess.Popen[bytes]",
    log: Path,
    ready: Callable[[], bool],
    seconds: float,
) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None:
            raise StartError(
                f"{name} ended with code {process.returncode} while starting.\n{tail(log)}"
            )
        if time.monotonic() > deadline:
            raise StartError(f"{name} isn't ready after {seconds:.0f} seconds.\n{tail(log)}")
        time.sleep(0.1)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ask the process and all its descendants to end, wait until they have, and insist after a
    while.
    """
    with suppress(psutil.NoSuchProcess):
        server_ = psutil.Process(process.pid)
        family = [server_, *server_.children(recursive=True)]
        for stop in (psutil.Process.terminate, psutil.Process.kill):
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    stop(member)
            deadline = time.monotonic() + STOP_SECONDS
            while any(map(runs, family)) and time.monotonic() < deadline:
                process.poll()
                time.sleep(0.1)
    process.wait()


def runs(process: psutil.Process) -> bool:
    """Whether a process still runs. A zombie doesn't: it has ended, and nobody waited for it, since
    a container may lack a process that does.
    """
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def tail(log: Path, lines: int = 20) -> str:
    """The end of a log file, with its path."""
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join([f"The end of {log}:", *(f"  {line}" for line in text)])
