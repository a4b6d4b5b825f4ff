"""The queue in SQS: messages are taken whole and once, deleted after use, and never shown."""

import itertools
import json
import logging
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from demo.processes import free_port
from directory_sync.errors import PermanentError, TransientError
from directory_sync.events import queue
from directory_sync.events.queue import Message, open_queue
from directory_sync.settings import Sync
from tests.directory_sync.events.conftest import ServedQueue
from tests.directory_sync.test_settings import sync
from tests.sqs_stand_in import Answer, make_error, serve_sqs

SECRET = "ana@example.org"
STAND_INS_SYNC = Sync.model_validate(
    sync(events={"queue_url": "https://sqs.us-east-1.amazonaws.com/111122223333/events"})
)


def test_all_messages_of_a_burst_are_taken_each_once(served: ServedQueue) -> None:
    bodies = [f"message {number}" for number in range(57)]
    served.send(*bodies)
    taken = open_queue(served.sync).take_messages(1_000)
    assert sorted(message.body for message in taken) == sorted(bodies)


def hand_out(count: int) -> Callable[[str, dict[str, Any]], Answer]:
    """An SQS with so many messages, which hands out some of them twice."""
    numbers = itertools.count()

    def answer(operation: str, parameters: dict[str, Any]) -> Answer:
        assert operation == "ReceiveMessage"
        first = next(numbers) * 10
        found = range(max(0, first - 1), min(first + 9, count))
        return 200, {"Messages": [make_received(number) for number in found]}

    return answer


def make_received(number: int) -> dict[str, Any]:
    return {
        "MessageId": f"id-{number}",
        "ReceiptHandle": f"receipt-{number}",
        "Body": "{}",
        "Attributes": {"SentTimestamp": "1764496800000", "ApproximateReceiveCount": "1"},
    }


def test_ten_thousand_messages_are_taken_each_once(aws_connection: Callable[[str], None]) -> None:
    with serve_sqs(hand_out(10_000)) as served:
        aws_connection(served.endpoint)
        taken = open_queue(STAND_INS_SYNC).take_messages(20_000)
    assert len(taken) == len({message.message_id for message in taken}) == 10_000


def test_no_more_than_the_wanted_number_is_taken(aws_connection: Callable[[str], None]) -> None:
    numbers = itertools.count()

    def hand_out_what_is_wanted(_: str, parameters: dict[str, Any]) -> Answer:
        wanted = range(parameters["MaxNumberOfMessages"])
        return 200, {"Messages": [make_received(next(numbers)) for _ in wanted]}

    with serve_sqs(hand_out_what_is_wanted) as served:
        aws_connection(served.endpoint)
        assert len(open_queue(STAND_INS_SYNC).take_messages(25)) == 25
    assert next(numbers) == 25


def test_taken_messages_stay_hidden_whatever_the_queues_own_time_is(served: ServedQueue) -> None:
    served.send("one")
    opened = open_queue(served.sync)
    assert len(opened.take_messages(10)) == 1
    assert opened.take_messages(10) == []
    assert served.count() == (0, 1)


def test_a_message_carries_its_arrival_and_how_often_it_was_received(served: ServedQueue) -> None:
    served.send("one")
    opened = open_queue(served.sync)
    taken = opened.take_messages(10)
    assert abs(taken[0].arrived_at - datetime.now(UTC)) < timedelta(hours=1)
    assert taken[0].arrived_at.tzinfo is UTC
    assert opened.extend(taken, seconds=0) == 0
    (again,) = opened.take_messages(10)
    assert again.times_received > taken[0].times_received
    assert (taken[0].message_id, taken[0].body) == (again.message_id, again.body)


def test_a_message_is_hidden_for_longer_on_request(served: ServedQueue) -> None:
    served.send(*map(str, range(23)))
    opened = open_queue(served.sync)
    taken = opened.take_messages(30)
    assert opened.extend(taken) == 0
    assert served.count() == (0, 23)


def test_deleted_messages_are_gone_and_others_stay(served: ServedQueue) -> None:
    served.send(*map(str, range(47)))
    opened = open_queue(served.sync)
    taken = opened.take_messages(100)
    assert opened.delete(taken[:40]) == 0
    assert served.count() == (0, 7)
    assert opened.delete([]) == 0


def fail_to_delete(*counts: int) -> Callable[[str, dict[str, Any]], Answer]:
    """An SQS that fails to delete so many messages of the first batch, of the second, and so on."""
    left = list(counts)

    def answer(operation: str, parameters: dict[str, Any]) -> Answer:
        assert operation == "DeleteMessageBatch"
        failures = left.pop(0) if left else 0
        ids = [{"Id": entry["Id"]} for entry in parameters["Entries"]]
        failed = [{"Code": "InternalError", "SenderFault": False, **one} for one in ids[:failures]]
        return 200, {"Successful": ids[failures:], "Failed": failed}

    return answer


