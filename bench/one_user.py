"""One user on demand, in a Joget of any size: only they are read, from the pool and from Joget."""

from bench.company import Company
from bench.results import Measured, Results
from bench.world import World
from tests.stand_in import Pool, stand_in, user

WORK = "one user on demand"
MOST_SECONDS, MOST_MIB = 3, 300


def measure(world: World, results: Results, company: Company, database: str) -> None:
    """Synchronise one changed user by their login, after a run for everybody."""
    sub, row = company.subs()[0], company.users().iloc[0]
    changed = user(row["id"], sub=sub, given_name="Changed", family_name=row["lastName"])
    groups = [company.groups[group] for number, group in company.member_numbers() if number == 0]
    # A pool answers a question by name as fast at any size, so only the one user is served.
    with stand_in(Pool([changed], {group: [changed] for group in groups})) as cognito:
        took = world.run(
            "one_user", "manual__one", row["id"], database=database, endpoint=cognito.endpoint
        )
    results.add(Measured(WORK, company.people, "ours: all", took["seconds"], took["peak_mib"]))
    name = f"{company.people:,} users: {WORK}"
    results.within(name, took["seconds"], MOST_SECONDS, "s")
    results.within(f"{name}, memory", took["peak_mib"], MOST_MIB, "MiB")
