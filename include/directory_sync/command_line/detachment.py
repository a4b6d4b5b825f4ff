"""What `directory-sync detach` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from directory_sync.tasks.detach import Detachment


def show_detachment(found: "Detachment", console: Console) -> None:
    """A table of what became local, or would, and what to do next."""
    managed = found.managed
    happened = "became" if found.is_applied else "would become"
    table = Table("what", "count", title=f"Sync {found.sync}: what {happened} local")
    for what, count in {
        "users": managed.users,
        "  without a password: they can log in by single sign-on alone": managed.without_password,
        "  inactive: they stay inactive": managed.inactive,
        "    deactivated by the sync": managed.deactivated_by_sync,
        "groups": managed.groups,
        "memberships": managed.memberships,
    }.items():
        table.add_row(what, str(count))
    console.print(table)
    for sentence in _list_next_steps(found):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _list_next_steps(found: "Detachment") -> list[str]:
    managed, done = found.managed, found.is_applied
    forgotten = f"{managed.answers} remembered answer(s) and {managed.open_reviews} open review(s)"
    sentences = [
        "No row of Joget's directory tables was changed."
        if done
        else "Nothing was changed: this was a dry run.",
        f"The ledger forgot {forgotten}." if done else f"The ledger would forget {forgotten}.",
        f"The next run of {found.dag_id} would adopt everybody again: "
        + (
            "remove the sync from the settings."
            if done
            else "pause the DAG before you detach, with --apply."
        ),
    ]
    if managed.other_syncs:
        sentences.append(
            f"{managed.other_syncs} other syncs have links in this ledger: keep its tables."
        )
    elif done:
        sentences.append(
            "No other sync has links in this ledger: its tables may be dropped "
            "(docs/operations.md, Uninstalling)."
        )
    return sentences
