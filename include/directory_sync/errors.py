"""What can go wrong with a run, in two families.

    DirectorySyncError
    ├── PermanentError       retrying can't help: settings, rights, names that don't exist
    │   ├── SettingsError    the settings file, with every fault of it
    │   ├── MissingFilesError  staging doesn't hold a run's files any more, or has no such place
    │   ├── MissingAttributesError  a snapshot lacks attributes that a mapping asks for
    │   ├── MissingRightError  the database account may not do something
    │   └── RefusedRowError  the database refuses what a row holds
    └── TransientError       the next attempt may succeed: throttling, time-outs, lost connections
        └── ConflictError    somebody else wrote the same rows meanwhile: plan again
            └── TakenKeyError    a key that another row has, or a parent that is gone

A record that can't be mapped isn't an error: it is a row of the quarantine.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DirectorySyncError(Exception):
    """An error. Its text says what happened, to which thing, and what to do next.

    The text quotes no name, email or attribute.
    """


class PermanentError(DirectorySyncError):
    """Retrying can't help; a person has to change something first."""


class SettingsError(PermanentError):
    """The settings file is wrong; the text lists every fault."""


class MissingFilesError(PermanentError):
    """Staging doesn't hold the files of a run any more, or there is no such bucket or folder."""


class MissingAttributesError(PermanentError):
    """A snapshot lacks attributes that a mapping asks for; the text names them."""


class MissingRightError(PermanentError):
    """The database account lacks a right; the text names it."""


class RefusedRowError(PermanentError):
    """The database refuses a row's values: by a constraint, a trigger or a shorter column."""


class TransientError(DirectorySyncError):
    """The next attempt may succeed."""


class ConflictError(TransientError):
    """Another writer changed the same rows between our reading and our writing."""


class TakenKeyError(ConflictError):
    """The database refuses a row for its key: another row has it, or a parent or child is in the
    way. Planning again may help; if the refusal comes again, the row is left out.
    """


@contextmanager
def hide_values(doing: str) -> Iterator[None]:
    """Replace an unforeseen exception by one that names only its type and where it was raised."""
    try:
        yield
    except DirectorySyncError:
        raise
    except Exception as error:
        # Messages of drivers and libraries quote the value that they stumbled over, and Airflow
        # logs messages. `from None` keeps the message out of the traceback too.
        raise TransientError(
            f"{doing} failed unexpectedly: {describe_error(error)}. Its message is left out "
            f"since it may quote personal values. If retries fail as well, report these places."
        ) from None


def describe_error(error: BaseException) -> str:
    """An error's type and where it was raised, without its message."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
    ]
    return f"{type(error).__qualname__} at {' > '.join(places)}"
