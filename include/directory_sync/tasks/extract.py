"""The steps `extract_users` and `extract_groups`. Each leaves a sealed folder in staging."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa

from directory_sync.cognito import client, completeness, snapshot
from directory_sync.cognito.group_listing import GroupListing
from directory_sync.cognito.user_listing import UserListing
from directory_sync.errors import PermanentError, hide_values
from directory_sync.frames import TEXT_TYPE, number_pairs
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import locks, runs, upgrade
from directory_sync.joget.reading import read_expected_subs, read_group_names, read_memberships
from directory_sync.joget.schema import inspect_tables
from directory_sync.run import Attempt, Run, resolve_run
from directory_sync.settings import find_sync
from directory_sync.staging import signposts, store
from directory_sync.staging.manifest import Manifest
from directory_sync.staging.signposts import ONE_CHAIN_DAYS, ONE_CHAIN_SIGNPOSTS, SNAPSHOT_SIGNPOSTS
from directory_sync.tasks import named_users
from directory_sync.tasks.named_users import NamedReading

log = logging.getLogger(__name__)


CLOCK_SLACK = timedelta(seconds=60)
"""Airflow makes a backfill's runs one after the other, so the first may list the pool up to so long
before the last is made.
"""


def extract_users(
    attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]
) -> Manifest:
    """Resolve the run, check both ends, then list every user of the pool into users.parquet.

    A backfill's run uses another run's listing if there is one, and a replay uses that of its run.
    """
    with hide_values("extract_users"):
        # The run's later tasks read run.json instead, so it keeps the settings that it began with.
        sync = find_sync(sync_name)
        run = resolve_run(attempt.run_id, sync, parameters, conf)
        if run.dry_run:
            log.warning("DRY RUN (%s): nothing will be written to Joget", run.dry_run_reason)
        store.require_access(run.sync.staging_url)
        open_pool = client.open_sign_in_pool if run.users else client.open_user_pool
        pool = open_pool(run.sync, "listing users")
        with open_session(run.sync.joget_conn_id) as database:
            tables = inspect_tables(database, run.sync.organization)
            if not run.dry_run:
                # The account may lack a right: better to know before hours of listing.
                upgrade.create_or_upgrade_ledger(database, tables)
            if run.users:
                read = NamedReading(database, tables, run, pool)
                read.read_names(run.users)
                folder = open_run_folder(read.run, attempt)
                if not run.replay_run_id:
                    return named_users.write_users(folder, pool, read)
            else:
                run = runs.add_previous_rules(database, run)
                folder = open_run_folder(run, attempt)
            if run.replay_run_id:
                return _reuse_listing(
                    folder, _find_listing(run, run.replay_run_id).inputs["extract_users"]
                )
            if attempt.backfill_since is not None:
                # The dates of a backfill may run at once. They take turns here, so that the first
                # one lists the pool for all.
                with locks.hold_reading_lock(database, run):
                    known = _find_users_since(run, attempt)
                    return (
                        _reuse_listing(folder, known)
                        if known
                        else _list_users(run, folder, pool, "backfill.users")
                    )
        return _list_users(run, folder, pool, "users")


def open_run_folder(run: Run, attempt: Attempt) -> store.Folder:
    """The attempt's folder, with run.json: every later task reads that and no settings."""
    folder = store.open_folder(run, attempt.name)
    folder.json("run.json", run.model_dump(mode="json"))
    return folder


def list_users(run: Run, attempt: Attempt, pool: client.UserPool) -> Manifest:
    """List every user of the pool."""
    return _list_users(run, open_run_folder(run, attempt), pool, "users")


