"""The command line: `python -m directory_sync`. Each command only says what it would
do, unless it is told to do it.
"""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from directory_sync.errors import DirectorySyncError

if TYPE_CHECKING:
    from directory_sync.tasks.detach import Detachment

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Directory Sync: Cognito to Joget, on the command line of a machine that has Airflow's
    settings and reaches Joget's database.
    """


@app.command()
def detach(
    sync: Annotated[str, typer.Option(help="The sync's name in the settings.")] = "default",
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it. Without this, only count.")
    ] = False,
) -> None:
    """Turn all users, groups and memberships that a sync manages into local ones.

    No row of Joget's changes. Pause the sync's DAG first, and wait until its runs have ended: its
    next run would adopt everybody again.
    """
    # As Airflow's own commands do: Connections are looked up in Airflow's database too.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    from directory_sync.tasks import detach

    try:
        found = detach.detach_sync(sync, is_applied=apply)
    except DirectorySyncError as error:
        said = Console(stderr=True)
        said.print(
            f"{type(error).__name__}: {error}", markup=False, highlight=False, soft_wrap=True
        )
        raise typer.Exit(1) from None
    _show(found, Console())


def _show(found: "Detachment", console: Console) -> None:
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
    for sentence in _advise(found):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _advise(found: "Detachment") -> list[str]:
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


if __name__ == "__main__":
    app()
