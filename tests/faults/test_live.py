"""A kill -9 of the live task between any two of its steps loses no message, and the next run, once
the messages are visible again, applies what they told of, once.
"""

import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from demo.aws import Aws
from directory_sync.run import Attempt
from directory_sync.tasks import live
from tests.company import Company, attempt, people
from tests.conftest import JogetDatabase, make_aws_connection, new_company
from tests.database_proxy import CutError, DatabaseProxy, open_proxy
from tests.directory_sync.events.conftest import ServedQueue, create_queue
from tests.directory_sync.tasks.test_live import ANA, apply, leave, tell
from tests.killable_steps import MINUTE, Step
from tests.sqs_proxy import SqsProxy, open_sqs_proxy
from tests.stand_in import get_value, sub_of, user

UNREADABLE = ["{", "[" * 5000, "no JSON"]
TIMES_SENT = 8
"""How often each event is sent: enough for three batches of deletions."""

LIMITS = (
    "floor",
    "removed_users_percent",
    "removed_memberships_percent",
    "emptied_group_percent",
    "changed_users_percent",
)

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
    """A company whose pool changes for each test, and the queue that tells of it."""

    company: Company
    queue: ServedQueue
    sqs: SqsProxy
    reaper: Reaper
    turn: int = 0
    """How often the pool changed."""
    has_recovered: bool = True
    """Whether Joget has what the pool has."""
    changed: list[str] = field(default_factory=list)
    """Subs of the users that the last change was about."""
    before: dict[str, list[str]] = field(default_factory=dict)
    """Joget's rows before the last change."""
    runs_before: int = 0

    def change(self) -> None:
        """Change a user, delete one, let a newcomer join a group, and send events about it, beside
        messages that nobody can read.
        """
        self.turn += 1
        self.company.joget.execute("DELETE FROM directory_sync_delay")
        self.before = self.company.joget.contents()
        self.runs_before += self.count_runs()
        pool, gone = self.company.pool, self.company.pool.users[1]
        ana, new = user(ANA, given_name=f"Turn{self.turn}"), user(f"new{self.turn}@example.org")
        leave(self.company, str(get_value(gone, "email")))
        pool.users = [ana, *pool.users[1:], new]
        pool.members["Team0"].append(new)
        self.changed = [sub_of(one) for one in (ana, gone, new)]
        for _ in range(TIMES_SENT):
            tell(self.queue, "AdminAddUserToGroup", new, groupName="Team0")
            tell(self.queue, "AdminUpdateUserAttributes", ana)
            tell(self.queue, "AdminDeleteUser", gone)
        self.queue.send(*UNREADABLE)

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
        self.has_recovered = True
        return outcome

    def _check_ledger(self) -> None:
        """Each change was applied once, by one of the runs."""
        changed = self.company.joget.column(
            "SELECT sub FROM directory_sync_delay WHERE way = 'live'"
        )
        assert sorted(changed) == sorted(self.changed)

    def joget_is_as_before(self) -> bool:
        return self.company.joget.contents() == self.before

    def count_runs(self) -> int:
        """How many runs for some users the ledger has since the last change."""
        runs = "SELECT COUNT(*) FROM directory_sync_run WHERE kind = 'subset'"
        return int(self.company.joget.column(runs)[0]) - self.runs_before


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


@pytest.fixture(scope="module")
def shared_world(
    new_joget: Callable[[str], JogetDatabase], moto: Aws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One world for all tests, since its first run takes as long as a test."""
    joget, folder, reaper = new_joget("utf8mb4"), tmp_path_factory.mktemp("live"), Reaper()
    with (
        pytest.MonkeyPatch.context() as patch,
        open_proxy(joget.server.port) as proxy,
        open_sqs_proxy(moto.client("sqs")) as sqs,
        new_company(joget, folder, patch) as company,
    ):
        # Without encryption, so that the proxy can read the statements.
        uri = f"mysql://root:@127.0.0.1:{proxy.port}/{joget.name}?ssl_mode=DISABLED"
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", uri)
        connection = make_aws_connection(company.cognito.endpoint, sqs=sqs.endpoint)
        patch.setenv("AIRFLOW_CONN_COGNITO_AWS", connection)
        # The limits look at the last 24 hours, so at the leavers of all tests.
        company.configure(limits=dict.fromkeys(LIMITS, 100))
        company.pool.users = [user(ANA), *people(20)]
        # So many groups that asking for three users takes fewer calls than listing everybody.
        company.pool.members = {f"Team{at}": company.pool.users[at:] for at in range(8)}
        company.run()
        watch(company, proxy, sqs, reaper, patch)
        yield World(company, create_queue(moto), sqs, reaper)


@pytest.fixture
def world(shared_world: World, moto: Aws) -> World:
    """A world whose pool changed, with a new queue that told of it."""
    company = shared_world.company
    if not shared_world.has_recovered:  # an earlier test failed
        company.run()
    shared_world.has_recovered = False
    shared_world.queue = create_queue(moto)
    shared_world.sqs.receipts.clear()
    company.configure(events={"queue_url": shared_world.queue.url})
    shared_world.change()
    return shared_world


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
