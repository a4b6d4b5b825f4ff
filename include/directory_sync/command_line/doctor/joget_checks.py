"""Joget's database: its tables, the account's rights, and the ledger."""

from collections.abc import Iterator

from directory_sync.command_line.doctor.findings import Finding, Status, run_check
from directory_sync.joget.database import Database
from directory_sync.joget.ledger.definition import (
    LEDGER_TABLES,
    LEDGER_VERSION,
    find_ledger_tables,
    list_tables,
    read_ledger_version,
    refuse_newer_ledger,
)
from directory_sync.joget.rights import (
    RIGHTS_BY_NEED,
    Need,
    Right,
    find_missing_rights,
    require_temporary_tables,
)
from directory_sync.joget.schema import (
    JogetTables,
    count_users,
    has_username_index,
    inspect_tables,
    read_server_version,
)
from directory_sync.settings import Sync

SERVER_CHECK = "Joget's database"
TABLES_CHECK = "Joget's tables"
INDEX_CHECK = "index on dir_user.username"
DIRECTORY_CHECK = "rights on Joget's tables"
TEMPORARY_CHECK = "right to make temporary tables"
LEDGER_RIGHTS_CHECK = "rights on the ledger"
REMOVAL_CHECK = "rights to delete, rename and undo"
LEDGER_CHECK = "ledger"

USERS_WITHOUT_INDEX = 5_000
"""Up to so many users a scan of dir_user takes milliseconds."""

GRANT_THEM = "Let a DBA grant them: docs/joget-grants.sql."


DIRECTORY_AND_LEDGER_CHECK = "Joget's tables, rights and ledger"
"""Stands for all the checks after SERVER_CHECK, where the database isn't reached."""


def check_database(sync: Sync, database: Database) -> Iterator[Finding]:
    """What the database is, what the account may do there, and how far the ledger is."""
    yield run_check(SERVER_CHECK, lambda: _describe_server(database))
    yield run_check(TABLES_CHECK, lambda: _check_tables(sync, database))
    yield run_check(INDEX_CHECK, lambda: _check_index(database))
    yield run_check(DIRECTORY_CHECK, lambda: _check_directory_rights(database))
    yield run_check(TEMPORARY_CHECK, lambda: _check_temporary_tables(database))
    yield run_check(LEDGER_RIGHTS_CHECK, lambda: _check_ledger_rights(database))
    yield run_check(REMOVAL_CHECK, lambda: _check_removal_rights(sync, database))
    yield run_check(LEDGER_CHECK, lambda: _check_ledger(database))


def _describe_server(database: Database) -> Finding:
    return Finding(SERVER_CHECK, Status.OK, f"reached, {read_server_version(database)}")


def _check_tables(sync: Sync, database: Database) -> Finding:
    tables = inspect_tables(database, sync.organization)
    what = f"{tables.charset}, {tables.collation}; organization {tables.organization} is there"
    return Finding(TABLES_CHECK, Status.OK, what + _describe_charset(tables))


def _describe_charset(tables: JogetTables) -> str:
    if tables.stores_all_of_unicode:
        return ""
    return ". It can't store names with emoji, so users with such names are quarantined"


def _check_index(database: Database) -> Finding:
    if has_username_index(database):
        return Finding(INDEX_CHECK, Status.OK, "there")
    users = count_users(database)
    if users < USERS_WITHOUT_INDEX:
        return Finding(INDEX_CHECK, Status.OK, f"none, and {users:,} users need none")
    what = f"none: Joget reads all {users:,} rows of dir_user at each login, and a run does once"
    to_do = "Let a DBA run CREATE INDEX directory_sync_username ON dir_user (username)."
    return Finding(INDEX_CHECK, Status.WARNING, what, to_do)


def _check_directory_rights(database: Database) -> Finding:
    missing = find_missing_rights(database, Need.DIRECTORY)
    if missing:
        return Finding(DIRECTORY_CHECK, Status.WRONG, _list_missing(missing), GRANT_THEM)
    return Finding(DIRECTORY_CHECK, Status.OK, _count_rights(Need.DIRECTORY))


