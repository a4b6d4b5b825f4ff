"""Noticing that the ledger was lost or restored from an older backup, and finding what it knew."""

import json
from dataclasses import dataclass

import pandas as pd

from include.directory_sync import staging
from include.directory_sync.frames import arrow, empty
from include.directory_sync.joget import runs
from include.directory_sync.joget.database import Database
from include.directory_sync.loading import APPLIED
from include.directory_sync.plan.current import REMEMBERED
from include.directory_sync.run import Run
from include.directory_sync.vocabulary import Entity, RunKind, State

LOST = (
    "the ledger doesn't know the newest run that was applied: it was lost or restored from an older "
    "backup. Links are rebuilt where Joget's rows still match; nobody is removed"
)


@dataclass(frozen=True)
class LostLedger:
    """What the newest run for everybody left in staging, after the ledger was lost."""

    links: pd.DataFrame
    """Columns current.REMEMBERED; empty where staging doesn't hold that run's files any more."""
    organization: str | None
    """The organization that it wrote to; None where staging doesn't tell."""


def find_lost_ledger(database: Database, run: Run) -> LostLedger | None:
    """Find what the ledger lost. None where it knows the newest run for everybody and every later
    run that was applied to this database.

    Links come from that newest run: only a run for everybody has everybody in its directory.
    """
    newest, later = _find_signposts(database, run)
    if not newest:
        return None
    known = runs.find_known_keys(database, [_key(name) for name in (newest, *later)])
    if all(_key(name) in known for name in (newest, *later)):
        return None
    folder = staging.read_note(run, APPLIED, newest)
    files = staging.names(folder)
    links, organization = empty(REMEMBERED), None
    if "directory.parquet" in files:
        links = _remember(staging.read_parquet(staging.read_bytes(f"{folder}/directory.parquet")))
    if "report.json" in files:
        organization = str(json.loads(staging.read_bytes(f"{folder}/report.json"))["organization"])
    return LostLedger(links, organization)


def _find_signposts(database: Database, run: Run) -> tuple[str | None, list[str]]:
    """Find this database's signpost of the newest run for everybody, and those of later runs.

    Runs from before the sync was detached prove no loss: their links were given up on purpose.
    """
    names = [name for name in staging.noted(run, APPLIED) if name.split(".")[1] == database.target]
    kinds = [name.split(".")[2] for name in names]
    detached = [at for at, kind in enumerate(kinds) if kind == RunKind.DETACHED]
    first = detached[-1] + 1 if detached else 0
    full = [at for at, kind in enumerate(kinds) if kind == RunKind.FULL and at >= first]
    return (names[full[-1]], names[full[-1] + 1 :]) if full else (None, [])


def _key(signpost: str) -> str:
    return signpost.rpartition(".")[2]


def _remember(directory: pd.DataFrame) -> pd.DataFrame:
    has_link = directory["entity"].eq(Entity.GROUP) | directory["state"].notna()
    linked = directory[directory["joget_id"].notna() & has_link]
    state = linked["state"].mask(linked["state"] == State.DEACTIVATED_IN_JOGET, State.ACTIVE)
    key = linked["sub"].fillna(linked["group_name"])
    return arrow(linked.assign(key=key, state=state), REMEMBERED)
