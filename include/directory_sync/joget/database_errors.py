"""What the database's error codes mean: each becomes an error of one of the two families
(directory_sync.errors), which names the code and the table, and never a value.
"""

import re

import MySQLdb

from directory_sync.errors import (
    ConflictError,
    DirectorySyncError,
    MissingRightError,
    PermanentError,
    RefusedRowError,
    TakenKeyError,
    TransientError,
)

CONFLICT_CODES = {1020, 1205, 1213}
"""Changed since read, lock wait, deadlock."""

TAKEN_KEY_CODES = {1062, 1451, 1452}
"""Duplicate key, a row that has a child, a row that lacks its parent."""

UNREACHABLE_CODES = {
    1040,
    1053,
    1152,
    1158,
    1159,
    1160,
    1161,
    1927,
    2002,
    2003,
    2005,
    2006,
    2013,
    2055,
    4031,
}
"""Too many connections, shutting down, network errors, names that don't resolve, lost and refused
connections.
"""

READ_ONLY_CODES = {1290, 1792, 1836}
"""The server, or its session, takes no writes. During a fail-over this passes."""

NO_ROOM_CODES = {
    3,
    5,
    20,
    200,
    201,
    1021,
    1026,
    1030,
    1037,
    1038,
    1041,
    1114,
    1135,
    1197,
    1206,
    1878,
    3019,
}
"""A disk, a tablespace, a log, the space for temporary tables, or the server's memory is full.
Codes below 1000 are those of the server's file layer: a failed write (3), no memory (5), a full
disk (20), and MariaDB's limits of temporary space (200, 201). 1030 wraps the storage engine's own
number, most often that of a full disk.
"""

INTERRUPTED_CODES = {1028, 1047, 1180, 1317, 1412, 1969, 3024, 3101, 3572}
"""A statement that was stopped, and that the next attempt may finish: a sort that was aborted, a
node of a cluster that isn't ready (1047) or lost against another writer (3101), a failed commit
(1180), a killed query (1317), a table that was altered since the transaction began (1412),
statement time-outs of MariaDB (1969) and MySQL (3024), and a row that is locked (3572).
"""

CLIENT_CODES = range(2000, 3000)
"""The client library's own codes."""

LOGIN_REFUSED_CODES = {1045, 1698}
SCHEMA_REFUSED_CODE = 1044
"""The account has no right on the schema, or lacks CREATE TEMPORARY TABLES, which is a right on a
whole schema.
"""

DENIED_CODES = LOGIN_REFUSED_CODES | {SCHEMA_REFUSED_CODE, 1142, 1143, 1227, 1370}

LOCKING_READ = "SELECT with locking clause"
"""MySQL's name in a denial for a SELECT ... FOR UPDATE, which needs UPDATE too."""

DENIED_RIGHT = re.compile(
    r"([A-Z][A-Za-z ]*) command denied .* for (?:table|column \S+ in table) "
    r"(?:\S+\.)?['`](\w+)['`]$"
)
"""A denial in the server's words. The statement may have several tables, and only the denial says
which one it is about.
"""

TLS_FAILED_CODE = 2026
TLS_REFUSED = re.compile("certificate|verif|not support", re.IGNORECASE)
"""Words of the client library about failures that a second attempt can't mend: the server's
certificate isn't trusted, or the server has no TLS.
"""

TEMPORARY_TABLE = "a temporary table"
"""What errors call our temporary tables."""

NOT_JOGET_CODES = {1049, 1054, 1146}


def translate_refused_tls(error: MySQLdb.Error, conn_id: str) -> PermanentError | None:
    """Translate a refused TLS connection; None where the error is another one."""
    if error.args[0] != TLS_FAILED_CODE or not TLS_REFUSED.search(str(error.args[-1])):
        return None
    return PermanentError(
        f"Joget's database offers no TLS that Connection {conn_id!r} trusts (MySQL error "
        f"{TLS_FAILED_CODE}). Correct the Connection's extras: `ssl` names the file with the "
        "authority of the server's certificate (`ca`), which each worker must have, and the "
        "Connection's host must be a name in that certificate."
    )


