"""Undoing what a run applied. A dry run shows the undo first. Rows that changed since are left
alone.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pydantic import ValidationError

from directory_sync.errors import MissingFilesError, PermanentError, hide_values
from directory_sync.frames import make_empty_frame
from directory_sync.joget.database import Database
from directory_sync.joget.ledger import definition, runs
from directory_sync.joget.ledger.runs import CommittedRun
from directory_sync.joget.reading import Lookups
from directory_sync.plan import Current, Plan
from directory_sync.plan.answers import AnswerUpdate, give_answers
from directory_sync.plan.delays import ARRIVALS_SCHEMA
from directory_sync.plan.undoing import find_undone, join_runs, plan_undo
from directory_sync.report import Report, make_report
from directory_sync.run import Attempt, Run, refuse_unknown_keys
from directory_sync.settings import Filled, Section, find_sync
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import ledger_loss
from directory_sync.tasks.proposal import carry_out_proposal, read_plan
from directory_sync.vocabulary import Cause, RunKind


class Parameters(Section):
    """The trigger form of the undo."""

    run_id: Filled
    dry_run: bool = True


def undo_run(
    attempt: Attempt, sync_name: str, parameters: Mapping[str, Any], conf: Mapping[str, Any]
) -> Manifest:
    """Plan the inverse of a run, apply it to the rows that are still as the run left them unless
    this is a dry run, and report.

    Raises PermanentError for a run id that the ledger doesn't know, and where that run's plan is
    gone from staging.
    """
    with hide_values("undo"):
        asked = _parse_parameters(parameters, conf)
        sync = find_sync(sync_name)
        store.require_access(sync.staging_url)
        run = Run(
            run_id=attempt.run_id, sync=sync, dry_run=asked.dry_run, dry_run_reason="asked for"
        )
        folder = store.open_folder(run, attempt.name)
        return carry_out_proposal(
            folder, lambda database: UndoProposal(database, run, asked.run_id)
        )


def _parse_parameters(parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Parameters:
    refuse_unknown_keys(conf, Parameters)
    try:
        return Parameters.model_validate({**parameters, **conf})
    except ValidationError as error:
        faults = "; ".join(
            f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_input=False)
        )
        raise PermanentError(f"Wrong parameter(s): {faults}. Trigger the undo again.") from None


class UndoProposal:
    """The inverse of everything that was applied under one run id: a Proposal."""

    def __init__(self, database: Database, run: Run, run_id: str) -> None:
        found = _find_runs(database, run, run_id)
        self.run, self.kind, self.undoes = run, RunKind.UNDO, run_id
        self.done = join_runs([_read_plan(run, applied).safe for applied in reversed(found)])
        # The key has the undo's own run id: a retry finds what an earlier try committed, and a
        # second undo of the same runs is a run of its own.
        keys = "\0".join(applied.key for applied in found)
        self.key = hashlib.sha256(f"undo\0{run.run_id}\0{keys}".encode()).hexdigest()
        self.snapshot_at, self.transformed_url = (
            definition.read_clock(database),
            found[0].transformed_url,
        )
        self.incomplete_reasons: tuple[str, ...] = ()
        self.inputs: dict[str, str] = {}
        self.needs: tuple[str, ...] = tuple(applied.plan_url for applied in found)
        ids = [
            self.done[column].dropna()
            for column in ("user_id", "group_id", "before_id", "after_id")
        ]
        self.lookups = Lookups(ids=pd.concat(ids, ignore_index=True), reads_belongings=True)
        self.arrivals = make_empty_frame(ARRIVALS_SCHEMA)

    def make_plan(self, current: Current) -> Plan:
        """Plan the inverse, and hold what changed since."""
        return plan_undo(self.done, current)

    def update_answers(self, plan: Plan, answers: pd.DataFrame) -> AnswerUpdate:  # noqa: ARG002 - the protocol's
        """Remember the undone changes, so that they are held until the pool's value changes."""
        return AnswerUpdate(
            given=give_answers(find_undone(self.done, plan), Cause.UNDONE, self.key)
        )

    def make_report(self, plan: Plan, outcome: str, seconds: float) -> Report:
        """Report also the run id that was undone."""
        return make_report(
            self.run,
            plan,
            outcome=outcome,
            snapshot_at=self.snapshot_at,
            incomplete_reasons=(),
            timings={"undo": seconds},
            undoes=self.undoes,
        )


def _read_plan(run: Run, done: CommittedRun) -> Plan:
    try:
        return read_plan(done)
    except MissingFilesError:
        days = run.sync.staging_retention_days
        deleted = (
            f"files are deleted after {days} days (staging_retention_days)"
            if days
            else "somebody deleted it"
        )
        raise PermanentError(
            f"The plan of that run is gone from staging ({done.plan_url}), so it can't be undone: "
            f"{deleted}. Nothing was written."
        ) from None


def _find_runs(database: Database, run: Run, run_id: str) -> list[runs.CommittedRun]:
    """Find what was applied under the run id, newest first; a cleared run may be applied again.

    Raises PermanentError where nothing was applied, the ledger was lost, or the settings name
    another organization now.
    """
    if ledger_loss.find_lost_ledger(database, run) is not None:
        raise PermanentError(
            f"The ledger of sync {run.sync.name!r} was lost or restored from an older backup, so "
            f"it can't tell what changed since. Run {run.sync.dag_id} first, which rebuilds its "
            "links; nothing was written."
        )
    found = (
        runs.find_runs_named(database, run.sync.name, run_id)
        if definition.is_ledger_complete(database)
        else []
    )
    if not found:
        raise PermanentError(
            f"The ledger of sync {run.sync.name!r} knows no applied run with the id in parameter "
            f"run_id: give the id of a run of {run.sync.dag_id} that wasn't a dry run. Nothing was "
            "written."
        )
    for done in found:
        if done.organization != run.sync.organization:
            raise PermanentError(
                f"Run {run_id!r} wrote to organization {done.organization!r}, and the settings "
                f"name {run.sync.organization!r} now. Set it back to undo that run; nothing was "
                "written."
            )
    return found
