"""What happened between two readings of a server's metrics."""

from __future__ import annotations

import math

import pytest

from serving.telemetry.reading import Change, Reading


def reading(at_s: float, buckets: dict[str, float], total: float = 0.0, **more: float) -> Reading:
    values = {"h_bucket": {frozenset({("le", bound), ("rpc", "A")}): count for bound, count in buckets.items()}}
    values["h_count"] = {frozenset({("rpc", "A")}): buckets["+Inf"]}
    values["h_sum"] = {frozenset({("rpc", "A")}): total}
    return Reading(at_s, values)


BEFORE = reading(10.0, {"0.1": 5, "0.2": 5, "+Inf": 5}, 0.3)
AFTER = reading(14.0, {"0.1": 5, "0.2": 15, "+Inf": 25}, 6.3)


def test_a_rate_is_growth_over_time():
    # 20 more in 4 s
    assert Change(BEFORE, AFTER).per_s("h_count", rpc="A") == 5
    assert Change(BEFORE, AFTER).per_s("h_count", rpc="B") == 0


def test_a_mean_is_that_of_the_new_observations():
    # (6.3 - 0.3) / (25 - 5)
    assert Change(BEFORE, AFTER).mean("h") == pytest.approx(0.3)
    assert math.isnan(Change(AFTER, AFTER).mean("h"))


def test_a_quantile_is_interpolated_within_its_bucket():
    # new: none up to 0.1, ten up to 0.2, ten above. The fifth of twenty is half way from 0.1 to 0.2.
    change = Change(BEFORE, AFTER)
    assert change.quantile("h", 0.25, rpc="A") == pytest.approx(0.15)
    assert change.quantile("h", 0.5, rpc="A") == pytest.approx(0.2)
    assert change.quantile("h", 0.99, rpc="A") == pytest.approx(0.2)
    assert math.isnan(change.quantile("h", 0.5, rpc="B"))


def test_a_server_that_began_anew_counts_from_nothing():
    assert Change(AFTER, BEFORE).count("h_count") == 5
