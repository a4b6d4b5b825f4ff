"""The SQS queue of the pool's events: take messages, delete them, and set aside what nobody can
read. No body is logged, nor part of any error.
"""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
)
from botocore.exceptions import (
    ConnectionError as UnreachableError,
)

from directory_sync import connections
from directory_sync.errors import PermanentError, TransientError
from directory_sync.settings import Sync

log = logging.getLogger(__name__)

MESSAGES_IN_A_CALL = 10
"""SQS's largest batch (API reference, ReceiveMessage and the batch actions)."""

MOST_CALLS_AT_ONCE = 8
"""Calls under way at once: at 20 ms each, ten thousand messages are taken in some three seconds."""

EMPTY_ANSWERS_AT_THE_END = 2
"""So many empty answers one after another end a thread's taking: SQS asks only some of its servers
for each answer, so one empty answer proves little.
"""

HIDDEN_SECONDS = 15 * 60
"""Seconds for which a taken message stays hidden from other readers, whatever the queue's own
visibility timeout is: long enough for a run that waits for Joget's lock.
"""

ATTEMPTS_OF_A_CALL = 4
ATTEMPTS_OF_A_BATCH = 3
"""How often the messages of a batch that SQS failed to delete are sent again."""

MISSING_QUEUE_CODES = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "InvalidAddress",
        "QueueDoesNotExist",
    }
)
TRANSIENT_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InternalError",
        "InternalFailure",
        "KmsThrottled",
        "OverLimit",
        "RequestThrottled",
        "RequestTimeout",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
    }
)


@dataclass(frozen=True)
class Message:
    """A message as SQS handed it out."""

    message_id: str
    body: str = field(repr=False)
    receipt: str = field(repr=False)
    """SQS's receipt handle, for deleting it."""
    arrived_at: datetime
    """When it came into the queue (UTC)."""
    times_received: int
    """How often it was handed out, this time too."""


