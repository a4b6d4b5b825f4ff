"""A plan's changes as a CSV file, which spreadsheets open."""

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from directory_sync.pages.changes import (
    EMPTY,
    GROUP_COLUMNS,
    KEY_COLUMNS,
    NOTHING,
    PUBLIC_COLUMNS,
    VALUE_SIDES,
    ChangeFilter,
    find_changes,
    hide_group_names,
    keep_wanted_rows,
    read_row_groups,
)
from directory_sync.pages.labels import VALUE_LABELS

FORMULA = r"(^|[;,\t|\r\n]\s*)([=+\-@\t\r\n])"
"""Text that a spreadsheet would take for a formula, in a cell or in a part that it splits off as a
cell.
"""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Comes first in the file, so that spreadsheets read it as UTF-8."""


ROWS_AT_ONCE = 50_000


def write_csv(file: pq.ParquetFile, wanted: ChangeFilter, *, values: bool) -> Iterator[bytes]:
    """All rows that a reader asks for, as CSV, a part at a time. No cell can be a formula.

    Rows come in the order of writing; without the right to see values, in the order of subs.
    """
    # The header is made of no rows: the filters may leave none.
    header = _make_cells(file.schema_arrow.empty_table(), values=values)
    yield BYTE_ORDER_MARK + _encode_csv(header, header=True)
    for rows in (
        _read_in_file_order(file, wanted) if values else _read_in_order_of_subs(file, wanted)
    ):
        if len(rows):
            yield _encode_csv(_make_cells(rows, values=values))


def _read_in_file_order(file: pq.ParquetFile, wanted: ChangeFilter) -> Iterator[pa.Table]:
    for rows in read_row_groups(file, [*PUBLIC_COLUMNS, *KEY_COLUMNS, *VALUE_SIDES]):
        yield keep_wanted_rows(rows, wanted, values=True)


def _read_in_order_of_subs(file: pq.ParquetFile, wanted: ChangeFilter) -> Iterator[pa.Table]:
    # The file's own order is by logins, which these readers may not learn (docs/pages.md).
    numbers = find_changes(file, wanted.model_copy(update={"sort": ""}), values=False)
    rows = file.read(columns=[*PUBLIC_COLUMNS, *GROUP_COLUMNS])
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        yield rows.take(pa.array(numbers[start : start + ROWS_AT_ONCE]))


def _make_cells(rows: pa.Table, *, values: bool) -> pa.Table:
    """The texts of a CSV file's columns."""
    if values:
        group = pc.coalesce(rows["group_name"], rows["group_id"])
        user = pc.coalesce(rows["user_id"], rows["after_id"], rows["before_id"])
        who = pc.if_else(pc.equal(rows["entity"], "group"), group, user)
    else:
        group, who = hide_group_names(rows), pa.nulls(len(rows), pa.string())
    cells = {
        "entity": rows["entity"],
        "action": rows["action"],
        "who": who,
        "sub": rows["sub"],
        "group": group,
        "reason": rows["reason"],
        "held by": rows["hold"],
    }
    for column, label in VALUE_LABELS.items() if values else ():
        before, after = (rows[f"{side}_{column}"].cast(pa.string()) for side in ("before", "after"))
        # not_equal is null where either side is, so nulls are compared apart.
        only_one_is_null = pc.xor(before.is_null(), after.is_null())
        differs = pc.coalesce(pc.not_equal(before, after), only_one_is_null)
        for side, texts in (("before", before), ("after", after)):
            shown = pc.if_else(pc.equal(texts, ""), EMPTY, texts).fill_null(NOTHING)
            cells[f"{label} {side}"] = pc.if_else(differs, shown, "")
    return pa.table({name: _escape_formulas(texts) for name, texts in cells.items()})


def _escape_formulas(texts: Any) -> Any:
    return pc.replace_substring_regex(pc.fill_null(texts, ""), FORMULA, r"\1'\2")


def _encode_csv(cells: pa.Table, *, header: bool = False) -> bytes:
    out = io.BytesIO()
    pacsv.write_csv(
        cells, out, pacsv.WriteOptions(include_header=header, quoting_style="all_valid")
    )
    return out.getvalue()
