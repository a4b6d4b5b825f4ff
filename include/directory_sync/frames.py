"""Frames in Arrow types: what pandas loses between two steps is put back here."""

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

TEXT = pd.ArrowDtype(pa.string())

BEYOND_BMP = r"[^\x{0000}-\x{FFFF}]"
"""Characters that utf8mb3 doesn't hold."""


def from_table(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame that keeps its types."""
    frame: pd.DataFrame = table.to_pandas(types_mapper=pd.ArrowDtype)
    return frame


def empty(schema: pa.Schema) -> pd.DataFrame:
    """A frame without rows."""
    return from_table(schema.empty_table())


def arrow(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """A frame in a schema's columns and types; columns that it lacks are null."""
    return from_table(pa.Table.from_pandas(frame.reindex(columns=schema.names), schema=schema, preserve_index=False))


def from_rows(rows: list[dict[str, Any]], schema: pa.Schema) -> pd.DataFrame:
    """A small frame from rows."""
    return from_table(pa.Table.from_pylist(rows, schema=schema))


def look_up(values: "pd.Series[Any]", table: pd.DataFrame, key: str, result: str) -> "pd.Series[Any]":
    """For each value the table's result at that key, or null: like Series.map, which forgets the type."""
    known = table[[key, result]].dropna(subset=[key]).drop_duplicates(key)
    found = values.rename("value").to_frame().merge(known, left_on="value", right_on=key, how="left")
    return found[result].set_axis(values.index)


def matches(texts: "pd.Series[str]", pattern: str) -> "pd.Series[bool]":
    """Whether a regular expression (RE2) is found in each text; null has none."""
    found = pc.match_substring_regex(pa.array(texts, pa.string()), pattern)
    return pd.Series(pc.fill_null(found, False).to_numpy(zero_copy_only=False), index=texts.index, dtype=bool)


def yes(flags: "pd.Series[bool]") -> "pd.Series[bool]":
    """Plain truth of flags that may be null: null is no."""
    return flags.fillna(False).astype(bool)


def no_text(index: pd.Index) -> "pd.Series[str]":
    """A column of nulls."""
    return pd.Series(None, index=index, dtype=TEXT)