def _make_error_of_writing(code: int, about: str, conn_id: str) -> TransientError:
    if code in READ_ONLY_CODES:
        return TransientError(
            f"Joget's database takes no writes now (MySQL error {code}, {about}); nothing was "
            f"written. During a fail-over this passes. If it stays so, let Connection {conn_id!r} "
            "name the server that takes writes."
        )
    return TransientError(
        f"Joget's database has no room (MySQL error {code}, {about}): a disk, a tablespace or its "
        "memory is full. Nothing was written. Make room on the database server; the run is tried "
        "again."
    )


def translate_error(error: MySQLdb.Error, about: str, conn_id: str) -> DirectorySyncError:  # noqa: PLR0911 - a table of codes
    """Translate an error of the driver's into one of the two families (directory_sync.errors)."""
    code = int(error.args[0]) if error.args and isinstance(error.args[0], int) else 0
    if code in CONFLICT_CODES | TAKEN_KEY_CODES:
        kind = TakenKeyError if code in TAKEN_KEY_CODES else ConflictError
        return kind(f"MySQL error {code} on {about}: another row or writer is in the way.")
    if code in UNREACHABLE_CODES or isinstance(error, MySQLdb.InterfaceError):
        return TransientError(
            f"Joget's database can't be reached through Connection {conn_id!r} (MySQL error "
            f"{code}, {about}). Is it up, does its host name resolve, and can this worker reach it?"
        )
    if code in READ_ONLY_CODES | NO_ROOM_CODES:
        return _make_error_of_writing(code, about, conn_id)
    if code in DENIED_CODES:
        return _translate_denial(code, str(error.args[-1]), about, conn_id)
    if code in NOT_JOGET_CODES:
        return PermanentError(
            f"The database of Connection {conn_id!r} isn't Joget's: {about} lacks what Joget's has "
            f"(MySQL error {code}). Correct the Connection's schema."
        )
    # Not by the driver's class: commands out of sync (2014) is a ProgrammingError, and a fault of
    # the connection like the others.
    if code in INTERRUPTED_CODES or code in CLIENT_CODES:
        return TransientError(f"MySQL error {code} on {about}; nothing was written.")
    # Most often a trigger's SIGNAL (1644), a CHECK (3819), or a value that is too long (1406).
    return RefusedRowError(
        f"MySQL error {code} on {about}; the run was rolled back and nothing was written."
    )


def _translate_denial(code: int, message: str, about: str, conn_id: str) -> MissingRightError:
    """Say what the account may not do, and what to do. Only the names of the right and
    the table are taken from the server's text.
    """
    if code in LOGIN_REFUSED_CODES:
        return MissingRightError(
            f"Joget's database refuses the login of Connection {conn_id!r} (MySQL error {code}). "
            "Correct its login and password. If they are right, the account may not log in from "
            "this worker's address, or requires TLS, which the Connection's extras `ssl_mode` and "
            "`ssl` ask for."
        )
    denied = DENIED_RIGHT.search(message)
    if denied:
        right = f"the right {'UPDATE' if denied[1] == LOCKING_READ else denied[1]} on {denied[2]}"
    elif code == SCHEMA_REFUSED_CODE and about == TEMPORARY_TABLE:
        right = "the right CREATE TEMPORARY TABLES on its schema"
    elif code == SCHEMA_REFUSED_CODE:
        right = "its schema: the name is wrong, or the account has no right on it"
    else:
        right = f"access to {about}"
    return MissingRightError(
        f"Joget's database refuses Connection {conn_id!r} {right} (MySQL error {code}); nothing "
        "was written. Let a DBA grant it: docs/joget-grants.sql lists the rights that the account "
        "needs."
    )
