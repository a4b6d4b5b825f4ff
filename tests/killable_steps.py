"""Steps of the sync, each in a process of its own that can be killed at any moment."""

import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

MINUTE = 60.0

PROCESSES = multiprocessing.get_context("forkserver")
# The fork server imports these modules once, so that the processes needn't.
PRELOADED_MODULES = [
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.lineage",
    "directory_sync.tasks.live",
    "directory_sync.tasks.review",
    "pyarrow.dataset",
    "pytest",
    "tests.company",
    "upath.implementations.local",
]
PROCESSES.set_forkserver_preload(PRELOADED_MODULES)


class StepError(Exception):
    """The step ended with an error; the text has its type and its message."""


class Step:
    """A function of the sync that runs in another process; its arguments and result are pickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._answers, answers = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(
            target=_carry_out, args=(dict(os.environ), answers, function, arguments), daemon=True
        )
        self._process.start()
        answers.close()
        assert self._answers.recv() == "begun"

    def kill(self) -> None:
        """Send SIGKILL, from any thread; the process may have ended before."""
        self._process.kill()

    def ends_within(self, seconds: float) -> bool:
        """Wait for the step's end, by itself or by a kill, for so many seconds at most."""
        self._process.join(seconds)
        return self._process.exitcode is not None

    @property
    def was_killed(self) -> bool:
        return self._process.exitcode == -9

    def result(self) -> Any:
        """What the function returned; raises StepError if it raised an error or was killed."""
        try:
            ended, value = self._answers.recv()
        except EOFError:
            raise StepError("the process was killed") from None
        finally:
            self._process.join()
        if ended == "raised":
            raise StepError(value)
        return value


def _carry_out(
    environment: dict[str, str],
    answers: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    os.environ.update(environment)
    logging.disable(logging.WARNING)
    answers.send("begun")
    try:
        answers.send(("gave", function(*arguments)))
    except Exception as error:
        answers.send(("raised", f"{type(error).__name__}: {error}"))
