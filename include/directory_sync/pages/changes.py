"""A plan's changes as a table that is searched, filtered, sorted and paged without reading what isn't shown."""

import csv
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from include.directory_sync.pages.published import read_groups
from include.directory_sync.plan.changes import ENTITIES, VALUES
from include.directory_sync.wording import COLUMNS, MEANINGS

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
        return MEANINGS.get(self.hold, self.hold)


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
    """The page that a reader asks for, or the last one where there are fewer; `values`: whether he may see them."""
    kinds = pa.concat_tables([rows for _, rows in read_groups(file, ["entity", "action"])] or [_none()])
    at = find(file, wanted, values=values)
    pages = max(-(-len(at) // ROWS_ON_A_PAGE), 1)
    number = min(max(wanted.page, 1), pages)
    shown = at[(number - 1) * ROWS_ON_A_PAGE : number * ROWS_ON_A_PAGE]
    actions, entities = (set(pc.unique(kinds.column(name)).to_pylist()) for name in ("action", "entity"))
    return Page(
        rows=tuple(changes_at(file, shown, values=values)),
        found=len(at),
        in_all=len(kinds),
        number=number,
        pages=pages,
        actions=tuple(sorted(actions)),
        entities=tuple(entity for entity in ENTITIES if entity in entities),
    )


def find(file: pq.ParquetFile, wanted: Wanted, *, values: bool) -> "np.ndarray[Any, Any]":
    """The numbers of the rows that a reader asks for, in his order; a part of the file at a time."""
    order = ["sub"] if wanted.sort == "who" and not values else SORTS[wanted.sort]
    searched = [name for name in SEARCHED if values or name == "sub"] if wanted.text else []
    columns = list(dict.fromkeys(["entity", "action", "hold", *searched, *order]))
    found: list[np.ndarray[Any, Any]] = [np.array([], dtype="int64")]
    ordering: list[pa.Table] = []
    for first, rows in read_groups(file, columns):
        at = np.flatnonzero(_matches(rows, wanted, searched))
        found.append(at + first)
        ordering.append(rows.select(order).take(pa.array(at)))
    at = np.concatenate(found)
    if order and len(at):
        direction = "descending" if wanted.descending else "ascending"
        keys = [(name, direction) for name in order]
        at = at[pc.sort_indices(pa.concat_tables(ordering), sort_keys=keys).to_numpy()]
    return at


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


def hidden_group(name: str) -> str:
    """What stands for a group's name where it isn't to be seen, the same for the same group."""
    return f"group {hashlib.sha256(name.encode()).hexdigest()[:8]}" if name else ""


def _who(row: dict[str, Any], group: str) -> str:
    return group if row["entity"] == "group" else str(row["user_id"] or row["after_id"] or row["before_id"] or "")


def _differences(row: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for column in VALUES:
        before, after = row[f"before_{column}"], row[f"after_{column}"]
        if before != after:
            yield COLUMNS[column], _text(before), _text(after)


def _text(value: Any) -> str:
    if value is None:
        return "—"
    return str(value) if value != "" else "(empty)"


CSV_COLUMNS = ["entity", "action", "who", "sub", "group", "reason", "held by"]
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What makes a spreadsheet take a cell for a formula."""

ROWS_AT_ONCE = 5_000


def as_csv(file: pq.ParquetFile, wanted: Wanted, *, values: bool) -> Iterator[str]:
    """All rows that a reader asks for as CSV, a part at a time; cells can't be formulas."""
    yield "\ufeff" + _line([*CSV_COLUMNS, *(f"{name} {side}" for name in COLUMNS.values() for side in _sides(values))])
    at = find(file, wanted, values=values)
    for start in range(0, len(at), ROWS_AT_ONCE):
        rows = changes_at(file, at[start : start + ROWS_AT_ONCE], values=values)
        yield "".join(_line(_cells(row, values=values)) for row in rows)


def _sides(values: bool) -> tuple[str, ...]:
    return ("before", "after") if values else ()


def _cells(row: Change, *, values: bool) -> list[str]:
    differences = {name: (before, after) for name, before, after in row.differences}
    sides = [cell for name in COLUMNS.values() for cell in differences.get(name, ("", ""))] if values else []
    return [row.entity, row.action, row.who, row.sub, row.group, row.reason, row.hold, *sides]


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in cells])
    return out.getvalue()


def _none() -> pa.Table:
    return pa.table({"entity": pa.array([], pa.string()), "action": pa.array([], pa.string())})
