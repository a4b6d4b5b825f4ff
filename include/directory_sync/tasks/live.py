"""The task `apply_events`: applies what the events in the pool's queue told of."""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd

from directory_sync.cognito import client
from directory_sync.cognito.client import USERS_IN_A_PAGE
from directory_sync.cognito.named_users import list_login_attributes
from directory_sync.errors import (
    DirectorySyncError,
    PermanentError,
    TransientError,
    hide_values,
)
from directory_sync.events.joining import Changes, NamedBy, Times, join_messages
from directory_sync.events.messages import Malformed, parse_message
from directory_sync.events.queue import HIDDEN_SECONDS, Message, Queue, open_queue
from directory_sync.frames import make_frame_of_rows
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import links, runs, upgrade
from directory_sync.joget.schema import inspect_tables
from directory_sync.plan.delays import ARRIVALS_SCHEMA
from directory_sync.run import Attempt, Run
from directory_sync.settings import find_sync
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import extract, named_users
from directory_sync.tasks.load import load_snapshot
from directory_sync.tasks.named_users import NamedReading
from directory_sync.tasks.transform import transform_snapshot

log = logging.getLogger(__name__)

MOST_MESSAGES = 20_000
"""Messages of one run at most; another run takes the rest."""

CALLS_FOR_A_USER = 2
"""One question, and one page of the user's groups."""


@dataclass(frozen=True)
class Snapshot:
    """What the pool answered: the manifests of users and groups, and when events came, by sub."""

    users: Manifest
    groups: Manifest
    times: Mapping[str, Times]


def apply_events(attempt: Attempt, sync_name: str) -> dict[str, Any]:
    """Take the queue's messages, read again what they name, apply it, and delete the messages.

    Returns counts, and the URL of the load's manifest where there was something to load. Messages
    are deleted after COMMIT: a crash at any point leaves them for the next run.
    """
    with hide_values("apply_events"):
        sync = find_sync(sync_name)
        store.require_access(sync.staging_url)
        queue = open_queue(sync)
        messages = queue.take_messages(MOST_MESSAGES)
        with _kept_hidden(queue, messages), _given_back_on_failure(queue, messages):
            parsed = [parse_message(message.body, sync.user_pool_id) for message in messages]
            arrived = [message.arrived_at for message in messages]
            changes = join_messages(zip(parsed, arrived, strict=True))
            _log_changes(len(messages), changes)
            run = Run(run_id=attempt.run_id, sync=sync, dry_run=False, is_live=True)
            loaded = _apply_changes(attempt, run, changes)
        pairs = list(zip(messages, parsed, strict=True))
        odd = [message for message, found in pairs if isinstance(found, Malformed)]
        queue.delete([message for message, found in pairs if not isinstance(found, Malformed)])
        # Last, so that a missing dead-letter queue stops nothing else.
        with _log_errors() if loaded else nullcontext():
            queue.move_to_dead_letters(odd)
        counts = {
            "messages": len(messages),
            "skipped": sum(changes.skips.values()),
            "malformed": len(odd),
        }
        return {**(loaded.reference if loaded else {}), "events": counts}


@contextmanager
def _log_errors() -> Iterator[None]:
    """Warn instead of failing: something was loaded, and its review may have to be asked for."""
    try:
        yield
    except DirectorySyncError as error:
        log.warning("messages that nobody can read stay in the queue: %s", error)


