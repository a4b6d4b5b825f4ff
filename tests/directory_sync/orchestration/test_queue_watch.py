"""Watching the queue: it starts the live DAG, takes nothing, tells nothing, and never ends."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from demo.aws import Aws
from directory_sync.errors import PermanentError
from directory_sync.orchestration import queue_watch
from directory_sync.orchestration.queue_watch import Pauses, QueueTrigger, make_queue_asset
from directory_sync.settings import Sync
from tests.conftest import make_aws_uri
from tests.directory_sync.test_settings import sync
from tests.sqs_stand_in import Answer, make_error, serve_sqs

QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/111122223333/events"
SECONDS_BETWEEN_LOOKS = queue_watch.SHORTEST_LOOK_SECONDS
SECRET = "ana@example.org"
EMPTY: Answer = (200, {})
FULL: Answer = (
    200,
    {
        "Messages": [
            {
                "MessageId": "1",
                "ReceiptHandle": "1",
                "Body": SECRET,
                "Attributes": {"SentTimestamp": "1764496800000"},
            }
        ]
    },
)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as short as tests need."""
    monkeypatch.setattr(queue_watch, "LONG_POLL_SECONDS", 0)
    monkeypatch.setattr(queue_watch, "SHORTEST_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(queue_watch, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(queue_watch, "LONGEST_PAUSE_SECONDS", 0.05)
    # Airflow's own AWS settings mustn't make each failed look a minute of retries.
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def watch(trigger: QueueTrigger, enough: Callable[[list[Any]], bool]) -> list[Any]:
    """Run a trigger until enough is seen; returns its events."""
    events: list[Any] = []

    async def collect(stream: AsyncIterator[Any]) -> None:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - `enough` looks at each one

    async def run() -> None:
        running = asyncio.create_task(collect(trigger.run()))
        while not enough(events):
            assert not running.done(), "the trigger ended"
            await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(asyncio.wait_for(run(), timeout=120))
    return events


def answer_in_turn(*answers: Answer) -> Callable[[str, dict[str, Any]], Answer]:
    """Answers one after another, and the last one for ever."""
    left = list(answers)
    return lambda *_: left.pop(0) if len(left) > 1 else left[0]


def trigger_of(url: str = QUEUE_URL) -> QueueTrigger:
    return QueueTrigger(url, "cognito_aws", "us-east-1")


def test_a_message_fires_the_trigger_and_stays_in_the_queue_for_the_run(
    moto: Aws, aws_connection: Callable[[str], None]
) -> None:
    aws_connection(moto.endpoint)
    sqs = moto.client("sqs")
    url = sqs.create_queue(QueueName="watched")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody=SECRET)
    events = watch(trigger_of(url), enough=bool)
    assert SECRET not in repr(events)
    assert events[0].payload == {}
    (left,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert left["Body"] == SECRET


def test_an_empty_queue_is_looked_at_again_and_again_and_fires_nothing(
    aws_connection: Callable[[str], None],
) -> None:
    with serve_sqs(answer_in_turn(EMPTY)) as served:
        aws_connection(served.endpoint)
        assert watch(trigger_of(), enough=lambda _: len(served.requests) > 5) == []


def test_a_look_waits_for_one_message_and_hides_none(
    aws_connection: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_watch, "LONG_POLL_SECONDS", 20)
    with serve_sqs(answer_in_turn(FULL)) as served:
        aws_connection(served.endpoint)
        watch(trigger_of(), enough=bool)
    assert served.calls.keys() == {"ReceiveMessage"}
    assert served.requests[0][1] == {
        "QueueUrl": QUEUE_URL,
        "MaxNumberOfMessages": 1,
        "WaitTimeSeconds": 20,
        "VisibilityTimeout": 0,
        "MessageSystemAttributeNames": ["SentTimestamp"],
    }


def test_an_idle_queue_costs_at_most_four_calls_a_minute() -> None:
    assert SECONDS_BETWEEN_LOOKS >= 60 / 4


def test_errors_of_sqs_end_no_watch_and_the_log_quotes_nothing(
    aws_connection: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    refused = make_error("AccessDeniedException", 403, f"{SECRET} may not")
    gone = make_error("QueueDoesNotExist", 400, f"{SECRET} is gone")
    strange: Answer = (200, {"Messages": [{"Body": SECRET}]})
    with serve_sqs(answer_in_turn(refused, gone, (503, {}), strange, FULL)) as served:
        aws_connection(served.endpoint)
        assert len(watch(trigger_of(), enough=bool)) == 1
    log = "".join(capsys.readouterr())
    warnings = re.findall(r"can't be looked at \((\w+)\)", log)
    assert warnings == ["AccessDeniedException", "QueueDoesNotExist", "503", "KeyError"]
    assert SECRET not in log


def test_a_missing_connection_ends_no_watch_and_no_other_credentials_are_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-triggerers-own")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-triggerers-own")
    warned: list[str] = []
    with serve_sqs(answer_in_turn(FULL)) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL", served.endpoint)

        def create_connection_after_a_warning(events: list[Any]) -> bool:
            log = "".join(capsys.readouterr())
            if "Connection 'cognito_aws' (setting aws_conn_id)" in log and not warned:
                warned.append(log)
                assert not served.requests
                monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", make_aws_uri(served.endpoint))
            return bool(events)

        assert watch(trigger_of(), enough=create_connection_after_a_warning)


def test_a_queue_that_went_away_and_came_back_is_watched_again(
    aws_connection: Callable[[str], None],
) -> None:
    with serve_sqs(answer_in_turn(FULL, (500, {}), (500, {}), FULL)) as served:
        aws_connection(served.endpoint)
        assert len(watch(trigger_of(), enough=lambda events: len(events) == 2)) == 2


# Pauses


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_watch, "FIRST_PAUSE_SECONDS", 20.0)
    monkeypatch.setattr(queue_watch, "LONGEST_PAUSE_SECONDS", 300.0)


