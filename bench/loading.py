"""Loading: ours against the database's floor, and against what people would use instead."""

import subprocess
from pathlib import Path

from bench import floor, one_user
from bench.company import Company
from bench.results import Measured, Results
from bench.world import World, run

ALTERNATIVES = {
    "upserts": "executemany upserts",
    "to_sql": "pandas to_sql",
    "with_dlt": "dlt's merge",
}
LIMIT_MIB = {100_000: 512, 1_000_000: 2048}
FIRST, NOTHING, CHANGED = "first load", "nothing to do", "1 % changed"


def measure(
    world: World, results: Results, people: int, python: Path | None, patience: float
) -> None:
    """A first load, a run with nothing to do, and one with a hundredth changed; then the
    alternatives, where there is a Python that has them. Each run of an alternative is stopped after
    `patience` seconds.
    """
    database, other = world.new_database(), world.new_database()
    for work, changed in ((FIRST, 0), (NOTHING, 0), (CHANGED, 1)):
        _ours(world, results, Company(people, changed), work, database)
        if work == FIRST:
            seconds = floor.raw_load(world.joget, database, other, world.folder)
            results.add(Measured(work, people, "floor: raw LOAD DATA", seconds))
        if work == NOTHING:
            results.add(
                Measured(work, people, "floor: raw SELECT", floor.raw_select(world.joget, database))
            )
    one_user.measure(world, results, Company(people), database)
    world.drop(database, other)
    if python:
        rows = _rows(world, people)
        for module in ALTERNATIVES:
            _alternative(
                world, results, people, rows, python=python, module=module, patience=patience
            )
    _judge(results, people)


def _ours(world: World, results: Results, company: Company, work: str, database: str) -> None:
    run_id = f"manual__{company.people}_{work}"
    transformed = world.run("transform", run_id, *world.stage(company, run_id), database=database)
    loaded = world.run("load", run_id, transformed["url"], database=database)
    for task, took in (("transform", transformed), ("load", loaded)):
        results.add(
            Measured(work, company.people, f"ours: {task}", took["seconds"], took["peak_mib"])
        )
        if company.people in LIMIT_MIB:
            limit = LIMIT_MIB[company.people]
            results.within(
                f"{company.people:,} users: {work}, memory of {task}",
                took["peak_mib"],
                limit,
                "MiB",
            )
    both = transformed["seconds"] + loaded["seconds"]
    results.add(Measured(work, company.people, "ours: transform and load", both))


def _rows(world: World, people: int) -> Path:
    company, folder = Company(people), world.folder / f"rows_{people}"
    folder.mkdir()
    company.users().to_parquet(folder / "users.parquet")
    company.memberships().to_parquet(folder / "memberships.parquet")
    company.group_rows().to_parquet(folder / "groups.parquet")
    return folder


def _alternative(
    world: World,
    results: Results,
    people: int,
    rows: Path,
    *,
    python: Path,
    module: str,
    patience: float,
) -> None:
    name = ALTERNATIVES[module]
    database = world.new_database()
    for work in (FIRST, NOTHING):
        place = ["--rows", str(rows), "--port", str(world.joget.port), "--database", database]
        command = [str(python), "-m", f"bench.alternatives.{module}", *place]
        try:
            said = run(command, world.variables, timeout=patience)
        except subprocess.TimeoutExpired:
            results.add(Measured(work, people, name, patience, remark="stopped, not ended"))
            break
        results.add(Measured(work, people, name, said["seconds"], said["peak_mib"]))
    world.drop(database)


def _judge(results: Results, people: int) -> None:
    size = f"{people:,} users"
    first = results.seconds(FIRST, people, "ours: load")
    # Ours also plans, publishes and reads back, so it can't be as fast as the floor, which only
    # writes. The bars are what remains worth a promise: a first load happens once.
    results.at_most(
        f"{size}: {FIRST}", first, results.seconds(FIRST, people, "floor: raw LOAD DATA"), 1.8
    )
    for name, times in zip(ALTERNATIVES.values(), (1.3, 5, 5), strict=True):
        results.faster(
            f"{size}: {FIRST}, than {name}", first, results.seconds(FIRST, people, name), times
        )
    nothing, changed = (
        results.seconds(work, people, "ours: transform and load") for work in (NOTHING, CHANGED)
    )
    results.at_most(
        f"{size}: {NOTHING}", nothing, results.seconds(NOTHING, people, "floor: raw SELECT"), 3
    )
    for name in ALTERNATIVES.values():
        results.faster(
            f"{size}: {NOTHING}, than {name} again",
            nothing,
            results.seconds(NOTHING, people, name),
            10,
        )
    results.at_most(f"{size}: {CHANGED}, of {NOTHING}", changed, nothing, 1.5)


def judge_growth(results: Results, small: int, large: int) -> None:
    """Ten times the people, at most eleven times the seconds."""
    for work in (FIRST, NOTHING, CHANGED):
        for task in ("transform", "load"):
            one, other = (
                results.seconds(work, people, f"ours: {task}") for people in (small, large)
            )
            results.at_most(f"growth to {large:,} users: {work}, {task}", other, one, 11)
