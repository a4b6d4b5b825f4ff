"""Kill the sync at random moments, and see that it always recovers: `python -m soak`.

KILLS is the number of kills that hit a running stage. SEED repeats the choices of an earlier soak.
"""

import logging
import os
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from demo.mariadb import mariadb
from soak.office import STAGES, Kill, Office, Violation, office


def main() -> int:
    """Kill, check, and print what was seen; 1 where a promise was broken."""
    wanted = int(os.environ.get("KILLS") or 200)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    console = Console()
    console.print(f"{wanted} kills, seed {seed}")
    logging.disable(logging.WARNING)
    with (
        tempfile.TemporaryDirectory(prefix="directory-sync-soak-") as folder,
        mariadb(Path(folder) / "database") as server,
        office(server, "joget", Path(folder), seed) as worked,
    ):
        try:
            kill_until(worked, wanted, console)
        except Violation as violation:
            console.print(f"[red]Violation[/red] {violation}", soft_wrap=True)
            console.print(f"Again: make soak SEED={seed} KILLS={len(worked.kills) + 1}")
            return 1
        finally:
            console.print(table(worked))
    console.print("0 violations")
    return 0


def kill_until(worked: Office, wanted: int, console: Console) -> None:
    """Take steps until the wanted number of kills has hit; raises Violation."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("kills", total=wanted)

        def tell(kill: Kill) -> None:
            text = f"step {kill.step}: {kill.stage} after {kill.delay:.2f} s: {kill.outcome}"
            progress.update(task, advance=1, description=text)
            if not console.is_terminal:
                console.print(f"{len(worked.kills)} of {wanted}: {text}")

        worked.tell, step = tell, 0
        while len(worked.kills) < wanted:
            step += 1
            worked.take_step(step)


def table(worked: Office) -> Table:
    """Kills by stage, with what Joget held after them."""
    shown = Table(title=f"seed {worked.seed}; {worked.too_late} more kills came too late")
    for column in ("stage", "kills", "as before", "as after", "longest recovery"):
        shown.add_column(column, justify="left" if column == "stage" else "right")
    for stage in [*STAGES, "all"]:
        kills = [kill for kill in worked.kills if stage in (kill.stage, "all")]
        outcomes = Counter(kill.outcome for kill in kills)
        longest = max((kill.recovery for kill in kills), default=0)
        cells = (len(kills), outcomes["as before"], outcomes["as after"], f"{longest:.1f} s")
        shown.add_row(stage, *map(str, cells))
    return shown


if __name__ == "__main__":
    sys.exit(main())
