"""The plan's rows: every change with its values before and after, safe or held."""

import hashlib
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from include.directory_sync.frames import arrow

USER_COLUMNS = ("firstName", "lastName", "email", "active", "timeZone", "locale")
"""dir_user's source-owned columns."""

VALUES = (*USER_COLUMNS, "state", "name", "organizationId")
"""What has a before and an after: dir_user's columns, the link's state, dir_group's columns."""


def _value_fields(prefix: str) -> list[tuple[str, pa.DataType]]:
    return [(f"{prefix}_{column}", pa.int64() if column == "active" else pa.string()) for column in VALUES]


CHANGES = pa.schema(
    [
        ("entity", pa.string()),
        ("action", pa.string()),
        ("sub", pa.string()),
        ("group_name", pa.string()),
        ("user_id", pa.string()),
        ("group_id", pa.string()),
        ("employment_id", pa.string()),
        *_value_fields("before"),
        *_value_fields("after"),
        ("reason", pa.string()),
        ("hold", pa.string()),
    ]
)
"""plan.parquet. entity and action:

user        create, adopt, update, deactivate, reactivate, recreate, rename
group       create, adopt, update, recreate
role        add (ROLE_USER)
employment  add
membership  add, remove; and for the ledger alone: keep_local (found at an adoption), claim (the pool names it now)

hold is null for a safe row, else the cause that a person decides on. ids are in Joget's stored bytes.
"""

ENTITIES = ("group", "user", "role", "membership", "employment")
"""In the order of writing: employments last, since they lock the organization's row for Joget's console."""

DIRECTORY = pa.schema(
    [
        ("entity", pa.string()),
        ("sub", pa.string()),
        ("group_name", pa.string()),
        ("joget_id", pa.string()),
        ("outcome", pa.string()),
        ("state", pa.string()),
        ("reason", pa.string()),
    ]
)
"""directory.parquet: a row for each listed or linked user and group: what this run did with it, in what state it is
(`active`, `deactivated`, `deactivated in Joget`, null where unlinked) and why."""


@dataclass(frozen=True)
class Plan:
    """What a run would do, as a value: dry run stops after it, the report counts it, loading applies its safe rows."""

    changes: pd.DataFrame
    """Columns CHANGES, in the order of writing."""
    directory: pd.DataFrame
    """Columns DIRECTORY."""
    memberships: dict[str, int]
    """Counts of memberships: read, added, removed, unchanged, held."""

    @property
    def safe(self) -> pd.DataFrame:
        """The rows to apply."""
        return self.changes[self.changes["hold"].isna()]

    @property
    def held(self) -> pd.DataFrame:
        """The rows that wait for a person."""
        return self.changes[self.changes["hold"].notna()]

    @property
    def sha256(self) -> str:
        """Hash of every row: two plans with the same hash do the same."""
        return _sha256(self.changes)

    @property
    def held_sha256(self) -> str | None:
        """Hash of what is held (entity, key, action, before, after); None where nothing is."""
        held = self.held
        return None if held.empty else _sha256(held.drop(columns=["reason", "hold"]))


def _sha256(frame: pd.DataFrame) -> str:
    schema = pa.schema([field for field in CHANGES if field.name in frame.columns])
    sink = pa.BufferOutputStream()
    pa.csv.write_csv(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), sink)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def in_order(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of changes in the order of writing, whatever order they came in."""
    changes = arrow(pd.concat([arrow(part, CHANGES) for part in parts], ignore_index=True), CHANGES)
    rank = changes["entity"].map({entity: at for at, entity in enumerate(ENTITIES)})
    keys = ["rank", "action", "user_id", "group_id", "sub", "group_name"]
    return changes.assign(rank=rank).sort_values(keys, ignore_index=True).drop(columns="rank")
