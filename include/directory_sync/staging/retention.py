"""Deleting files that staging has held for longer than `staging_retention_days`, once a day.

What something else still needs stays, however old it is: an open review, the newest run for
everybody, the newest complete snapshot, the signposts by which a lost ledger is noticed, and what a
younger run refers to.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from directory_sync.errors import MissingFilesError
from directory_sync.run import Run
from directory_sync.staging import signposts, store
from directory_sync.staging.manifest import Manifest
from directory_sync.staging.signposts import (
    ALERT_SIGNPOSTS,
    APPLIED_SIGNPOSTS,
    CLEANING_SIGNPOSTS,
    ONE_CHAIN_DAYS,
    ONE_CHAIN_SIGNPOSTS,
    SNAPSHOT_SIGNPOSTS,
)
from directory_sync.staging.store import StoredFile
from directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)


CLEANING_INTERVAL = timedelta(days=1)

MOST_FILES_AT_ONCE = 50_000
"""One cleaning deletes at most so many files, which takes some minutes; the next cleaning
continues. The task `load` has two hours, and the first cleaning may find years of files.
"""

MOST_READERS = 16

HIGHEST_CHARACTER = "\U0010ffff"
"""Sorts after every URL."""

ATTEMPT_FOLDER_PATTERN = re.compile(
    r"/[^/]+/[^/]+/(extract_users|extract_groups|transform|load|load_held|undo)\.\d+\.[^/]+$"
)
"""<pool>/<run>/<task>.<try>.<unique>, below the sync's folder. Nothing else is ever deleted there,
whatever people put beside it.
"""

SIGNPOST_PATTERN = re.compile(
    rf"/(?P<pool>[^/]+)/(?P<kind>{APPLIED_SIGNPOSTS}|{SNAPSHOT_SIGNPOSTS}|{ONE_CHAIN_SIGNPOSTS}|{CLEANING_SIGNPOSTS}|{ALERT_SIGNPOSTS})/(?P<name>[^/]+)$"
)


@dataclass(frozen=True)
class StoredFiles:
    """What staging holds of a sync."""

    attempts: Mapping[str, list[StoredFile]]
    """The files, by their attempt's folder."""
    signposts: Mapping[str, list[StoredFile]]
    """By kind."""

    def find_young(self, since: datetime) -> set[str]:
        """The attempts' folders into which something was written since then."""
        return {
            folder
            for folder, files in self.attempts.items()
            if max(file.modified_at for file in files) >= since
        }


def delete_expired_files(run: Run, age: timedelta, now: datetime, needed: Collection[str]) -> None:
    """Delete the sync's files that are older than `age`, unless a run did so within the last day.

    needed: folders that stay, with all that they refer to. Raises PermanentError where the right to
    delete is missing, and TransientError where the store can't be reached.
    """
    since = signposts.format_time(now - CLEANING_INTERVAL)
    if any(name >= since for name in signposts.list_signposts(run, CLEANING_SIGNPOSTS)):
        return
    # Before the cleaning, so that one that fails is tried again tomorrow, and not in each run.
    signposts.write_signpost(run, CLEANING_SIGNPOSTS, signposts.format_time(now), "")
    home = f"{run.sync.staging_url}/{run.sync.name}"
    stored = sort_files(home, store.list_files(home))
    newest = find_newest_signposts(stored)
    kept = _follow_references(
        home,
        {
            *needed,
            *(store.read_bytes(url).decode() for url in newest),
            *stored.find_young(now - age),
        },
    )
    expired = choose_expired_files(stored, kept)
    of_expired = [file.url for files in expired for file in files]
    manifests = {url for url in of_expired if url.endswith("/manifest.json")}
    log.info("deleting what is older than %d days: %d files", age.days, len(of_expired))
    # Signposts are deleted before the folders that they name, and manifests before their files: a
    # deletion that stops halfway leaves nothing that points to files that are gone.
    store.delete_files(find_expired_signposts(stored, newest, now, age))
    store.delete_files(manifests)
    store.delete_files(url for url in of_expired if url not in manifests)
    log.info("deleted %d folders from staging", len(expired))


def choose_expired_files(stored: StoredFiles, kept: Collection[str]) -> list[list[StoredFile]]:
    """The files of the attempts that aren't kept, by attempt, the oldest first; no more of them
    than one cleaning deletes.
    """
    expired = [files for folder, files in stored.attempts.items() if folder not in kept]
    expired.sort(key=lambda files: max(file.modified_at for file in files))
    chosen, found = [], 0
    for files in expired:
        if found >= MOST_FILES_AT_ONCE:
            break
        chosen.append(files)
        found += len(files)
    return chosen


