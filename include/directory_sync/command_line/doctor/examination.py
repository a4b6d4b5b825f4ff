"""One examination of a sync: every check, in the order in which a run needs what they try."""

from collections.abc import Iterator
from contextlib import ExitStack

from directory_sync.cognito.client import UserPool, open_user_pool
from directory_sync.command_line.doctor import (
    airflow_checks,
    clock_checks,
    connection_checks,
    joget_checks,
    login_checks,
    pool_checks,
    queue_checks,
    staging_checks,
)
from directory_sync.command_line.doctor.findings import (
    Examination,
    Finding,
    Status,
    collect_error,
    run_check,
    skip_check,
)
from directory_sync.joget.database import Database, open_session
from directory_sync.settings import Sync


def examine_sync(sync_name: str, *, sends_alert: bool = False) -> Examination:
    """Try what a sync needs. Changes nothing, but for a file in staging that it deletes again.

    sends_alert: sends a message to where the sync's alerts go.

    Never raises: an error is a finding.
    """
    sync, settings = connection_checks.check_settings(sync_name)
    findings = [settings]
    if sync is None:
        findings.append(skip_check("everything else", "valid settings"))
    else:
        # The database's session stays open for the checks of tables, clocks and logins.
        with ExitStack() as stack:
            findings += _examine_parts(sync, stack, sends_alert=sends_alert)
    return Examination(sync_name, tuple(findings))


def _examine_parts(sync: Sync, stack: ExitStack, *, sends_alert: bool) -> Iterator[Finding]:
    connections = connection_checks.check_connections(sync)
    yield from connections.values()
    if sync.alerts.notifier is not None:
        yield connection_checks.check_notifier(sync.alerts.notifier, sends_alert=sends_alert)
    without = {
        setting for setting, finding in connections.items() if finding.status is Status.WRONG
    }
    failures: list[Finding] = []
    pool = None if "aws_conn_id" in without else _open_pool(sync, failures)
    database = None if "joget_conn_id" in without else _open_database(sync, stack, failures)
    yield from failures
    of_pool = _examine_pool(sync, pool)
    yield from of_pool
    if "aws_conn_id" not in without:
        yield from queue_checks.check_queue(sync)
    of_staging = _examine_staging(sync, has_connection="staging_url" not in without)
    yield from of_staging
    if database is None:
        yield skip_check(joget_checks.DIRECTORY_AND_LEDGER_CHECK, "the database")
    else:
        yield from joget_checks.check_database(sync, database)
    # AWS's time is in the header of a refusal too, so a missing right doesn't matter here.
    answering = pool if pool_checks.is_answered(of_pool) else None
    yield from _examine_clocks(answering, database)
    if database is None:
        yield skip_check(login_checks.LOGIN_CHECK, "Joget's database")
    else:
        lists = _is_ok(of_pool, pool_checks.USERS_CHECK)
        yield from login_checks.check_logins(
            sync,
            database,
            pool if lists else None,
            has_staging=all(
                _is_ok(of_staging, name)
                for name in (staging_checks.READ_CHECK, staging_checks.LIST_CHECK)
            ),
        )
    yield from airflow_checks.check_airflow(sync)


def _is_ok(findings: list[Finding], name: str) -> bool:
    return any(finding.name == name and finding.status is Status.OK for finding in findings)


def _examine_pool(sync: Sync, pool: UserPool | None) -> list[Finding]:
    if pool is None:
        return [skip_check(pool_checks.RIGHTS_CHECK, "the pool and its Connection")]
    return list(pool_checks.check_pool(sync, pool))


def _examine_staging(sync: Sync, *, has_connection: bool) -> list[Finding]:
    if not has_connection:
        return [skip_check(staging_checks.FILES_CHECK, "its Connection")]
    return list(staging_checks.check_staging(sync))


def _open_pool(sync: Sync, failures: list[Finding]) -> UserPool | None:
    with collect_error(pool_checks.POOL_CHECK, failures):
        # Somebody looks on, so a pool that can't be reached is named soon. A run tries for minutes.
        return open_user_pool(sync, "examining the pool", waits=False)
    return None


def _open_database(sync: Sync, stack: ExitStack, failures: list[Finding]) -> Database | None:
    with collect_error(joget_checks.SERVER_CHECK, failures):
        return stack.enter_context(open_session(sync.joget_conn_id))
    return None


def _examine_clocks(pool: UserPool | None, database: Database | None) -> Iterator[Finding]:
    if pool is None:
        yield skip_check(clock_checks.AWS_CLOCK_CHECK, "the pool")
    else:
        yield run_check(clock_checks.AWS_CLOCK_CHECK, lambda: clock_checks.check_aws_clock(pool))
    if database is None:
        yield skip_check(clock_checks.DATABASE_CLOCK_CHECK, "Joget's database")
    else:
        yield run_check(
            clock_checks.DATABASE_CLOCK_CHECK, lambda: clock_checks.check_database_clock(database)
        )
