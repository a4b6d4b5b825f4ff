"""A queue with its dead letters, in moto."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from demo.aws import Aws
from directory_sync.settings import Sync
from tests.directory_sync.test_settings import sync

NUMBERS = itertools.count()


@dataclass(frozen=True)
class ServedQueue:
    """One test's queue in moto, seen from outside of the sync."""

    sqs: Any
    url: str
    dead_url: str

    @property
    def sync(self) -> Sync:
        """A sync with this queue."""
        return Sync.model_validate(sync(events={"queue_url": self.url}))

    def send(self, *bodies: str) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": body}
                for number, body in enumerate(bodies[start : start + 10])
            ]
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)

    def count(self, url: str | None = None) -> tuple[int, int]:
        """How many messages a queue has: visible ones, and hidden ones."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
        return int(found["Attributes"][names[0]]), int(found["Attributes"][names[1]])

    def read_dead_letters(self) -> list[str]:
        found = self.sqs.receive_message(QueueUrl=self.dead_url, MaxNumberOfMessages=10)
        return [message["Body"] for message in found.get("Messages", [])]


@pytest.fixture
def served(moto: Aws, aws_connection: Callable[[str], None]) -> ServedQueue:
    aws_connection(moto.endpoint)
    return create_queue(moto)


def create_queue(moto: Aws) -> ServedQueue:
    """A new queue with its dead letters."""
    sqs, number = moto.client("sqs"), next(NUMBERS)
    dead_url = sqs.create_queue(QueueName=f"dead-{number}")["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": 50}
    # A queue's own visibility timeout is no help: it may be anything.
    attributes = {"RedrivePolicy": json.dumps(policy), "VisibilityTimeout": "0"}
    url = sqs.create_queue(QueueName=f"events-{number}", Attributes=attributes)["QueueUrl"]
    return ServedQueue(sqs, url, dead_url)
