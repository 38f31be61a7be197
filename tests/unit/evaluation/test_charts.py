"""Charts of the report page."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recsys.evaluation.charts import Interval, dot_plot

NUMBER = re.compile(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle">(-?[\d,.]+)</text>')


@pytest.mark.parametrize(
    ("high", "expected"),
    [
        (0.1, ["0.00", "0.02", "0.04", "0.06", "0.08", "0.10"]),
        (0.12, ["0.000", "0.025", "0.050", "0.075", "0.100", "0.125"]),
        (0.21, ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25"]),
        (900.0, ["0", "200", "400", "600", "800", "1,000"]),
    ],
)
def test_an_axis_has_as_many_decimals_as_its_ticks_need(high, expected):
    plot = dot_plot("t", "d", "u", [Interval("a", high / 2, 0.0, high)])
    assert [shown for _, shown in NUMBER.findall(plot)] == expected


@given(high=st.floats(1e-6, 1e6))
def test_ticks_at_equal_distances_show_numbers_at_equal_distances(high):
    found = NUMBER.findall(dot_plot("t", "d", "u", [Interval("a", 0.0, 0.0, high)]))
    assume(len(found) > 2)
    values = [float(shown.replace(",", "")) for _, shown in found]
    assert [value / values[-1] * (len(values) - 1) for value in values] == pytest.approx(range(len(values)))
