"""Loading: read Joget, plan, apply, and finish the report, however often the task is retried."""

import logging

from include.directory_sync import mapping, staging
from include.directory_sync.errors import ConflictError, PermanentError, TransientError
from include.directory_sync.joget import ledger
from include.directory_sync.joget.database import Database
from include.directory_sync.joget.reading import read_current
from include.directory_sync.joget.tables import Tables, inspect
from include.directory_sync.joget.writing import Apply
from include.directory_sync.plan import Current, Plan, make_plan, nothing
from include.directory_sync.report import Report, make_report
from include.directory_sync.run import Run
from include.directory_sync.snapshot import Manifest

log = logging.getLogger(__name__)

PLANNINGS = 3
"""How often one attempt plans when Joget changes under it."""


class Loading:
    """One attempt at loading one transformed snapshot."""

    def __init__(self, run: Run, transformed: Manifest, folder: staging.Folder) -> None:
        self.folder = folder
        self._run = run
        self._transformed = transformed
        frames = (staging.read_frame(transformed, f"desired_{name}.parquet") for name in mapping.FRAMES)
        self._desired = mapping.Desired(*frames)
        self._key = ledger.run_key(run, transformed.snapshot_at)

    def run_on(self, database: Database) -> Report:
        """Load, and leave plan.parquet, directory.parquet and report.json in the folder."""
        tables = inspect(database, self._run.sync.organization)
        if self._run.dry_run:
            plan, outcome = self._plan(self._read(database, tables)), "dry_run"
            self._publish(plan)
        else:
            ledger.create(database, tables)
            with ledger.lock(database, self._run):
                plan, outcome = self._apply(database, tables)
        report = make_report(
            self._run,
            plan,
            outcome=outcome,
            snapshot_at=self._transformed.snapshot_at,
            incomplete_reasons=self._transformed.incomplete_reasons,
            timings=self._timings(),
        )
        self.folder.json("report.json", report.model_dump(mode="json"))
        return report

    def _apply(self, database: Database, tables: Tables) -> tuple[Plan, str]:
        committed = ledger.committed_run(database, self._key)
        if committed:
            log.info("an earlier attempt committed this run; finishing its report")
            return self._finish(committed)
        for planning in range(1, PLANNINGS + 1):
            try:
                return self._apply_once(database, tables)
            except ConflictError as conflict:
                log.info("planning %d of %d: %s", planning, PLANNINGS, conflict)
        raise TransientError(
            f"Joget changed under {PLANNINGS} plannings in a row; nothing was written. Retrying later."
        )

    def _apply_once(self, database: Database, tables: Tables) -> tuple[Plan, str]:
        current = self._read(database, tables)
        if not self._run.users and current.is_newer_than(self._transformed.snapshot_at):
            self._publish(nothing())
            return nothing(), "superseded"
        plan = self._plan(current)
        row = ledger.RunRow(self._key, self._run, self._transformed.snapshot_at, plan, self.folder.url)
        Apply(database, tables, row, current.revision, publish=lambda: self._publish(plan)).run()
        return plan, "nothing_to_do" if plan.safe.empty else "applied"

    def _read(self, database: Database, tables: Tables) -> Current:
        return read_current(database, tables, self._run, self._desired)

    def _plan(self, current: Current) -> Plan:
        return make_plan(self._run, self._desired, current, may_remove=self._transformed.complete)

    def _publish(self, plan: Plan) -> None:
        self.folder.frame("plan.parquet", plan.changes)
        self.folder.frame("directory.parquet", plan.directory)

    def _finish(self, committed: ledger.CommittedRun) -> tuple[Plan, str]:
        """The plan of an attempt that ended between COMMIT and its manifest: the ledger's hash vouches for it."""
        changes, directory = (
            staging.read_parquet(staging.read_bytes(f"{committed.plan_url}/{name}.parquet"))
            for name in ("plan", "directory")
        )
        plan = Plan(changes, directory, committed.memberships)
        if plan.sha256 != committed.plan_sha256:
            raise PermanentError(
                f"The plan in {committed.plan_url} isn't the one that this run applied, so its report can't be "
                f"finished. Joget holds what was applied; look for who changed the staged files."
            )
        self._publish(plan)
        return plan, "nothing_to_do" if plan.safe.empty else "applied"

    def _timings(self) -> dict[str, float]:
        earlier = {task: staging.read_manifest(url).seconds for task, url in self._transformed.inputs.items()}
        return {**earlier, "transform": self._transformed.seconds, "load": self.folder.seconds}