def _check_temporary_tables(database: Database) -> Finding:
    require_temporary_tables(database)
    return Finding(TEMPORARY_CHECK, Status.OK, "works")


def _check_ledger_rights(database: Database) -> Finding:
    missing = find_missing_rights(database, Need.LEDGER)
    there = find_ledger_tables(database)
    # The version is in this table, so reading it would fail where the right is missing.
    is_readable = Right("SELECT", "directory_sync_lock") not in missing
    is_current = (
        len(there) == len(LEDGER_TABLES)
        and is_readable
        and read_ledger_version(database)[0] >= LEDGER_VERSION
    )
    spared = [right for right in missing if _is_spared(right, there, is_current=is_current)]
    needed = [right for right in missing if right not in spared]
    if needed:
        return Finding(LEDGER_RIGHTS_CHECK, Status.WRONG, _list_missing(needed), GRANT_THEM)
    what = _count_rights(Need.LEDGER, spared)
    if spared:
        what += f"; {_list_missing(spared)}, and not needed: the ledger is of this version"
    return Finding(LEDGER_RIGHTS_CHECK, Status.OK, what)


def _is_spared(right: Right, there: set[str], *, is_current: bool) -> bool:
    # A DBA may have made or altered the tables for the account. CREATE is needed only for a table
    # that is missing, and ALTER only for one of an older version.
    if right.privilege == "CREATE":
        return right.table in there
    return right.privilege == "ALTER" and (is_current or right.table not in there)


def _check_removal_rights(sync: Sync, database: Database) -> Finding:
    missing = find_missing_rights(database, Need.REMOVAL)
    if not missing:
        return Finding(REMOVAL_CHECK, Status.OK, _count_rights(Need.REMOVAL))
    policies = sync.policies
    asked = [
        f"{name}: {value}"
        for name, value in {
            "missing_user": policies.missing_user,
            "missing_group": policies.missing_group,
            "renamed_user": policies.renamed_user,
        }.items()
        if value in ("delete", "rename")
    ]
    if asked:
        what = f"{_list_missing(missing)}. The settings need them: {', '.join(asked)}"
        return Finding(REMOVAL_CHECK, Status.WRONG, what, GRANT_THEM)
    # An account without part 3 of docs/joget-grants.sql may still have some of its SELECTs: they
    # show whether a login is occupied (README).
    written = {right for right in RIGHTS_BY_NEED[Need.REMOVAL] if right.privilege != "SELECT"}
    if written <= set(missing):
        what = (
            "none, and the settings need none. Undoing, and a rename that a person approves, would "
            "fail"
        )
        return Finding(REMOVAL_CHECK, Status.OK, what)
    what = f"{_list_missing(missing)}. Undoing, and a rename that a person approves, may fail"
    return Finding(REMOVAL_CHECK, Status.WARNING, what, GRANT_THEM)


def _list_missing(missing: list[Right]) -> str:
    return f"missing: {', '.join(map(str, missing))}"


def _count_rights(need: Need, without: list[Right] | None = None) -> str:
    return f"{len(RIGHTS_BY_NEED[need]) - len(without or ())} rights, each works"


def _check_ledger(database: Database) -> Finding:
    there = find_ledger_tables(database)
    if not there:
        return Finding(LEDGER_CHECK, Status.OK, "not there yet: the first run makes it")
    has_version = "directory_sync_lock" in there
    if has_version:
        refuse_newer_ledger(database)
    version, release = read_ledger_version(database) if has_version else (LEDGER_VERSION, "")
    missing = sorted(list_tables(version) - there)
    if missing:
        what = f"{', '.join(missing)} not there: the next run makes it"
        return Finding(LEDGER_CHECK, Status.WARNING, what, "Was a table dropped, or not restored?")
    if version < LEDGER_VERSION:
        what = f"version {version}: the next run upgrades it to version {LEDGER_VERSION}"
        return Finding(LEDGER_CHECK, Status.OK, what)
    return Finding(LEDGER_CHECK, Status.OK, f"version {version}, written by release {release}")
