"""A company: its people come, go and change, and its sync is killed at random moments."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.database import DatabaseServer
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import extract, load, review, transform, undo
from tests.company import Company, attempt
from tests.conftest import JogetDatabase, new_company
from tests.killable_steps import MINUTE, Step
from tests.stand_in import user

STAFF = 24
GROUPS = ("Sales", "Board", "Plant")
MANY = 8
"""Users disabled at once: more than the limit, so that a person is asked."""

LOCAL = ("local.one", "local.two")
SETTINGS: dict[str, Any] = {
    "policies": {"missing_runs": 1, "missing_minutes": 0},
    "limits": {
        "floor": 5,
        "removed_users_percent": 100,
        "disabled_users_percent": 0,
        "removed_memberships_percent": 100,
        "emptied_group_percent": 100,
        "changed_users_percent": 100,
    },
}
STAGES = {
    "extract_users": 1,
    "extract_groups": 1,
    "transform": 1,
    "load": 5,
    "request_review": 1,
    "load_held": 2,
    "undo": 3,
}
"""How often each stage is chosen, relative to the others."""

LAST_KILL = 0.35
"""The probability that the next try isn't killed as well."""

FIRST_GUESS = 1.0
"""Seconds that a stage takes, until one was measured."""


class Violation(AssertionError):  # noqa: N818 - it is no error of the program's
    """The sync broke a promise."""


@dataclass
class Kill:
    """One kill and what was seen after it."""

    step: int
    stage: str
    delay: float
    """Seconds from the stage's beginning to the kill."""
    outcome: str = ""
    """`as before` or `as after`: what Joget and the ledger held after the kill."""
    recovery: float = 0.0
    """Seconds from the kill to the end of the try that did the stage's whole work."""


