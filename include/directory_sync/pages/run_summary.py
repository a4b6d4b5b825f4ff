"""A run in words and figures, from its report and manifests, without names of users or groups."""

from dataclasses import dataclass

from directory_sync.pages.airflow_runs import ASKING_TASK, UNCHANGING_COUNTS, AirflowRun, SyncDag
from directory_sync.pages.labels import count_nouns
from directory_sync.pages.published_files import PublishedRun
from directory_sync.report import Hold, Report
from directory_sync.vocabulary import advise_on_cause, describe_cause

COUNTS_ALWAYS_SHOWN = (
    "read",
    "created",
    "updated",
    "deactivated",
    "added",
    "removed",
    "held",
    "quarantined",
)
"""Counts that are shown even if they are zero."""

STAGE_NAMES = ("extract_users", "extract_groups", "transform", "load", "load_held", "undo")


def make_headline(report: Report) -> str:
    """What a run did, or what it would do, in a line."""
    if report.outcome == "superseded":
        return (
            "Superseded: a newer snapshot was applied before this one, so this run changed nothing."
        )
    done = _describe_changes(report)
    holds = [f"{hold.rows:,} held: {_describe_held_cause(hold)}" for hold in report.holds]
    headline = "; ".join([", ".join(done), *holds]) if done else "; ".join(holds)
    if not headline:
        return _describe_quiet_run(report)
    return f"It would be: {headline}" if report.dry_run else headline


def _describe_quiet_run(report: Report) -> str:
    """The headline of a run that neither changed nor held anything."""
    if report.undoes:
        return "There was nothing left to take back."
    left = [
        f"{count_nouns(counts[what], one)} {words}"
        for counts, one in ((report.users, "user"), (report.groups, "group"))
        for what, words in (("quarantined", "in quarantine"), ("missing", "missing"))
        if counts[what]
    ]
    left += [] if report.complete else ["the snapshot wasn't proven complete"]
    return (
        f"Nothing changed: {', '.join(left)}"
        if left
        else "Nothing to do: Joget is as the pool wants it."
    )


def _describe_changes(report: Report) -> list[str]:
    done = []
    for counts, noun in (
        (report.users, "user"),
        (report.groups, "group"),
        (report.memberships, "membership"),
    ):
        for what, count in counts.items():
            if count and what not in UNCHANGING_COUNTS:
                done.append(f"{count_nouns(count, noun)} {what}")
    return done


def _describe_held_cause(hold: Hold) -> str:
    meaning = describe_cause(hold.cause)
    if hold.limit is None or hold.figure is None:
        return meaning
    unit = " %" if hold.cause.endswith("_percent") else ""
    return (
        f"{hold.figure:g}{unit or ' of'} {'of ' if unit else ''}{meaning} (limit "
        f"{hold.limit:g}{unit})"
    )


@dataclass(frozen=True)
class Tile:
    """A count, and the whole that it is a part of."""

    name: str
    count: int
    whole: int
    kind: str = ""
    """`warn` where a person should look at it, else empty."""


def make_tiles(report: Report) -> dict[str, list[Tile]]:
    """The counts of users, groups and memberships that are shown with a bar."""
    shown = {}
    for name, counts in (
        ("Users", report.users),
        ("Groups", report.groups),
        ("Memberships", report.memberships),
    ):
        # A run may remove more memberships than the pool names, and a bar's end must be above 0.
        whole = max(counts["read"], *counts.values(), 1)
        kept = {
            what: count for what, count in counts.items() if count or what in COUNTS_ALWAYS_SHOWN
        }
        shown[name] = [
            Tile(what, count, whole, "warn" if what in ("held", "quarantined") and count else "")
            for what, count in kept.items()
        ]
    return shown


@dataclass(frozen=True)
class HeldCause:
    """What one cause holds for a person."""

    cause: str
    rows: int
    meaning: str
    to_do: str


def list_held_causes(report: Report) -> list[HeldCause]:
    """Every cause for which a run holds something, the largest first."""
    holds = sorted(report.holds, key=lambda hold: -hold.rows)
    return [
        HeldCause(hold.cause, hold.rows, _describe_held_cause(hold), advise_on_cause(hold.cause))
        for hold in holds
    ]


@dataclass(frozen=True)
class Stage:
    """How long a task took."""

    task: str
    seconds: float
    calls: int | None
    throttled: int
    floor: float | None
    """The shortest time, in seconds, that its calls can take at the rate in the settings."""


def list_stages(published: PublishedRun) -> list[Stage]:
    """The stages of a run, in order."""
    rate = published.run.sync.requests_per_second if published.run else None
    found = []
    for task in STAGE_NAMES:
        if task not in published.report.timings:
            continue
        manifest = published.manifests.get(task)
        calls = manifest.counts.get("calls") if manifest else None
        throttled = manifest.counts.get("throttled_calls", 0) if manifest else 0
        floor = calls / rate if rate and calls is not None else None
        found.append(Stage(task, published.report.timings[task], calls, throttled, floor))
    return found


def describe_unfinished(sync_dag: SyncDag, run: AirflowRun) -> str:
    """Why a run has no report, in a sentence."""
    task = sync_dag.reporting_task
    # This comes before the run's state, which is running while the task waits.
    if run.tasks.get(ASKING_TASK) == "awaiting_input":
        return (
            "This review waits for a person's answer. The question is on the run's tab Required "
            "Actions, above."
        )
    if run.state in ("queued", "running"):
        busy = [
            name
            for name, state in run.tasks.items()
            if state in ("running", "up_for_retry", "queued")
        ]
        return (
            f"This run is under way{f' ({busy[0]})' if busy else ''}: its changes are shown when "
            f"{task} has ended."
        )
    # ReviewHeld skips itself and what follows after a time-out (orchestration/operators.py).
    if run.tasks.get(task) == "skipped":
        return (
            "Nobody answered this review in time, so none of its changes were applied. The next "
            "run asks again."
        )
    if sync_dag.kind == "live" and run.tasks.get(task) == "success":
        return "The messages of this run asked for nothing, so nothing was read or written."
    failed = [name for name, state in run.tasks.items() if state == "failed"]
    if failed:
        return _describe_failure(sync_dag, failed)
    return (
        f"Airflow doesn't know any more where this run's files are: the XCom value of {task} was "
        "removed from its database, or the task didn't run."
    )


def _describe_failure(sync_dag: SyncDag, failed: list[str]) -> str:
    if sync_dag.kind == "undo":
        return (
            "This undo failed and left no report. Its log in Airflow says why; correct that and "
            "trigger it again."
        )
    if sync_dag.reporting_task in failed:
        return (
            f"{sync_dag.reporting_task} failed, and left no report. Its log in Airflow says why, "
            "and whether it had written to Joget by then: it writes all or nothing. A retry of the "
            "task finishes the report, and the next run does what is left."
        )
    return (
        f"This run ended without a report: {failed[0]} failed, and nothing was written to Joget. "
        "Its log in Airflow says why; a retry or the next run does what is left."
    )
