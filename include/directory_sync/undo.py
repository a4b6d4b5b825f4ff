"""Taking back what a run applied: shown first, then applied, without what changed since."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import ValidationError

from include.directory_sync import staging
from include.directory_sync.errors import PermanentError, without_values
from include.directory_sync.joget import ledger, reviews, runs
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.reading import read_belongings
from include.directory_sync.loading import Loading, Proposal, read_plan
from include.directory_sync.plan import Current, Plan
from include.directory_sync.plan.undoing import Undoing, undo_plan
from include.directory_sync.report import make_report
from include.directory_sync.run import Attempt, Run
from include.directory_sync.settings import Filled, Section, find_sync
from include.directory_sync.snapshot import Manifest
from include.directory_sync.steps import loading_session

log = logging.getLogger(__name__)


class Parameters(Section):
    """The trigger form of the undo."""

    run_id: Filled
    dry_run: bool = True


def undo(attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Manifest:
    """Plan the inverse of a run, apply what is still as that run left it unless this is a dry run, and report.

    Raises PermanentError for a run id that the ledger doesn't know, and where that run's plan is gone from staging.
    """
    with without_values("undo"):
        asked = _parameters(parameters, conf)
        sync = find_sync(sync_name)
        staging.require_access(sync.staging_url)
        run = Run(run_id=attempt.run_id, sync=sync, dry_run=asked.dry_run, dry_run_reason="asked for")
        folder = staging.open_folder(run, attempt.name)
        with loading_session(run, folder) as loading:
            done = _run_to_undo(loading.database, run, asked.run_id)
            proposal = _propose(loading, run, done)
            plan, outcome = (loading.dry(proposal), "dry_run") if run.dry_run else loading.apply(proposal)
        report = make_report(
            run,
            plan,
            outcome=outcome,
            snapshot_at=proposal.snapshot_at,
            incomplete_reasons=(),
            timings={"undo": folder.seconds},
            undoes=asked.run_id,
        )
        folder.json("report.json", report.model_dump(mode="json"))
        log.info("undo of run %s: %s", asked.run_id, report.sentence())
        return folder.seal(snapshot_at=proposal.snapshot_at, counts=report.flat_counts(), complete=True)


def _parameters(parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Parameters:
    unknown = sorted(set(conf) - set(Parameters.model_fields))
    if unknown:
        raise PermanentError(f"Unknown parameter(s) {', '.join(unknown)}. Known are run_id, dry_run.")
    try:
        return Parameters.model_validate({**parameters, **conf})
    except ValidationError as error:
        faults = "; ".join(f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_input=False))
        raise PermanentError(f"Wrong parameter(s): {faults}. Trigger the undo again.") from None


def _run_to_undo(database: Database, run: Run, run_id: str) -> runs.CommittedRun:
    done = runs.newest_run_named(database, run.sync.name, run_id) if ledger.exists(database) else None
    if done is None:
        raise PermanentError(
            f"The ledger of sync {run.sync.name!r} knows no applied run {run_id!r}: give the id of a run of "
            f"{run.sync.dag_id} that wasn't a dry one. Nothing was written."
        )
    if done.organization != run.sync.organization:
        raise PermanentError(
            f"Run {run_id!r} wrote to organization {done.organization!r}, and the settings name "
            f"{run.sync.organization!r} now. Set it back to undo that run; nothing was written."
        )
    return done


def _propose(loading: Loading, run: Run, done: runs.CommittedRun) -> Proposal:
    applied = read_plan(done).safe
    made = applied.loc[(applied["entity"] == "user") & applied["before_id"].isna(), "after_id"].dropna().tolist()
    undoing: list[Undoing] = []

    def make(current: Current) -> Plan:
        belongings = read_belongings(loading.database, made)
        undoing[:] = [undo_plan(run.sync.organization, applied, current, belongings)]
        return undoing[0].plan

    def remember(database: Database, _: Plan) -> None:
        reviews.remember_decisions(database, run.sync.name, undoing[0].undone, "undone", key)

    key = hashlib.sha256(f"undo\0{run.run_id}\0{done.key}".encode()).hexdigest()
    ids = [applied[column].dropna() for column in ("user_id", "group_id", "before_id", "after_id")]
    return Proposal(
        run=run,
        kind="undo",
        key=key,
        snapshot_at=ledger.now(loading.database),
        transformed_url=done.transformed_url,
        make=make,
        ids=pd.concat(ids, ignore_index=True),
        note=remember,
    )