class Queue:
    """One queue, through the sync's AWS Connection."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self._name = url.rpartition("/")[2]

    def take_messages(self, most: int) -> list[Message]:
        """Up to `most` messages, each once, hidden from other readers for HIDDEN_SECONDS."""
        count = _Countdown(most)
        with ThreadPoolExecutor(MOST_CALLS_AT_ONCE) as threads:
            shares = threads.map(lambda _: self._take_share(count), range(MOST_CALLS_AT_ONCE))
            # SQS may hand out a message twice. The newest receipt is the one that deletes it.
            taken = {message.message_id: message for share in shares for message in share}
        return list(taken.values())

    def find_longest_wait(self) -> float:
        """For how many seconds the oldest of some visible messages has waited; 0 without any. It
        takes none.
        """
        seen = self._receive(MESSAGES_IN_A_CALL, hidden_seconds=0)
        now = datetime.now(UTC)
        oldest = min((message.arrived_at for message in seen), default=now)
        return max((now - oldest).total_seconds(), 0.0)

    def has_message(self) -> bool:
        """Whether a message is seen in one look, which takes and hides nothing."""
        return bool(self._receive(1, hidden_seconds=0))

    def extend(self, messages: Sequence[Message], seconds: int = HIDDEN_SECONDS) -> int:
        """Hide taken messages for so many seconds from now on; 0 gives them back at once. Returns
        how many SQS failed to change: they come back when they would have.
        """
        return self._send_batches(
            "ChangeMessageVisibilityBatch", messages, {"VisibilityTimeout": seconds}
        )

    def delete(self, messages: Sequence[Message]) -> int:
        """Delete messages. Returns how many SQS failed to delete: they come back, and asking the
        pool once more does no harm.
        """
        return self._send_batches("DeleteMessageBatch", messages, {})

    def move_to_dead_letters(self, messages: Sequence[Message]) -> int:
        """Send messages to the dead-letter queue, and delete them here. Returns how many moved; SQS
        moves the others by itself, after as many receives as its RedrivePolicy allows.

        Raises PermanentError where the queue has no dead-letter queue.
        """
        if not messages:
            return 0
        dead_letters = self.find_dead_letter_queue()
        with ThreadPoolExecutor(MOST_CALLS_AT_ONCE) as threads:
            sent = list(threads.map(lambda message: self._send(dead_letters, message), messages))
        moved = [message for message, was_sent in zip(messages, sent, strict=True) if was_sent]
        self.delete(moved)
        return len(moved)

    def find_dead_letter_queue(self) -> str:
        """The URL of the queue's dead-letter queue. Raises PermanentError where it has none."""
        answer = self._call(
            "GetQueueAttributes", QueueUrl=self._url, AttributeNames=["RedrivePolicy"]
        )
        policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "{}"))
        arn = str(policy.get("deadLetterTargetArn", ""))
        if not arn:
            raise PermanentError(
                f"Queue {self._name} (setting events.queue_url) has no dead-letter queue, so "
                "messages that nobody can read have no place. Give it a RedrivePolicy, as "
                "docs/live-events.yaml does."
            )
        *_, account, name = arn.split(":")
        found = self._call("GetQueueUrl", QueueName=name, QueueOwnerAWSAccountId=account)
        return str(found["QueueUrl"])

    def _take_share(self, count: "_Countdown") -> list[Message]:
        """What one thread takes, until the queue is empty or enough was taken."""
        taken = list[Message]()
        empty_answers = 0
        while empty_answers < EMPTY_ANSWERS_AT_THE_END and (wanted := count.take()):
            received = self._receive(wanted)
            count.give_back(wanted - len(received))
            empty_answers = 0 if received else empty_answers + 1
            taken += received
        return taken

    def _receive(self, most: int, hidden_seconds: int = HIDDEN_SECONDS) -> list[Message]:
        answer = self._call(
            "ReceiveMessage",
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=0,
            VisibilityTimeout=hidden_seconds,
            MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
        )
        return [_make_message(found) for found in answer.get("Messages", [])]

    def _send_batches(
        self, operation: str, messages: Sequence[Message], parameters: dict[str, Any]
    ) -> int:
        """Send messages by tens to a batch action; returns how many of them failed."""
        starts = range(0, len(messages), MESSAGES_IN_A_CALL)
        batches = [messages[start : start + MESSAGES_IN_A_CALL] for start in starts]
        with ThreadPoolExecutor(MOST_CALLS_AT_ONCE) as threads:
            failed = sum(
                threads.map(lambda batch: self._send_batch(operation, batch, parameters), batches)
            )
        if failed:
            log.warning("%s failed for %d of %d messages", operation, failed, len(messages))
        return failed

    def _send_batch(
        self, operation: str, batch: Sequence[Message], parameters: dict[str, Any]
    ) -> int:
        """Send a batch, and what failed of it again; returns how many failed for good."""
        left = {
            str(number): {"Id": str(number), "ReceiptHandle": message.receipt, **parameters}
            for number, message in enumerate(batch)
        }
        for _ in range(ATTEMPTS_OF_A_BATCH):
            try:
                answer = self._call(operation, QueueUrl=self._url, Entries=[*left.values()])
            except TransientError:
                return len(left)
            left = {one["Id"]: left[one["Id"]] for one in answer.get("Failed", [])}
            if not left:
                break
        return len(left)

    def _send(self, url: str, message: Message) -> bool:
        """Send a message's body to another queue; returns whether that queue has it now."""
        try:
            self._call("SendMessage", QueueUrl=url, MessageBody=message.body)
        except TransientError:
            return False
        return True

    def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        with self._errors(operation):
            answer: dict[str, Any] = getattr(self._client, xform_name(operation))(**parameters)
        return answer

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        """Turn botocore's errors into ours."""
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        except CredentialRetrievalError:
            raise PermanentError(
                "AWS gave no credentials for the Connection in aws_conn_id. Check its keys or role."
            ) from None
        except (UnreachableError, HTTPClientError) as error:
            raise TransientError(
                f"SQS can't be reached in {operation} ({type(error).__name__}). Does this worker "
                f"resolve and reach SQS's address of region {self._client.meta.region_name}?"
            ) from None
        except BotoCoreError as error:
            raise PermanentError(
                f"{operation} can't be asked of SQS ({type(error).__name__}). Check region, "
                "events.queue_url and the keys of the Connection in aws_conn_id."
            ) from None
        else:
            return
        # AWS's text quotes parameters, and a traceback would show it.
        raise self._make_error(operation, code, status) from None

    def _make_error(self, operation: str, code: str, status: int) -> Exception:
        if code in MISSING_QUEUE_CODES:
            return PermanentError(
                f"Queue {self._name} (setting events.queue_url), or its dead-letter queue, doesn't "
                f"exist in region {self._client.meta.region_name}. Copy the URL from the outputs "
                "of docs/live-events.yaml."
            )
        if code in TRANSIENT_CODES or status >= 500:  # noqa: PLR2004 - HTTP's server errors
            return TransientError(
                f"SQS answered {code} to {operation}, also to the retries within the call."
            )
        action = operation.removesuffix("Batch")
        return PermanentError(
            f"SQS refused {operation} on queue {self._name} (setting events.queue_url) with "
            f"{code}. The Connection in aws_conn_id needs sqs:{action}, and kms:Decrypt and "
            "kms:GenerateDataKey where the queue has a key, as docs/live-events.yaml gives them."
        )


class _Countdown:
    """How many messages may still be taken, across threads."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    def take(self) -> int:
        """How many to ask for in the next call; 0 if enough was taken."""
        with self._lock:
            wanted = min(self._left, MESSAGES_IN_A_CALL)
            self._left -= wanted
            return wanted

    def give_back(self, unused: int) -> None:
        """Count what was asked for and didn't come."""
        with self._lock:
            self._left += unused


def _make_message(received: dict[str, Any]) -> Message:
    attributes = received["Attributes"]
    return Message(
        received["MessageId"],
        received["Body"],
        received["ReceiptHandle"],
        datetime.fromtimestamp(int(attributes["SentTimestamp"]) / 1000, UTC),
        int(attributes["ApproximateReceiveCount"]),
    )


def open_queue(sync: Sync) -> Queue:
    """The sync's queue, through its AWS Connection.

    Raises PermanentError where the setting or the Connection is missing, TransientError where the
    Connection can't be looked up now.
    """
    if sync.events.queue_url is None:
        raise PermanentError(
            f"Sync {sync.name!r} has no queue. Set events.queue_url, as the README says under "
            '"Changes as they happen".'
        )
    hook = AwsBaseHook(aws_conn_id=sync.aws_conn_id, client_type="sqs", region_name=sync.region)
    config = Config(
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS_OF_A_CALL},
        connect_timeout=10,
        max_pool_connections=MOST_CALLS_AT_ONCE,
    )
    # AwsBaseHook answers a failed lookup with the worker's own credentials (connections.py).
    with connections.hold_connection(sync.aws_conn_id, "aws", "aws_conn_id"):
        client = hook.get_client_type(region_name=sync.region, config=hook.config.merge(config))
    return Queue(client, sync.events.queue_url)
