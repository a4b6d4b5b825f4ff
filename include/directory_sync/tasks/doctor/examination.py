"""One examination of a sync: every check, in the order in which a run needs what they try."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from directory_sync.cognito.client import UserPool, open_user_pool
from directory_sync.joget.database import Database, open_session
from directory_sync.settings import Sync
from directory_sync.tasks.doctor import (
    airflow_checks,
    clock_checks,
    connection_checks,
    joget_checks,
    login_checks,
    pool_checks,
    staging_checks,
)
from directory_sync.tasks.doctor.findings import (
    Examination,
    Finding,
    Status,
    collect_error,
    run_check,
    skip_check,
)


def examine_sync(sync_name: str) -> Examination:
    """Try what a sync needs. Changes nothing, but for a file in staging that it deletes again.

    Never raises: an error is a finding.
    """
    sync, settings = connection_checks.check_settings(sync_name)
    findings = [settings]
    if sync is None:
        findings.append(skip_check("everything else", "valid settings"))
    else:
        with ExitStack() as stack:
            findings += _examine(sync, stack)
    return Examination(sync_name, tuple(findings))


def _examine(sync: Sync, stack: ExitStack) -> Iterator[Finding]:
    connections = connection_checks.check_connections(sync)
    yield from connections.values()
    without = {setting for setting, one in connections.items() if one.status is Status.WRONG}
    failures: list[Finding] = []
    pool = None if "aws_conn_id" in without else _open_pool(sync, failures)
    database = None if "joget_conn_id" in without else _open_database(sync, stack, failures)
    yield from failures
    yield from (
        pool_checks.check_pool(sync, pool)
        if pool
        else _skip_all(pool_checks.RIGHT_CHECKS, "the pool")
    )
    yield from (
        _skip_all(staging_checks.STAGING_CHECKS, "its Connection")
        if "staging_url" in without
        else staging_checks.check_staging(sync)
    )
    yield from (
        joget_checks.check_database(sync, database)
        if database
        else _skip_all(joget_checks.DATABASE_CHECKS, "Joget's database")
    )
    yield from _examine_together(sync, pool, database)
    yield from airflow_checks.check_airflow(sync)


def _skip_all(names: Iterable[str], needs: str) -> Iterator[Finding]:
    return (skip_check(name, needs) for name in names)


def _open_pool(sync: Sync, failures: list[Finding]) -> UserPool | None:
    with collect_error(pool_checks.POOL_CHECK, failures):
        return open_user_pool(sync, "examining the pool")
    return None


def _open_database(sync: Sync, stack: ExitStack, failures: list[Finding]) -> Database | None:
    with collect_error(joget_checks.SERVER_CHECK, failures):
        return stack.enter_context(open_session(sync.joget_conn_id))
    return None


def _examine_together(
    sync: Sync, pool: UserPool | None, database: Database | None
) -> Iterator[Finding]:
    """The checks that compare what different servers say."""
    if pool is None:
        yield skip_check(clock_checks.AWS_CLOCK_CHECK, "the pool")
    else:
        yield run_check(clock_checks.AWS_CLOCK_CHECK, lambda: clock_checks.check_aws_clock(pool))
    if database is None:
        yield skip_check(clock_checks.DATABASE_CLOCK_CHECK, "Joget's database")
        yield skip_check(login_checks.SNAPSHOT_CHECK, "Joget's database")
        return
    yield run_check(
        clock_checks.DATABASE_CLOCK_CHECK, lambda: clock_checks.check_database_clock(database)
    )
    yield from login_checks.check_logins(sync, pool, database)
