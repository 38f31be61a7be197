"""Bootstrap intervals: against SciPy, against the truth, and within memory."""

import tracemalloc

import numpy as np
import pytest
import scipy.stats

from recsys.evaluation.intervals import bootstrap_means


def test_bounds_agree_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(1).exponential(size=400)
    ours = bootstrap_means(values[:, None], confidence=0.9, resamples=4000, seed=3)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    # The standard error of the mean is about 1 / sqrt(400) = 0.05; two bootstraps differ by a small part of it.
    assert ours.low[0] == pytest.approx(theirs.low, abs=0.006)
    assert ours.high[0] == pytest.approx(theirs.high, abs=0.006)


def test_about_nine_of_ten_ninety_percent_intervals_hold_the_true_mean():
    # Given 300 worlds of 60 cases whose true mean is 1; the bootstrap runs a little short on skewed values.
    worlds = np.random.default_rng(0).exponential(size=(60, 300))
    held = []
    for seed, start in enumerate(range(0, 300, 50)):
        interval = bootstrap_means(worlds[:, start : start + 50], confidence=0.9, resamples=500, seed=seed)
        held.append((interval.low <= 1) & (interval.high >= 1))
    assert 0.82 <= np.mean(held) <= 0.95


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).random((30, 2))
    first, again, other = (bootstrap_means(values, confidence=0.95, resamples=200, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.low, again.low)
    assert not np.array_equal(first.low, other.low)


def test_equal_columns_get_equal_bounds_because_they_share_the_draws():
    values = np.random.default_rng(0).random((50, 1))
    interval = bootstrap_means(np.hstack([values, values]), confidence=0.95, resamples=300, seed=0)
    assert interval.low[0] == interval.low[1]
    assert interval.high[0] == interval.high[1]


def test_one_case_cannot_be_drawn_otherwise():
    interval = bootstrap_means(np.array([[0.25]]), confidence=0.95, resamples=100, seed=0)
    assert (interval.low[0], interval.high[0]) == (0.25, 0.25)


def test_draws_of_many_cases_are_never_all_in_memory_at_once():
    # 300,000 cases x 100 resamples x 8 bytes = 240 MB of draws alone, were they held together.
    values = np.random.default_rng(0).random((300_000, 1))
    tracemalloc.start()
    interval = bootstrap_means(values, confidence=0.95, resamples=100, seed=0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 200e6
    # The standard error is sqrt(1 / 12 / 300,000) = 0.00053; the interval is about four of them wide.
    assert interval.high[0] - interval.low[0] == pytest.approx(4 * 0.00053, rel=0.3)