def _list_users(run: Run, folder: store.Folder, pool: client.UserPool, signpost: str) -> Manifest:
    # Before the first call: a snapshot is as old as its oldest answer.
    snapshot_at = datetime.now(UTC)
    estimated = pool.estimated_users()
    with folder.rows("users.parquet", snapshot.make_users_schema(run.attributes)) as users:
        listing = UserListing(
            pool,
            lambda page: users.write(
                [snapshot.make_user_row(user, run.attributes) for user in page]
            ),
        )
        listing.list_all(
            run.sync.proof,
            estimated,
            # Both are asked only for a pool that is large enough for parts.
            lambda: _read_expected_subs(run),
            lambda: not _has_failed_in_parts(run),
        )
    pool.progress.say()
    if listing.parts_failed:
        _list_in_one_chain(run, folder)
    subs = listing.subs
    doubts = completeness.find_doubts_about_users(run.sync.proof, subs, estimated)
    _warn_of_doubts(doubts)
    counts = {
        "users": len(subs),
        "estimated_users": estimated or 0,
        "in_parts": int(listing.in_parts),
        "in_replica": int(pool.reads_replica),
        **pool.count_calls(),
    }
    counts["asked_by_name"] = listing.asked_by_name
    manifest = folder.seal(
        snapshot_at=snapshot_at, counts=counts, complete=not doubts, incomplete_reasons=doubts
    )
    # A backfill's other dates use what a signpost names, and trust no incomplete listing.
    if manifest.complete:
        signposts.write_signpost(
            run,
            SNAPSHOT_SIGNPOSTS,
            f"{signposts.format_time(snapshot_at)}.{signpost}",
            manifest.url,
        )
    return manifest


def extract_groups(attempt: Attempt, users_url: str) -> Manifest:
    """List the pool's groups, and the members of those in scope, several groups at once."""
    with hide_values("extract_groups"):
        store.require_access(users_url)
        users = store.read_manifest(users_url)
        run = store.read_run(users)
        folder = store.open_folder(run, attempt.name)
        if run.replay_run_id:
            return _reuse_listing(folder, _find_listing(run, run.replay_run_id).url, users_url)
        if run.is_for_some:
            pool = client.open_sign_in_pool(run.sync, "reading groups")
            return named_users.read_groups(folder, pool, users)
        pool = client.open_user_pool(run.sync, "listing groups")
        if attempt.backfill_since is None:
            return _list_groups(run, folder, pool, users)
        with (
            open_session(run.sync.joget_conn_id) as database,
            locks.hold_reading_lock(database, run),
        ):
            # By the time of its users, so that users and groups belong to one snapshot.
            signpost = f"{signposts.format_time(users.snapshot_at)}.groups"
            if signpost in signposts.list_signposts(run, SNAPSHOT_SIGNPOSTS):
                return _reuse_listing(
                    folder, signposts.read_signpost(run, SNAPSHOT_SIGNPOSTS, signpost), users_url
                )
            return _list_groups(run, folder, pool, users)


@dataclass(frozen=True)
class Expected:
    """The users, groups and memberships that Joget has of this pool. The pool is asked by name for
    each one that the lists lack.
    """

    memberships: pd.DataFrame
    """Columns sub, group_name: the linked users in each linked group in Joget."""
    group_names: list[str]
    """Names of linked groups in scope."""
    subs: list[str]
    """Subs of the linked users that may get a miss."""


def _read_expected(run: Run) -> Expected:
    """Read what Joget has of the pool."""
    # On a connection of its own: a listing takes minutes, and an idle connection would be dropped.
    with open_session(run.sync.joget_conn_id) as database:
        tables = inspect_tables(database, run.sync.organization)
        return Expected(
            memberships=read_memberships(database, tables, run),
            group_names=read_group_names(database, tables, run),
            subs=read_expected_subs(database, run).to_pylist(),
        )


