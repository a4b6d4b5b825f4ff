"""A plan's changes as a table with a search, filters, sorting and pages. It reads only the columns
and rows that it needs.
"""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import reduce
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from directory_sync.pages.labels import VALUE_LABELS
from directory_sync.pages.permissions import make_hidden_name
from directory_sync.plan.changes import ENTITY_ORDER, VALUE_COLUMNS
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.vocabulary import describe_cause

ROWS_ON_A_PAGE = 50

PUBLIC_COLUMNS = ["entity", "action", "sub", "reason", "hold"]
"""Columns for everybody who may read the DAG's runs."""

GROUP_COLUMNS = ["group_id", "group_name"]
KEY_COLUMNS = ["user_id", *GROUP_COLUMNS]

VALUE_SIDES = [f"{side}_{column}" for column in VALUE_COLUMNS for side in ("before", "after")]

SEARCHED_COLUMNS = [*KEY_COLUMNS, "sub", "before_id", "before_name", "after_name"]
SEARCHED_COLUMNS += [
    f"{side}_{column}"
    for side in ("before", "after")
    for column in ("firstName", "lastName", "email")
]

SORT_COLUMNS: dict[str, list[str]] = {
    "": [],
    "entity": ["entity", "action"],
    "action": ["action", "entity"],
    "who": ["user_id", "sub", "group_id"],
    "reason": ["hold", "reason"],
}
"""The columns that each sort orders by; without any, rows come in the order of writing."""

HIDDEN_NAME_COLUMN = "hidden"
"""A column with hidden names of groups (permissions.make_hidden_name)."""

SORTS_WITHOUT_NAMES = SORT_COLUMNS | {"who": []}
"""The same for readers without the right to see values: the ids of "who" are logins."""

SORT_LOCK = threading.Lock()
"""One reader sorts at a time: sorting takes memory for every row of the plan."""


class ChangeFilter(BaseModel):
    """What a reader asks for, as the page's form sends it."""

    model_config = ConfigDict(frozen=True)

    text: Annotated[str, Field(max_length=200)] = ""
    """Searched for within logins, names, emails, subs and groups, in any case of letters."""
    entity: str = ""
    action: str = ""
    held: bool = False
    sort: Literal["", "entity", "action", "who", "reason"] = ""
    descending: bool = False
    page: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _by_heading(cls, sent: Any) -> Any:
        """Read `sort_by`, which names the heading that was pressed, such as `who:descending`."""
        if isinstance(sent, dict) and sent.get("sort_by"):
            sort, _, direction = str(sent["sort_by"]).partition(":")
            return {**sent, "sort": sort, "descending": direction == "descending"}
        return sent


@dataclass(frozen=True)
class Change:
    """A row of the table. Without the right to see values, `differences` is empty and groups have
    hidden names (permissions.make_hidden_name).
    """

    entity: str
    action: str
    who: str
    sub: str
    group: str
    differences: tuple[tuple[str, str, str], ...]
    """Column, before, after."""
    reason: str
    hold: str
    """A cause, or empty for a safe row."""

    @property
    def meaning(self) -> str:
        """What the cause means."""
        return describe_cause(self.hold) if self.hold else ""


@dataclass(frozen=True)
class ChangePage:
    """One page of the rows that were found."""

    rows: tuple[Change, ...]
    found: int
    in_all: int
    number: int
    pages: int
    actions: tuple[str, ...]
    """Every action in the plan."""
    entities: tuple[str, ...]


