"""What a guard sees of a move, and which moves it lets pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.registry import build, parse
from recsys.retrieval.guard import SIGNALS, Guard, signals
from recsys.retrieval.reformulation import NamedReformulator
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, asked, pseudo, said
from twintower.errors import SettingError
from twintower.types import FeedbackKind

NOTHING = pseudo(EAST)


def seen(query, feedback, vector):
    return dict(zip(SIGNALS, signals(asked(query), feedback, asked(vector))[0].tolist(), strict=True))


def test_the_signals_of_a_move_by_hand():
    # drift: 1 - <(1, 0), (0.6, 0.8)> = 0.4; scores 1, 0, 0; the items' mean points to (1, 2) / sqrt(5):
    # cosines 1, 2, 2 / sqrt(5), mean 5 / 3 / sqrt(5) = sqrt(5) / 3; two of three were chosen
    given = said(EAST, (EAST, FeedbackKind.PSEUDO), (NORTH, FeedbackKind.LIKED), (NORTH, FeedbackKind.CLICKED))
    found = seen((2, 0), given, (0.6, 0.8))
    assert found == pytest.approx(
        {
            "drift": 0.4,
            "best_score": 1.0,
            "score_spread": 1.0,
            "coherence": math.sqrt(5) / 3,
            "log_count": math.log(4),
            "liked_rate": 2 / 3,
        },
        rel=1e-6,
    )


def test_items_that_somebody_refused_are_not_liked():
    given = said(EAST, (NORTH, FeedbackKind.DISLIKED), (SOUTH, FeedbackKind.SKIPPED))
    found = seen(EAST, given, EAST)
    assert (found["liked_rate"], found["coherence"]) == (0, 0)


def test_without_feedback_every_signal_is_exactly_zero():
    query = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    nothing = pseudo(EAST, NORTH).first(0)
    repeated = type(nothing)(*(np.repeat(part, 50, axis=0) for part in vars(nothing).values()))
    np.testing.assert_array_equal(signals(query, repeated, query), np.zeros((50, 6)))
    np.testing.assert_array_equal(signals(asked(EAST), NOTHING, asked(EAST)), np.zeros((1, 6)))


def test_absent_items_count_as_nothing():
    given = pseudo(EAST, EAST, NORTH, SOUTH)
    np.testing.assert_allclose(
        signals(asked(EAST), given.first(1), asked(NORTH)), signals(asked(EAST), pseudo(EAST, EAST), asked(NORTH))
    )


def test_the_default_guard_lets_everything_pass_also_a_turn_about():
    turned = signals(asked((0.3, 0.7)), NOTHING, asked((-0.3, -0.7)))
    assert turned[0, 0] == pytest.approx(2)
    assert Guard().accepts(turned).all()
    assert Guard().confidence(turned).tolist() == [1]


def test_a_move_of_just_the_largest_drift_passes_and_a_larger_one_does_not():
    of_moves = np.zeros((3, 6), np.float32)
    of_moves[:, 0] = 0.25, 0.5, 0.75
    assert Guard(max_drift=0.5).accepts(of_moves).tolist() == [True, True, False]


def test_confidence_is_the_logistic_of_constant_and_weighted_signals():
    # 1 + 2 * 0.25 - 3 * 0.5 = 0: a half; without the last signal 1.5: 1 / (1 + e^-1.5)
    guard = Guard(coefficients=(1.0, 2.0, 0, 0, 0, 0, -3.0), min_confidence=0.5)
    of_moves = np.array([[0.25, 9, 9, 9, 9, 0.5], [0.25, 9, 9, 9, 9, 0], [0, 0, 0, 0, 0, 0.6]], np.float32)
    np.testing.assert_allclose(
        guard.confidence(of_moves), [0.5, 1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(0.8))], rtol=1e-5
    )
    assert guard.accepts(of_moves).tolist() == [True, True, False]


def test_a_confidence_beyond_all_measure_is_no_overflow():
    of_moves = np.full((1, 6), 1e30, np.float32)
    assert Guard(coefficients=(0, 1e3, 0, 0, 0, 0, 0)).confidence(of_moves).tolist() == [1]
    assert Guard(coefficients=(0, -1e3, 0, 0, 0, 0, 0)).confidence(of_moves)[0] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value"), [("max_drift", 2.1), ("max_drift", -0.1), ("min_confidence", 1.5), ("coefficients", [1.0] * 6)]
)
def test_a_guard_out_of_its_range_is_refused_by_name(name, value):
    with pytest.raises(SettingError, match=rf"^guard\.{name}: got "):
        parse(Guard, {name: value}, "guard")


def test_a_move_keeps_the_original_only_where_the_guard_doubts_it():
    # rocchio: (1, 0) + 1.5 v: (1, 1.5) drifts by 1 - 1 / sqrt(3.25) = 0.445, (2.5, 0) by 0
    named = NamedReformulator("r", build("reformulators", {"kind": "rocchio"}, "r"), guard=Guard(max_drift=0.4))
    two = pseudo(EAST, NORTH), pseudo(EAST, EAST)
    names = [name for name, part in vars(two[0]).items() if part is not None]
    both = type(two[0])(**{name: np.concatenate([getattr(each, name) for each in two]) for name in names})
    queries = np.array([EAST, (3, 0)], np.float32)
    move = named.move(queries, both)
    assert move.fell_back.tolist() == [True, False]
    np.testing.assert_array_equal(move.vectors, [EAST, EAST])
    np.testing.assert_allclose(move.drift, [1 - 3.25**-0.5, 0], rtol=1e-5)
    np.testing.assert_allclose(move.item_weights, [[1.5], [1.5]])
    free = named.move(queries, both, guarded=False)
    assert free.fell_back.tolist() == [False, False]
    np.testing.assert_allclose(free.vectors[0], np.array([1, 1.5]) / 3.25**0.5, rtol=1e-6)
    np.testing.assert_array_equal(free.drift, move.drift)


def test_a_query_without_feedback_has_nothing_to_fall_back_from():
    # confidence 1 / (1 + exp(1)) = 0.27 < 0.5, whatever the signals are
    doubting = Guard(min_confidence=0.5, coefficients=(-1.0,) + (0.0,) * 6)
    named = NamedReformulator("r", build("reformulators", {"kind": "rocchio"}, "r"), guard=doubting)
    assert named.move(asked(EAST), NOTHING).fell_back.tolist() == [False]
    assert named.move(asked(EAST), pseudo(EAST, NORTH)).fell_back.tolist() == [True]
