"""How a sync's last runs went: series for the charts, and who is in quarantine since when."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.directory_sync.errors import DirectorySyncError
from include.directory_sync.pages.airflow_runs import AirflowRun, Place
from include.directory_sync.pages.published import Published, published
from include.directory_sync.settings import Sync

RUNS_SHOWN = 40
READERS = 8

CHANGED = ("created", "adopted", "updated", "renamed", "deactivated", "reactivated", "deleted", "recreated")


@dataclass(frozen=True)
class PastRun:
    """A run and what it left; `published` is null where it left nothing, or that is gone: `fault` says why."""

    run: AirflowRun
    kind: str
    published: Published | None
    fault: str = ""


def past_runs(places: dict[str, Place], runs: Iterable[AirflowRun]) -> list[PastRun]:
    """Read what these runs left, several at once; `places` by DAG id."""

    def read(run: AirflowRun) -> PastRun:
        place = places[run.dag_id]
        url = run.folder(place.reporting_task)
        if url is None:
            return PastRun(run, place.kind, None)
        try:
            return PastRun(run, place.kind, published(place.sync, url))
        except DirectorySyncError as error:
            return PastRun(run, place.kind, None, str(error))

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, runs))


def is_full(past: PastRun) -> bool:
    """Whether it read the whole pool as the settings name it, for everybody: no dry run, replay or subset."""
    found = past.published
    return bool(found and past.kind == "sync" and found.run and not found.run.users and not found.report.dry_run)


def series(history: list[PastRun], sync: Sync) -> dict[str, Any]:
    """What the charts draw: labels (times) and lists of counts, the oldest run first."""
    rows = [
        (past.run.at, past.published.report)
        for past in reversed(history)
        if past.published and is_full(past) and past.published.report.user_pool_id == sync.user_pool_id
    ]
    return {
        "labels": [f"{at:%d %b %H:%M}" for at, _ in rows],
        "users": {"users": [report.users["read"] for _, report in rows]},
        "groups": {"groups": [report.groups["read"] for _, report in rows]},
        "changes": {what: [report.users[what] for _, report in rows] for what in CHANGED}
        | {f"memberships {what}": [report.memberships[what] for _, report in rows] for what in ("added", "removed")},
        "holds": {
            "held": [sum(hold.rows for hold in report.holds) for _, report in rows],
            "quarantined": [report.users["quarantined"] + report.groups["quarantined"] for _, report in rows],
        },
        "durations": {
            task: [round(report.timings.get(task, 0), 1) for _, report in rows]
            for task in ("extract_users", "extract_groups", "transform", "load")
        },
    }


@dataclass(frozen=True)
class Quarantine:
    """A record in quarantine now."""

    entity: str
    key: str
    reason: str
    since: datetime
    at_least: bool
    """Whether it may have been there before the oldest run that is looked at."""


def quarantine(history: list[PastRun]) -> list[Quarantine]:
    """Who is in quarantine by the newest full run, and since when without a break."""
    reports = [past.published.report for past in history if past.published and is_full(past)]
    if not reports:
        return []
    found = []
    keys = [{(one.entity, one.key) for one in report.quarantine} for report in reports]
    for one in reports[0].quarantine:
        runs = next((at for at, there in enumerate(keys) if (one.entity, one.key) not in there), len(keys))
        found.append(
            Quarantine(one.entity, one.key, one.reason, reports[runs - 1].snapshot_at, at_least=runs == len(keys))
        )
    return sorted(found, key=lambda one: (one.since, one.entity, one.key))
