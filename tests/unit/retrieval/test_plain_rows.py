"""Display columns as plain Python values, without loss."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.retrieval.plain_rows import plain_rows

WHOLE_NS = 1_704_067_200 * 10**9
NS = WHOLE_NS + 123_456_789
"""The beginning of 2024, and a fraction of a second later."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            pa.array([NS, NS // 10**9 * 10**9, None], pa.timestamp("ns")),
            ["2024-01-01T00:00:00.123456789", "2024-01-01T00:00:00", None],
        ),
        (pa.array([1500, 0], pa.timestamp("ms", "Europe/Berlin")), ["1970-01-01T00:00:01.5Z", "1970-01-01T00:00:00Z"]),
        (pa.array([10], pa.timestamp("s")), ["1970-01-01T00:00:10"]),
        (pa.array([1, None], pa.date32()), ["1970-01-02", None]),
        (pa.array([86_400_000], pa.date64()), ["1970-01-02"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([NS], pa.timestamp("ns")).dictionary_encode(), ["2024-01-01T00:00:00.123456789"]),
        (pa.array([0.1, None, np.inf, 123456792.0], pa.float32()), [0.1, None, np.inf, 123456792.0]),
        (pa.array([0.1, None], pa.float16()), [0.1, None]),
        (pa.array([0.1, 2.0], pa.float64()), [0.1, 2.0]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([["a"], None]), [["a"], None]),
    ],
    ids=lambda values: str(values.type) if isinstance(values, pa.Array) else "",
)
def test_times_are_texts_to_the_nanosecond_and_floats_are_spelled_as_their_column_has_them(values, expected):
    assert [row["column"] for row in plain_rows(pa.table({"column": values}))] == expected


def test_a_time_beyond_the_years_of_python_is_some_text():
    (row,) = plain_rows(pa.table({"column": pa.array([2**60], pa.timestamp("us"))}))
    assert str(2**60) in row["column"]