def make_messages(count: int) -> list[Message]:
    return [Message(f"id-{n}", SECRET, f"receipt-{n}", datetime.now(UTC), 1) for n in range(count)]


def test_what_sqs_failed_to_delete_is_sent_again(aws_connection: Callable[[str], None]) -> None:
    with serve_sqs(fail_to_delete(2, 1)) as served:
        aws_connection(served.endpoint)
        assert open_queue(STAND_INS_SYNC).delete(make_messages(8)) == 0
    sent = [[one["ReceiptHandle"] for one in asked["Entries"]] for _, asked in served.requests]
    assert sent == [[f"receipt-{n}" for n in range(8)], ["receipt-0", "receipt-1"], ["receipt-0"]]


def test_what_sqs_still_fails_to_delete_is_only_counted(
    aws_connection: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    with serve_sqs(fail_to_delete(4, 3, 2)) as served, caplog.at_level(logging.WARNING):
        aws_connection(served.endpoint)
        assert open_queue(STAND_INS_SYNC).delete(make_messages(8)) == 2
    assert "DeleteMessageBatch failed for 2 of 8 messages" in caplog.text


def test_a_message_that_nobody_can_read_moves_to_the_dead_letters(served: ServedQueue) -> None:
    served.send("bad", "good")
    opened = open_queue(served.sync)
    taken = opened.take_messages(10)
    assert opened.move_to_dead_letters([one for one in taken if one.body == "bad"]) == 1
    assert served.read_dead_letters() == ["bad"]
    assert served.count() == (0, 1)
    assert opened.move_to_dead_letters([]) == 0


def test_a_queue_without_dead_letters_is_an_error_that_says_what_to_do(
    served: ServedQueue,
) -> None:
    served.sqs.set_queue_attributes(QueueUrl=served.url, Attributes={"RedrivePolicy": ""})
    served.send("bad")
    opened = open_queue(served.sync)
    with pytest.raises(PermanentError, match="Give it a RedrivePolicy, as docs/live-events"):
        opened.move_to_dead_letters(opened.take_messages(10))
    assert served.count() == (0, 1), "nothing is lost"


def test_a_queue_that_doesnt_exist_is_a_permanent_error_that_names_the_setting(
    served: ServedQueue,
) -> None:
    gone = Sync.model_validate(sync(events={"queue_url": f"{served.url}-gone"}))
    with pytest.raises(PermanentError, match=r"setting events.queue_url.*doesn't exist in region"):
        open_queue(gone).take_messages(10)


def test_an_sqs_that_cant_be_reached_is_a_transient_error(
    served: ServedQueue,
    aws_connection: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "ATTEMPTS_OF_A_CALL", 1)
    aws_connection(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TransientError, match="SQS can't be reached in ReceiveMessage"):
        open_queue(served.sync).take_messages(10)


def test_a_sync_without_a_queue_says_which_setting_is_missing() -> None:
    with pytest.raises(PermanentError, match=r"Set events\.queue_url"):
        open_queue(Sync.model_validate(sync()))


def test_a_missing_connection_is_a_permanent_error_and_no_other_credentials_are_used(
    served: ServedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_COGNITO_AWS")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the worker's own")
    with pytest.raises((PermanentError, TransientError), match="'cognito_aws'"):
        open_queue(served.sync)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (
            ("AccessDeniedException", 403),
            PermanentError,
            "needs sqs:ReceiveMessage, and kms:Decrypt",
        ),
        (("KmsAccessDenied", 400), PermanentError, "needs sqs:ReceiveMessage, and kms:Decrypt"),
        (("QueueDoesNotExist", 400), PermanentError, "doesn't exist"),
        (("RequestThrottled", 400), TransientError, "SQS answered RequestThrottled"),
        (("OverLimit", 403), TransientError, "SQS answered OverLimit"),
        (("Anything", 503), TransientError, "SQS answered Anything"),
    ],
)
def test_an_error_says_what_to_do_and_quotes_nothing(
    aws_connection: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    error: tuple[str, int],
    kind: type[Exception],
    said: str,
) -> None:
    monkeypatch.setattr(queue, "ATTEMPTS_OF_A_CALL", 1)
    with serve_sqs(lambda *_: make_error(*error, f"about {SECRET}")) as served:
        aws_connection(served.endpoint)
        with pytest.raises(kind, match=said) as caught:
            open_queue(STAND_INS_SYNC).take_messages(10)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_no_body_is_logged_and_none_is_shown_where_a_message_is_printed(
    served: ServedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"name": SECRET})
    served.send(body)
    with caplog.at_level(logging.INFO):
        opened = open_queue(served.sync)
        taken = opened.take_messages(10)
        opened.move_to_dead_letters(taken)
    assert SECRET in taken[0].body
    assert SECRET not in caplog.text
    assert SECRET not in repr(taken)