@contextmanager
def _kept_hidden(queue: Queue, messages: Sequence[Message]) -> Iterator[None]:
    """Hide the messages from other runs for as long as this one needs: it may list everybody."""
    ended = threading.Event()

    def extend() -> None:
        while not ended.wait(HIDDEN_SECONDS / 2):
            with suppress(DirectorySyncError):  # they come back too soon, which does no harm
                queue.extend(messages)

    keeper = threading.Thread(target=extend, name="hiding messages", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


@contextmanager
def _given_back_on_failure(queue: Queue, messages: Sequence[Message]) -> Iterator[None]:
    """Show the messages to the next run at once if this one fails and may be retried."""
    try:
        yield
    except PermanentError:
        # A person has to change something first. The messages come back when their time is over,
        # and until then no run fails for them again.
        raise
    except BaseException:  # Airflow's AirflowTaskTimeout is no Exception
        queue.extend(messages, 0)
        raise


def _log_changes(messages: int, changes: Changes) -> None:
    log.info(
        "%d messages name %d users and %d groups", messages, len(changes.users), len(changes.groups)
    )
    for reason, count in [*changes.skips.items(), *changes.malformed.items()]:
        log.info("%d messages ask for nothing: %s", count, reason)


def _apply_changes(attempt: Attempt, run: Run, changes: Changes) -> Manifest | None:
    """Read what changed, map, plan and apply it; None where there is nothing to load."""
    if not changes.users and not changes.groups:
        return None
    found = _read_snapshot(attempt, run, changes)
    if found is None:
        return None
    transformed = transform_snapshot(
        attempt.of_task("transform"), found.users.url, found.groups.url
    )
    arrivals = _make_arrivals(found.times)
    loaded = load_snapshot(attempt.of_task("load"), transformed.url, arrivals)
    if store.read_json(loaded, "report.json")["outcome"] == "superseded":
        # That run saw everybody later than this one did, but counts a leaver as missing only once.
        raise TransientError(
            "A run for everybody was applied while this one read what events name. Reading again."
        )
    return loaded


def _read_snapshot(attempt: Attempt, run: Run, changes: Changes) -> Snapshot | None:
    """Read what changed, or everybody where that costs fewer calls; None where nobody is."""
    pool = client.open_sign_in_pool(run.sync, "reading what events name")
    with open_session(run.sync.joget_conn_id) as database:
        tables = inspect_tables(database, run.sync.organization)
        upgrade.create_or_upgrade_ledger(database, tables)
        newest = runs.find_newest_full_run(database, run)
        if newest is None:
            log.warning(
                "no run for everybody was applied yet for this pool. The first one reads what "
                "these messages told of"
            )
            return None
        if _count_calls(database, run, changes) <= _count_calls_of_listing(newest.transformed_url):
            read = NamedReading(database, tables, run, pool)
            times = read.read_changes(changes)
            return _stage_named(attempt, pool, read, times)
        run = runs.add_previous_rules(database, run)
    log.info("reading everybody, since that costs fewer calls than %d users", len(changes.users))
    return _read_everybody(attempt, run, changes)


def _count_calls(database: Database, run: Run, changes: Changes) -> int:
    """How many calls it takes to ask for these users and groups by name."""
    leavers = {user.value for user in changes.leavers}
    linked = links.read_logins_of_subs(database, run, sorted(changes.subs - leavers))
    newcomers = changes.subs - leavers - {*linked["sub"]}
    # Somebody else may have a newcomer's login, so the pool is asked for that too.
    for_a_newcomer = len(list_login_attributes(run.sync.mapping.username))
    return (
        CALLS_FOR_A_USER * len(changes.users)
        + for_a_newcomer * len(newcomers)
        + len(changes.groups)
    )


def _count_calls_of_listing(transformed_url: str) -> int:
    """How many calls the listing took from which the newest run for everybody was made."""
    inputs = store.read_manifest(transformed_url).inputs.values()
    listings = [store.find_source(store.read_manifest(url)) for url in inputs]
    fewest = sum(manifest.counts.get("users", 0) // USERS_IN_A_PAGE for manifest in listings)
    return max(sum(manifest.counts.get("calls", 0) for manifest in listings), fewest)


def _read_everybody(attempt: Attempt, run: Run, changes: Changes) -> Snapshot:
    subs = {user.value for user in changes.leavers if user.by is NamedBy.SUB}
    at_once = run.sync.events.leavers_at_once
    run = run.model_copy(update={"leavers": tuple(sorted(subs)) if at_once else ()})
    pool = client.open_user_pool(run.sync, "listing users")
    users = extract.list_users(run, attempt.of_task("extract_users"), pool)
    groups = extract.extract_groups(attempt.of_task("extract_groups"), users.url)
    times = {user.value: at for user, at in changes.users.items() if user.by is NamedBy.SUB}
    return Snapshot(users, groups, times)


def _stage_named(
    attempt: Attempt, pool: client.UserPool, read: NamedReading, times: Mapping[str, Times]
) -> Snapshot | None:
    run = read.run
    if not run.is_for_some:
        return None
    if not run.sync.events.leavers_at_once:
        run = run.model_copy(update={"leavers": ()})
    folder = extract.open_run_folder(run, attempt.of_task("extract_users"))
    users = named_users.write_users(folder, pool, read)
    of_groups = store.open_folder(run, attempt.of_task("extract_groups").name)
    return Snapshot(users, named_users.read_groups(of_groups, pool, users), times)


def _make_arrivals(times: Mapping[str, Times]) -> pd.DataFrame:
    """Columns plan.delays.ARRIVALS_SCHEMA."""
    rows = [
        {
            "sub": sub,
            "happened_at": of.happened_at.replace(tzinfo=None),
            "arrived_at": of.arrived_at.replace(tzinfo=None),
        }
        for sub, of in times.items()
    ]
    return make_frame_of_rows(rows, ARRIVALS_SCHEMA)
