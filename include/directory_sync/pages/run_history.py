"""How a sync's last runs went: series for the charts, and what is in quarantine since when."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from directory_sync.errors import DirectorySyncError
from directory_sync.pages.airflow_runs import AirflowRun, SyncDag
from directory_sync.pages.published_files import PublishedRun, open_published_run
from directory_sync.settings import Sync
from directory_sync.vocabulary import APPLIED_OUTCOMES

Result = TypeVar("Result")

RUNS_SHOWN = 40
MOST_READERS = 8

CHANGE_COUNTS = tuple(dict.fromkeys(APPLIED_OUTCOMES.values()))


@dataclass(frozen=True)
class PastRun:
    """A run and the files that it left; `published` is None where it left none, or where they can't
    be read: `fault` says why.
    """

    run: AirflowRun
    sync_dag: SyncDag
    published: PublishedRun | None
    fault: str = ""

    @property
    def ended(self) -> datetime:
        """When its report was made; where Airflow no longer knows, when the run was due."""
        return self.run.ended.get(self.sync_dag.reporting_task, self.run.at)

    @property
    def decided(self) -> bool:
        """Whether its report says what it did in Joget: not for a dry or superseded run."""
        report = self.published.report if self.published else None
        return bool(report and not report.dry_run and report.outcome != "superseded")

    @property
    def is_full(self) -> bool:
        """Whether it read the whole pool as the settings name it, for everybody: no dry run, replay
        or subset.
        """
        run = self.published.run if self.published else None
        reads = self.sync_dag.kind in ("sync", "live")
        # A replay is a dry run (docs/design.md, Backfill), so `decided` leaves it out.
        return bool(self.decided and reads and run and not run.is_for_some)

    @property
    def knows_everybody(self) -> bool:
        """Whether its files have a row for every user: a run or a review for everybody."""
        return self.is_full or (_is_review(self) and not self._is_for_some)

    @property
    def _is_for_some(self) -> bool:
        return bool(self.published and self.published.report.only_users is not None)


def read_past_runs(sync_dags: Iterable[SyncDag], runs: Iterable[AirflowRun]) -> list[PastRun]:
    """Read what these runs left, several at once."""
    by_dag = {sync_dag.dag_id: sync_dag for sync_dag in sync_dags}

    def read(run: AirflowRun) -> PastRun:
        sync_dag = by_dag[run.dag_id]
        url = run.folder(sync_dag.reporting_task)
        if url is None:
            return PastRun(run, sync_dag, None)
        try:
            return PastRun(run, sync_dag, open_published_run(sync_dag.sync, url))
        except DirectorySyncError as error:
            # Old files are deleted after staging_retention_days. One run without its files must not
            # hide the others.
            return PastRun(run, sync_dag, None, str(error))

    with ThreadPoolExecutor(MOST_READERS) as readers:
        return list(readers.map(read, runs))


def map_side_by_side(
    runs: list[PastRun], read: Callable[[PastRun, int], list[Result]]
) -> list[list[Result]]:
    """What `read` finds in each run, several at once; nothing where a run's files were deleted or
    can't be reached.
    """

    def safely(numbered: tuple[int, PastRun]) -> list[Result]:
        at, past = numbered
        try:
            return read(past, at)
        except DirectorySyncError:
            return []

    with ThreadPoolExecutor(MOST_READERS) as readers:
        return list(readers.map(safely, enumerate(runs)))


def find_newest_full_run(past: list[PastRun]) -> PastRun | None:
    """The run for everybody with the newest snapshot."""
    return max((run for run in past if run.is_full), key=_get_snapshot_time, default=None)


def find_newest_complete_run(past: list[PastRun]) -> PastRun | None:
    """The run for everybody with the newest snapshot that was proven complete."""
    return find_newest_full_run(
        [run for run in past if run.published and run.published.report.complete]
    )


def find_newest_holding_run(past: list[PastRun]) -> PastRun | None:
    """The newest run for everybody, or review: it decided what is held now."""
    # By their ends, not their snapshots: a review plans from the snapshot of an earlier run.
    return max(
        (run for run in past if run.knows_everybody),
        key=lambda run: run.ended,
        default=None,
    )


def _is_review(past: PastRun) -> bool:
    return past.decided and past.sync_dag.kind == "review"


def _get_snapshot_time(past: PastRun) -> datetime:
    if past.published is None:
        raise ValueError("a run without files has no snapshot")
    return past.published.report.snapshot_at


def make_chart_series(past: list[PastRun], sync: Sync) -> dict[str, Any]:
    """What the charts draw: labels (times) and lists of counts, the oldest snapshot first."""
    full = sorted((run for run in past if run.is_full), key=_get_snapshot_time)
    rows = [
        (run.published.report, run.published.quarantined)
        for run in full
        # Runs from before user_pool_id changed have another pool's counts.
        if run.published and run.published.report.user_pool_id == sync.user_pool_id
    ]
    reports = [report for report, _ in rows]
    return {
        "labels": [f"{report.snapshot_at:%d %b %H:%M}" for report in reports],
        "users": {"users": [report.users["read"] for report in reports]},
        "groups": {"groups": [report.groups["read"] for report in reports]},
        "changes": {what: [report.users[what] for report in reports] for what in CHANGE_COUNTS}
        | {
            f"memberships {what}": [report.memberships[what] for report in reports]
            for what in ("added", "removed")
        },
        "holds": {
            "held": [sum(hold.rows for hold in report.holds) for report in reports],
            "quarantined": [quarantined for _, quarantined in rows],
        },
        "durations": {
            task: [round(report.timings.get(task, 0), 1) for report in reports]
            for task in ("extract_users", "extract_groups", "transform", "load")
        },
    }


@dataclass(frozen=True)
class Quarantine:
    """A record in quarantine now."""

    entity: str
    key: str
    reason: str
    code: str | None
    since: datetime
    at_least: bool
    """Whether the record may have been in quarantine before the oldest run that was looked at."""


def read_quarantine(past: list[PastRun], most: int) -> list[Quarantine]:
    """The first `most` records, by key, in quarantine in the newest full run, and since when they
    have been there without a break.
    """
    full = sorted((run for run in past if run.is_full), key=_get_snapshot_time, reverse=True)
    runs = [run.published for run in full if run.published]
    found = []
    for record in runs[0].quarantine[:most] if runs else ():
        # `runs` begins with the newest. The record came in the run just newer than the newest one
        # without it, or, where all of them have it, in the oldest run or before.
        without = (
            at for at, run in enumerate(runs) if not run.is_quarantined(record.entity, record.key)
        )
        first = next(without, len(runs)) - 1
        since = runs[first].report.snapshot_at
        found.append(
            Quarantine(
                record.entity,
                record.key,
                record.reason,
                record.code,
                since,
                at_least=first == len(runs) - 1,
            )
        )
    return sorted(found, key=lambda record: (record.since, record.entity, record.key))