def _list_groups(
    run: Run, folder: store.Folder, pool: client.UserPool, users: Manifest
) -> Manifest:
    expected = _read_expected(run)
    known = expected.memberships
    subs = store.read_column(store.find_source(users).url, "users.parquet", "sub")
    listing = GroupListing(pool, run, subs)
    listing.list_groups()
    sizes = known["group_name"].value_counts()
    with _open_member_files(folder, run, "") as (memberships, seen):
        listing.list_members(
            memberships.write,
            seen.write,
            known={str(name): int(size) for name, size in sizes.items()},
        )
        listing.find_unlisted_groups(expected.group_names, memberships.write, seen.write)
        # Last, since each user that another answer showed saves a question.
        listing.ask_for_users(expected.subs, seen.write)
    with folder.rows("absent.parquet", snapshot.ABSENT_SCHEMA) as absent:
        absent.write(listing.absent_rows())
    # Nobody leaves a group on one absence (rule 10 of docs/design.md).
    again = _find_groups_lacking_members(known, folder, listing.names)
    with _open_member_files(folder, run, "_again") as (memberships, seen):
        log.info(
            "listing %d groups again, since their lists lack a member that Joget has", len(again)
        )
        listing.list_again(again, memberships.write, seen.write)
    pool.progress.say()
    with folder.rows("groups.parquet", snapshot.GROUPS_SCHEMA) as groups:
        groups.write(listing.group_rows())
    return _seal_groups(run, folder, pool, users, listing)


@contextmanager
def _open_member_files(
    folder: store.Folder, run: Run, suffix: str
) -> Iterator[tuple[store.FrameWriter, store.FrameWriter]]:
    """Open writers of memberships, and of users that the list of users lacks."""
    with (
        folder.rows(f"memberships{suffix}.parquet", snapshot.MEMBERSHIPS_SCHEMA) as memberships,
        folder.rows(
            f"users_seen{suffix}.parquet", snapshot.make_users_schema(run.attributes)
        ) as seen,
    ):
        yield memberships, seen


def _seal_groups(
    run: Run,
    folder: store.Folder,
    pool: client.UserPool,
    users: Manifest,
    listing: GroupListing,
) -> Manifest:
    """Compare users seen elsewhere with the list of users, and seal the folder with the doubts."""
    names = ("users_seen.parquet", "users_seen_again.parquet")
    parts = [pd.Series(store.read_column(folder.url, name, "created_at")) for name in names]
    created = pd.concat(parts, ignore_index=True)
    seen = pd.DataFrame({"created_at": pd.to_datetime(created, utc=True)})
    doubts = completeness.find_doubts_about_presence(
        run.sync.proof, seen, users.snapshot_at, groups=len(listing.hidden)
    )
    reasons = doubts + completeness.find_doubts_about_replica(listing.unproven)
    _warn_of_doubts(reasons)
    if doubts and store.find_source(users).counts.get("in_parts"):
        log.warning("the listing in parts may have left out these users")
        _list_in_one_chain(run, folder)
    members = len(store.read_column(folder.url, "memberships.parquet", "sub"))
    counts = {
        "groups": len(listing.group_rows()),
        "memberships": members,
        "asked_by_name": listing.asked_by_name,
    }
    manifest = folder.seal(
        snapshot_at=users.snapshot_at,
        counts={**counts, **pool.count_calls()},
        complete=not reasons,
        incomplete_reasons=reasons,
        inputs={"extract_users": users.url},
    )
    if manifest.complete and users.complete:
        signposts.write_signpost(
            run,
            SNAPSHOT_SIGNPOSTS,
            f"{signposts.format_time(users.snapshot_at)}.groups",
            manifest.url,
        )
    return manifest


def _find_groups_lacking_members(
    known: pd.DataFrame, folder: store.Folder, names: list[str]
) -> list[str]:
    """Find which of the named groups have a member in Joget that their listing lacks."""
    # Read back, since the listing streams its memberships into the file and keeps none.
    subs = store.read_column(folder.url, "memberships.parquet", "sub")
    groups = store.read_column(folder.url, "memberships.parquet", "group_name")
    found = pd.DataFrame(
        {"sub": pd.Series(subs, dtype=TEXT_TYPE), "group_name": pd.Series(groups, dtype=TEXT_TYPE)}
    )
    of = ("sub", "group_name")
    here, listed = (
        number_pairs(pairs, of, known["sub"].drop_duplicates(), pd.Series(names, dtype=TEXT_TYPE))
        for pairs in (known, found)
    )
    return sorted(known.loc[(here >= 0) & ~pd.Index(here).isin(listed), "group_name"].unique())


