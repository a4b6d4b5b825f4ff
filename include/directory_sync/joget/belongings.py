"""What Joget keeps of users, which an undo counts before it takes an account away again."""

import pandas as pd
import pyarrow as pa

from directory_sync.frames import make_empty_frame, to_arrow_types
from directory_sync.joget.database import Database
from directory_sync.joget.schema import TABLES_BY_USERNAME, TABLES_WITHOUT_INDEX
from directory_sync.plan import current as now


def read_belongings(database: Database) -> pd.DataFrame:
    """Columns current.BELONGINGS_SCHEMA, for the sent ids of users."""
    # One query for each table counts for all users: two of the tables have no index on the
    # username, and a query for each user would scan them each time.
    counts = [
        ("memberships", _count_by_user(database, "dir_user_group", "userId")),
        ("roles", _count_by_user(database, "dir_user_role", "userId")),
        ("employments", _count_by_user(database, "dir_employment", "userId")),
        *(
            ("others", _count_by_user(database, table, column))
            for table, column in TABLES_BY_USERNAME
        ),
    ]
    rows = pd.concat([found.assign(what=what) for what, found in counts], ignore_index=True)
    if rows.empty:
        return make_empty_frame(now.BELONGINGS_SCHEMA)
    wide = rows.pivot_table(
        index="user_id", columns="what", values="rows", aggfunc="sum", fill_value=0
    )
    wide = wide.reindex(columns=now.BELONGINGS_SCHEMA.names[1:], fill_value=0).reset_index()
    return to_arrow_types(wide, now.BELONGINGS_SCHEMA)


COUNT_SCHEMA = pa.schema([("user_id", pa.string()), ("rows", pa.int64())])


def _count_by_user(database: Database, table: str, column: str) -> pd.DataFrame:
    """Columns COUNT_SCHEMA: rows of a table by user, for the sent ids of users that have any."""
    # A table without an index on the column is scanned once, and its rows go by the texts' index.
    sent, rows = "directory_sync_text t", f"{table} c"
    first, second = (rows, sent) if table in TABLES_WITHOUT_INDEX else (sent, rows)
    return database.frame(
        f"SELECT t.text, COUNT(*) FROM {first} STRAIGHT_JOIN {second} WHERE c.{column} = t.text "
        "GROUP BY t.text",
        schema=COUNT_SCHEMA,
        about=table,
    )


def read_used_employments(database: Database) -> pd.DataFrame:
    """Columns current.USED_EMPLOYMENTS_SCHEMA, of the sent ids of users."""
    entered = " OR ".join(
        f"e.{column} IS NOT NULL" for column in ("startDate", "endDate", "gradeId", "departmentId")
    )
    entered += " OR COALESCE(e.employeeCode, '') <> '' OR COALESCE(e.role, '') <> ''"
    heads = "EXISTS (SELECT 1 FROM dir_department d WHERE d.hod = e.id)"
    reports = " OR ".join(
        f"EXISTS (SELECT 1 FROM dir_employment_report_to r WHERE r.{side} = e.id)"
        for side in ("employmentId", "reportToId")
    )
    return database.frame(
        "SELECT e.id, e.userId FROM directory_sync_text t STRAIGHT_JOIN dir_employment e ON "
        "e.userId = t.text "
        f"WHERE {entered} OR {heads} OR {reports}",
        schema=now.USED_EMPLOYMENTS_SCHEMA,
        about="dir_employment, dir_department, dir_employment_report_to",
    )
