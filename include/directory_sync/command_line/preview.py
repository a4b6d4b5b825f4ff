"""What `directory-sync plan` prints."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from directory_sync.vocabulary import describe_cause

if TYPE_CHECKING:
    from directory_sync.tasks.preview import Preview

ORIGIN_LABELS = {
    "settings": "the settings",
    "pool": "the pool",
    "joget": "Joget, or what was held",
}
"""What the origins of changes (tasks.preview.Origin) are called where people read them."""


def describe_preview(found: "Preview") -> dict[str, Any]:
    """The preview, as --json prints it."""
    return {
        "sync": found.sync,
        "snapshot_at": found.snapshot_at.isoformat(),
        "changed_settings": list(found.changed_settings),
        "changes": [
            {"origin": origin, "entity": entity, "action": action, "count": count}
            for (origin, entity, action), count in sorted(found.changes.items())
        ],
        "held": [
            {"origin": origin, "cause": cause, "count": count}
            for (origin, cause), count in sorted(found.held.items())
        ],
    }


def show_preview(found: "Preview", console: Console) -> None:
    """A table of counts, or that nothing would change."""
    console.print(
        f"Sync {found.sync}: the pool's newest complete snapshot "
        f"({found.snapshot_at:%Y-%m-%d %H:%M} UTC) against Joget now.",
        highlight=False,
    )
    if found.changed_settings:
        console.print(
            f"Settings that differ from the newest run's: {', '.join(found.changed_settings)}.",
            highlight=False,
        )
    if found.is_empty:
        console.print("Nothing would change.")
        return
    table = Table("because of", "what", "changes")
    for (origin, entity, action), count in sorted(found.changes.items()):
        table.add_row(ORIGIN_LABELS[origin], f"{action} {entity}", str(count))
    for (origin, cause), count in sorted(found.held.items()):
        table.add_row(ORIGIN_LABELS[origin], f"held: {describe_cause(cause)}", str(count))
    console.print(table)
