"""The loss of a student against an ensemble of teachers, written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from recsys import registry
from recsys.objectives._sets import Sets
from recsys.objectives.distillation import Distillation
from recsys.stack import tf
from twintower.errors import SettingError

RANDOM = np.random.default_rng(3)
QUERIES, ITEMS, TAUGHT = RANDOM.normal(size=(4, 3)), RANDOM.normal(size=(6, 3)), RANDOM.normal(size=(2, 4, 6))


def loss(objective, queries, taught):
    nothing = tf.zeros([0], tf.int32)
    queries, items, taught = (tf.constant(each, tf.float32) for each in (queries, ITEMS, taught))
    return float(objective.loss(queries, items, Sets(nothing, nothing, tf.zeros([0]), tf.ones(6)), taught))


def test_it_is_the_divergence_of_two_softmaxes():
    low, high = TAUGHT.min(axis=2, keepdims=True), TAUGHT.max(axis=2, keepdims=True)
    wanted = log_softmax(5 * ((TAUGHT - low) / (high - low)).mean(axis=0), axis=1)
    found = log_softmax(QUERIES @ ITEMS.T / 2, axis=1)
    expected = (np.exp(wanted) * (wanted - found)).sum(axis=1).mean()
    assert loss(Distillation(sharpness=5, temperature=2), QUERIES, TAUGHT) == pytest.approx(expected, rel=1e-4)


def test_neither_the_scale_nor_the_origin_of_a_teacher_matters():
    moved = TAUGHT * np.array([100.0, 0.01])[:, None, None] - 7
    assert loss(Distillation(temperature=1), QUERIES, moved) == pytest.approx(
        loss(Distillation(temperature=1), QUERIES, TAUGHT), rel=1e-2
    )


def test_a_student_that_scores_as_its_teacher_has_nothing_to_learn():
    scores = QUERIES @ ITEMS.T
    spread = np.ptp(scores, axis=1, keepdims=True)
    assert loss(Distillation(sharpness=1, temperature=1), QUERIES / spread, scores[None]) == pytest.approx(0, abs=1e-5)


def test_a_teacher_that_is_not_solved_is_refused_with_those_that_are():
    with pytest.raises(SettingError, match=r"^objective.teachers: got .*dlae, ease"):
        registry.build("objectives", {"kind": "distillation", "teachers": ["softmax"]}, "objective")
