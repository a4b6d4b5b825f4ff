"""The plan's rows: every change with its values before and after, safe or held."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from directory_sync.frames import (
    TEXT_TYPE,
    make_empty_frame,
    make_frame,
    sort_table,
    to_arrow_types,
)
from directory_sync.reasons import Reason
from directory_sync.vocabulary import (
    ANSWERED_CAUSES,
    LEDGER_ACTIONS,
    REMOVAL_ACTIONS,
    UNANSWERABLE_CAUSES,
    Action,
    Entity,
    State,
)

USER_COLUMNS = ("firstName", "lastName", "email", "active", "timeZone", "locale")
"""dir_user's source-owned columns."""

NUMBER_COLUMNS = ("active", "misses")

USER_COLUMN_FIELDS = [
    (name, pa.int64() if name in NUMBER_COLUMNS else pa.string()) for name in USER_COLUMNS
]
"""The names and types of USER_COLUMNS, for a schema."""

VALUE_COLUMNS = ("id", *USER_COLUMNS, "name", "organizationId", "link", "state", "misses")
"""The values that a change has before and after.

id: the Joget row's stored id, null where there is no row. firstName to organizationId: the columns
of dir_user or dir_group. link: `<pool>/<sub>` or `<pool>/<group name>`, null where there is no live
link. state: the link's, `active`, or `deactivated` where the sync deactivated the user. misses: how
many proven snapshots in a row lacked the user or group.
"""


USER_VALUE_COLUMNS = ("id", *USER_COLUMNS, "link", "state", "misses")
GROUP_VALUE_COLUMNS = ("id", "name", "organizationId", "link", "misses")


def make_value_fields(
    prefix: str, values: Sequence[str] = VALUE_COLUMNS
) -> list[tuple[str, pa.DataType]]:
    """The names and types of the columns `<prefix>_<value>`, for a schema."""
    return [
        (f"{prefix}_{name}", pa.int64() if name in NUMBER_COLUMNS else pa.string())
        for name in values
    ]


CHANGES_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("action", pa.string()),
        ("sub", pa.string()),
        ("group_name", pa.string()),
        ("user_id", pa.string()),
        ("group_id", pa.string()),
        ("employment_id", pa.string()),
        *make_value_fields("before"),
        *make_value_fields("after"),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("hold", pa.string()),
    ]
)
"""plan.parquet. entity and action (vocabulary.Entity, vocabulary.Action):

user        create, adopt, update, deactivate, reactivate, recreate, rename, delete, evict,
            relink (to another sub); in an undo also release and restore; and for the ledger
            alone: miss, seen, unlink
group       create, adopt, update, recreate, delete, relink (to another pool); in an undo also
            release; and for the ledger alone: miss, seen, unlink
role        add, remove (ROLE_USER)
employment  add, remove
membership  add, remove; and for the ledger alone: keep_local, claim

Writing follows the values, not the action's name, so the inverse of a change is the change with
both sides exchanged (plan.undoing). code is a reasons.Reason, and reason its
sentence. hold is null for a safe row, else a vocabulary.Cause. ids are in Joget's stored bytes; the
user_id of the role, employment and memberships of a user renamed by this plan is the new one.
"""

ENTITY_ORDER = tuple(str(entity) for entity in Entity)
"""All entities in the order of writing: groups and users come before what refers to them."""

DIRECTORY_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("sub", pa.string()),
        ("group_name", pa.string()),
        ("joget_id", pa.string()),
        ("listed", pa.bool_()),
        ("outcome", pa.string()),
        ("state", pa.string()),
        ("linked_at", pa.timestamp("us")),
        ("code", pa.string()),
        ("reason", pa.string()),
    ]
)
"""directory.parquet: a row for each user and group that is listed or linked.

outcome: what this run did with it; `missing` where it isn't listed, or `unlisted` where this run
can't tell. state: vocabulary.State, null where unlinked. linked_at: the time (UTC) of the snapshot
that first linked a user, null where this run did. code, reason: why.
"""

MEMBERSHIP_COUNTS = ("read", "added", "removed", "unchanged", "held", "deferred")


@dataclass(frozen=True)
class Excess:
    """A limit, and how far the plan would go beyond it, in the limit's own unit."""

    limit: float
    figure: float


