"""Detaching a sync from Joget: all that it manages becomes local, and Joget stays as it is."""

import hashlib
import logging
from dataclasses import dataclass

from directory_sync.errors import hide_values
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, locks, upgrade
from directory_sync.joget.ledger.detaching import (
    ManagedCounts,
    count_managed,
    find_pools,
    give_up_links,
    has_links,
)
from directory_sync.joget.schema import JogetTables, inspect_tables
from directory_sync.run import Run
from directory_sync.settings import find_sync
from directory_sync.staging import signposts, store
from directory_sync.staging.signposts import APPLIED_SIGNPOSTS
from directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detachment:
    """What detaching a sync did, or would do."""

    sync: str
    dag_id: str
    is_applied: bool
    managed: ManagedCounts


def detach_sync(sync_name: str, *, is_applied: bool) -> Detachment:
    """Give up the sync's links, or count them where the detachment isn't to be applied.

    Waits for a run that holds the ledger's lock; raises TransientError after
    locks.LOCK_WAIT_SECONDS, and PermanentError where the settings hold no such sync. A second
    detachment changes nothing.
    """
    with hide_values("detach"):
        sync = find_sync(sync_name)
        store.require_access(sync.staging_url)
        run = Run(run_id="detach", sync=sync, dry_run=not is_applied)
        with open_session(sync.joget_conn_id) as database:
            tables = inspect_tables(database, sync.organization)
            managed = (
                _give_up(database, tables, run)
                if is_applied
                else _count_detachment(database, tables, run)
            )
        return Detachment(sync.name, sync.dag_id, is_applied, managed)


def _count_detachment(database: Database, tables: JogetTables, run: Run) -> ManagedCounts:
    if not has_links(database):
        return ManagedCounts()
    with database.transaction("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"):
        return count_managed(database, tables, run.sync.name)


def _give_up(database: Database, tables: JogetTables, run: Run) -> ManagedCounts:
    if not has_links(database):
        _leave_signposts(database, run, [])
        return ManagedCounts()
    upgrade.create_or_upgrade_ledger(database, tables)
    with locks.hold_ledger_lock(database, run):
        managed = give_up_links(database, tables, run.sync.name)
        _leave_signposts(database, run, find_pools(database, run.sync.name))
        log.info("sync %s is detached from Joget", run.sync.name)
    return managed


def _leave_signposts(database: Database, run: Run, pools: list[str]) -> None:
    """Leave a signpost in each of the pools, beside those of applied runs."""
    # By it, a sync that is installed again doesn't take a dropped ledger for a lost one
    # (tasks/ledger_loss.py).
    moment = signposts.format_time(definition.read_clock(database))
    key = hashlib.sha256(f"detach\0{run.sync.name}\0{moment}".encode()).hexdigest()
    for pool in sorted({run.sync.user_pool_id, *pools}):
        of_pool = run.model_copy(
            update={"sync": run.sync.model_copy(update={"user_pool_id": pool})}
        )
        name = f"{moment}.{database.target}.{RunKind.DETACHED}.{key}"
        # A detachment has no folder. The home stands in for it: nothing follows these signposts.
        signposts.write_signpost(
            of_pool, APPLIED_SIGNPOSTS, name, f"{run.sync.staging_url}/{of_pool.home}"
        )
