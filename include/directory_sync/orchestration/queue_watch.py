"""Noticing that the queue of the pool's events has something: the asset that starts the live DAG.

Airflow imports this when it parses DAG files, so AWS is imported when the triggerer runs the
trigger.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from airflow.sdk import Asset, AssetWatcher
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from directory_sync.errors import DirectorySyncError, PermanentError
from directory_sync.settings import Sync

LONG_POLL_SECONDS = 20
"""SQS's longest wait for a message, within one call."""

SHORTEST_LOOK_SECONDS = 15.0
"""Seconds between the beginnings of two looks, even if an answer comes sooner: at most four calls a
minute.
"""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 8.0, 300.0
"""Seconds without a look after the trigger fired, or failed: a run that was just started needs them
to take its messages. They double while the same messages stay in the queue.
"""


@dataclass
class Pauses:
    """How long to wait before the next look."""

    _next: float = 0.0
    _fired_at: float = 0.0

    def start_over(self) -> None:
        """The queue was seen empty, or can be reached again."""
        self._next = 0.0

    def choose_after_firing(self, sent_at: float) -> float:
        """Seconds to wait after firing for a message sent then (seconds since 1970)."""
        # A message that came after the last firing shows a busy pool. An older one shows that the
        # runs take nothing: the DAG's tasks fail, or no worker is free.
        if sent_at > self._fired_at:
            self.start_over()
        self._fired_at = time.time()
        return self.choose_longer()

    def choose_longer(self) -> float:
        """Seconds to wait: twice as many as the last time."""
        seconds = self._next or FIRST_PAUSE_SECONDS
        self._next = min(2 * seconds, LONGEST_PAUSE_SECONDS)
        return seconds


class QueueTrigger(BaseEventTrigger):
    """Fires when a queue has a message. It takes no message and hands on nothing of it: events
    name people, and Airflow's database isn't the place for names.
    """

    def __init__(self, queue_url: str, aws_conn_id: str, region: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's has no types
        self.queue_url = queue_url
        self.aws_conn_id = aws_conn_id
        self.region = region

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments, for Airflow's database."""
        return (
            f"{QueueTrigger.__module__}.{QueueTrigger.__qualname__}",
            {
                "queue_url": self.queue_url,
                "aws_conn_id": self.aws_conn_id,
                "region": self.region,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for as long as the triggerer runs. No error ends it: Airflow would stop watching."""
        pauses, failures = Pauses(), Pauses()
        while True:
            try:
                async with await asyncio.to_thread(self._connect) as client:
                    async for event in self._watch(client, pauses, failures):
                        yield event
            except Exception as error:
                seconds = failures.choose_longer()
                self.log.warning(
                    "The queue of events.queue_url can't be looked at (%s); looking again in %.0f "
                    "seconds",
                    _describe(error),
                    seconds,
                )
                await asyncio.sleep(seconds)

    async def _watch(
        self, client: Any, pauses: Pauses, failures: Pauses
    ) -> AsyncIterator[TriggerEvent]:
        while True:
            began = time.monotonic()
            sent_at = await self._look(client)
            failures.start_over()
            if sent_at is None:
                pauses.start_over()
                await asyncio.sleep(began + SHORTEST_LOOK_SECONDS - time.monotonic())
            else:
                yield TriggerEvent({})
                await asyncio.sleep(pauses.choose_after_firing(sent_at))

    def _connect(self) -> Any:
        """A client of aiobotocore's. Called in a thread: Airflow's Connections are looked up by
        waiting, and a triggerer has one loop for all its triggers.
        """
        from airflow.providers.amazon.aws.hooks.sqs import SqsHook

        from directory_sync import connections

        hook = SqsHook(aws_conn_id=self.aws_conn_id, region_name=self.region)
        # The hook answers a failed lookup with the triggerer's own credentials (connections.py).
        with connections.hold_connection(self.aws_conn_id, "aws", "aws_conn_id"):
            return hook.get_client_type(region_name=self.region, deferrable=True)

    async def _look(self, client: Any) -> float | None:
        """When some message of the queue was sent (seconds since 1970); None if none is visible."""
        answer = await client.receive_message(
            QueueUrl=self.queue_url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=LONG_POLL_SECONDS,
            VisibilityTimeout=0,  # it stays there for the run
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        found = answer.get("Messages")
        return int(found[0]["Attributes"]["SentTimestamp"]) / 1000 if found else None


def make_queue_asset(sync: Sync) -> Asset:
    """The asset whose events start the live DAG of a sync.

    Raises PermanentError where the sync has no queue.
    """
    if sync.events.queue_url is None:
        raise PermanentError(
            f"Sync {sync.name!r} has no queue. Set events.queue_url, as the README says under "
            '"Changes as they happen".'
        )
    trigger = QueueTrigger(sync.events.queue_url, sync.aws_conn_id, sync.region)
    return Asset(
        name=sync.live_dag_id,
        # Everybody who sees assets sees this, so it isn't the queue's URL with the account's id.
        uri=f"x-directory-sync://{sync.live_dag_id}",
        watchers=[AssetWatcher(name=sync.live_dag_id, trigger=trigger)],
    )


def _describe(error: Exception) -> str:
    """Our own error's text, AWS's code, or the exception's type: what quotes nothing."""
    if isinstance(error, DirectorySyncError):
        return str(error)
    # AWS's own text may quote what was asked.
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return str(code or type(error).__name__)
