"""Creating the ledger, and upgrading one that an earlier release wrote."""

import logging

from directory_sync import __version__
from directory_sync.errors import PermanentError
from directory_sync.joget.database import Database
from directory_sync.joget.ledger.definition import (
    LEDGER_VERSION,
    UPGRADES,
    find_ledger_tables,
    is_ledger_complete,
    make_table_statements,
    read_ledger_version,
)
from directory_sync.joget.ledger.locks import LOCK_WAIT_SECONDS, hold_lock, make_lock_name
from directory_sync.joget.schema import JogetTables

log = logging.getLogger(__name__)


def create_or_upgrade_ledger(database: Database, tables: JogetTables) -> None:
    """Create the ledger, or upgrade one that an earlier release wrote, under the lock by which
    writers take turns.

    Raises PermanentError with the statements for a DBA where the account may not do it, and where a
    newer release wrote the ledger.
    """
    if not _find_statements(database, tables):
        return
    with hold_lock(
        database,
        make_lock_name(database),
        LOCK_WAIT_SECONDS,
        lambda: "another run that writes the ledger",
    ):
        # Another run may have executed them meanwhile.
        statements = _find_statements(database, tables)
        try:
            for table, statement in statements:
                database.execute(statement, about=table)
        except PermanentError as error:
            script = ";\n".join(statement for _, statement in statements)
            raise PermanentError(
                "The ledger's tables are missing or of an earlier version, and can't be made: "
                f"{error} "
                "A DBA may do it in Joget's schema, while no run of the sync is active, "
                f"once:\n{script};"
            ) from None
    if statements:
        log.info(
            "the ledger is of version %d now, written by release %s", LEDGER_VERSION, __version__
        )


def _find_statements(database: Database, tables: JogetTables) -> list[tuple[str, str]]:
    """What is left to do until the ledger is of this version: tables, each with a statement."""
    is_ledger_complete(database)
    found = find_ledger_tables(database)
    version = read_ledger_version(database)[0] if "directory_sync_lock" in found else 0
    statements = [
        (table, statement)
        for table, statement in make_table_statements(tables).items()
        if table not in found
    ]
    steps = [
        step
        for to in sorted(UPGRADES)
        if to > version
        for step in UPGRADES[to]
        if step.table in found  # a table that is made now needs no step
    ]
    statements += [(step.table, step.statement) for step in steps if not step.is_done(database)]
    # Last, since DDL commits: an upgrade that ends halfway must be found unfinished.
    if version < LEDGER_VERSION:
        statements.append(("directory_sync_lock", _write_version()))
    return statements


def _write_version() -> str:
    """SQL that writes the version. It raises the revision: a run that planned before the upgrade
    plans again.
    """
    return (
        f"INSERT INTO directory_sync_lock (id, revision, version, written_by) "
        f"VALUES (1, 0, {LEDGER_VERSION}, '{__version__}') ON DUPLICATE KEY UPDATE "
        f"revision = revision + 1, version = {LEDGER_VERSION}, written_by = '{__version__}'"
    )