def read_page(file: pq.ParquetFile, wanted: ChangeFilter, *, values: bool) -> ChangePage:
    """The page that a reader asks for, or the last page if there are fewer. `values`: whether the
    reader may see values.
    """
    # From the whole plan, so that a filter doesn't take the form's other choices away.
    kinds = pa.concat_tables(
        rows.group_by(["entity", "action"]).aggregate([])
        for rows in read_row_groups(file, ["entity", "action"])
    ).to_pydict()
    numbers = find_changes(file, wanted, values=values)
    pages = max(-(-len(numbers) // ROWS_ON_A_PAGE), 1)
    page = min(max(wanted.page, 1), pages)
    shown = numbers[(page - 1) * ROWS_ON_A_PAGE : page * ROWS_ON_A_PAGE]
    return ChangePage(
        rows=tuple(_read_changes(file, shown, values=values)),
        found=len(numbers),
        in_all=file.metadata.num_rows,
        number=page,
        pages=pages,
        actions=tuple(sorted(set(kinds["action"]))),
        entities=tuple(entity for entity in ENTITY_ORDER if entity in kinds["entity"]),
    )


def read_row_groups(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.Table]:
    """Read a file in parts. The first part has the columns and no rows."""
    # A file without rows may have no row group, and Arrow concatenates no empty list of tables.
    yield file.schema_arrow.empty_table().select(columns)
    for group in range(file.num_row_groups):
        yield file.read_row_group(group, columns=columns)


def find_changes(
    file: pq.ParquetFile, wanted: ChangeFilter, *, values: bool
) -> "np.ndarray[Any, Any]":
    """The numbers of the rows that a reader asks for, in the reader's order. The file is read one
    part at a time.
    """
    # The file's own order is by logins. Without the right to see values, subs and hidden names
    # decide last, so that nothing is left to that order.
    order = (
        SORT_COLUMNS[wanted.sort]
        if values
        else [*SORTS_WITHOUT_NAMES[wanted.sort], "sub", HIDDEN_NAME_COLUMN]
    )
    columns = {"entity", "action", "hold", *order}
    columns |= set(_list_searched_columns(wanted, values=values))
    # The file has no hidden names: they are made from the groups' columns.
    if HIDDEN_NAME_COLUMN in columns:
        columns = columns - {HIDDEN_NAME_COLUMN} | set(GROUP_COLUMNS)
    direction = "descending" if wanted.descending else "ascending"
    found: list[pa.Table] = []
    first = 0
    # Without an order, only the numbers of the rows are in memory: eight bytes each.
    with SORT_LOCK if order else nullcontext():
        for rows in read_row_groups(file, sorted(columns)):
            numbered = rows.append_column("number", pa.arange(first, first + len(rows)))
            first += len(rows)
            chosen = keep_wanted_rows(numbered, wanted, values=values)
            if HIDDEN_NAME_COLUMN in order:
                chosen = chosen.append_column(HIDDEN_NAME_COLUMN, hide_group_names(chosen))
            found.append(chosen.select(["number", *order]))
        table = pa.concat_tables(found)
        numbers = table.column("number")
        if order:
            keys = [(name, direction) for name in order]
            numbers = numbers.take(pc.sort_indices(table, sort_keys=keys))
    in_order: np.ndarray[Any, Any] = numbers.to_numpy()
    return in_order


def _list_searched_columns(wanted: ChangeFilter, *, values: bool) -> list[str]:
    return [name for name in SEARCHED_COLUMNS if values or name == "sub"] if wanted.text else []


def keep_wanted_rows(rows: pa.Table, wanted: ChangeFilter, *, values: bool) -> pa.Table:
    """The rows that fit what a reader asks for."""
    fits = [
        pc.equal(rows.column(column), value)
        for column, value in (("entity", wanted.entity), ("action", wanted.action))
        if value
    ]
    if wanted.held:
        fits.append(pc.is_valid(rows.column("hold")))
    if wanted.text:
        hits = [
            pc.match_substring(rows.column(column), wanted.text.strip(), ignore_case=True)
            for column in _list_searched_columns(wanted, values=values)
        ]
        # Many of the searched columns are null in a row. By Kleene's logic true or null is true;
        # pc.or_ would make it null, and filter would drop the row.
        fits.append(reduce(pc.or_kleene, hits))
    return rows.filter(reduce(pc.and_kleene, fits)) if fits else rows


def hide_group_names(rows: pa.Table) -> pa.Array:
    """For each row, its group's hidden name (permissions.make_hidden_name)."""
    names = pc.coalesce(rows.column("group_name"), rows.column("group_id"), "")
    # A plan has many memberships of few groups, so each name is hashed once.
    coded = names.combine_chunks().dictionary_encode()
    hidden = [make_hidden_name(name) for name in coded.dictionary.to_pylist()]
    return pa.array(hidden, pa.string()).take(coded.indices)


def _read_changes(
    file: pq.ParquetFile, numbers: "np.ndarray[Any, Any]", *, values: bool
) -> list[Change]:
    """The changes in the rows with these numbers, in this order."""
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.cumsum([0, *sizes])
    groups = np.searchsorted(starts, numbers, side="right") - 1
    # The values' many columns are read from only those row groups that the page's rows are in.
    by_number: dict[int, dict[str, Any]] = {}
    for group in np.unique(groups).tolist():
        inside = numbers[groups == group]
        rows = file.read_row_group(group, columns=_list_columns(values=values))
        rows = rows.take(pa.array(inside - starts[group]))
        by_number |= zip(inside.tolist(), rows.to_pylist(), strict=True)
    return [_make_change(by_number[number], values=values) for number in numbers.tolist()]


def find_user_changes(plan: Manifest, sub: str, *, values: bool) -> list[Change]:
    """What the plan in this folder changes about a user."""
    rows = store.find_rows(plan, "plan.parquet", "sub", [sub], columns=_list_columns(values=values))
    return [_make_change(row, values=values) for row in rows]


def _list_columns(*, values: bool) -> list[str]:
    return [*PUBLIC_COLUMNS, *KEY_COLUMNS, *(VALUE_SIDES if values else [])]


def _make_change(row: dict[str, Any], *, values: bool) -> Change:
    group = row["group_name"] or row["group_id"] or ""
    return Change(
        entity=row["entity"],
        action=row["action"],
        who=_find_name(row, group) if values else "",
        sub=row["sub"] or "",
        group=group if values else make_hidden_name(group),
        differences=tuple(_list_differences(row)) if values else (),
        reason=row["reason"] or "",
        hold=row["hold"] or "",
    )


def _find_name(row: dict[str, Any], group: str) -> str:
    return (
        group
        if row["entity"] == "group"
        else str(row["user_id"] or row["after_id"] or row["before_id"] or "")
    )


def _list_differences(row: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for column in VALUE_COLUMNS:
        before, after = row[f"before_{column}"], row[f"after_{column}"]
        if before != after:
            yield VALUE_LABELS[column], _format_value(before), _format_value(after)


NOTHING, EMPTY = "—", "(empty)"


def _format_value(value: Any) -> str:
    if value is None:
        return NOTHING
    return str(value) if value != "" else EMPTY
