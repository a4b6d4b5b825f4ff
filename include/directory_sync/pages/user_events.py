"""What the runs did to a user, read from their plans."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from directory_sync.pages.changes import Change, find_user_changes
from directory_sync.pages.run_history import PastRun, map_side_by_side


@dataclass(frozen=True)
class UserEvent:
    """What one run did to the user."""

    dag_id: str
    run_id: str
    at: datetime
    by: str
    dry_run: bool
    changes: tuple[Change, ...]


def list_events(sub: str, runs: list[PastRun], *, values: bool) -> Iterator[UserEvent]:
    """What each run did, the newest first."""

    def find_in_run(past: PastRun, _: int) -> list[Change]:
        if past.published is None:
            return []
        return find_user_changes(past.published.folder, sub, values=values)

    for past, changes in zip(runs, map_side_by_side(runs, find_in_run), strict=True):
        if changes and past.published:
            dry_run = past.published.report.dry_run
            yield UserEvent(
                past.run.dag_id,
                past.run.run_id,
                past.ended,
                _describe_actor(past),
                dry_run,
                tuple(changes),
            )


def _describe_actor(past: PastRun) -> str:
    review = past.published.report.review if past.published else None
    if review:
        answer = "approved" if review.answer == "approve" else "rejected"
        return f"{answer} by {review.answered_by}" if review.answered_by else answer
    person = past.run.started_by
    if past.sync_dag.kind == "undo":
        return f"undo by {person}" if person else "undo"
    if past.run.run_type == "backfill":
        return f"backfill by {person}" if person else "backfill"
    return f"started by {person}" if person else past.run.run_type
