"""The sampling probabilities of the logQ correction."""

from __future__ import annotations

import numpy as np

from recsys.data.frequency import CountedFrequency, StreamingFrequency
from recsys.stack import tf


def streamed(frequency: StreamingFrequency, p: np.ndarray, steps: int, batch: int) -> np.ndarray:
    random = np.random.default_rng(0)
    update = tf.function(frequency.update)
    for step in range(steps):
        update(tf.constant(random.choice(len(p), batch, p=p), tf.int32), tf.constant(step))
    return np.exp(frequency.log_probability(tf.range(len(p))).numpy())


def test_counts_give_their_shares_even_far_below_a_millionth():
    counts = np.array([3_000_000_000, 1_000_000_000, 4], np.int64)
    log_p = CountedFrequency(counts).log_probability(tf.constant([0, 1, 2])).numpy()
    # 4 of 4,000,000,004 is 1e-9
    np.testing.assert_allclose(np.exp(log_p), [0.75, 0.25, 1e-9], rtol=1e-4)


def test_an_item_without_interactions_has_a_finite_logarithm():
    log_p = CountedFrequency(np.array([10, 0])).log_probability(tf.constant([1])).numpy()
    assert np.isfinite(log_p).all()
    assert log_p[0] < np.log(1 / 10)


def test_the_estimate_is_the_gap_between_appearances():
    frequency = StreamingFrequency(2, rate=0.5, hashes=1, slots=0, start_gap=100.0)
    for step in (0, 4):
        frequency.update(tf.constant([0, 0]), tf.constant(step))
    # first sight leaves B = 100; then B = 0.5 * 100 + 0.5 * (4 - 0) = 52
    np.testing.assert_allclose(frequency.log_probability(tf.constant([0])).numpy(), -np.log(52), rtol=1e-6)
    # item 1 never appeared: B is still 100
    np.testing.assert_allclose(frequency.log_probability(tf.constant([1])).numpy(), -np.log(100), rtol=1e-6)


def test_the_stream_finds_the_probability_to_appear_in_a_batch():
    p = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    frequency = StreamingFrequency(5, rate=0.02, hashes=1, slots=0, start_gap=20.0)
    estimate = streamed(frequency, p, steps=1500, batch=4)
    # an item is in a batch of 4 with probability 1 - (1 - p)^4
    np.testing.assert_allclose(estimate, 1 - (1 - p) ** 4, rtol=0.35)


def test_more_hashes_repair_collisions():
    p = np.full(60, 1 / 60)
    expected = 1 - (1 - 1 / 60) ** 8
    errors = {
        hashes: np.abs(
            streamed(StreamingFrequency(60, rate=0.02, hashes=hashes, slots=59, start_gap=8.0), p, 800, 8) / expected
            - 1
        ).mean()
        for hashes in (1, 4)
    }
    # 60 items in 59 slots collide; the largest gap over four hashes is right far more often
    assert errors[4] < errors[1]
