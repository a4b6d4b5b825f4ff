"""Sends an alert through Airflow's notifier for Apprise: one address reaches mail, Slack, Teams and
many others.

It is imported only where a sync's settings name a notifier.
"""

import logging
import re
from typing import Any

import apprise
from airflow.providers.apprise.notifications.apprise import AppriseNotifier
from airflow.sdk import Connection

from directory_sync import connections
from directory_sync.alerts import AlertState, Message
from directory_sync.errors import PermanentError, TransientError

CONNECTION_TYPE = "apprise"
SETTING = "alerts.notifier"

NOTIFY_TYPES = {
    AlertState.RAISED: apprise.NotifyType.WARNING,
    AlertState.CLEARED: apprise.NotifyType.SUCCESS,
}

TEST_MESSAGE = Message(
    title="Directory Sync: a test",
    body="The doctor was asked to send this message. Alerts of the sync come here.",
    state=AlertState.CLEARED,
)

HTTP_STATUS_PATTERN = re.compile(r"error=(\d{3})\b")


class AddressFilter(logging.Filter):
    """Drops Apprise's log lines, and keeps the HTTP statuses that they name."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop the record."""
        # A service's address is its password, and Apprise quotes it: at DEBUG always, and at ERROR
        # where it doesn't understand an address.
        self.statuses += HTTP_STATUS_PATTERN.findall(record.getMessage())
        return False


_ADDRESS_FILTER = AddressFilter()
logging.getLogger("apprise").addFilter(_ADDRESS_FILTER)
# At DEBUG, it logs the path of each request, which is the secret part of a Slack address.
logging.getLogger("urllib3").setLevel(logging.INFO)


class CheckedNotifier(AppriseNotifier):  # type: ignore[misc]  # the provider ships no types
    """Airflow's notifier. A message that a service doesn't take is an error."""

    # A run's id may hold braces, and no part of a message is a template.
    template_fields = ()

    def notify(self, context: Any) -> None:  # noqa: ARG002 - Airflow's signature
        """Send the message. Raises TransientError where a service doesn't take it."""
        # AppriseHook.notify drops Apprise's answer, so a message that was lost would count as sent.
        services = load_services(self.hook.get_connection(self.apprise_conn_id))
        _ADDRESS_FILTER.statuses.clear()
        if not services.notify(body=self.body, title=self.title, notify_type=self.notify_type):
            statuses = ", ".join(f"HTTP {status}" for status in _ADDRESS_FILTER.statuses)
            raise TransientError(
                f"A service of Connection {self.apprise_conn_id!r} (setting {SETTING}) took no "
                f"message ({statuses or 'no answer'})."
            )


def send_message(conn_id: str, message: Message) -> None:
    """Send a message to each service of a Connection.

    Raises PermanentError where the Connection or an address is wrong, TransientError where a
    service doesn't take the message.
    """
    notifier = CheckedNotifier(
        title=message.title,
        body=message.body,
        notify_type=NOTIFY_TYPES[message.state],
        apprise_conn_id=conn_id,
    )
    with connections.hold_connection(conn_id, CONNECTION_TYPE, SETTING):
        notifier({})


def count_services(conn_id: str) -> int:
    """How many services a Connection reaches; sends nothing. Raises as send_message does."""
    return len(load_services(connections.require_connection(conn_id, CONNECTION_TYPE, SETTING)))


def load_services(connection: Connection) -> apprise.Apprise:
    """The services of a Connection. Raises PermanentError where it names none, or where Apprise
    doesn't understand an address.
    """
    services = apprise.Apprise()
    config = connection.extra_dejson.get("config")
    entries = config if isinstance(config, list) else [config]
    for entry in entries:
        named = entry if isinstance(entry, dict) else {}
        if not named.get("path") or not services.add(named["path"], tag=named.get("tag")):
            raise PermanentError(
                f"Connection {connection.conn_id!r} (setting {SETTING}) holds an address that "
                'Apprise doesn\'t understand. Its extras are {"config": {"path": "<address>"}}, or '
                "a list of such addresses."
            )
    return services
