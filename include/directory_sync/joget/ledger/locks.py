"""The locks by which runs take turns: at writing through the ledger, and at listing a pool."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote, unquote

from directory_sync.errors import DirectorySyncError, TransientError
from directory_sync.joget.database import SHORT_IDLE_SECONDS, Database
from directory_sync.joget.ledger.definition import refuse_newer_ledger
from directory_sync.run import Run

log = logging.getLogger(__name__)


LOCK_WAIT_SECONDS = 600
"""Seconds to wait for another run before the task gives up and is retried."""


LOCK_POLL_SECONDS = 10


HEARTBEAT_SECONDS = 30
"""How often a held lock's connection shows that its worker is alive; see SHORT_IDLE_SECONDS."""


READING_WAIT_SHARE = 0.75
"""The part of an extract task's time for which a backfill's run waits for another one's listing.

The rest is for what it does afterwards: it uses the other run's snapshot, which takes minutes.
"""


def make_lock_name(database: Database) -> str:
    """The name of the lock by which the writers of this Joget database take turns."""
    # Such locks are the whole server's, and MySQL refuses names of more than 64 characters.
    name = database.rows(
        "SELECT LEFT(CONCAT('directory_sync:', DATABASE()), 64)", about="the lock"
    )[0][0]
    return str(name)


@contextmanager
def hold_ledger_lock(database: Database, run: Run) -> Iterator[None]:
    """Hold the one lock of this Joget database: user and group ids are global, so writers take
    turns.

    Logs for which run it waits; raises TransientError after LOCK_WAIT_SECONDS seconds, and
    PermanentError where a newer release upgraded the ledger meanwhile.
    """

    def holder() -> str:
        name, since = database.rows(
            "SELECT holder, since FROM directory_sync_lock", about="directory_sync_lock"
        )[0]
        return (
            f"run {unquote(name)}, which has held the lock of this Joget database since {since} UTC"
        )

    with hold_lock(database, make_lock_name(database), LOCK_WAIT_SECONDS, holder):
        # The run that held the lock until now may have upgraded the ledger.
        refuse_newer_ledger(database)
        database.execute(
            "UPDATE directory_sync_lock SET holder = %s, since = UTC_TIMESTAMP(6) WHERE id = 1",
            (f"{run.sync.name}/{quote(run.run_id)}"[:255],),
            about="directory_sync_lock",
        )
        yield


@contextmanager
def hold_reading_lock(database: Database, run: Run) -> Iterator[None]:
    """Hold the turn at listing this sync's pool. A backfill's runs take turns, and the first one
    lists the pool for all of them.
    """
    of = hashlib.sha256(f"{run.sync.name}/{run.sync.user_pool_id}".encode()).hexdigest()[:32]
    name = f"directory_sync_read:{of}"
    patience = READING_WAIT_SHARE * run.sync.extract_timeout_hours * 3600
    with hold_lock(database, name, patience, lambda: "the run that lists the pool for all"):
        yield


@contextmanager
def hold_lock(
    database: Database, name: str, patience: float, describe_holder: Callable[[], str]
) -> Iterator[None]:
    """Hold a lock of the server's on a connection of its own, kept busy by a heartbeat. Raises
    TransientError where others hold the lock for longer than `patience`, in seconds.
    """
    with database.open_another() as connection:
        # The work may take any time, but if the worker's host vanishes, the lock is soon free. A
        # lost lock harms nothing: a writer also takes its turn in the ledger's lock row
        # (writing.PlanApplication).
        connection.limit_idle_time(SHORT_IDLE_SECONDS)
        waited_since = time.monotonic()
        while (
            connection.rows("SELECT GET_LOCK(%s, %s)", (name, LOCK_POLL_SECONDS), about="the lock")[
                0
            ][0]
            != 1
        ):
            holder = describe_holder()
            if time.monotonic() - waited_since > patience:
                raise TransientError(f"Waited too long for {holder}. Retrying later.")
            log.info("waiting for %s", holder)
        with _keep_connection_alive(connection):
            yield
        with suppress(TransientError):  # a lost connection holds no lock any more
            connection.rows("SELECT RELEASE_LOCK(%s)", (name,), about="the lock")


@contextmanager
def _keep_connection_alive(connection: Database) -> Iterator[None]:
    """Ask the server something every HEARTBEAT_SECONDS, on a connection that nobody else uses."""
    ended = threading.Event()

    def beat() -> None:
        try:
            while not ended.wait(HEARTBEAT_SECONDS):
                connection.execute("DO 0", about="the lock")
        except DirectorySyncError as error:
            log.warning("the lock's connection was lost; another run may begin: %s", error)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