def _read_expected_subs(run: Run) -> pa.Array:
    """Read the subs for which a miss may count (reading.read_expected_subs)."""
    # On a new connection: one from before the listing would have been idle for minutes.
    with open_session(run.sync.joget_conn_id) as database:
        return read_expected_subs(database, run)


def _has_failed_in_parts(run: Run) -> bool:
    """Whether a listing in parts couldn't be trusted within the last ONE_CHAIN_DAYS."""
    since = signposts.format_time(datetime.now(UTC) - ONE_CHAIN_DAYS)
    return any(name >= since for name in signposts.list_signposts(run, ONE_CHAIN_SIGNPOSTS))


def _list_in_one_chain(run: Run, folder: store.Folder) -> None:
    log.warning("for %d days the pool is listed in one chain of pages", ONE_CHAIN_DAYS.days)
    signposts.write_signpost(
        run, ONE_CHAIN_SIGNPOSTS, signposts.format_time(datetime.now(UTC)), folder.url
    )


def _find_listing(run: Run, run_id: str) -> Manifest:
    """The newest extract_groups of another run; raises PermanentError where staging has none."""
    found = store.list_sealed_folders(run, run_id, "extract_groups")
    if not found:
        raise PermanentError(
            "Staging has no snapshot of the run in parameter replay_run_id for pool "
            f"{run.sync.user_pool_id}: there is no such run, it didn't get that far, or its files "
            "were deleted (staging_retention_days). Give another run's id."
        )
    return found[-1]


def _find_users_since(run: Run, attempt: Attempt) -> str | None:
    """The listing that a backfill's date uses: its own, or the newest complete one since the
    backfill began. None where there is no such listing.
    """
    own = [
        manifest
        for manifest in store.list_sealed_folders(run, attempt.run_id, "extract_groups")
        if manifest.complete
    ]
    # A backfill's own listing may be older by CLOCK_SLACK. Other runs' listings may not: the pool
    # may have changed between such a listing and the backfill's beginning.
    began = attempt.backfill_since or datetime.now(UTC)
    since = {
        ".users": signposts.format_time(began),
        ".backfill.users": signposts.format_time(began - CLOCK_SLACK),
    }
    listed = [
        name
        for name in signposts.list_signposts(run, SNAPSHOT_SIGNPOSTS)
        if name.endswith(".users") and name >= since[name[name.index(".") :]]
    ]
    if own:
        found = own[-1].inputs["extract_users"]
    elif listed:
        found = signposts.read_signpost(run, SNAPSHOT_SIGNPOSTS, listed[-1])
    else:
        return None
    # The mapping may have changed since, and name attributes that this listing lacks.
    holds = set(store.read_run(store.read_manifest(found)).attributes)
    return found if holds >= set(run.attributes) else None


def _reuse_listing(folder: store.Folder, url: str, users_url: str | None = None) -> Manifest:
    """Seal a folder of this run that points to the files of another run."""
    found = store.find_source(store.read_manifest(url))
    log.info(
        "using the listing of run %s, taken at %s", found.run_id, found.snapshot_at.isoformat()
    )
    return folder.seal(
        snapshot_at=found.snapshot_at,
        counts={**found.counts, "calls": 0, "throttled_calls": 0, "asked_by_name": 0},
        complete=found.complete,
        incomplete_reasons=found.incomplete_reasons,
        inputs={"extract_users": users_url} if users_url else {},
        reused=found.url,
    )


def _warn_of_doubts(doubts: tuple[str, ...]) -> None:
    for doubt in doubts:
        log.warning("not proven complete, so nobody is missing in this run: %s", doubt)
