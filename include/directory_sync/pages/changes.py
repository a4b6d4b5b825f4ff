"""A plan's changes as a table with a search, filters, sorting and pages. It reads only the columns
and rows that it needs.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from directory_sync.pages.labels import VALUE_LABELS
from directory_sync.pages.permissions import make_hidden_name
from directory_sync.pages.published_files import read_row_groups
from directory_sync.plan.changes import ENTITY_ORDER, VALUE_COLUMNS
from directory_sync.vocabulary import describe_cause

ROWS_ON_A_PAGE = 50

PUBLIC_COLUMNS = ["entity", "action", "sub", "reason", "hold"]
"""Columns for everybody who may read the DAG's runs."""

KEY_COLUMNS = ["user_id", "group_id", "group_name"]

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
    actions, entities = set[str](), set[str]()
    for _, rows in read_row_groups(file, ["entity", "action"]):
        actions |= set(pc.unique(rows.column("action")).to_pylist())
        entities |= set(pc.unique(rows.column("entity")).to_pylist())
    at = find_changes(file, wanted, values=values)
    pages = max(-(-len(at) // ROWS_ON_A_PAGE), 1)
    number = min(max(wanted.page, 1), pages)
    shown = at[(number - 1) * ROWS_ON_A_PAGE : number * ROWS_ON_A_PAGE]
    return ChangePage(
        rows=tuple(read_changes_at(file, shown, values=values)),
        found=len(at),
        in_all=file.metadata.num_rows,
        number=number,
        pages=pages,
        actions=tuple(sorted(actions)),
        entities=tuple(entity for entity in ENTITY_ORDER if entity in entities),
    )


def find_changes(
    file: pq.ParquetFile, wanted: ChangeFilter, *, values: bool
) -> "np.ndarray[Any, Any]":
    """The numbers of the rows that a reader asks for, in the reader's order. The file is read one
    part at a time.

    Without the right to see values, the order is never that of the file, since that is by logins.
    """
    order = (
        SORT_COLUMNS[wanted.sort]
        if values
        else [*SORTS_WITHOUT_NAMES[wanted.sort], "sub", HIDDEN_NAME_COLUMN]
    )
    searched = _contains_searched_text(wanted, values=values)
    read = {
        "entity",
        "action",
        "hold",
        *searched,
        *order,
        *(KEY_COLUMNS if HIDDEN_NAME_COLUMN in order else ()),
    }
    found: list[np.ndarray[Any, Any]] = [np.array([], dtype="int64")]
    ordering: list[pa.Table] = []
    with SORT_LOCK if order else nullcontext():
        for first, rows in read_row_groups(file, sorted(read)):
            at = np.flatnonzero(_matches_filter(rows, wanted, searched))
            found.append(at + first)
            if order:
                ordering.append(_make_ordering(rows.take(pa.array(at)), order))
        numbers = np.concatenate(found)
        if order and len(numbers):
            keys = [(name, "descending" if wanted.descending else "ascending") for name in order]
            numbers = numbers[
                pc.sort_indices(pa.concat_tables(ordering), sort_keys=keys).to_numpy()
            ]
    return numbers


def _make_ordering(rows: pa.Table, order: list[str]) -> pa.Table:
    if HIDDEN_NAME_COLUMN in order:
        rows = rows.append_column(HIDDEN_NAME_COLUMN, pa.chunked_array([_hide_group_names(rows)]))
    return rows.select(order)


def _contains_searched_text(wanted: ChangeFilter, *, values: bool) -> list[str]:
    return [name for name in SEARCHED_COLUMNS if values or name == "sub"] if wanted.text else []


def _matches_filter(
    rows: pa.Table, wanted: ChangeFilter, searched: list[str]
) -> "np.ndarray[Any, Any]":
    found = np.ones(len(rows), dtype=bool)
    for column, value in (("entity", wanted.entity), ("action", wanted.action)):
        if value:
            found &= _replace_null_flags(pc.equal(rows.column(column), value))
    if wanted.held:
        found &= _replace_null_flags(pc.is_valid(rows.column("hold")))
    if wanted.text:
        hit = np.zeros(len(rows), dtype=bool)
        for column in searched:
            texts = rows.column(column)
            hit |= _replace_null_flags(
                pc.match_substring(texts, wanted.text.strip(), ignore_case=True)
            )
        found &= hit
    return found


def _replace_null_flags(flags: pa.ChunkedArray) -> "np.ndarray[Any, Any]":
    plain: np.ndarray[Any, Any] = pc.fill_null(flags, False).to_numpy()
    return plain


def read_changes_at(
    file: pq.ParquetFile, at: "np.ndarray[Any, Any]", *, values: bool
) -> list[Change]:
    """The changes of these rows, in this order."""
    ends = np.cumsum(
        [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    )
    groups = np.searchsorted(ends, at, side="right")
    columns = [*PUBLIC_COLUMNS, *KEY_COLUMNS, *(VALUE_SIDES if values else [])]
    by_row: dict[int, dict[str, Any]] = {}
    needed = set(groups.tolist())
    for group, (first, rows) in zip(
        sorted(needed), read_row_groups(file, columns, needed.__contains__), strict=True
    ):
        mine = at[groups == group]
        by_row |= dict(
            zip(mine.tolist(), rows.take(pa.array(mine - first)).to_pylist(), strict=True)
        )
    return [_make_change(by_row[number], values=values) for number in at.tolist()]


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


FORMULA = r"(^|[;,\t|\r\n]\s*)([=+\-@\t\r\n])"
"""Text that a spreadsheet would take for a formula, in a cell or in a part that it splits off as a
cell.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Comes first in the file, so that spreadsheets read it as UTF-8."""


def write_csv(file: pq.ParquetFile, wanted: ChangeFilter, *, values: bool) -> Iterator[bytes]:
    """All rows that a reader asks for, as CSV, a part at a time. No cell can be a formula.

    Rows come in the order of writing; without the right to see values, in the order of subs.
    """
    yield BYTE_ORDER_MARK + _encode_csv(
        _make_cells(_make_no_rows(file), values=values), header=True
    )
    if not values:
        yield from _write_csv_by_sub(file, wanted)
        return
    searched = _contains_searched_text(wanted, values=True)
    for _, rows in read_row_groups(file, [*PUBLIC_COLUMNS, *KEY_COLUMNS, *VALUE_SIDES]):
        at = np.flatnonzero(_matches_filter(rows, wanted, searched))
        if len(at):
            yield _encode_csv(_make_cells(rows.take(pa.array(at)), values=True))


def _write_csv_by_sub(file: pq.ParquetFile, wanted: ChangeFilter) -> Iterator[bytes]:
    at = find_changes(file, wanted.model_copy(update={"sort": ""}), values=False)
    rows = pa.concat_tables(
        [rows for _, rows in read_row_groups(file, [*PUBLIC_COLUMNS, *KEY_COLUMNS])]
        or [_make_no_rows(file)]
    )
    for start in range(0, len(at), ROWS_AT_ONCE):
        yield _encode_csv(
            _make_cells(rows.take(pa.array(at[start : start + ROWS_AT_ONCE])), values=False)
        )


ROWS_AT_ONCE = 50_000


def _make_no_rows(file: pq.ParquetFile) -> pa.Table:
    return file.schema_arrow.empty_table()


def _make_cells(rows: pa.Table, *, values: bool) -> pa.Table:
    """The texts of a CSV file's columns."""
    columns = {
        name: _read_text_column(rows, name)
        for name in ("entity", "action", "sub", "reason", "hold")
    }
    group = pc.coalesce(_read_text_column(rows, "group_name"), _read_text_column(rows, "group_id"))
    is_group = pc.equal(columns["entity"], "group")
    if values:
        user = pc.coalesce(
            *(_read_text_column(rows, name) for name in ("user_id", "after_id", "before_id"))
        )
        who = pc.if_else(is_group, group, user)
    else:
        group, who = _hide_group_names(rows), pa.nulls(len(rows), pa.string())
    cells = {
        "entity": columns["entity"],
        "action": columns["action"],
        "who": who,
        "sub": columns["sub"],
        "group": group,
        "reason": columns["reason"],
        "held by": columns["hold"],
    }
    for column, name in VALUE_LABELS.items() if values else ():
        before, after = (
            _read_text_column(rows, f"before_{column}"),
            _read_text_column(rows, f"after_{column}"),
        )
        same = pc.or_kleene(pc.equal(before, after), pc.and_(pc.is_null(before), pc.is_null(after)))
        differs = pc.invert(pc.fill_null(same, False))
        for side, texts in (("before", before), ("after", after)):
            told = pc.if_else(pc.equal(texts, ""), EMPTY, texts)
            cells[f"{name} {side}"] = pc.if_else(differs, pc.fill_null(told, NOTHING), "")
    return pa.table({name: _escape_formulas(texts) for name, texts in cells.items()})


def _read_text_column(rows: pa.Table, name: str) -> Any:
    if name not in rows.column_names:
        return pa.nulls(len(rows), pa.string())
    return rows.column(name).cast(pa.string())


def _hide_group_names(rows: pa.Table) -> Any:
    names = pc.fill_null(
        pc.coalesce(_read_text_column(rows, "group_name"), _read_text_column(rows, "group_id")), ""
    )
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    coded = pc.dictionary_encode(names)
    hidden = pa.array(
        [make_hidden_name(name) for name in coded.dictionary.to_pylist()], pa.string()
    )
    return hidden.take(coded.indices)


def _escape_formulas(texts: Any) -> Any:
    return pc.replace_substring_regex(pc.fill_null(texts, ""), FORMULA, r"\1'\2")


def _encode_csv(cells: pa.Table, *, header: bool = False) -> bytes:
    out = io.BytesIO()
    pacsv.write_csv(
        cells, out, pacsv.WriteOptions(include_header=header, quoting_style="all_valid")
    )
    return out.getvalue()
