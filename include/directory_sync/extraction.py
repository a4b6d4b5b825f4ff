"""The steps `extract_users` and `extract_groups`. Each leaves a sealed folder in staging."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from include.directory_sync import cognito, proof, snapshot, staging
from include.directory_sync.errors import PermanentError, without_values
from include.directory_sync.frames import TEXT, is_among, pair_numbers
from include.directory_sync.group_listing import GroupListing
from include.directory_sync.joget import ledger, runs
from include.directory_sync.joget.database import Database, session
from include.directory_sync.joget.reading import (
    read_expected_subs,
    read_group_names,
    read_memberships,
)
from include.directory_sync.joget.tables import inspect
from include.directory_sync.listing import UserListing
from include.directory_sync.run import Attempt, Run, resolve
from include.directory_sync.settings import find_sync
from include.directory_sync.snapshot import Manifest

log = logging.getLogger(__name__)

SNAPSHOTS = "snapshots"
"""Signposts to complete listings, which a backfill's other dates use: `<time>.users`,
`<time>.groups`, and `<time>.backfill.users` for those that a backfill's run listed.
"""

ONE_CHAIN = "one_chain"
"""Signposts by time, each saying that a listing in parts couldn't be trusted then."""

ONE_CHAIN_FOR = timedelta(days=7)
"""How long the pool is then listed in one chain of pages. Trying parts in every run, and then one
chain, would cost twice the calls.
"""

SLACK = timedelta(seconds=60)
"""Airflow makes a backfill's runs one after the other, so the first may list the pool up to so long
before the last is made.
"""


