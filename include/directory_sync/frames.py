"""Frames in Arrow types: what pandas loses between two steps is put back here."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

if "jemalloc" in pa.supported_memory_backends():
    # jemalloc gives the memory of released frames back to the system. The default pool keeps it.
    pa.set_memory_pool(pa.jemalloc_memory_pool())

TEXT_TYPE = pd.ArrowDtype(pa.string())

NUMBER_TYPE = pd.ArrowDtype(pa.int64())
FLAG_TYPE = pd.ArrowDtype(pa.bool_())
TIME_TYPE = pd.ArrowDtype(pa.timestamp("us"))
"""Without a zone, in UTC, as MySQL's DATETIME(6)."""

BEYOND_BMP_PATTERN = r"[^\x{0000}-\x{FFFF}]"
"""Characters that utf8mb3 doesn't hold."""


def make_frame(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame that keeps its types."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def make_empty_frame(schema: pa.Schema) -> pd.DataFrame:
    """A frame without rows."""
    # A copy that costs nothing: pandas copies a column only once somebody writes to it.
    return _make_shared_empty_frame(schema).copy(deep=False)


@cache
def _make_shared_empty_frame(schema: pa.Schema) -> pd.DataFrame:
    return make_frame(schema.empty_table())


def to_arrow_types(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """A frame in a schema's columns and types; columns that it lacks are null."""
    known = pa.schema([field for field in schema if field.name in frame.columns])
    found = pa.Table.from_pandas(frame[known.names], schema=known, preserve_index=False)
    columns = [
        found.column(field.name) if field.name in known.names else pa.nulls(len(frame), field.type)
        for field in schema
    ]
    return make_frame(pa.table(columns, schema=schema))


def conform_to_schema(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """The frame in a stage's columns and types, at the door of that stage.

    Raises KeyError where a column of the schema is missing: a stage never makes up a column.
    """
    known = [field.name for field in schema]
    changes = {
        field.name: pd.ArrowDtype(field.type)
        for field in schema
        if frame[field.name].dtype != pd.ArrowDtype(field.type)
    }
    return frame[known].astype(changes) if changes else frame[known]


def make_frame_of_rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """A small frame from rows."""
    return make_frame(pa.Table.from_pylist(rows, schema=schema))


def look_up(
    values: "pd.Series[Any]", table: pd.DataFrame, key: str, result: str
) -> "pd.Series[Any]":
    """For each text, the result in the table's first row with that key, or null."""
    # Series.map would lose the Arrow type.
    return take_values(table[result], find_positions(values, table[key]), values.index)


def take_values(
    values: "pd.Series[Any]", at: "np.ndarray[Any, Any]", index: pd.Index | None = None
) -> "pd.Series[Any]":
    """The values at the given positions; null at -1."""
    found = pa.array(values).take(pa.array(at, mask=at < 0))
    return pd.Series(found, index=index, dtype=pd.ArrowDtype(found.type))


def take_rows(frame: pd.DataFrame, at: "np.ndarray[Any, Any]", index: pd.Index) -> pd.DataFrame:
    """The rows at the given positions; nulls at -1."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return make_frame(table.take(pa.array(at, mask=at < 0))).set_axis(index)


def find_positions(values: "pd.Series[str]", known: "pd.Series[str]") -> "np.ndarray[Any, Any]":
    """Each value's first position among the known values; -1 where it is unknown or null."""
    found = pc.index_in(
        pa.array(values, pa.string()), value_set=pa.array(known, pa.string()), skip_nulls=True
    )
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    at: np.ndarray[Any, Any] = found.fill_null(-1).to_numpy(zero_copy_only=False)
    return at


def number_pairs(
    pairs: pd.DataFrame, columns: Sequence[str], firsts: "pd.Series[str]", seconds: "pd.Series[str]"
) -> "np.ndarray[Any, Any]":
    """A number for each pair of texts: the position of the first text times len(seconds), plus the
    position of the second; -1 where either is unknown.
    """
    # Millions of numbers are compared and sorted far faster than texts.
    first, second = (
        find_positions(pairs[columns[0]], firsts),
        find_positions(pairs[columns[1]], seconds),
    )
    # Positions are int32, which a million users times 10,000 groups would overflow.
    return np.where((first >= 0) & (second >= 0), first.astype("int64") * len(seconds) + second, -1)


def sort_table(table: pa.Table, keys: Sequence[str]) -> pa.Table:
    """A table in the order of columns, nulls last."""
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in keys])
    # A copy of what a first load of a million users changes would take more than a gigabyte.
    if np.array_equal(order, np.arange(len(table))):
        return table
    return table.take(order)


def is_true(flags: "pd.Series[bool]") -> "pd.Series[bool]":
    """The flags as plain booleans, with null as false; the same object where they are that already.

    Needed before `~`, which keeps nulls, and `mask`, to which a null is true. Filters, `where` and
    sums take nulls for false by themselves.
    """
    return flags if flags.dtype == bool else flags.fillna(False).astype(bool)


def make_null_texts(index: pd.Index) -> "pd.Series[str]":
    """A column of nulls."""
    return pd.Series(None, index=index, dtype=TEXT_TYPE)
