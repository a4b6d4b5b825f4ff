"""A pool of any size behind the tests' stand-in for Cognito, in a process of its own.

`python -m bench.cognito` prints its endpoint, serves until its input ends, and then prints as JSON
what it counted on its own clock: seconds from the first call to the last, calls, and how many of
them it throttled.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import IO, Any, cast, overload

from bench.company import Company
from directory_sync.cognito.client import USERS_IN_A_PAGE
from tests.stand_in import Faults, stand_in, user

QUOTAS = {"UserList": 30.0, "UserPoolResourceRead": 5.0, "UserPoolRead": 15.0}
"""AWS's defaults; ListGroups of one pool is held to 5."""


class People(Sequence[Any]):
    """Some of the pool's users, made when they are listed: a million of them would take
    gigabytes.
    """

    def __init__(self, pool: "LargePool", numbers: Sequence[int]) -> None:
        self._pool, self._numbers = pool, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, int):
            return self._pool.user(self._numbers[at])
        numbers = self._numbers[at]
        return (
            People(self._pool, numbers)
            if len(numbers) > USERS_IN_A_PAGE
            else [self._pool.user(number) for number in numbers]
        )


class LargePool:
    """A company as a pool."""

    def __init__(self, company: Company) -> None:
        self._subs = company.subs()
        self._rows = company.users()[["email", "firstName", "lastName"]].to_numpy().tolist()
        self.users = People(self, range(company.people))
        self._numbers = {sub: number for number, sub in enumerate(self._subs)}
        by_digit, by_group = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
        for number, sub in enumerate(self._subs):
            by_digit[sub[0]].append(number)
        names = company.groups
        for number, group in company.member_numbers():
            by_group[names[group]].append(number)
        self._by_digit = by_digit
        self.members = {name: People(self, by_group[name]) for name in names}

    def user(self, number: int) -> Any:
        """One user, as ListUsers gives it."""
        email, first, last = self._rows[number]
        sub = self._subs[number]
        return user(
            email,
            sub=sub,
            given_name=first,
            family_name=last,
            zoneinfo="Europe/Lisbon",
            locale="pt-PT",
        )

    def find_by_sub(self, value: str, *, prefix: bool) -> Sequence[Any]:
        """The user with that sub; with `prefix`, the users with subs that begin with that digit."""
        if prefix:
            return People(self, self._by_digit[value])
        return People(self, [self._numbers[value]] if value in self._numbers else [])


@contextmanager
def serving(people: int, latency: float) -> Iterator[tuple[str, dict[str, float]]]:
    """A server for the length of a block: its endpoint, and what it counted once the block has
    ended.
    """
    command = [
        sys.executable,
        "-m",
        "bench.cognito",
        "--people",
        str(people),
        "--latency",
        str(latency),
    ]
    counted: dict[str, float] = {}
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        ends, says = cast("IO[str]", process.stdin), cast("IO[str]", process.stdout)
        try:
            yield says.readline().strip(), counted
        finally:
            ends.close()
            counted |= json.loads(says.read())


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m bench.cognito", description=__doc__)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument(
        "--latency", type=float, required=True, help="seconds that each answer takes"
    )
    asked = parser.parse_args()
    pool = LargePool(Company(asked.people))
    with stand_in(pool, Faults(latency=asked.latency, quotas=QUOTAS)) as served:
        print(served.endpoint, flush=True)
        sys.stdin.read()
        seconds = served.last_at - (served.first_at or served.last_at) + asked.latency
        counted = {
            "calls": served.calls.total(),
            "throttled": served.throttled,
            "pause": served.longest_pause,
        }
        print(json.dumps({"seconds": seconds, **counted}))


if __name__ == "__main__":
    main()
