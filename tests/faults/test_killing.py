"""A kill -9 at every statement of a load leaves Joget as before or as after, and the next try
applies everything once.
"""

from typing import Any

from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import load
from tests.company import Company, attempt, counts, people
from tests.database_proxy import CutError, DatabaseProxy
from tests.killable_steps import MINUTE, Step
from tests.stand_in import user


class Reaper:
    """Kills the load's process when it sends its nth statement, before the server gets it."""

    def __init__(self, proxy: DatabaseProxy, transformed: Manifest) -> None:
        self._proxy, self._transformed = proxy, transformed
        self._left: int | None = None
        self._step: Step | None = None
        proxy.before = self._count_down

    def _count_down(self, _: str) -> None:
        if self._left is None or self._step is None:
            return
        self._left -= 1
        if self._left < 0:
            self._step.kill()
            raise CutError

    def load(self, statements: int) -> Step:
        """Start a try of the load, and kill it after so many statements."""
        self._left = statements
        with self._proxy.lock:  # no statement is seen before its process is known
            self._step = Step(
                load.load_snapshot, attempt("load", self._transformed.run_id), self._transformed.url
            )
        assert self._step.ends_within(5 * MINUTE)
        return self._step


def change(company: Company, turn: int) -> Manifest:
    """Prepare a load that has something of each kind to do."""
    staff = [user(f"person{at:03}@example.org", given_name=f"Turn{turn}") for at in range(4)]
    staff[turn % 4]["Enabled"] = False
    company.pool.users = [*staff, *people(1, f"new{turn}")]
    company.pool.members = {"Sales": staff[turn % 2 :], f"Team{turn}": company.pool.users[3:]}
    return company.prepare()


def test_kill_9_before_each_statement_leaves_all_or_nothing_and_the_next_try_applies_it_once(
    company: Company, proxy: DatabaseProxy
) -> None:
    company.configure(
        limits={"floor": 50, "changed_users_percent": 100}, policies={"missing_runs": 1}
    )
    company.load(change(company, 0))
    before = company.joget.contents()
    transformed = change(company, 1)
    reaper = Reaper(proxy, transformed)
    killed = 0
    while company.joget.contents() == before:
        step = reaper.load(killed)
        assert step.was_killed, "the last statements come after the COMMIT"
        killed += 1
    proxy.before = lambda _: None
    after = company.joget.contents()
    assert proxy.statements[-1] == "COMMIT"
    assert killed > 50, "the kills went through all of a load"
    report: dict[str, Any] = company.load(transformed)
    assert report["outcome"] == "applied"
    assert counts(report)["created"] == 1
    assert company.joget.contents() == after
    assert company.run()["outcome"] == "nothing_to_do"
