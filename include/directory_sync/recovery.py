"""Noticing that the ledger was lost, or restored from an older backup, and what it knew."""

import pandas as pd

from include.directory_sync import staging
from include.directory_sync.frames import arrow, empty
from include.directory_sync.joget import ledger, runs
from include.directory_sync.joget.database import Database
from include.directory_sync.loading import APPLIED
from include.directory_sync.plan.current import REMEMBERED
from include.directory_sync.run import Run


def lost_links(database: Database, run: Run) -> pd.DataFrame | None:
    """Columns current.REMEMBERED: what the newest run that was applied to this database left, where the ledger doesn't
    know that run; else None.

    Empty where staging doesn't hold that run's directory any more.
    """
    signposts = [name for name in staging.noted(run, APPLIED) if name.split(".")[1] == database.target]
    if not signposts:
        return None
    key = signposts[-1].rpartition(".")[2]
    if ledger.exists(database) and runs.committed_run(database, key):
        return None
    folder = staging.read_note(run, APPLIED, signposts[-1])
    if "directory.parquet" not in staging.names(folder):
        return empty(REMEMBERED)
    directory = staging.read_parquet(staging.read_bytes(f"{folder}/directory.parquet"))
    known = directory[directory["joget_id"].notna() & (directory["entity"].eq("group") | directory["state"].notna())]
    state = known["state"].mask(known["state"] == "deactivated in Joget", "active")
    return arrow(known.assign(key=known["sub"].fillna(known["group_name"]), state=state), REMEMBERED)
