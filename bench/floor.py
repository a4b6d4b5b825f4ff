"""The least that the database takes: raw LOAD DATA and raw SELECT of the very rows that a first run
left.
"""

import time
from pathlib import Path
from typing import Any

import MySQLdb
import MySQLdb.cursors

from demo.database import DatabaseServer

TABLES = {
    "dir_group": "id",
    "dir_user": "id",
    "dir_user_role": "userId, roleId",
    "dir_user_group": "userId, groupId",
    "dir_employment": "id",
    "directory_sync_group_link": "sync, user_pool_id, group_name_sha256",
    "directory_sync_user_link": "sync, user_pool_id, sub",
}
"""The tables that a first run fills, with their primary keys, parents before children."""


def raw_load(server: DatabaseServer, filled: str, empty: str, folder: Path) -> float:
    """Seconds of LOAD DATA of all rows of the database `filled` that `empty` lacks, each table in
    its key's order.
    """
    source, target = server.connect(filled), _connect(server, empty)
    seconds = 0.0
    for table, key in TABLES.items():
        with target.cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} LIKE {filled}.{table}")
            cursor.execute(f"SELECT COUNT(*) FROM {table}")
            local = cursor.fetchone()[0] > 0
        path = folder / f"{table}.tsv"
        missing = (
            f"WHERE NOT EXISTS (SELECT 1 FROM {empty}.{table} e WHERE {_same(key)})"
            if local
            else ""
        )
        _export(
            source, f"SELECT f.* FROM {filled}.{table} f {missing} ORDER BY {_of('f', key)}", path
        )
        began = time.perf_counter()
        with target.cursor() as cursor:
            cursor.execute(
                f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {table} CHARACTER SET utf8mb4"
            )
        seconds += time.perf_counter() - began
        path.unlink()
    source.close()
    target.close()
    return seconds


def raw_select(server: DatabaseServer, database: str) -> float:
    """Seconds until mysqlclient has given every row of these tables; no row is kept."""
    connection = server.connect(database)
    began = time.perf_counter()
    for table in TABLES:
        with connection.cursor(MySQLdb.cursors.SSCursor) as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            while cursor.fetchmany(50_000):
                pass
    seconds = time.perf_counter() - began
    connection.close()
    return seconds


def _connect(server: DatabaseServer, database: str) -> Any:
    return MySQLdb.connect(
        host="127.0.0.1",
        port=server.port,
        user="root",
        database=database,
        charset="utf8mb4",
        local_infile=True,
        autocommit=True,
    )


def _of(alias: str, key: str) -> str:
    return ", ".join(f"{alias}.{column}" for column in key.split(", "))


def _same(key: str) -> str:
    return " AND ".join(f"e.{column} = f.{column}" for column in key.split(", "))


def _export(connection: Any, statement: str, path: Path) -> None:
    with (
        connection.cursor(MySQLdb.cursors.SSCursor) as cursor,
        path.open("w", encoding="utf-8") as file,
    ):
        cursor.execute(statement)
        while rows := cursor.fetchmany(50_000):
            file.writelines("\t".join(_cell(value) for value in row) + "\n" for row in rows)


def _cell(value: Any) -> str:
    text = "\\N" if value is None else str(value)
    return (
        text
        if value is None
        else text.replace("\\", "\\\\").replace("\t", "\\\t").replace("\n", "\\\n")
    )
