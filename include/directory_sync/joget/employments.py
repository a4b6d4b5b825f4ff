"""The ids of the employments that the sync makes.

An id is 32 hex characters, always the same for one user and organization, so that the same input
gives the same plan.
"""

from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from directory_sync.frames import conform_to_schema, make_empty_frame
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.schema import JogetTables
from directory_sync.plan.current import EMPLOYMENT_IDS_SCHEMA

SECOND_CHOICES = ("1", "2")
"""Further ids of the same user. The first one may be taken: a row that Joget moved to another user
or organization keeps its id.
"""

CHOICES_SCHEMA = pa.schema([*EMPLOYMENT_IDS_SCHEMA, ("is_taken", pa.bool_())])


def read_employment_ids(
    database: Database, tables: JogetTables, more_user_ids: "pd.Series[str]"
) -> pd.DataFrame:
    """Columns current.EMPLOYMENT_IDS_SCHEMA: for each sent text, and each of more_user_ids, the id
    of a new employment: the first one that no employment has.
    """
    choices = [_read_choices(database, tables, "directory_sync_text", (), "0")]
    choices += _read_choices_of(database, tables, more_user_ids.tolist(), "0")
    first = pd.concat(choices, ignore_index=True)
    ids: pd.DataFrame = first
    taken = first.loc[first["is_taken"], "user_id"]
    for choice in SECOND_CHOICES:
        if taken.empty:
            break
        again = pd.concat(_read_choices_of(database, tables, taken.tolist(), choice))
        ids = pd.concat([again[~again["is_taken"]], ids]).drop_duplicates("user_id")
        taken = again.loc[again["is_taken"], "user_id"]
    return conform_to_schema(ids, EMPLOYMENT_IDS_SCHEMA)


def find_users_with_own_employment(
    database: Database, tables: JogetTables, user_ids: Sequence[str]
) -> set[str]:
    """Find the users with an employment that the sync made."""
    choices = ("0", *SECOND_CHOICES)
    return {
        str(user_id)
        for choice in choices
        for rows in _read_choices_of(database, tables, user_ids, choice)
        for user_id in rows.loc[rows["is_taken"], "user_id"]
    }


def _read_choices_of(
    database: Database, tables: JogetTables, user_ids: Sequence[str], choice: str
) -> list[pd.DataFrame]:
    """Columns CHOICES_SCHEMA, for users whose ids aren't in the table of sent texts."""
    parts = [make_empty_frame(CHOICES_SCHEMA)]
    for ids in split_into_batches(user_ids):
        rows = " UNION ALL ".join([f"SELECT {tables.as_directory('%s')} AS text"] * len(ids))
        parts.append(_read_choices(database, tables, f"({rows})", ids, choice))
    return parts


def _read_choices(
    database: Database, tables: JogetTables, users: str, parameters: Sequence[str], choice: str
) -> pd.DataFrame:
    """Columns CHOICES_SCHEMA. users: SQL with a column text."""
    text = "CONVERT(t.text USING utf8mb4)"
    # Rows are written twice as fast when their ids come roughly in the users' order.
    first_bytes = f"RPAD(LOWER(HEX(LEFT(CAST({text} AS BINARY), 8))), 16, '0')"
    digest = f"SHA2(CONCAT(%s, CHAR(0), {text}, CHAR(0), %s), 256)"
    made = f"SELECT t.text, CONCAT({first_bytes}, LEFT({digest}, 16)) AS id FROM {users} t"
    return database.frame(
        f"SELECT m.text, m.id, e.id IS NOT NULL FROM ({made}) m LEFT JOIN dir_employment e ON "
        f"e.id = {tables.as_directory('m.id')}",
        (tables.organization, choice, *parameters),
        schema=CHOICES_SCHEMA,
        about="dir_employment",
    )
