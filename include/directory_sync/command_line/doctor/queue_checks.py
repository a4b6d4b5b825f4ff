"""The queue of the pool's events, and those rights on it that a look can try."""

from collections.abc import Iterator

from directory_sync.command_line.doctor.findings import Finding, Status, run_check
from directory_sync.events.queue import open_queue
from directory_sync.settings import Sync

QUEUE_CHECK = "queue of events (sqs:ReceiveMessage)"
DEAD_LETTERS_CHECK = "queue of events: its dead letters"


def check_queue(sync: Sync) -> Iterator[Finding]:
    """Whether the queue can be read, and where unreadable messages would go; nothing where the
    settings name no queue.
    """
    if sync.events.queue_url is not None:
        yield run_check(QUEUE_CHECK, lambda: _try_reading(sync))
        yield run_check(DEAD_LETTERS_CHECK, lambda: _find_dead_letters(sync))


def _try_reading(sync: Sync) -> Finding:
    waiting = "has messages" if open_queue(sync).has_message() else "no message was seen"
    return Finding(QUEUE_CHECK, Status.OK, f"works; {waiting}")


def _find_dead_letters(sync: Sync) -> Finding:
    name = open_queue(sync).find_dead_letter_queue().rpartition("/")[2]
    return Finding(DEAD_LETTERS_CHECK, Status.OK, f"{name} is there")
