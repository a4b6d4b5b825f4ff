"""dlt: a pipeline that merges Arrow tables into Joget's own tables with the sqlalchemy destination.

The destination has no upsert, so dlt deletes the rows that it has staged and inserts them anew,
table by table, each in a transaction of its own and in no order. Joget's foreign keys refuse both,
so they are off for dlt's connections. What Joget keeps in columns that aren't loaded (a password,
an employee code) is lost with the deleted rows.

dlt keeps its `_dlt_...` tables in Joget's database and stages in a second one, named `..._staging`.
That one is made here, since dlt would give it the server's default collation, which needn't fit
Joget's. Keys in staging are needed for speed: without them each row's deletion reads all of
staging.
"""

import os
import tempfile

import dlt
import MySQLdb
import pyarrow as pa
import pyarrow.parquet as pq

from bench.alternatives.measure import ORGANIZATION, ROLE, Clock, Target, employment_id, target

KEYS = {
    "dir_user": ["id"],
    "dir_group": ["id"],
    "dir_user_role": ["userId", "roleId"],
    "dir_employment": ["id"],
    "dir_user_group": ["userId", "groupId"],
}
SETTINGS = {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "ERROR",
    "SCHEMA__NAMING": "direct",  # else firstName would become first_name
}


def main() -> None:
    """Write the company and say how long it took."""
    asked, clock = target(), Clock()
    os.environ.update(SETTINGS)
    _create_staging(asked)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "directory",
            pipelines_dir=folder,
            destination=dlt.destinations.sqlalchemy(
                asked.uri(),
                create_primary_keys=True,
                engine_kwargs={"connect_args": {"init_command": "SET foreign_key_checks = 0"}},
            ),
            dataset_name=asked.database,
        )
        loaded = pipeline.run([_resource(name, table) for name, table in _tables(asked).items()])
        loaded.raise_on_failed_jobs()
        clock.report()


def _create_staging(asked: Target) -> None:
    connection = MySQLdb.connect(
        host="127.0.0.1", port=asked.port, user="root", database=asked.database
    )
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@character_set_database, @@collation_database")
        charset, collation = cursor.fetchone()
        cursor.execute(
            f"CREATE DATABASE IF NOT EXISTS {asked.database}_staging CHARACTER SET {charset} "
            f"COLLATE {collation}"
        )
    connection.close()


def _tables(asked: Target) -> dict[str, pa.Table]:
    users, groups, memberships = (
        pq.read_table(asked.rows / f"{name}.parquet") for name in ("users", "groups", "memberships")
    )
    ids = users["id"]
    employments = {"id": pa.array(employment_id(user) for user in ids.to_pylist()), "userId": ids}
    return {
        "dir_user": users.append_column("username", ids),
        "dir_group": groups.append_column("organizationId", pa.repeat(ORGANIZATION, len(groups))),
        "dir_user_role": pa.table({"roleId": pa.repeat(ROLE, len(ids)), "userId": ids}),
        "dir_employment": pa.table(
            {**employments, "organizationId": pa.repeat(ORGANIZATION, len(ids))}
        ),
        "dir_user_group": memberships,
    }


def _resource(name: str, table: pa.Table) -> dlt.sources.DltResource:
    return dlt.resource(
        [table],
        name=name,
        primary_key=KEYS[name],
        columns={column: {"precision": 255} for column in table.column_names if column != "active"},
        write_disposition={"disposition": "merge", "strategy": "delete-insert"},
    )


if __name__ == "__main__":
    main()
