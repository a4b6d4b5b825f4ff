"""`make demo` and `make up`: python -m demo run | up | seed."""

import argparse
import signal
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from demo import airflow
from demo.aws import Aws
from demo.processes import StartError, is_free, tail
from demo.world import World, world

SHOWN = {
    "dir_user": ["id", "firstName", "lastName", "email", "active"],
    "dir_group": ["id", "name", "organizationId"],
    "dir_user_group": ["groupId", "userId"],
}
"""The columns to print of each table."""

console = Console(width=110, highlight=False)


def main() -> int:
    """Run one of the three; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="The sync over a world of its own."
    )
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("run", help="sync the documented demo twice, and print what came of it")
    commands.add_parser("up", help="Airflow's UI over the same world").add_argument(
        "--port", type=int, default=8080
    )
    commands.add_parser("seed", help="create the pool in a moto server").add_argument(
        "--endpoint", required=True
    )
    arguments = parser.parse_args()
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if arguments.command == "run":
            return run()
        if arguments.command == "up":
            return up(arguments.port)
        print(Aws(arguments.endpoint).seed())
    except StartError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("\nStopped.")
        return 130
    return 0


def run() -> int:
    """Sync, show, change one thing in the pool, sync and show again."""
    began = time.monotonic()
    console.print("Starting MariaDB with Joget's tables, and AWS's Cognito and S3 (moto) …")
    with world() as demo:
        log = demo.folder / "airflow.log"
        try:
            console.print("Creating Airflow's database …")
            airflow.migrate(demo.airflow, log)
            _sync(demo, "First run: the pool has Demo User 1, in JogetGroup1, and Demo User 2")
            before = demo.directory()
            for table, columns in SHOWN.items():
                _print_table(
                    f"Joget: {table}",
                    columns,
                    [[row[name] for name in columns] for row in before[table]],
                )
            demo.aws.rename(demo.pool_id, "demo.user2@example.com", "User Two")
            _sync(demo, "Second run: in the pool, Demo User 2's family name became User Two")
            _print_table(
                "What changed in Joget, of all columns of all directory tables",
                ["table", "row", "column", "before", "after"],
                differences(before, demo.directory()),
            )
        except subprocess.CalledProcessError as error:
            print(f"{' '.join(error.cmd[2:])} failed.\n{tail(log, 40)}", file=sys.stderr)
            return 1
    console.print(f"\nEverything is stopped again. It took {time.monotonic() - began:.0f} seconds.")
    return 0


def up(port: int) -> int:
    """Serve Airflow's UI until Ctrl-C."""
    if not is_free(port):
        print(f"Port {port} is in use; try make up PORT={_next_free(port)}", file=sys.stderr)
        return 2
    console.print("Starting MariaDB with Joget's tables, and AWS's Cognito and S3 (moto) …")
    with world() as demo:
        console.print("Starting Airflow: a minute or so …")
        with airflow.standalone(demo.airflow, port, demo.folder / "airflow.log") as process:
            console.print(
                f"Airflow is up:  http://127.0.0.1:{port}/dags/{airflow.DAG_ID}  (no login)"
            )
            console.print(f"Joget's tables: mysql -h 127.0.0.1 -P {demo.joget.port} -u root jwdb")
            console.print("Ctrl-C stops everything.")
            process.wait()
            print(f"Airflow ended.\n{tail(demo.folder / 'airflow.log')}", file=sys.stderr)
    return 1


def _sync(demo: World, title: str) -> None:
    console.rule(title)
    console.print("Running the DAG through Airflow …")
    airflow.run_dag(demo.airflow, demo.folder / "airflow.log")
    report = demo.newest_report()
    console.print(f"Outcome: {report['outcome']}")
    for entity in ("users", "groups", "memberships"):
        counts = ", ".join(f"{count} {what}" for what, count in report[entity].items() if count)
        console.print(f"  {entity + ':':13}{counts or 'none'}")
    if report["quarantine"]:
        console.print(f"  quarantine:  {report['quarantine']}")


def differences(
    before: dict[str, list[dict[str, Any]]], after: dict[str, list[dict[str, Any]]]
) -> list[list[Any]]:
    """Cells that differ between two readings of the directory, and rows that only one of them
    has.
    """
    found: list[list[Any]] = []
    for table, rows in before.items():
        old = {_key(row): row for row in rows}
        new = {_key(row): row for row in after[table]}
        found += [[table, key, "the row", "was there", ""] for key in old.keys() - new.keys()]
        found += [[table, key, "the row", "", "is there"] for key in new.keys() - old.keys()]
        for key in sorted(old.keys() & new.keys()):
            cells = old[key].items()
            found += [
                [table, key, name, value, new[key][name]]
                for name, value in cells
                if value != new[key][name]
            ]
    return found


def _key(row: dict[str, Any]) -> str:
    """What names a row: its id, or all of it in a table of pairs."""
    return str(row["id"]) if row.get("id") else " / ".join(map(str, row.values()))


def _print_table(title: str, names: list[str], rows: list[list[Any]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    console.print(table)


def _next_free(port: int) -> int:
    return next(candidate for candidate in range(port + 1, port + 1000) if is_free(candidate))


if __name__ == "__main__":
    sys.exit(main())
