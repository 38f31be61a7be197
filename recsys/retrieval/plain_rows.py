"""Rows of a table as plain Python values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from recsys.spelling import cast, flat


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table as people read them, one dictionary each; for features there is `spelling.as_python`.

    Times are ISO 8601 texts: Python's own times lack nanoseconds and end with the year 9999. Those with a zone are UTC.
    Floats of single and half precision have the same shortest spelling as in their column.
    """
    return pa.table([_plain(column) for column in table.columns], table.column_names).to_pylist()


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
        return _texts(column)
    if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):
        return cast(flat(column), pa.float64())
    return column


def _texts(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type
    if not pa.types.is_timestamp(kind):
        return times.cast(pa.string())
    if kind.tz is not None:
        times = times.cast(pa.timestamp(kind.unit, "UTC"))
    texts = pc.replace_substring_regex(times.cast(pa.string()), r"^(\S+) (\S+)$", r"\1T\2")
    # Without zeros at the end of the fraction, which all units but seconds have.
    return texts if kind.unit == "s" else pc.replace_substring_regex(texts, r"\.?0+(Z?)$", r"\1")
