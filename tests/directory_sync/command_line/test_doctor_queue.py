"""The doctor looks at the queue of events, and takes nothing out of it."""

from collections.abc import Callable
from typing import Any

import pytest

from directory_sync.command_line.doctor.findings import Status
from directory_sync.command_line.doctor.queue_checks import (
    DEAD_LETTERS_CHECK,
    QUEUE_CHECK,
    check_queue,
)
from directory_sync.settings import Sync
from tests.directory_sync.test_settings import sync
from tests.sqs_stand_in import Answer, make_error, serve_sqs

URL = "https://sqs.us-east-1.amazonaws.com/111122223333/events"
HEALTHY: dict[str, dict[str, Any]] = {
    "ReceiveMessage": {},
    "GetQueueAttributes": {
        "Attributes": {
            "RedrivePolicy": '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:111122223333:dead"}'
        }
    },
    "GetQueueUrl": {"QueueUrl": "https://sqs.us-east-1.amazonaws.com/111122223333/dead"},
}


def answer_but(refused: str | None) -> Callable[[str, dict[str, Any]], Answer]:
    """A healthy queue, whose rights lack one action."""
    denied = make_error("AccessDeniedException", 403)
    return lambda operation, _: denied if operation == refused else (200, HEALTHY[operation])


def examine(aws_connection: Callable[[str], None], refused: str | None) -> dict[str, Any]:
    with serve_sqs(answer_but(refused)) as served:
        aws_connection(served.endpoint)
        found = list(check_queue(Sync.model_validate(sync(events={"queue_url": URL}))))
    hidden = {asked["VisibilityTimeout"] for name, asked in served.requests if "Receive" in name}
    assert hidden == {0}, "nothing is taken"
    return {finding.name: finding for finding in found}


def test_a_healthy_queue_is_said_with_its_dead_letters(
    aws_connection: Callable[[str], None],
) -> None:
    found = examine(aws_connection, refused=None)
    assert {name: finding.status for name, finding in found.items()} == {
        QUEUE_CHECK: Status.OK,
        DEAD_LETTERS_CHECK: Status.OK,
    }
    assert found[DEAD_LETTERS_CHECK].what == "dead is there"


@pytest.mark.parametrize(
    ("operation", "check"),
    [
        ("ReceiveMessage", QUEUE_CHECK),
        ("GetQueueAttributes", DEAD_LETTERS_CHECK),
        ("GetQueueUrl", DEAD_LETTERS_CHECK),
    ],
)
def test_each_missing_right_on_the_queue_is_named(
    aws_connection: Callable[[str], None], operation: str, check: str
) -> None:
    found = examine(aws_connection, refused=operation)
    wrong = {name: one.what for name, one in found.items() if one.status is Status.WRONG}
    assert wrong.keys() == {check}
    assert f"needs sqs:{operation}" in wrong[check]


def test_a_sync_without_a_queue_is_asked_nothing_about_it() -> None:
    assert list(check_queue(Sync.model_validate(sync()))) == []
