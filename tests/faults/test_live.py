"""A kill -9 of the live task between any two of its steps loses no message, and the next run, once
the messages are visible again, applies what they told of, once.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from demo.aws import Aws
from directory_sync.run import Attempt
from directory_sync.tasks import live
from tests.company import Company, attempt, people
from tests.conftest import make_aws_connection
from tests.database_proxy import CutError, DatabaseProxy
from tests.directory_sync.events.conftest import ServedQueue, create_queue
from tests.directory_sync.tasks.test_live import ANA, NEW, apply, leave, tell
from tests.killable_steps import MINUTE, Step
from tests.sqs_proxy import SqsProxy, open_sqs_proxy
from tests.stand_in import get_value, sub_of, user

LEAVER = "person000@example.org"
UNREADABLE = ["{", "[" * 5000, "no JSON"]
TIMES_SENT = 8
"""How often each event is sent: enough for three batches of deletions."""

RUN_ID = "asset_triggered__killed"


@dataclass
class Reaper:
    """Kills the worker at a moment that one of its servers sees."""

    moment: list[str] = field(default_factory=list)
    """Patterns of calls and statements, to be seen in turn. The worker is killed at the last one,
    before the server gets it."""
    step: Step | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, *moment: str) -> Step:
        """Begin the task, to be killed at a moment."""
        with self._lock:  # no call is seen before its process is known
            self.moment = [*moment]
            self.step = Step(live.apply_events, attempt("apply_events", RUN_ID), "default")
            return self.step

    def sees(self, call: str) -> bool:
        """Whether the worker is dead, and its call is to be dropped."""
        with self._lock:
            if self.step is None:
                return False
            if self.moment and re.search(self.moment[0], call):
                self.moment.pop(0)
                if not self.moment:
                    self.step.kill()
            return not self.moment


@dataclass
class World:
    """A company whose pool changed, and the queue that told of it."""

    company: Company
    queue: ServedQueue
    sqs: SqsProxy
    reaper: Reaper
    before: dict[str, list[str]]
    """Joget's rows before the events."""

    def kill_at(self, *moment: str) -> None:
        """Begin the task, and kill it at a moment (Reaper.moment)."""
        self._bury(self.reaper.begin(*moment))

    def kill_at_opening(self, file: str) -> None:
        """Begin the task, and kill it when it opens a file of staging: a pattern of its path."""
        self._bury(Step(apply_until_opening, file, attempt("apply_events", RUN_ID)))

    def _bury(self, step: Step) -> None:
        assert step.ends_within(5 * MINUTE)
        assert step.was_killed
        self.reaper.step = None

    def recover(self) -> str | None:
        """Show the messages again and do the next run; returns its outcome, or None where it had
        nothing to load. Joget, queue and dead letters must be as if nobody had been killed.
        """
        self.sqs.give_back(self.queue.url)
        assert self.queue.count()[1] == 0, "all messages are visible again"
        outcome = apply(self.company).get("outcome")
        assert self.queue.count() == (0, 0)
        assert {*self.queue.read_dead_letters()} == {*UNREADABLE}
        check_joget(self.company)
        self._check_ledger()
        return outcome

    def _check_ledger(self) -> None:
        """Each change was applied once, by one of the runs."""
        changed = self.company.joget.column(
            "SELECT sub FROM directory_sync_delay WHERE way = 'live'"
        )
        assert sorted(changed) == sorted(sub_of(user(login)) for login in (ANA, LEAVER, NEW))

    def joget_is_as_before(self) -> bool:
        return self.company.joget.contents() == self.before

    def count_runs(self) -> int:
        """How many runs for some users the ledger has."""
        runs = "SELECT COUNT(*) FROM directory_sync_run WHERE kind = 'subset'"
        return int(self.company.joget.column(runs)[0])


