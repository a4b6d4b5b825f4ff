"""What a check finds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from directory_sync.errors import ConflictError, DirectorySyncError, hide_values


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    """A run works, but something else is slow or will fail."""
    WRONG = "wrong"
    """A run would fail, or do what nobody wants."""
    UNKNOWN = "unknown"
    """It couldn't be tried."""


@dataclass(frozen=True)
class Finding:
    """What one check found. It quotes no name, email or attribute of a user."""

    name: str
    status: Status
    what: str
    to_do: str = ""
    """Empty if nothing is to be done, or if `what` is an error: its text says what to do."""


@dataclass(frozen=True)
class Examination:
    """All findings about a sync."""

    sync: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Status:
        """`wrong`, `warning` or `ok`. What couldn't be tried doesn't count."""
        found = {finding.status for finding in self.findings}
        return next(
            (status for status in (Status.WRONG, Status.WARNING) if status in found), Status.OK
        )


def run_check(name: str, check: Callable[[], Finding]) -> Finding:
    """What a check finds. An error in it is a finding too."""
    try:
        with hide_values(name):
            return check()
    except ConflictError as error:  # somebody else was in the way, and a run would plan again
        return Finding(name, Status.UNKNOWN, str(error), "Run this again.")
    except DirectorySyncError as error:
        return Finding(name, Status.WRONG, str(error))


def skip_check(name: str, needs: str) -> Finding:
    """A check that can't be made, since what it needs has failed."""
    return Finding(name, Status.UNKNOWN, f"not tried: it needs {needs}")


@contextmanager
def collect_error(name: str, findings: list[Finding]) -> Iterator[None]:
    """Add an error within the context to the findings, and go on after it."""
    try:
        with hide_values(name):
            yield
    except DirectorySyncError as error:
        findings.append(Finding(name, Status.WRONG, str(error)))
