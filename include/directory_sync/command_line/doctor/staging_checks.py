"""Staging: writing, reading, listing and deleting a file of the doctor's own."""

from collections.abc import Iterator

from directory_sync.command_line.doctor.findings import Finding, Status, run_check, skip_check
from directory_sync.errors import PermanentError
from directory_sync.settings import Sync
from directory_sync.staging import store

ACCESS_CHECK = "staging"
WRITE_CHECK = "staging: write a file"
READ_CHECK = "staging: read it"
LIST_CHECK = "staging: list files"
DELETE_CHECK = "staging: delete it"
FILES_CHECK = "files in staging"
"""Stands for the four checks of files, where none of them is tried."""

TRIAL_CONTENT = b"directory-sync doctor"


def check_staging(sync: Sync) -> Iterator[Finding]:
    """Whether the store can be opened, and each right of docs/iam-policy.json on it.

    Writes a file of its own beside those of the runs, and deletes it again.
    """
    access = run_check(ACCESS_CHECK, lambda: _open_store(sync))
    yield access
    if access.status is Status.WRONG:
        yield skip_check(FILES_CHECK, "the store")
        return
    # Always the same name: where deleting isn't allowed, there is never more than one such file.
    url = f"{sync.staging_url}/{sync.name}/{sync.user_pool_id}/doctor/trial"
    written = run_check(WRITE_CHECK, lambda: _check_writing(url))
    yield written
    has_file = written.status is Status.OK
    yield (
        run_check(READ_CHECK, lambda: _check_reading(url))
        if has_file
        else skip_check(READ_CHECK, "the file")
    )
    yield run_check(LIST_CHECK, lambda: _check_listing(sync))
    yield (
        run_check(DELETE_CHECK, lambda: _check_deleting(sync, url))
        if has_file
        else skip_check(DELETE_CHECK, "the file")
    )


def _open_store(sync: Sync) -> Finding:
    store.require_access(sync.staging_url)
    return Finding(ACCESS_CHECK, Status.OK, sync.staging_url)


def _check_writing(url: str) -> Finding:
    store.write_bytes(url, TRIAL_CONTENT)
    return Finding(WRITE_CHECK, Status.OK, "works")


def _check_reading(url: str) -> Finding:
    if store.read_bytes(url) != TRIAL_CONTENT:
        what = "the file isn't what was written"
        to_do = "Find out what else writes to staging_url, or changes files there."
        return Finding(READ_CHECK, Status.WRONG, what, to_do)
    return Finding(READ_CHECK, Status.OK, "works")


def _check_listing(sync: Sync) -> Finding:
    store.list_names(f"{sync.staging_url}/{sync.name}")
    return Finding(LIST_CHECK, Status.OK, "works")


def _check_deleting(sync: Sync, url: str) -> Finding:
    try:
        store.delete_files([url])
    except PermanentError:
        # Runs delete nothing but files older than that, so with null they need no right to.
        if sync.staging_retention_days is not None:
            raise
        what = f"not allowed, and not needed, since staging_retention_days is null; {url} is left"
        return Finding(DELETE_CHECK, Status.OK, what)
    return Finding(DELETE_CHECK, Status.OK, "works")
