"""The command line: `directory-sync`, or `python -m directory_sync`.

Each command only says what it would do, unless it is told to do it.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from directory_sync.command_line.detachment import show_detachment
from directory_sync.command_line.examination import (
    EXIT_CODES,
    describe_examination,
    show_examination,
)
from directory_sync.command_line.explanation import describe_answer, show_answer
from directory_sync.command_line.preview import describe_preview, show_preview
from directory_sync.errors import DirectorySyncError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # joins the lines of a docstring's paragraph
)


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

    Compares the newest complete snapshot in staging with Joget now. The pool isn't read: a dry run
    of the DAG does that.

    Exits with 0 where nothing would change, with 2 where something would, and with 1 after an
    error.
    """
    with _airflow_as_server(), _errors_in_a_line():
        # Each command imports Airflow only here: the import reads the environment, and may log.
        from directory_sync.tasks import preview

        found = preview.preview_changes(sync, settings)
    if as_json:
        print(json.dumps(describe_preview(found)))
    else:
        show_preview(found, Console())
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
    with _airflow_as_server(), _errors_in_a_line():
        from directory_sync.tasks import detach

        found = detach.detach_sync(sync, is_applied=apply)
    show_detachment(found, Console())


@app.command()
def doctor(
    sync: Annotated[str, typer.Option(help="The sync's name in the settings.")] = "default",
    *,
    send_alert: Annotated[
        bool, typer.Option("--send-alert", help="Send a message to where alerts go.")
    ] = False,
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
    with _airflow_as_server():
        from directory_sync.command_line.doctor.examination import examine_sync

        found = examine_sync(sync, sends_alert=send_alert)
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
    with _airflow_as_server(), _errors_in_a_line():
        from directory_sync.command_line.explain import explain_login

        answer = explain_login(sync, login)
    if as_json:
        print(json.dumps(describe_answer(answer)))
    else:
        show_answer(answer, Console())
    raise typer.Exit(0 if answer.explained else 1)


@contextmanager
def _airflow_as_server() -> Iterator[None]:
    """Look Connections up in Airflow's database too, and keep Airflow's log out of the output."""
    # Airflow's SDK asks its database only in a "server" (`ensure_secrets_backend_loaded`).
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    # Airflow logs to the standard output, and a command's output is to be its answer alone.
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Print an error of ours as one line, and exit with 1."""
    try:
        yield
    except DirectorySyncError as error:
        console = Console(stderr=True)
        # Rich would take brackets in the text for markup, and break the line at the screen's width.
        console.print(f"{type(error).__name__}: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app()
