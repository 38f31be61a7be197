"""Maps from what items are found by to what having met them means."""

from __future__ import annotations

import numpy as np

from recsys.export.query_side import QuerySide, fit_map

RANDOM = np.random.default_rng(5)
INPUTS = RANDOM.normal(size=(400, 6)).astype(np.float32)
NOTHING, SAME = np.zeros((6, 6), np.float32), np.eye(6, dtype=np.float32)


def test_a_linear_map_is_learned_whatever_it_starts_from():
    true = RANDOM.normal(size=(6, 6)).astype(np.float32)
    for start in (NOTHING, SAME):
        np.testing.assert_allclose(fit_map(INPUTS, INPUTS @ true, start, 0), true, atol=1e-3)


def test_a_space_that_both_sides_share_keeps_the_identity_exactly():
    np.testing.assert_array_equal(fit_map(INPUTS, INPUTS, SAME, 0), SAME)


def test_where_nothing_can_be_learned_the_map_stays_what_it_was():
    noise = RANDOM.normal(size=(60, 6)).astype(np.float32)
    learned = fit_map(INPUTS[:60], noise, NOTHING, 0)
    assert np.linalg.norm(INPUTS[:60] @ learned) < 0.5 * np.linalg.norm(noise)
    np.testing.assert_array_equal(fit_map(INPUTS[:1], noise[:1], SAME, 0), SAME)


def test_lengths_are_in_units_of_a_typical_query_and_1_where_they_say_nothing():
    vectors = np.ones((2, 6), np.float32)
    raw = np.array([1, 4], np.float32)
    np.testing.assert_allclose(QuerySide(vectors, SAME, 2.0).lengths(raw), [0.5, 2])
    np.testing.assert_allclose(QuerySide(vectors, SAME, 0.0).lengths(raw), [1, 1])
