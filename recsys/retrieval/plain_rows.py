"""Rows of a table as plain Python values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def plain_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return the rows of a table, one dictionary each.

    Times are ISO 8601 texts: Python's own times lack nanoseconds and end with the year 9999. Those with a zone are UTC.
    """
    for place, name in enumerate(table.column_names):
        column = table[name]
        if pa.types.is_temporal(column.type) and not pa.types.is_duration(column.type):
            table = table.set_column(place, name, _texts(column))
    return table.to_pylist()


def _texts(times: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = times.type
    if not pa.types.is_timestamp(kind):
        return times.cast(pa.string())
    if kind.tz is not None:
        times = times.cast(pa.timestamp(kind.unit, "UTC"))
    texts = pc.replace_substring_regex(times.cast(pa.string()), r"^(\S+) (\S+)$", r"\1T\2")
    # Without zeros at the end of the fraction, which all units but seconds have.
    return texts if kind.unit == "s" else pc.replace_substring_regex(texts, r"\.?0+(Z?)$", r"\1")