def apply_until_opening(file: str, given: Attempt) -> None:
    """The task, which is killed when it opens a file of staging."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and re.search(file, str(arguments[0])):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    live.apply_events(given, "default")


def check_joget(company: Company) -> None:
    """Joget's active users, their names and memberships are the pool's."""
    pool = company.pool
    names = {get_value(one, "email"): get_value(one, "given_name") for one in pool.users}
    assert company.active() == sorted(map(str, names))
    rows = company.joget.execute("SELECT id, firstName FROM dir_user WHERE active = 1")
    assert names.items() <= dict(rows).items()
    assert company.memberships() == {
        (get_value(member, "email"), group)
        for group, members in pool.members.items()
        for member in members
    }


@pytest.fixture
def world(
    company: Company, proxy: DatabaseProxy, moto: Aws, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """One user is changed, one is deleted, one is new and joins a group. Each event was sent
    several times, beside messages that nobody can read.
    """
    queue, reaper = create_queue(moto), Reaper()
    with open_sqs_proxy(moto.client("sqs")) as sqs:
        connection = make_aws_connection(company.cognito.endpoint, sqs=sqs.endpoint)
        monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", connection)
        company.configure(events={"queue_url": queue.url})
        company.pool.users = [user(ANA), *people(12)]
        # So many groups that asking for three users takes fewer calls than listing everybody.
        company.pool.members = {f"Team{at}": company.pool.users[at:] for at in range(8)}
        company.run()
        before = company.joget.contents()
        change(company, queue)
        watch(company, proxy, sqs, reaper, monkeypatch)
        yield World(company, queue, sqs, reaper, before)


def change(company: Company, queue: ServedQueue) -> None:
    """Change the pool, and send events about it."""
    gone, new = company.pool.users[1], user(NEW)
    leave(company, LEAVER)
    company.pool.users[0] = user(ANA, given_name="Anna")
    company.pool.users.append(new)
    company.pool.members["Team0"].append(new)
    for _ in range(TIMES_SENT):
        tell(queue, "AdminAddUserToGroup", new, groupName="Team0")
        tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
        tell(queue, "AdminDeleteUser", gone)
    queue.send(*UNREADABLE)


def watch(
    company: Company,
    proxy: DatabaseProxy,
    sqs: SqsProxy,
    reaper: Reaper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Let the reaper see what the worker asks of each server."""

    def cut(statement: str) -> None:
        if reaper.sees(statement):
            raise CutError

    answer = company.cognito.answer

    def answer_cognito(operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        reaper.sees(operation)
        return answer(operation, asked)

    proxy.before = cut
    proxy.after = lambda statement: cut(f"answer to {statement}")
    sqs.drops = reaper.sees
    monkeypatch.setattr(company.cognito, "answer", answer_cognito)


def test_kill_9_while_messages_are_taken_loses_none(world: World) -> None:
    world.kill_at("ReceiveMessage", "ReceiveMessage", "ReceiveMessage")
    assert world.joget_is_as_before()
    assert world.recover() == "applied"
    assert world.count_runs() == 1


def test_kill_9_after_the_messages_were_taken_repeats_them(world: World) -> None:
    world.kill_at("SET NAMES")
    assert world.queue.count() == (0, 3 * TIMES_SENT + len(UNREADABLE))
    assert apply_again(world)["events"]["messages"] == 0, "hidden messages are nobody's"
    assert world.joget_is_as_before()
    assert world.recover() == "applied"
    assert world.count_runs() == 1


def apply_again(world: World) -> dict[str, Any]:
    """Airflow's retry of the killed task."""
    return live.apply_events(attempt("apply_events", RUN_ID), "default")


def test_kill_9_while_users_are_read_repeats_it(world: World) -> None:
    world.kill_at("ListUsers", "AdminListGroupsForUser")
    assert world.joget_is_as_before()
    assert world.recover() == "applied"
    assert world.count_runs() == 1


def test_kill_9_while_everybody_is_listed_repeats_it(world: World) -> None:
    for one in world.company.pool.users:
        tell(world.queue, "AdminUpdateUserAttributes", one)
    world.kill_at("ListGroups", "ListUsersInGroup")
    assert world.joget_is_as_before()
    assert world.recover() == "applied"


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(r"/transform\.[^/]+/desired_users\.parquet", id="users_were_read"),
        pytest.param(r"/load\.[^/]+/plan\.parquet", id="transformed_and_planned"),
    ],
)
def test_kill_9_before_or_after_transform_repeats_it(world: World, file: str) -> None:
    world.kill_at_opening(file)
    assert world.joget_is_as_before()
    assert world.recover() == "applied"
    assert world.count_runs() == 1


def test_kill_9_in_the_open_transaction_leaves_joget_as_before(world: World) -> None:
    world.kill_at("INSERT INTO directory_sync_run", "^COMMIT")
    assert world.joget_is_as_before()
    assert world.recover() == "applied"
    assert world.count_runs() == 1


def test_kill_9_when_the_commit_was_not_answered_applies_nothing_twice(world: World) -> None:
    world.kill_at("INSERT INTO directory_sync_run", "answer to COMMIT")
    check_joget(world.company)
    assert world.recover() == "nothing_to_do"
    assert world.count_runs() == 2


def test_kill_9_after_the_commit_and_before_the_messages_are_deleted_applies_nothing_twice(
    world: World,
) -> None:
    world.kill_at("DeleteMessageBatch")
    assert world.queue.count() == (0, 3 * TIMES_SENT + len(UNREADABLE))
    check_joget(world.company)
    assert world.recover() == "nothing_to_do"
    assert world.count_runs() == 2


def test_kill_9_between_two_deletions_asks_the_pool_again_and_applies_nothing_twice(
    world: World,
) -> None:
    world.kill_at("DeleteMessageBatch", "DeleteMessageBatch")
    assert world.queue.count()[1] == 3 * TIMES_SENT + len(UNREADABLE) - 10
    check_joget(world.company)
    assert world.recover() == "nothing_to_do"
    assert world.count_runs() == 2


@pytest.mark.parametrize("then", ["SendMessage", "DeleteMessageBatch"])
def test_kill_9_while_dead_letters_are_moved_loses_none(world: World, then: str) -> None:
    world.kill_at("SendMessage", then)
    assert world.queue.count() == (0, len(UNREADABLE))
    check_joget(world.company)
    assert world.recover() is None
    assert world.count_runs() == 1
