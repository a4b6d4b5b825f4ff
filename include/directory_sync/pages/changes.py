"""A plan's changes as a table that is searched, filtered, sorted and paged without reading what isn't shown."""

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

from include.directory_sync.pages.published import read_groups
from include.directory_sync.pages.rights import hidden_group
from include.directory_sync.pages.wording import VALUE_LABELS
from include.directory_sync.plan.changes import ENTITIES, VALUES
from include.directory_sync.vocabulary import describe_cause

ROWS_ON_A_PAGE = 50

OPEN = ["entity", "action", "sub", "reason", "hold"]
"""Columns for whoever may read the DAG's runs."""

KEYS = ["user_id", "group_id", "group_name"]

SIDES = [f"{side}_{column}" for column in VALUES for side in ("before", "after")]

SEARCHED = [*KEYS, "sub", "before_id", "before_name", "after_name"]
SEARCHED += [f"{side}_{column}" for side in ("before", "after") for column in ("firstName", "lastName", "email")]

SORTS: dict[str, list[str]] = {
    "": [],
    "entity": ["entity", "action"],
    "action": ["action", "entity"],
    "who": ["user_id", "sub", "group_id"],
    "reason": ["hold", "reason"],
}
"""What a sort orders by; none: the order of writing."""

HIDDEN = "hidden"
"""A column of what stands for groups' names (rights.hidden_group)."""

UNNAMED_SORTS = SORTS | {"who": []}

SORTING = threading.Lock()
"""Sorting takes memory by the plan's rows: one reader at a time."""


class Wanted(BaseModel):
    """What a reader asks for, as the page's form sends it."""

    model_config = ConfigDict(frozen=True)

    text: Annotated[str, Field(max_length=200)] = ""
    """Somewhere in a login, name, email, sub or group; letters' case doesn't matter."""
    entity: str = ""
    action: str = ""
    held: bool = False
    sort: Literal["", "entity", "action", "who", "reason"] = ""
    descending: bool = False
    page: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="before")
    @classmethod
    def _by_heading(cls, sent: Any) -> Any:
        """`sort_by` is a heading that was pressed, such as `who:descending`."""
        if isinstance(sent, dict) and sent.get("sort_by"):
            sort, _, direction = str(sent["sort_by"]).partition(":")
            return {**sent, "sort": sort, "descending": direction == "descending"}
        return sent


@dataclass(frozen=True)
class Change:
    """A row of the table. Without the right to see values, `differences` is empty and groups have a hash's name."""

    entity: str
    action: str
    who: str
    sub: str
    group: str
    differences: tuple[tuple[str, str, str], ...]
    """Column, before, after; an empty text is nothing."""
    reason: str
    hold: str
    """A cause, or empty for what is safe."""

    @property
    def meaning(self) -> str:
        """What the cause means."""
        return describe_cause(self.hold) if self.hold else ""


@dataclass(frozen=True)
class Page:
    """Some rows of those found."""

    rows: tuple[Change, ...]
    found: int
    in_all: int
    number: int
    pages: int
    actions: tuple[str, ...]
    """All that the plan has."""
    entities: tuple[str, ...]