def find_in_home(home: str, folders: Iterable[str]) -> set[str]:
    """The folders that lie below the sync's home, by the Connection that the home has now."""
    # When a URL was written, the settings may have named another Connection, which may be gone now:
    # `s3://old@bucket/a` and `s3://new@bucket/a` are one folder.
    prefix = f"{_remove_connection(home)}/"
    return {
        f"{home}/{found.removeprefix(prefix)}"
        for found in map(_remove_connection, folders)
        if found.startswith(prefix)
    }


def _remove_connection(url: str) -> str:
    """The URL without its Connection."""
    scheme, _, rest = url.partition("://")
    bucket, slash, path = rest.partition("/")
    return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{path}"


def sort_files(home: str, files: Iterable[StoredFile]) -> StoredFiles:
    """Sort a sync's files into attempts and signposts; leaves out what is neither."""
    attempts, signposts = defaultdict(list), defaultdict(list)
    for file in files:
        path = file.url.removeprefix(home)
        if ATTEMPT_FOLDER_PATTERN.match(path.rpartition("/")[0]):
            attempts[file.url.rpartition("/")[0]].append(file)
        elif found := SIGNPOST_PATTERN.match(path):
            signposts[found["kind"]].append(file)
    return StoredFiles(attempts, signposts)


def find_newest_signposts(stored: StoredFiles) -> set[str]:
    """The signposts to folders that stay at any age: for each pool the newest complete snapshot's,
    and for each Joget database that of the newest run for everybody.
    """
    newest: dict[tuple[str, str], str] = {}
    for kind in (SNAPSHOT_SIGNPOSTS, APPLIED_SIGNPOSTS):
        # Names begin with the time, so the last one of each series is the newest.
        for url in sorted(file.url for file in stored.signposts.get(kind, ())):
            series = _find_series(url, kind)
            if series is not None:
                newest[url.rpartition("/")[0], series] = url
    return set(newest.values())


def _find_series(url: str, kind: str) -> str | None:
    """The series of a signpost: only the newest one of a series is needed. None where the signpost
    is of an applied run that wasn't for everybody.
    """
    # Names are <moment>.<database>.<kind of run>.<key>, or <moment>.<what was listed>.
    parts = url.rpartition("/")[2].split(".")
    if kind == SNAPSHOT_SIGNPOSTS:
        return parts[-1]
    return parts[1] if parts[2] == RunKind.FULL else None


def find_expired_signposts(
    stored: StoredFiles, newest: Collection[str], now: datetime, age: timedelta
) -> list[str]:
    """The signposts that may be deleted."""
    # These say how to list the pool for that long (tasks/extract.py), even if `age` is shorter.
    ages = {ONE_CHAIN_SIGNPOSTS: max(age, ONE_CHAIN_DAYS)}
    old = [
        file.url
        for kind, files in stored.signposts.items()
        for file in files
        if file.modified_at < now - ages.get(kind, age)
    ]
    kept_since: dict[str, str] = {}
    # A folder may hold several series: all since the oldest of their newest signposts stays.
    for url in sorted(newest, reverse=True):
        kept_since[url.rpartition("/")[0]] = url
    last_alerts = find_last_alerts(stored)
    # The signposts of runs that were applied after the newest run for everybody stay, since they
    # too show that a ledger was lost (tasks/ledger_loss.py).
    return [
        url
        for url in old
        if url not in last_alerts
        and url < kept_since.get(url.rpartition("/")[0], HIGHEST_CHARACTER)
    ]


def find_last_alerts(stored: StoredFiles) -> set[str]:
    """The newest signpost about each condition of alerts, for each pool: it says whether the
    condition holds.
    """
    newest = {}
    for url in sorted(file.url for file in stored.signposts.get(ALERT_SIGNPOSTS, ())):
        folder, _, name = url.rpartition("/")
        newest[folder, name.split(".")[1]] = url
    return set(newest.values())


def _follow_references(home: str, folders: Collection[str]) -> set[str]:
    """The folders in the sync's home, and all that they were made from or refer to."""
    kept, waiting = set[str](), find_in_home(home, folders)
    with ThreadPoolExecutor(MOST_READERS) as readers:
        while waiting:
            kept |= waiting
            found = readers.map(_read_references, waiting)
            waiting = find_in_home(home, (url for urls in found for url in urls)) - kept
    return kept


def _read_references(folder: str) -> list[str]:
    try:
        manifest = store.read_manifest(folder)
    except MissingFilesError:  # an attempt that ended before it wrote its manifest
        return []
    return list_references(manifest)


def list_references(manifest: Manifest) -> list[str]:
    """The folders that a manifest's run needs beside its own."""
    reused = [manifest.reused] if manifest.reused else []
    return [*manifest.inputs.values(), *manifest.needs, *reused]
