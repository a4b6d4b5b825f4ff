"""Extraction: ours against the quota's floor, and against one chain of pages."""

import sys
from dataclasses import replace

from bench.cognito import serving
from bench.results import Measured, Results
from bench.world import POOL, World, run

RATE = 30.0
"""Calls a second: all of AWS's quota, and the stand-in's."""

CHAIN_SECONDS = 120
"""One chain is stopped after so many seconds. Its whole time follows from its calls: each takes the
same.
"""


def measure(world: World, results: Results, people: int, latency: float, *, chain: bool) -> None:
    """List a pool with both tasks, and with the script that most people write."""
    work = f"extraction, {latency * 1000:.0f} ms latency"
    database, run_id = world.new_database(), f"manual__{people}_{latency}"
    with serving(people, latency) as (endpoint, counted):
        where = {"database": database, "endpoint": endpoint}
        users = world.run("extract_users", run_id, **where)
        groups = world.run("extract_groups", run_id, users["url"], **where)
    world.drop(database)
    floor = counted["calls"] / RATE
    peak = max(users["peak_mib"], groups["peak_mib"])
    ours = Measured(work, people, "ours, by the server's clock", counted["seconds"], peak)
    remark = (
        f"{counted['calls']:,.0f} calls, {counted['throttled']:.0f} throttled; between the tasks "
    )
    remark += f"{counted['pause']:.1f} s without a call"
    results.add(Measured(work, people, "floor: calls / 30", floor))
    results.add(replace(ours, remark=remark))
    results.at_most(f"{people:,} users: {work}, of the floor", ours.seconds, floor, 1.1)
    if chain:
        with serving(people, latency) as (endpoint, counted):
            command = [
                sys.executable,
                "-m",
                "bench.alternatives.one_chain",
                "--endpoint",
                endpoint,
                "--pool",
                POOL,
            ]
            said = run([*command, "--stop-after", str(CHAIN_SECONDS)], world.variables)
        seconds, remark = said["seconds"], f"{said['calls']:,} calls"
        if not said["finished"]:
            seconds *= floor * RATE / said["calls"]
            remark = f"from the {said['calls']:,} calls of its first {CHAIN_SECONDS} seconds"
        results.add(
            Measured(work, people, "one boto3 paginator chain", seconds, said["peak_mib"], remark)
        )
        results.faster(f"{people:,} users: {work}, than one chain", ours.seconds, seconds, 4)