@dataclass
class Office:
    """Runs the stages one after the other. Each step kills one of them, and tries it again."""

    company: Company
    seed: int
    kills: list[Kill] = field(default_factory=list)
    too_late: int = 0
    """Kills that came after the stage had ended."""
    tell: Callable[[Kill], None] = lambda _: None
    _typical: dict[str, float] = field(default_factory=dict)
    _random: random.Random = field(default_factory=random.Random)
    _step: int = 0
    _stage: str = ""
    _local: dict[str, list[str]] = field(default_factory=dict)

    def begin(self) -> None:
        """The first run, without kills."""
        for login in LOCAL:
            self.company.joget.add_user(login, password="hash")  # noqa: S106 - nobody logs in
        self._local = self._find_local_rows()
        self.company.configure(**SETTINGS)
        self._staff_changes(random.Random(f"{self.seed}"), 0)
        self.company.run()

    def take_step(self, step: int) -> None:
        """Change the pool, kill one stage at random moments, repeat it, and compare Joget with
        the pool.

        All choices follow from the seed and the step's number. Raises Violation.
        """
        self._step, self._random = step, random.Random(f"{self.seed}/{step}")
        self.company.let_hours_pass(25)  # the limits look at the last 24 hours
        [self._stage] = self._random.choices(list(STAGES), list(STAGES.values()))
        if self._stage == "undo":
            self._take_back()
        elif self._stage in ("request_review", "load_held"):
            self._ask_a_person()
        else:
            self._staff_changes(self._random, step)
            self._run_stages()
        self._check_convergence()

    def _run_stages(self) -> Manifest:
        run_id = f"manual__{self._step}.{time.time_ns()}+00:00"
        users = self._carry_out("extract_users", run_id, extract.extract_users, "default", {}, {})
        groups = self._carry_out("extract_groups", run_id, extract.extract_groups, users.url)
        transformed = self._carry_out(
            "transform", run_id, transform.transform_snapshot, users.url, groups.url
        )
        loaded: Manifest = self._carry_out("load", run_id, load.load_snapshot, transformed.url)
        return loaded

    def _take_back(self) -> None:
        before = self._read_directory()
        for person in self.company.pool.users:
            set_given_name(person, f"Undone{self._step}")
        run_id = self._run_stages().run_id
        conf = {"run_id": run_id, "dry_run": False}
        self._carry_out("undo", f"undo__{self._step}", undo.undo_run, "default", {}, conf)
        self._require(
            self._read_directory() == before,
            "an undo gives back what was before the run, byte for byte",
        )
        for person in self.company.pool.users:
            set_given_name(person, f"Again{self._step}")
        self._run_stages()

    def _ask_a_person(self) -> None:
        for person in self.company.pool.users:
            person["Enabled"] = True
        self._run_stages()
        for person in self._random.sample(self.company.pool.users, MANY):
            person["Enabled"] = False
        loaded = self._run_stages()
        review_id = self._carry_out("request_review", "", review.request_review, loaded.url)
        self._require(review_id is not None, "a person is asked")
        review.note_answer("default", review_id, "approve", "Olga")
        self._carry_out("load_held", f"review__{review_id}", review.load_held, "default", review_id)

    def _carry_out(
        self, stage: str, run_id: str, function: Callable[..., Any], *arguments: Any
    ) -> Any:
        """Let a stage do its work. If it is the step's stage, kill it first, once or more often."""
        before, seen = (self._read_all() if stage == self._stage else {}), []
        while stage == self._stage:
            kill = Kill(
                self._step,
                stage,
                self._random.uniform(0, 1.1) * self._typical.get(stage, FIRST_GUESS),
            )
            child = Step(function, *named(stage, run_id), *arguments)
            child.ends_within(kill.delay)
            child.kill()
            child.ends_within(MINUTE)
            died_at = time.monotonic()
            if child.was_killed:
                seen.append((kill, died_at, self._read_all()))
            else:
                self.too_late += 1
            if self._random.random() < LAST_KILL:
                break
        began = time.monotonic()
        if stage != self._stage:
            return function(*named(stage, run_id), *arguments)
        result = Step(function, *named(stage, run_id), *arguments).result()
        ended = time.monotonic()
        typical = self._typical.get(stage, ended - began)
        self._typical[stage] = (typical + ended - began) / 2
        after = self._read_all()
        for kill, died_at, found in seen:
            kill.recovery = ended - died_at
            kill.outcome = "as before" if found == before else "as after"
            self._require(found in (before, after), f"{kill} left Joget or the ledger half done")
            self.kills.append(kill)
            self.tell(kill)
        return result

    def _check_convergence(self) -> None:
        """Another run has nothing to do, and Joget holds what the pool says."""
        self._stage = ""
        outcome = self.company.run()["outcome"]
        self._require(
            outcome == "nothing_to_do", f"another run has nothing to do, and it said {outcome}"
        )
        pool = self.company.pool
        enabled = {login_of(person) for person in pool.users if person["Enabled"]}
        differ = sorted(enabled ^ (set(self.company.active()) - set(LOCAL)))
        self._require(not differ, f"the active users are the pool's enabled ones, without {differ}")
        members = {
            (login_of(person), group) for group in pool.members for person in pool.members[group]
        }
        wanted = {(login, group) for login, group in members if login in enabled}
        differing = sorted(self.company.memberships() ^ wanted)
        self._require(not differing, f"the memberships are the pool's, without {differing}")
        self._require(self._find_local_rows() == self._local, "local rows stay byte for byte")
        reviews = "SELECT COUNT(*) FROM directory_sync_review WHERE closed_at IS NULL"
        self._require(self.company.joget.column(reviews) == [0], "no review is left open")

    def _require(self, holds: bool, promise: str) -> None:
        if not holds:
            raise Violation(
                f"step {self._step} of seed {self.seed} ({self._stage or 'afterwards'}): not so: "
                f"{promise}"
            )

    def _staff_changes(self, chosen: random.Random, turn: int) -> None:
        pool = self.company.pool
        pool.users = pool.users[chosen.randrange(3) :]
        newcomers = STAFF - len(pool.users)
        pool.users += [user(f"person{turn:04}.{at}@example.org") for at in range(newcomers)]
        for person in chosen.sample(pool.users, STAFF // 2):
            set_given_name(person, f"Turn{turn}")
        for person in chosen.sample(pool.users, 2):
            person["Enabled"] = not person["Enabled"]
        pool.members = {
            group: chosen.sample(pool.users, chosen.randrange(1, STAFF)) for group in GROUPS
        }

    def _read_directory(self) -> dict[str, list[str]]:
        return self.company.joget.contents()

    def _read_all(self) -> dict[str, list[str]]:
        """Joget's tables and the ledger's, once the server has ended the sessions of killed
        processes.
        """
        joget = self.company.joget
        others = (
            "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
        )
        deadline = time.monotonic() + MINUTE
        while joget.column(others, (joget.name,)):
            self._require(
                time.monotonic() < deadline,
                "the server ends a killed process's sessions within a minute",
            )
            time.sleep(0.02)
        found = joget.contents(prefix="")
        found.pop("directory_sync_lock", None)  # its holder may differ after a kill
        return found

    def _find_local_rows(self) -> dict[str, list[str]]:
        return {
            table: [row for row in rows if "local." in row]
            for table, rows in self._read_directory().items()
        }


def named(stage: str, run_id: str) -> tuple[Any, ...]:
    """The first arguments of a stage: its attempt, where it leaves a folder."""
    return (attempt(stage, run_id),) if run_id else ()


def login_of(person: Any) -> str:
    """A user's login, as the settings map it."""
    return next(str(pair["Value"]) for pair in person["Attributes"] if pair["Name"] == "email")


def set_given_name(person: Any, name: str) -> None:
    """Change a user in the pool."""
    next(pair for pair in person["Attributes"] if pair["Name"] == "given_name")["Value"] = name


@contextmanager
def office(server: DatabaseServer, name: str, folder: Path, seed: int) -> Iterator[Office]:
    """An office after its first run, with a database of its own on the server."""
    server.create_joget(name)
    joget = JogetDatabase(server, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", server.uri(name))
        with new_company(joget, folder, patch) as company:
            made = Office(company, seed)
            made.begin()
            yield made
