"""A proxy in front of moto's SQS: it sees each call, and can drop it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from tests.sqs_stand_in import Answer, make_error, serve_sqs


@dataclass
class SqsProxy:
    """A running proxy; tests set what it drops."""

    sqs: Any
    """The client of the real queue."""
    drops: Callable[[str], bool] = lambda _: False
    """Called with each operation; True drops the call."""
    endpoint: str = ""
    receipts: dict[str, str] = field(default_factory=dict)
    """The newest receipt of each message that was handed out, by message id."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def give_back(self, url: str) -> None:
        """Show all messages that were handed out again, as if their hidden time were over."""
        entries = [
            {"Id": message_id, "ReceiptHandle": receipt, "VisibilityTimeout": 0}
            for message_id, receipt in self.receipts.items()
        ]
        for start in range(0, len(entries), 10):
            # SQS answers those that were deleted among the failed ones.
            self.sqs.change_message_visibility_batch(
                QueueUrl=url, Entries=entries[start : start + 10]
            )

    def answer(self, operation: str, parameters: dict[str, Any]) -> Answer:
        """Pass one call on."""
        with self._lock:  # each call is answered before the next one is seen
            return self._pass_on(operation, parameters)

    def _pass_on(self, operation: str, parameters: dict[str, Any]) -> Answer:
        if self.drops(operation):
            return make_error("ServiceUnavailable", 503)
        try:
            body = getattr(self.sqs, xform_name(operation))(**parameters)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            return make_error(error.response["Error"]["Code"], status)
        del body["ResponseMetadata"]
        for message in body.get("Messages", []):
            self.receipts[message["MessageId"]] = message["ReceiptHandle"]
        return 200, body


@contextmanager
def open_sqs_proxy(sqs: Any) -> Iterator[SqsProxy]:
    """Open a proxy to the SQS of a boto3 client, for the length of a block."""
    proxy = SqsProxy(sqs)
    with serve_sqs(proxy.answer) as served:
        proxy.endpoint = served.endpoint
        yield proxy