@dataclass(frozen=True)
class SettingsChange:
    """What a change of mapping, scope or policies alone does to the plan of one snapshot, by
    `<entity> <action>`.
    """

    settings: tuple[str, ...]
    """The settings that changed, such as `mapping.first_name`."""
    adds: dict[str, int]
    """Rows that only the new settings bring."""
    spares: dict[str, int]
    """Rows that only the old settings would have brought."""


@dataclass(frozen=True)
class Removals:
    """What runs took away, for the sum over 24 hours. by_group is keyed by name_sha256."""

    users: int = 0
    """Missing users."""
    memberships: int = 0
    by_group: dict[str, int] = field(default_factory=dict)
    disabled: int = 0
    """Users disabled in the pool."""


@dataclass(frozen=True)
class Plan:
    """What a run would do, as a value: dry run stops after it, the report counts it, loading
    applies its safe rows.
    """

    parts: dict[str, pd.DataFrame]
    """Changes by entity, in the order of writing, each with its entity's columns of CHANGES_SCHEMA:
    as one frame, the first load of a million users would be five million rows by 37 columns.
    """
    directory: pd.DataFrame
    """Columns DIRECTORY_SCHEMA."""
    memberships: dict[str, int]
    """Counts of memberships, by MEMBERSHIP_COUNTS."""
    excesses: dict[str, Excess] = field(default_factory=dict)
    """By cause."""
    settings_change: SettingsChange | None = None
    employed_twice: int = 0
    """Users with several employments in the organization, which the sync leaves."""

    @cached_property
    def changes(self) -> pd.DataFrame:
        """All changes as one frame: columns CHANGES_SCHEMA, in the order of writing. It may be
        large.
        """
        return self._joined(self.part)

    @property
    def safe(self) -> pd.DataFrame:
        """The rows to apply, as `changes`."""
        return self._joined(self.safe_part)

    @cached_property
    def held(self) -> pd.DataFrame:
        """The rows that wait for a person, as `changes`."""
        return self._joined(lambda entity: self.part(entity)[self.part(entity)["hold"].notna()])

    def part(self, entity: str) -> pd.DataFrame:
        """The changes of an entity, in its own columns."""
        return self.parts.get(entity, make_empty_frame(CHANGES_SCHEMA))

    def safe_part(self, entity: str) -> pd.DataFrame:
        """The changes of an entity that are to be applied."""
        rows = self.part(entity)
        return rows[rows["hold"].isna()] if rows["hold"].notna().any() else rows

    def _joined(self, part: Callable[[str], pd.DataFrame]) -> pd.DataFrame:
        parts = [rows for entity in ENTITY_ORDER if len(rows := part(entity))]
        return pd.concat(
            [
                make_empty_frame(CHANGES_SCHEMA),
                *(to_arrow_types(rows, CHANGES_SCHEMA) for rows in parts),
            ],
            ignore_index=True,
        )

    @property
    def to_review(self) -> pd.DataFrame:
        """The held rows that a review shows: those that an answer can release as they are."""
        held = self.held
        users = self.part(Entity.USER)
        users = users[users["action"] != Action.SEEN]
        # If another row of this plan changes, deactivates or deletes the same account, the held row
        # will have other values later. So a leaver goes before an heir is asked about.
        leaving = users["action"].isin(REMOVAL_ACTIONS)
        moving = users.loc[users["hold"].isna() | leaving, "user_id"].dropna()
        waiting = users["hold"].notna() & ~leaving & users["user_id"].isin(moving)
        waiting &= users["action"] != Action.RENAME  # a rename changes only the login
        return held[
            ~held["hold"].isin(UNANSWERABLE_CAUSES) & ~held["sub"].isin(users.loc[waiting, "sub"])
        ]

    @property
    def opens_review(self) -> bool:
        """Whether a person is to be asked: something is held that wasn't rejected or undone."""
        return bool((~self.to_review["hold"].isin(ANSWERED_CAUSES)).any())

    @property
    def touches_joget(self) -> bool:
        """Whether the safe rows change Joget, and not only the ledger."""
        return any(
            (~self.safe_part(entity)["action"].isin(LEDGER_ACTIONS)).any()
            for entity in ENTITY_ORDER
        )

    @property
    def removals(self) -> Removals:
        """The users that the safe rows deactivate or delete, and the memberships that other users
        lose.
        """
        users, gone = self.safe_part(Entity.USER), self.safe_part(Entity.MEMBERSHIP)
        users = users[users["action"].isin(REMOVAL_ACTIONS)]
        gone = gone[(gone["action"] == Action.REMOVE) & ~gone["code"].isin(USER_REMOVAL_REASONS)]
        # What removed users lose belongs to their own removal, and isn't counted again.
        gone = gone[~gone["sub"].isin(users["sub"])]
        sizes = gone.groupby("group_name").size().items()
        by_group = {hash_name(str(name)): int(rows) for name, rows in sizes}
        disabled = users["code"] == Reason.DISABLED
        # The percentage is of linked and active users. A left-over account had no link, and its
        # state before is null.
        removed = (users["before_state"] == State.ACTIVE) | (users["action"] == Action.DELETE)
        return Removals(
            int((removed & ~disabled).sum()), len(gone), by_group, int((removed & disabled).sum())
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of every row: two plans with the same hash make the same changes."""
        digest = hashlib.sha256()
        for entity in ENTITY_ORDER:
            rows = self.part(entity)
            if len(rows):
                # A plan that is read back from staging has more columns than one in memory. These
                # are empty, and mustn't change the hash.
                columns = [
                    name
                    for name in CHANGES_SCHEMA.names
                    if name in rows.columns and rows[name].notna().any()
                ]
                _hash_rows(digest, rows[columns])
        return digest.hexdigest()

    @property
    def held_sha256(self) -> str | None:
        """Hash of what is held (entity, key, action, before, after); None where nothing is."""
        return hash_held_rows(self.held)


def compare_settings(settings: tuple[str, ...], plan: Plan, without: Plan) -> SettingsChange:
    """Compare a plan with the one that the settings of the run before would have given."""

    def count_only_in(first: Plan, second: Plan) -> dict[str, int]:
        rows = first.changes[~hash_rows(first.changes).isin(hash_rows(second.changes))]
        kinds = (rows["entity"] + " " + rows["action"]).value_counts().sort_index()
        return {str(kind): int(count) for kind, count in kinds.items()}

    return SettingsChange(
        settings, adds=count_only_in(plan, without), spares=count_only_in(without, plan)
    )


def make_empty_plan() -> Plan:
    """A plan without any change."""
    return Plan({}, make_empty_frame(DIRECTORY_SCHEMA), dict.fromkeys(MEMBERSHIP_COUNTS, 0))


def split_by_entity(changes: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One frame of changes, in the order of writing, as a plan's `parts`."""
    parts = {
        entity: changes[changes["entity"] == entity].reset_index(drop=True)
        for entity in ENTITY_ORDER
    }
    return {entity: rows for entity, rows in parts.items() if len(rows)}


def hash_held_rows(held: pd.DataFrame) -> str | None:
    """Hash of held rows, leaving out their reasons and causes; None where no row is held."""
    if held.empty:
        return None
    return _hash_texts(_keep_hashed_codes(held).drop(columns=["reason", "hold"]))


def hash_name(name: str) -> str:
    """The ledger's key of a group's name, as SHA-256."""
    # Joget (8.0.5 and 7.0.44 on) converts every table of its schema to its own collation when it
    # starts. Only ASCII keys mean the same afterwards.
    return hashlib.sha256(name.encode()).hexdigest()


def split_link(links: "pd.Series[str]") -> "tuple[pd.Series[str], pd.Series[str]]":
    """The pools of links, and their subs or group names."""
    # At the first slash: a pool's id has none, and a group's name may have some.
    texts = links.astype(TEXT_TYPE)
    return texts.str.replace(r"(?s)/.*", "", regex=True), texts.str.replace(
        r"^[^/]*/", "", regex=True
    )


def hash_rows(rows: pd.DataFrame) -> "pd.Series[str]":
    """A hash for each row, of entity, key, action, before and after. An approval names rows by
    it.
    """
    columns = [name for name in CHANGES_SCHEMA.names if name not in ("reason", "hold")]
    return _hash_columns(_keep_hashed_codes(rows), columns)


def hash_for_answers(rows: pd.DataFrame) -> "pd.Series[str]":
    """A hash for each row, of entity, key, action and the values that it gives. A rejection or an
    undo names changes by it.
    """
    given = _keep_hashed_codes(rows)
    # Only values that the change gives are hashed. So the same change has the same hash in a later
    # plan, whatever else changed in Joget meanwhile.
    for column in VALUE_COLUMNS:
        before, after = rows[f"before_{column}"], rows[f"after_{column}"]
        same = (before == after).fillna(False).astype(bool) | (before.isna() & after.isna())
        given[f"after_{column}"] = after.where(~same)
    # A membership is named by the pool's keys: a rename of the user changes its ids.
    pairs = rows["entity"] == Entity.MEMBERSHIP
    for column in ("user_id", "group_id"):
        given[column] = given[column].mask(pairs)
    columns = ["entity", "action", "code", "sub", "group_name", "user_id", "group_id"]
    columns += ["employment_id"]
    # Without misses: runs count and reset them while the same change stays held.
    return _hash_columns(
        given, columns + [f"after_{name}" for name in VALUE_COLUMNS if name != "misses"]
    )


def _keep_hashed_codes(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows, with `code` kept only where it makes a different question of the same change."""
    # To deactivate an absent user is one question to a person, to deactivate a disabled user
    # another. A rejection of the first mustn't keep a disabled user in (rule 4).
    disabled = (rows["action"] == Action.DEACTIVATE) & (rows["code"] == Reason.DISABLED)
    # Likewise a membership that the pool no longer names, and one of a user who is out (rule 13).
    ends = (rows["action"] == Action.REMOVE) & rows["code"].isin(USER_REMOVAL_REASONS)
    return rows.assign(code=rows["code"].where(disabled | ends))


def _hash_columns(rows: pd.DataFrame, columns: list[str]) -> "pd.Series[str]":
    digests: list[str] = []
    for start in range(0, len(rows), ROWS_AT_ONCE):  # each row takes a kilobyte as Python objects
        part = rows.iloc[start : start + ROWS_AT_ONCE][columns]
        cells: Iterable[tuple[object, ...]] = (
            part.astype(object).where(part.notna(), None).to_numpy()
        )
        digests += [
            hashlib.sha256(repr(tuple(row)).encode("utf-8", "surrogatepass")).hexdigest()
            for row in cells
        ]
    return pd.Series(digests, index=rows.index, dtype=TEXT_TYPE)


def _hash_texts(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    _hash_rows(digest, frame)
    return digest.hexdigest()


def _hash_rows(digest: "hashlib._Hash", frame: pd.DataFrame) -> None:
    schema = pa.schema([field for field in CHANGES_SCHEMA if field.name in frame.columns])
    header = True
    for start in range(0, max(len(frame), 1), ROWS_AT_ONCE):
        part = pa.Table.from_pandas(
            frame.iloc[start : start + ROWS_AT_ONCE], schema=schema, preserve_index=False
        )
        sink = pa.BufferOutputStream()
        pa.csv.write_csv(part, sink, pa.csv.WriteOptions(include_header=header))
        digest.update(sink.getvalue())
        header = False


ROWS_AT_ONCE = 50_000

USER_REMOVAL_REASONS = (Reason.USER_OUT, Reason.USER_OFF_IN_JOGET)
"""Codes of removals that belong to a user's own removal."""

SORT_KEYS = ("action", "user_id", "group_id", "sub", "group_name")
"""The columns by which the rows of an entity are sorted."""


def sort_changes(frames: Iterable[pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Sort frames of changes, given in any order, into a plan's `parts`."""
    tables: dict[str, list[pa.Table]] = {entity: [] for entity in ENTITY_ORDER}
    for frame in frames:
        of_entity = frame["entity"].unique() if len(frame) else ()
        for entity in of_entity:
            tables[entity].append(
                _make_table(frame if len(of_entity) == 1 else frame[frame["entity"] == entity])
            )
    parts = {}
    for entity in ENTITY_ORDER:
        found = tables.pop(entity)
        if found:
            table = pa.concat_tables(found, promote_options="default")
            parts[entity] = make_frame(sort_table(table, SORT_KEYS))
    return parts


def _make_table(frame: pd.DataFrame) -> pa.Table:
    """The frame's columns of CHANGES_SCHEMA; `hold` and SORT_KEYS are added as nulls where it lacks
    them.
    """
    names = {*frame.columns, "hold", *SORT_KEYS}
    own = pa.schema([field for field in CHANGES_SCHEMA if field.name in names])
    nulls = {
        name: pa.nulls(len(frame), CHANGES_SCHEMA.field(name).type)
        for name in own.names
        if name not in frame.columns
    }
    columns = [
        nulls[name] if name in nulls else _make_arrow_column(frame[name], own.field(name).type)
        for name in own.names
    ]
    return pa.table(columns, schema=own)


def _make_arrow_column(values: "pd.Series[Any]", kind: pa.DataType) -> pa.Array:
    return pa.array(values, from_pandas=True).cast(kind)
