"""Detaching a sync from Joget: all that it manages becomes local, and Joget stays as it is."""

import hashlib
import logging
from dataclasses import dataclass

from include.directory_sync import staging
from include.directory_sync.errors import without_values
from include.directory_sync.joget import ledger
from include.directory_sync.joget.database import Database, session
from include.directory_sync.joget.detaching import Managed, count_managed, find_pools, give_up_links, has_links
from include.directory_sync.joget.tables import Tables, inspect
from include.directory_sync.loading import APPLIED
from include.directory_sync.run import Run
from include.directory_sync.settings import find_sync
from include.directory_sync.vocabulary import RunKind

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detachment:
    """What detaching a sync did, or would do."""

    sync: str
    dag_id: str
    is_applied: bool
    managed: Managed


def detach(sync_name: str, *, is_applied: bool) -> Detachment:
    """Give up the sync's links, or count them where the detachment isn't to be applied.

    Waits for a run that holds the ledger's lock; raises TransientError after ledger.LOCK_WAIT
    seconds, and PermanentError where the settings hold no such sync. Doing it twice does nothing
    more.
    """
    with without_values("detach"):
        sync = find_sync(sync_name)
        staging.require_access(sync.staging_url)
        run = Run(run_id="detach", sync=sync, dry_run=not is_applied)
        with session(sync.joget_conn_id) as database:
            tables = inspect(database, sync.organization)
            managed = _give_up(database, tables, run) if is_applied else _count(database, tables, run)
        return Detachment(sync.name, sync.dag_id, is_applied, managed)


def _count(database: Database, tables: Tables, run: Run) -> Managed:
    if not has_links(database):
        return Managed()
    with database.transaction("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"):
        return count_managed(database, tables, run.sync.name)


def _give_up(database: Database, tables: Tables, run: Run) -> Managed:
    if not has_links(database):
        _leave_signposts(database, run, [])
        return Managed()
    ledger.create(database, tables)
    with ledger.lock(database, run):
        managed = give_up_links(database, tables, run.sync.name)
        _leave_signposts(database, run, find_pools(database, run.sync.name))
        log.info("sync %s is detached from Joget", run.sync.name)
    return managed


def _leave_signposts(database: Database, run: Run, pools: list[str]) -> None:
    """Leave a signpost beside those of applied runs. By it, a sync that is installed again doesn't
    take a dropped ledger for a lost one.
    """
    moment = staging.moment(ledger.now(database))
    key = hashlib.sha256(f"detach\0{run.sync.name}\0{moment}".encode()).hexdigest()
    for pool in sorted({run.sync.user_pool_id, *pools}):
        of_pool = run.model_copy(update={"sync": run.sync.model_copy(update={"user_pool_id": pool})})
        name = f"{moment}.{database.target}.{RunKind.DETACHED}.{key}"
        staging.note(of_pool, APPLIED, name, f"{run.sync.staging_url}/{of_pool.home}")
