"""Every statement that the product sends in any of these tests is read by a SQL parser."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from directory_sync.joget import database
from tests.conftest import ROOT
from tests.statements import find_faults

PRODUCT = str(ROOT / "include")
FRAMES_BETWEEN = (database.__file__, "contextlib.py", __file__)
"""Files between a statement's sender and the cursor."""


class RecordingConnection:
    """A driver's connection that hands each of the product's statements to a function."""

    def __init__(self, connection: Any, record: Any) -> None:
        object.__setattr__(self, "_parts", (connection, record))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._parts[0], name, value)

    def cursor(self, *kinds: Any) -> Any:
        connection, record = self._parts
        cursor = connection.cursor(*kinds)
        for name in ("execute", "executemany"):
            setattr(cursor, name, _record_statements(getattr(cursor, name), record))
        return cursor


def _record_statements(run: Any, record: Any) -> Any:
    def run_and_record(statement: str, *parameters: Any) -> Any:
        if _is_sent_by_product():
            record(statement)
        return run(statement, *parameters)

    return run_and_record


def _is_sent_by_product() -> bool:
    frame: Any = sys._getframe(2)
    while frame.f_code.co_filename.endswith(FRAMES_BETWEEN):
        frame = frame.f_back
    return str(Path(frame.f_code.co_filename)).startswith(PRODUCT)


@pytest.fixture(scope="session", autouse=True)
def every_statement_is_understood_and_writes_only_what_it_may() -> Iterator[None]:
    faulty: dict[str, str] = {}

    def record(statement: str) -> None:
        if faults := find_faults(statement):
            faulty.setdefault(
                statement, f"{', '.join(faults)} (in {os.environ.get('PYTEST_CURRENT_TEST')})"
            )

    original = database.Database.__init__

    def connect_and_record(
        self: database.Database, connection: Any, *others: Any, **options: Any
    ) -> None:
        original(self, RecordingConnection(connection, record), *others, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database.Database, "__init__", connect_and_record)
        yield
    assert not faulty, "\n".join(f"{statement}\n  {faults}" for statement, faults in faulty.items())