def page(file: pq.ParquetFile, wanted: Wanted, *, values: bool) -> Page:
    """The page that a reader asks for, or the last one where there are fewer; `values`: whether they may see values."""
    actions, entities = set[str](), set[str]()
    for _, rows in read_groups(file, ["entity", "action"]):
        actions |= set(pc.unique(rows.column("action")).to_pylist())
        entities |= set(pc.unique(rows.column("entity")).to_pylist())
    at = find(file, wanted, values=values)
    pages = max(-(-len(at) // ROWS_ON_A_PAGE), 1)
    number = min(max(wanted.page, 1), pages)
    shown = at[(number - 1) * ROWS_ON_A_PAGE : number * ROWS_ON_A_PAGE]
    return Page(
        rows=tuple(changes_at(file, shown, values=values)),
        found=len(at),
        in_all=file.metadata.num_rows,
        number=number,
        pages=pages,
        actions=tuple(sorted(actions)),
        entities=tuple(entity for entity in ENTITIES if entity in entities),
    )


def find(file: pq.ParquetFile, wanted: Wanted, *, values: bool) -> "np.ndarray[Any, Any]":
    """The numbers of the rows that a reader asks for, in their order; a part of the file at a time.

    Without the right to see values the order is never that of the file: it goes by logins.
    """
    order = SORTS[wanted.sort] if values else [*UNNAMED_SORTS[wanted.sort], "sub", HIDDEN]
    searched = _searched(wanted, values=values)
    read = {"entity", "action", "hold", *searched, *order, *(KEYS if HIDDEN in order else ())}
    found: list[np.ndarray[Any, Any]] = [np.array([], dtype="int64")]
    ordering: list[pa.Table] = []
    with SORTING if order else nullcontext():
        for first, rows in read_groups(file, sorted(read)):
            at = np.flatnonzero(_matches(rows, wanted, searched))
            found.append(at + first)
            if order:
                ordering.append(_ordering(rows.take(pa.array(at)), order))
        numbers = np.concatenate(found)
        if order and len(numbers):
            keys = [(name, "descending" if wanted.descending else "ascending") for name in order]
            numbers = numbers[pc.sort_indices(pa.concat_tables(ordering), sort_keys=keys).to_numpy()]
    return numbers


def _ordering(rows: pa.Table, order: list[str]) -> pa.Table:
    if HIDDEN in order:
        rows = rows.append_column(HIDDEN, pa.chunked_array([_hidden_groups(rows)]))
    return rows.select(order)


def _searched(wanted: Wanted, *, values: bool) -> list[str]:
    return [name for name in SEARCHED if values or name == "sub"] if wanted.text else []


def _matches(rows: pa.Table, wanted: Wanted, searched: list[str]) -> "np.ndarray[Any, Any]":
    found = np.ones(len(rows), dtype=bool)
    for column, value in (("entity", wanted.entity), ("action", wanted.action)):
        if value:
            found &= _plain(pc.equal(rows.column(column), value))
    if wanted.held:
        found &= _plain(pc.is_valid(rows.column("hold")))
    if wanted.text:
        hit = np.zeros(len(rows), dtype=bool)
        for column in searched:
            texts = rows.column(column)
            hit |= _plain(pc.match_substring(texts, wanted.text.strip(), ignore_case=True))
        found &= hit
    return found


def _plain(flags: pa.ChunkedArray) -> "np.ndarray[Any, Any]":
    plain: np.ndarray[Any, Any] = pc.fill_null(flags, False).to_numpy()
    return plain


def changes_at(file: pq.ParquetFile, at: "np.ndarray[Any, Any]", *, values: bool) -> list[Change]:
    """The changes of these rows, in this order."""
    ends = np.cumsum([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    groups = np.searchsorted(ends, at, side="right")
    columns = [*OPEN, *KEYS, *(SIDES if values else [])]
    by_row: dict[int, dict[str, Any]] = {}
    needed = set(groups.tolist())
    for group, (first, rows) in zip(sorted(needed), read_groups(file, columns, needed.__contains__), strict=True):
        mine = at[groups == group]
        by_row |= dict(zip(mine.tolist(), rows.take(pa.array(mine - first)).to_pylist(), strict=True))
    return [_change(by_row[number], values=values) for number in at.tolist()]


def _change(row: dict[str, Any], *, values: bool) -> Change:
    group = row["group_name"] or row["group_id"] or ""
    return Change(
        entity=row["entity"],
        action=row["action"],
        who=_who(row, group) if values else "",
        sub=row["sub"] or "",
        group=group if values else hidden_group(group),
        differences=tuple(_differences(row)) if values else (),
        reason=row["reason"] or "",
        hold=row["hold"] or "",
    )


def _who(row: dict[str, Any], group: str) -> str:
    return group if row["entity"] == "group" else str(row["user_id"] or row["after_id"] or row["before_id"] or "")


def _differences(row: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for column in VALUES:
        before, after = row[f"before_{column}"], row[f"after_{column}"]
        if before != after:
            yield VALUE_LABELS[column], _text(before), _text(after)


NOTHING, EMPTY = "—", "(empty)"


def _text(value: Any) -> str:
    if value is None:
        return NOTHING
    return str(value) if value != "" else EMPTY


FORMULA = r"(^|[;,\t|\r\n]\s*)([=+\-@\t\r\n])"
"""What makes a spreadsheet take a cell, or what it splits off as one, for a formula."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""So that spreadsheets read UTF-8."""


def as_csv(file: pq.ParquetFile, wanted: Wanted, *, values: bool) -> Iterator[bytes]:
    """All rows that a reader asks for as CSV, a part at a time; cells can't be formulas.

    In the order of writing; without the right to see values by sub.
    """
    yield BYTE_ORDER_MARK + _as_bytes(_cells(_no_rows(file), values=values), header=True)
    if not values:
        yield from _csv_by_sub(file, wanted)
        return
    searched = _searched(wanted, values=True)
    for _, rows in read_groups(file, [*OPEN, *KEYS, *SIDES]):
        at = np.flatnonzero(_matches(rows, wanted, searched))
        if len(at):
            yield _as_bytes(_cells(rows.take(pa.array(at)), values=True))


def _csv_by_sub(file: pq.ParquetFile, wanted: Wanted) -> Iterator[bytes]:
    at = find(file, wanted.model_copy(update={"sort": ""}), values=False)
    rows = pa.concat_tables([rows for _, rows in read_groups(file, [*OPEN, *KEYS])] or [_no_rows(file)])
    for start in range(0, len(at), ROWS_AT_ONCE):
        yield _as_bytes(_cells(rows.take(pa.array(at[start : start + ROWS_AT_ONCE])), values=False))


ROWS_AT_ONCE = 50_000


def _no_rows(file: pq.ParquetFile) -> pa.Table:
    return file.schema_arrow.empty_table()


def _cells(rows: pa.Table, *, values: bool) -> pa.Table:
    """The texts of a CSV file's columns."""
    columns = {name: _column(rows, name) for name in ("entity", "action", "sub", "reason", "hold")}
    group = pc.coalesce(_column(rows, "group_name"), _column(rows, "group_id"))
    is_group = pc.equal(columns["entity"], "group")
    if values:
        user = pc.coalesce(*(_column(rows, name) for name in ("user_id", "after_id", "before_id")))
        who = pc.if_else(is_group, group, user)
    else:
        group, who = _hidden_groups(rows), pa.nulls(len(rows), pa.string())
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
        before, after = _column(rows, f"before_{column}"), _column(rows, f"after_{column}")
        same = pc.or_kleene(pc.equal(before, after), pc.and_(pc.is_null(before), pc.is_null(after)))
        differs = pc.invert(pc.fill_null(same, False))
        for side, texts in (("before", before), ("after", after)):
            told = pc.if_else(pc.equal(texts, ""), EMPTY, texts)
            cells[f"{name} {side}"] = pc.if_else(differs, pc.fill_null(told, NOTHING), "")
    return pa.table({name: _harmless(texts) for name, texts in cells.items()})


def _column(rows: pa.Table, name: str) -> Any:
    if name not in rows.column_names:
        return pa.nulls(len(rows), pa.string())
    return rows.column(name).cast(pa.string())


def _hidden_groups(rows: pa.Table) -> Any:
    names = pc.fill_null(pc.coalesce(_column(rows, "group_name"), _column(rows, "group_id")), "")
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    coded = pc.dictionary_encode(names)
    hidden = pa.array([hidden_group(name) for name in coded.dictionary.to_pylist()], pa.string())
    return hidden.take(coded.indices)


def _harmless(texts: Any) -> Any:
    return pc.replace_substring_regex(pc.fill_null(texts, ""), FORMULA, r"\1'\2")


def _as_bytes(cells: pa.Table, *, header: bool = False) -> bytes:
    out = io.BytesIO()
    pacsv.write_csv(cells, out, pacsv.WriteOptions(include_header=header, quoting_style="all_valid"))
    return out.getvalue()
