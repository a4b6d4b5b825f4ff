"""The groups of a user in the pool, and what came of each membership in Joget."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from directory_sync.pages.permissions import make_hidden_name
from directory_sync.pages.published_files import PublishedRun
from directory_sync.pages.user_events import UserEvent
from directory_sync.vocabulary import Action, Entity, Outcome, Verdict

MOST_GROUPS_NAMED = 20
"""How many groups out of scope a page names."""


@dataclass(frozen=True)
class InGroup:
    """A group that has the user as a member in the pool."""

    name: str
    joget_id: str
    came: str
    """What the runs did about this membership, or that they did nothing."""
    note: str
    """Why Joget doesn't have it, or empty."""


def list_groups(
    sub: str, newest: PublishedRun, events: tuple[UserEvent, ...], *, values: bool
) -> Iterator[InGroup]:
    """The groups that have the user as a member in the newest snapshot, by name."""
    names = sorted(
        {row["group_name"] for row in newest.find_rows("desired_memberships.parquet", "sub", [sub])}
    )
    desired_groups = _find_groups(newest, "desired_groups.parquet", names)
    joget_groups = _find_groups(newest, "directory.parquet", names)
    for name in names:
        # The events were read with the same `values`, so their groups may have hidden names too.
        shown = name if values else make_hidden_name(name)
        done = [
            (change.action, f"{change.action} on {event.at:%Y-%m-%d} ({event.by})")
            for event in events
            for change in event.changes
            if change.entity == Entity.MEMBERSHIP
            and change.group == shown
            and not change.hold
            and not event.dry_run
        ]
        desired, known = desired_groups.get(name, {}), joget_groups.get(name, {})
        note = desired.get("reason") or ""
        # Events begin with the newest run, so the first is how it stands now.
        if done and done[0][0] == Action.REMOVE:
            note = "the sync took it away"
        if not note and known.get("outcome") in (Outcome.QUARANTINED, Outcome.HELD, Outcome.FROZEN):
            note = known.get("reason") or known["outcome"]
        joget_id = (known.get("joget_id") or "") if values else ""
        yield InGroup(
            shown,
            joget_id,
            "; ".join(sentence for _, sentence in done)
            or "in the pool; unchanged in the runs searched",
            note,
        )


def list_unread_groups(newest: PublishedRun, *, values: bool) -> list[str]:
    """The first MOST_GROUPS_NAMED of the pool's groups that aren't in scope, by name."""
    rows = newest.find_rows("desired_groups.parquet", "verdict", [Verdict.FROZEN])
    names = sorted(row["group_name"] for row in rows)[:MOST_GROUPS_NAMED]
    return [name if values else make_hidden_name(name) for name in names]


def _find_groups(newest: PublishedRun, name: str, groups: list[str]) -> dict[str, dict[str, Any]]:
    """The rows of these groups in a file, by group name."""
    return {row["group_name"]: row for row in newest.find_rows(name, "group_name", groups)}
