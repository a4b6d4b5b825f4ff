"""Noticing that the ledger was lost or restored from an older backup, and finding what it knew."""

import json
from dataclasses import dataclass

import pandas as pd

from directory_sync.frames import make_empty_frame, to_arrow_types
from directory_sync.joget.database import Database
from directory_sync.joget.ledger import runs
from directory_sync.plan.current import REMEMBERED_LINKS_SCHEMA
from directory_sync.run import Run
from directory_sync.staging import signposts, store
from directory_sync.staging.signposts import APPLIED_SIGNPOSTS
from directory_sync.vocabulary import Entity, RunKind, State

LOSS_REASON = (
    "the ledger doesn't know the newest run that was applied: it was lost or restored from an "
    "older backup. Links are rebuilt where Joget's rows still match; nobody is removed"
)


@dataclass(frozen=True)
class LostLedger:
    """What the newest run for everybody left in staging, after the ledger was lost."""

    links: pd.DataFrame
    """Columns current.REMEMBERED_LINKS_SCHEMA; empty where staging doesn't hold that run's files
    any more.
    """
    organization: str | None
    """The organization that the run wrote to; None where staging doesn't say."""


def find_lost_ledger(database: Database, run: Run) -> LostLedger | None:
    """Find what the ledger lost. None where it knows the newest run for everybody and every later
    run that was applied to this database.
    """
    newest, later = _find_signposts(database, run)
    if not newest:
        return None
    known = runs.find_known_keys(database, [_get_key(name) for name in (newest, *later)])
    if all(_get_key(name) in known for name in (newest, *later)):
        return None
    # Links come from this run: only a run for everybody has everybody in its directory.
    folder = signposts.read_signpost(run, APPLIED_SIGNPOSTS, newest)
    files = store.list_names(folder)
    links, organization = make_empty_frame(REMEMBERED_LINKS_SCHEMA), None
    if "directory.parquet" in files:
        links = _read_remembered_links(
            store.read_parquet(store.read_bytes(f"{folder}/directory.parquet"))
        )
    if "report.json" in files:
        organization = str(json.loads(store.read_bytes(f"{folder}/report.json"))["organization"])
    return LostLedger(links, organization)


def _find_signposts(database: Database, run: Run) -> tuple[str | None, list[str]]:
    """Find this database's signpost of the newest run for everybody, and those of later runs."""
    # Runs that were applied to another database say nothing about this one's ledger.
    names = [
        name
        for name in signposts.list_signposts(run, APPLIED_SIGNPOSTS)
        if name.split(".")[1] == database.target
    ]
    kinds = [name.split(".")[2] for name in names]
    detached = [at for at, kind in enumerate(kinds) if kind == RunKind.DETACHED]
    # Runs from before the sync was detached prove no loss: their links were given up on purpose.
    first = detached[-1] + 1 if detached else 0
    full = [at for at, kind in enumerate(kinds) if kind == RunKind.FULL and at >= first]
    return (names[full[-1]], names[full[-1] + 1 :]) if full else (None, [])


def _get_key(signpost: str) -> str:
    return signpost.rpartition(".")[2]


def _read_remembered_links(directory: pd.DataFrame) -> pd.DataFrame:
    has_link = directory["entity"].eq(Entity.GROUP) | directory["state"].notna()
    linked = directory[directory["joget_id"].notna() & has_link]
    # The ledger had `active` for these users: it remembers only what the sync itself deactivated
    # (rule 4 of docs/design.md).
    state = linked["state"].mask(linked["state"] == State.DEACTIVATED_IN_JOGET, State.ACTIVE)
    key = linked["sub"].fillna(linked["group_name"])
    return to_arrow_types(linked.assign(key=key, state=state), REMEMBERED_LINKS_SCHEMA)
