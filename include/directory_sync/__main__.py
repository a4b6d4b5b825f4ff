"""The command line: `directory-sync`, or `python -m directory_sync`.

Each command only says what it would do, unless it is told to do it.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from directory_sync.command_line.examination import (
    EXIT_CODES,
    describe_examination,
    show_examination,
)
from directory_sync.command_line.explanation import describe_answer, show_answer
from directory_sync.errors import DirectorySyncError
from directory_sync.vocabulary import describe_cause

if TYPE_CHECKING:
    from directory_sync.tasks.detach import Detachment
    from directory_sync.tasks.preview import Preview

ORIGIN_LABELS = {"settings": "the settings", "joget": "Joget, or what was held"}
"""What the origins of changes (tasks.preview.Origin) are called where people read them."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Directory Sync: Cognito to Joget, on the command line of a machine that has Airflow's
    settings and reaches Joget's database.
    """


@app.command()
def plan(
    sync: Annotated[str, typer.Option(help="The sync's name in the settings.")] = "default",
    settings: Annotated[
        Path | None, typer.Option(help="Another settings file, such as one of a pull request.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the settings would change in Joget, and write nothing.

    Compares the newest snapshot that was applied with Joget now. The pool isn't read: a dry run of
    the DAG does that.

    Exits with 0 where nothing would change, with 2 where something would, and with 1 after an
    error.
    """
    _ask_airflow_as_server()
    from directory_sync.tasks import preview

    with _errors_in_a_line():
        found = preview.preview_changes(sync, settings)
    if as_json:
        print(json.dumps(_describe_preview(found)))
    else:
        _show_preview(found, Console())
    raise typer.Exit(0 if found.is_empty else 2)


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
    _ask_airflow_as_server()
    from directory_sync.tasks import detach

    with _errors_in_a_line():
        found = detach.detach_sync(sync, is_applied=apply)
    _show(found, Console())


@app.command()
def doctor(
    sync: Annotated[str, typer.Option(help="The sync's name in the settings.")] = "default",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Try what a sync needs, and say what is wrong and what to do.

    Settings, Connections, each right in AWS and in Joget's database, staging, the ledger, clocks,
    Airflow's DAGs and plugin, and whether the mapping's login is the one that single sign-on makes.
    Prints counts, and no name, email or attribute of a user. Changes nothing, but for a file in
    staging that it deletes again.

    Exits with 0 where all is well, with 1 where something is wrong, and with 2 where there are
    only warnings. What couldn't be tried ("unknown") doesn't count.
    """
    _ask_airflow_as_server()
    from directory_sync.tasks.doctor.examination import examine_sync

    found = examine_sync(sync)
    if as_json:
        print(json.dumps(describe_examination(found)))
    else:
        show_examination(found, Console())
    raise typer.Exit(EXIT_CODES[found.worst])


@app.command()
def explain(
    login: Annotated[str, typer.Argument(help="A login, an email or a sub, in any letters.")],
    sync: Annotated[str, typer.Option(help="The sync's name in the settings.")] = "default",
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a user is as they are in Joget, as the tab "Directory" does.

    Prints names, emails and values, to anybody who may read staging and Airflow's database from
    this machine: a terminal has no permissions of its own.

    Exits with 0 where one user was found, and with 1 where nobody or more than one was, and after
    an error.
    """
    _ask_airflow_as_server()
    from directory_sync.tasks.explain import explain_login

    with _errors_in_a_line():
        answer = explain_login(sync, login)
    if as_json:
        print(json.dumps(describe_answer(answer)))
    else:
        show_answer(answer, Console())
    raise typer.Exit(0 if answer.explained else 1)


def _ask_airflow_as_server() -> None:
    """Look Connections up in Airflow's database too, as Airflow's own commands do."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Print an error of ours as one line, and exit with 1."""
    try:
        yield
    except DirectorySyncError as error:
        console = Console(stderr=True)
        console.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _describe_preview(found: "Preview") -> dict[str, Any]:
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


def _show_preview(found: "Preview", console: Console) -> None:
    console.print(
        f"Sync {found.sync}: its newest applied snapshot ({found.snapshot_at:%Y-%m-%d %H:%M} UTC) "
        "against Joget now.",
        highlight=False,
    )
    if found.changed_settings:
        console.print(
            f"Settings changed since: {', '.join(found.changed_settings)}.", highlight=False
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
