"""The settings, and the Connections that they name."""

from dataclasses import replace

from directory_sync import connections
from directory_sync.command_line.doctor.findings import Finding, Status, run_check
from directory_sync.settings import Sync, load_settings
from directory_sync.staging import store

SETTINGS_CHECK = "settings"


def check_settings(name: str) -> tuple[Sync | None, Finding]:
    """The sync of that name, where it is valid, and what is wrong with the settings file."""
    settings = load_settings()
    sync = next((sync for sync in settings.syncs if sync.name == name), None)
    faults = "; ".join(settings.faults)
    if sync is None and not faults:
        what = f"{settings.path} holds no sync named {name!r}"
        return None, Finding(SETTINGS_CHECK, Status.WRONG, what, "Correct the name.")
    if faults:
        status = Status.WARNING if sync else Status.WRONG
        what = f"{len(settings.faults)} fault(s) in {settings.path}: {faults}"
        to_do = "Correct each of them: a sync with a fault has no DAG."
        return sync, Finding(SETTINGS_CHECK, status, what, to_do)
    what = f"{settings.path} has no fault; {len(settings.syncs)} sync(s)"
    return sync, Finding(SETTINGS_CHECK, Status.OK, what)


def check_connections(sync: Sync) -> dict[str, Finding]:
    """Whether each Connection is there, and of the right type; by setting."""
    named = {
        "aws_conn_id": (sync.aws_conn_id, "aws"),
        "joget_conn_id": (sync.joget_conn_id, "mysql"),
        "staging_url": store.find_connection(sync.staging_url),
    }
    return {
        setting: _check_connection(setting, *connection)
        for setting, connection in named.items()
        if connection is not None
    }


def _check_connection(setting: str, conn_id: str, conn_type: str) -> Finding:
    name = f"Connection {conn_id} ({setting})"

    def check() -> Finding:
        connections.require_connection(conn_id, conn_type, setting)
        return Finding(name, Status.OK, f"found, of type {conn_type}")

    return run_check(name, check)


def check_notifier(conn_id: str, *, sends_alert: bool) -> Finding:
    """Whether alerts have services to go to; sends_alert: whether these take a message."""
    from directory_sync import notifier  # noqa: PLC0415 - without alerts, nobody needs Apprise

    name = f"Connection {conn_id} ({notifier.SETTING})"

    def check() -> Finding:
        services = notifier.count_services(conn_id)
        if not sends_alert:
            what = f"found, with {services} service(s); --send-alert sends a message to them"
            return Finding(name, Status.OK, what)
        notifier.send_message(conn_id, notifier.TEST_MESSAGE)
        return Finding(name, Status.OK, f"{services} service(s) took a message")

    found = run_check(name, check)
    if found.status is not Status.WRONG:
        return found
    # A run works without its alerts.
    return replace(found, status=Status.WARNING)