def extract_users(attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Manifest:
    """Resolve the run, check both ends, then list every user of the pool into users.parquet.

    A backfill's run uses another run's listing if there is one, and a replay uses that of its run.
    """
    with without_values("extract_users"):
        sync = find_sync(sync_name)
        run = resolve(attempt.run_id, sync, parameters, conf)
        if run.dry_run:
            log.warning("DRY RUN (%s): nothing will be written to Joget", run.dry_run_reason)
        staging.require_access(run.sync.staging_url)
        folder = staging.open_folder(run, attempt.name)
        pool = cognito.connect(run.sync, "listing users")
        with session(run.sync.joget_conn_id) as database:
            tables = inspect(database, run.sync.organization)
            if not run.dry_run:
                ledger.create(database, tables)  # before hours of listing: the account may lack a right
            run = _with_previous_rules(database, run)
            folder.json("run.json", run.model_dump(mode="json"))
            if run.replay_run_id:
                return _reuse(folder, _listed_by(run, run.replay_run_id).inputs["extract_users"])
            if attempt.backfill_since is not None:
                with ledger.reading_turn(database, run):
                    known = _users_since(run, attempt)
                    return _reuse(folder, known) if known else _list_users(run, folder, pool, "backfill.users")
        return _list_users(run, folder, pool, "users")


def _list_users(run: Run, folder: staging.Folder, pool: cognito.UserPool, signpost: str) -> Manifest:
    snapshot_at = datetime.now(UTC)
    estimated = pool.estimated_users()
    with folder.rows("users.parquet", snapshot.users_schema(run.attributes)) as users:
        listing = UserListing(
            pool, lambda page: users.write([snapshot.user_row(user, run.attributes) for user in page])
        )
        listing.list_all(run.sync.proof, estimated, lambda: _expected_subs(run), lambda: not _parts_failed(run))
    pool.progress.say()
    if listing.parts_failed:
        _list_in_one_chain(run, folder)
    subs = listing.subs
    doubts = proof.doubts_about_users(run.sync.proof, subs, estimated)
    _warn(doubts)
    counts = {"users": len(subs), "estimated_users": estimated or 0, "in_parts": int(listing.in_parts), **_calls(pool)}
    counts["asked_by_name"] = listing.asked_by_name
    manifest = folder.seal(snapshot_at=snapshot_at, counts=counts, complete=not doubts, incomplete_reasons=doubts)
    if manifest.complete:
        staging.note(run, SNAPSHOTS, f"{staging.moment(snapshot_at)}.{signpost}", manifest.url)
    return manifest


def extract_groups(attempt: Attempt, users_url: str) -> Manifest:
    """List the pool's groups, and the members of those in scope, several groups at once.

    A group is listed again if its listing lacks somebody who is in it in Joget: nobody is removed
    on one absence.
    """
    with without_values("extract_groups"):
        staging.require_access(users_url)
        users = staging.read_manifest(users_url)
        run = staging.read_run(users)
        folder = staging.open_folder(run, attempt.name)
        if run.replay_run_id:
            return _reuse(folder, _listed_by(run, run.replay_run_id).url, users_url)
        pool = cognito.connect(run.sync, "listing groups")
        if attempt.backfill_since is None:
            return _list_groups(run, folder, pool, users)
        with session(run.sync.joget_conn_id) as database, ledger.reading_turn(database, run):
            signpost = f"{staging.moment(users.snapshot_at)}.groups"
            if signpost in staging.noted(run, SNAPSHOTS):
                return _reuse(folder, staging.read_note(run, SNAPSHOTS, signpost), users_url)
            return _list_groups(run, folder, pool, users)


@dataclass(frozen=True)
class Expected:
    """The users, groups and memberships that Joget has of this pool. What the lists lack of them is
    asked for by name.
    """

    memberships: pd.DataFrame
    """Columns sub, group_name: who is in which linked group in Joget."""
    group_names: list[str]
    """Names of linked groups in scope."""
    subs: list[str]
    """Subs of linked users for whom a miss may count."""


def _read_expected(run: Run) -> Expected:
    """Read on a connection that is closed before the listing: that takes minutes, and an idle
    connection would be dropped.
    """
    with session(run.sync.joget_conn_id) as database:
        tables = inspect(database, run.sync.organization)
        return Expected(
            memberships=read_memberships(database, tables, run),
            group_names=read_group_names(database, tables, run),
            subs=read_expected_subs(database, run).to_pylist(),
        )


def _list_groups(run: Run, folder: staging.Folder, pool: cognito.UserPool, users: Manifest) -> Manifest:
    expected = _read_expected(run)
    known = expected.memberships
    subs = staging.read_column(staging.source(users).url, "users.parquet", "sub")
    listing = GroupListing(pool, run, subs)
    listing.list_groups()
    sizes = known["group_name"].value_counts()
    with _member_files(folder, run, "") as (memberships, seen):
        listing.list_members(
            memberships.write, seen.write, known={str(name): int(size) for name, size in sizes.items()}
        )
        listing.find_unlisted_groups(expected.group_names, memberships.write, seen.write)
        listing.ask_for_users(expected.subs, seen.write)
    with folder.rows("absent.parquet", snapshot.ABSENT) as absent:
        absent.write(listing.absent_rows())
    again = _lacking(known, folder, listing.names)
    with _member_files(folder, run, "_again") as (memberships, seen):
        log.info("listing %d groups again, since their lists lack a member whom Joget has", len(again))
        listing.list_again(again, memberships.write, seen.write)
    pool.progress.say()
    with folder.rows("groups.parquet", snapshot.GROUPS) as groups:
        groups.write(listing.group_rows())
    return _seal_groups(run, folder, pool, users, listing)


@contextmanager
def _member_files(
    folder: staging.Folder, run: Run, suffix: str
) -> Iterator[tuple[staging.FrameWriter, staging.FrameWriter]]:
    """Open writers of memberships, and of users that the list of users lacks."""
    with (
        folder.rows(f"memberships{suffix}.parquet", snapshot.MEMBERSHIPS) as memberships,
        folder.rows(f"users_seen{suffix}.parquet", snapshot.users_schema(run.attributes)) as seen,
    ):
        yield memberships, seen


def _seal_groups(
    run: Run,
    folder: staging.Folder,
    pool: cognito.UserPool,
    users: Manifest,
    listing: GroupListing,
) -> Manifest:
    """Compare users seen elsewhere with the list of users, and seal the folder with the doubts."""
    names = ("users_seen.parquet", "users_seen_again.parquet")
    parts = [pd.Series(staging.read_column(folder.url, name, "created_at")) for name in names]
    created = pd.concat(parts, ignore_index=True)
    seen = pd.DataFrame({"created_at": pd.to_datetime(created, utc=True)})
    doubts = proof.doubts_about_presence(run.sync.proof, seen, users.snapshot_at, groups=len(listing.hidden))
    _warn(doubts)
    if doubts and staging.source(users).counts.get("in_parts"):
        log.warning("the listing in parts may have left out these users")
        _list_in_one_chain(run, folder)
    members = len(staging.read_column(folder.url, "memberships.parquet", "sub"))
    counts = {
        "groups": len(listing.group_rows()),
        "memberships": members,
        "asked_by_name": listing.asked_by_name,
    }
    manifest = folder.seal(
        snapshot_at=users.snapshot_at,
        counts={**counts, **_calls(pool)},
        complete=not doubts,
        incomplete_reasons=doubts,
        inputs={"extract_users": users.url},
    )
    if manifest.complete and users.complete:
        staging.note(run, SNAPSHOTS, f"{staging.moment(users.snapshot_at)}.groups", manifest.url)
    return manifest


def _lacking(known: pd.DataFrame, folder: staging.Folder, names: list[str]) -> list[str]:
    """Find which of the named groups have a known member whom their listing lacks."""
    subs = staging.read_column(folder.url, "memberships.parquet", "sub")
    groups = staging.read_column(folder.url, "memberships.parquet", "group_name")
    found = pd.DataFrame({"sub": pd.Series(subs, dtype=TEXT), "group_name": pd.Series(groups, dtype=TEXT)})
    of = ("sub", "group_name")
    here, listed = (
        pair_numbers(pairs, of, known["sub"].drop_duplicates(), pd.Series(names, dtype=TEXT))
        for pairs in (known, found)
    )
    return sorted(known.loc[(here >= 0) & ~is_among(here, listed), "group_name"].unique())


def _expected_subs(run: Run) -> pa.Array:
    """Read on a new connection: one from before the listing would have been idle for minutes."""
    with session(run.sync.joget_conn_id) as database:
        return read_expected_subs(database, run)


def _parts_failed(run: Run) -> bool:
    """Whether a listing in parts couldn't be trusted within the last ONE_CHAIN_FOR."""
    since = staging.moment(datetime.now(UTC) - ONE_CHAIN_FOR)
    return any(name >= since for name in staging.noted(run, ONE_CHAIN))


def _list_in_one_chain(run: Run, folder: staging.Folder) -> None:
    log.warning("for %d days the pool is listed in one chain of pages", ONE_CHAIN_FOR.days)
    staging.note(run, ONE_CHAIN, staging.moment(datetime.now(UTC)), folder.url)


def _calls(pool: cognito.UserPool) -> dict[str, int]:
    return {"calls": pool.progress.calls, "throttled_calls": pool.progress.throttled}


def _with_previous_rules(database: Database, run: Run) -> Run:
    if not ledger.exists(database) or run.replay_run_id:
        return run
    previous = runs.newest_rules(database, run)
    return run.model_copy(update={"previous": previous if previous != run.sync.rules else None})


def _listed_by(run: Run, run_id: str) -> Manifest:
    """The newest extract_groups of another run; raises PermanentError where staging has none."""
    found = staging.sealed(run, run_id, "extract_groups")
    if not found:
        raise PermanentError(
            f"Staging has no snapshot of the run in parameter replay_run_id for pool {run.sync.user_pool_id}: there is "
            f"no such run, it didn't get that far, or its files were deleted (staging_retention_days). Give another "
            f"run's id."
        )
    return found[-1]


def _users_since(run: Run, attempt: Attempt) -> str | None:
    """The listing that a backfill's date uses: its own, or the newest complete one since the backfill began.

    A backfill's own listing may be older by SLACK. Other runs' listings may not: the pool may have
    changed between such a listing and the backfill's beginning.
    """
    own = [manifest for manifest in staging.sealed(run, attempt.run_id, "extract_groups") if manifest.complete]
    began = attempt.backfill_since or datetime.now(UTC)
    since = {".users": staging.moment(began), ".backfill.users": staging.moment(began - SLACK)}
    listed = [
        name
        for name in staging.noted(run, SNAPSHOTS)
        if name.endswith(".users") and name >= since[name[name.index(".") :]]
    ]
    if own:
        found = own[-1].inputs["extract_users"]
    elif listed:
        found = staging.read_note(run, SNAPSHOTS, listed[-1])
    else:
        return None
    holds = set(staging.read_run(staging.read_manifest(found)).attributes)
    return found if holds >= set(run.attributes) else None


def _reuse(folder: staging.Folder, url: str, users_url: str | None = None) -> Manifest:
    """Seal a folder of this run that points to the files of another run."""
    found = staging.source(staging.read_manifest(url))
    log.info("using the listing of run %s, taken at %s", found.run_id, found.snapshot_at.isoformat())
    return folder.seal(
        snapshot_at=found.snapshot_at,
        counts={**found.counts, "calls": 0, "throttled_calls": 0, "asked_by_name": 0},
        complete=found.complete,
        incomplete_reasons=found.incomplete_reasons,
        inputs={"extract_users": users_url} if users_url else {},
        reused=found.url,
    )


def _warn(doubts: tuple[str, ...]) -> None:
    for doubt in doubts:
        log.warning("not proven complete, so nobody is missing in this run: %s", doubt)
