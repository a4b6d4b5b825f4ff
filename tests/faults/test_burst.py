"""A burst of events about a large pool: few runs, no loss, and no more calls than the cheaper way
of reading takes.
"""

import itertools
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.company import Company, people
from tests.conftest import make_aws_connection
from tests.directory_sync.events.samples import make_envelope, make_record
from tests.directory_sync.tasks.test_live import apply
from tests.faults.test_live import check_joget
from tests.sqs_stand_in import Answer, serve_sqs
from tests.stand_in import POOL_ID, get_value, sub_of, user

QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/111122223333/events"
NAMES = ("AdminUpdateUserAttributes", "AdminEnableUser", "AdminConfirmSignUp")


@dataclass(frozen=True)
class Burst:
    """Events, and the pool that they are about."""

    events: int
    """Three in ten of them arrive while the first run reads."""
    users: int
    changed: int = 0
    newcomers: int = 0


@dataclass
class MemoryQueue:
    """A queue in memory, which hands out each ninth message twice."""

    visible: list[str] = field(default_factory=list)
    hidden: dict[str, str] = field(default_factory=dict)
    """Bodies by receipt."""
    _numbers: Any = field(default_factory=itertools.count)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, operation: str, parameters: dict[str, Any]) -> Answer:
        """Answer SQS's calls of a run."""
        with self._lock:
            if operation == "ReceiveMessage":
                return 200, {"Messages": self._hand_out(parameters["MaxNumberOfMessages"])}
            assert operation == "DeleteMessageBatch"
            for entry in parameters["Entries"]:
                self.hidden.pop(entry["ReceiptHandle"], None)
            return 200, {"Successful": [{"Id": one["Id"]} for one in parameters["Entries"]]}

    def _hand_out(self, most: int) -> list[dict[str, Any]]:
        count = max(1, most - 1)
        bodies, self.visible = self.visible[:count], self.visible[count:]
        messages = [self._make_message(body) for body in bodies]
        return [*messages, *messages[:1]][:most]

    def _make_message(self, body: str) -> dict[str, Any]:
        number = str(next(self._numbers))
        self.hidden[number] = body
        attributes = {"SentTimestamp": "1764496800000", "ApproximateReceiveCount": "1"}
        return {
            "MessageId": number,
            "ReceiptHandle": number,
            "Body": body,
            "Attributes": attributes,
        }


def make_events(users: list[Any], count: int) -> list[str]:
    """So many events about these users, each about once or several times, in any order."""
    chosen = random.Random(20261201)
    about = [*users, *chosen.choices(users, k=count - len(users))]
    chosen.shuffle(about)
    return [make_event(one, chosen) for one in about]


def make_event(one: Any, chosen: random.Random) -> str:
    record = make_record(
        chosen.choice(NAMES),
        eventTime=f"2026-11-30T10:{chosen.randrange(60):02}:00Z",
        requestParameters={"userPoolId": POOL_ID},
        additionalEventData={"sub": sub_of(one)},
    )
    return json.dumps(make_envelope(record))


def change(company: Company, burst: Burst) -> list[Any]:
    """Change users of the pool, and add some; returns both."""
    users = company.pool.users
    users[: burst.changed] = [
        user(str(get_value(one, "email")), given_name="Changed") for one in users[: burst.changed]
    ]
    users += people(burst.newcomers, "new")
    company.pool.members = {"Sales": users[::6]}
    return [*users[: burst.changed], *users[len(users) - burst.newcomers :]]


@pytest.fixture
def queue(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryQueue]:
    queue = MemoryQueue()
    with serve_sqs(queue.answer) as served:
        connection = make_aws_connection(company.cognito.endpoint, sqs=served.endpoint)
        monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", connection)
        yield queue


def apply_all(company: Company, queue: MemoryQueue) -> list[int]:
    """Do runs until the queue is empty; returns how many calls each of them took."""
    calls = []
    while queue.visible:
        company.cognito.calls.clear()
        apply(company)
        calls.append(company.cognito.calls.total())
    return calls


@pytest.mark.parametrize(
    "burst",
    [
        pytest.param(Burst(10_000, users=3_000, changed=3_000), id="everybody"),
        pytest.param(Burst(1_000, users=600, changed=6), id="few"),
        pytest.param(Burst(1_000, users=600, newcomers=6), id="newcomers"),
    ],
)
def test_a_burst_becomes_at_most_three_runs_which_read_in_the_cheaper_way(
    company: Company, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch, burst: Burst
) -> None:
    company.configure(
        events={"queue_url": QUEUE_URL},
        limits={"changed_users_percent": 100, "floor": burst.users},
    )
    company.pool.users = people(burst.users)
    company.pool.members = {"Sales": company.pool.users[::6]}
    company.run()
    listing = company.cognito.calls.total()
    events = make_events(change(company, burst), burst.events)
    late = iter([events[: burst.events * 3 // 10]])
    queue.visible = events[burst.events * 3 // 10 :]
    answer = company.cognito.answer

    def answer_while_events_arrive(*asked: Any) -> tuple[int, dict[str, Any]]:
        queue.visible += next(late, [])
        return answer(*asked)

    monkeypatch.setattr(company.cognito, "answer", answer_while_events_arrive)
    calls = apply_all(company, queue)
    assert len(calls) <= 3
    assert queue.hidden == {}
    check_joget(company)
    # A newcomer's login is asked for too: somebody else may have it.
    cheaper = min(listing, 2 * burst.changed + 3 * burst.newcomers)
    assert max(calls) <= 1.1 * cheaper