def test_pauses_double_up_to_five_minutes_while_the_same_messages_stay(unhurried: None) -> None:
    pauses = Pauses()
    chosen = [pauses.choose_after_firing(sent_at=1_000) for _ in range(7)]
    assert chosen == [20, 40, 80, 160, 300, 300, 300]


def test_pauses_stay_short_while_runs_take_what_comes(unhurried: None) -> None:
    pauses = Pauses()
    far = 10_000_000_000
    assert [pauses.choose_after_firing(far + number) for number in range(3)] == [20, 20, 20]


def test_an_empty_queue_makes_the_next_pause_short_again(unhurried: None) -> None:
    pauses = Pauses()
    assert [pauses.choose_after_firing(sent_at=1_000) for _ in range(3)] == [20, 40, 80]
    pauses.start_over()
    assert pauses.choose_after_firing(sent_at=1_000) == 20


# Airflow


def make_sync(**events: Any) -> Sync:
    return Sync.model_validate(sync(events={"queue_url": QUEUE_URL, **events}))


def test_the_asset_has_the_live_dags_name_and_shows_neither_account_nor_secret() -> None:
    asset = make_queue_asset(make_sync())
    assert asset.name == "cognito_to_joget_live"
    assert asset.uri == "x-directory-sync://cognito_to_joget_live"
    assert [watcher.name for watcher in asset.watchers] == ["cognito_to_joget_live"]


def test_a_sync_without_a_queue_has_no_asset() -> None:
    with pytest.raises(PermanentError, match=r"Set events\.queue_url"):
        make_queue_asset(Sync.model_validate(sync()))


def test_airflow_makes_the_same_trigger_again_from_its_database() -> None:
    from airflow.sdk import DAG
    from airflow.sdk._shared.module_loading import import_string
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.triggers.base import BaseEventTrigger

    trigger = make_queue_asset(make_sync()).watchers[0].trigger
    classpath, arguments = trigger.serialize()
    again = import_string(classpath)(**json.loads(json.dumps(arguments)))
    assert again.serialize() == trigger.serialize()
    others = make_queue_asset(make_sync(promise_minutes=5)).watchers[0].trigger.serialize()
    assert BaseEventTrigger.hash(*others) == BaseEventTrigger.hash(classpath, arguments)
    with DAG("live", schedule=make_queue_asset(make_sync())) as dag:
        pass
    assert classpath in json.dumps(DagSerialization.to_dict(dag))


def test_parsing_a_dag_with_the_asset_imports_no_aws() -> None:
    import subprocess
    import sys

    code = (
        "import sys, airflow.sdk, airflow.triggers.base; before = set(sys.modules)\n"
        "import directory_sync.orchestration.queue_watch\n"
        "print({'boto3', 'aiobotocore', 'botocore', 'pandas'} & set(sys.modules) - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "set()"
