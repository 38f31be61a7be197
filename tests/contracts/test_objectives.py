"""Every kind of objective keeps the family's contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recsys import registry
from recsys.errors import SettingError, ShapeError
from recsys.stack import tf

# Each kind by its settings and, where it has several forms, each form.
CHOICES = [{"kind": kind} for kind in registry.names("objectives")] + [
    {"kind": "contrastive", "symmetric": True},
    {"kind": "spread_out", "form": "square"},
    {"kind": "comparative", "positives": "hardest"},
]
BATCH, DIM = 4, 3
PAIR = (0, 2)
"""Two examples that are no negatives of each other."""


@pytest.fixture(params=CHOICES, ids=lambda table: "-".join(str(value) for value in table.values()))
def objective(request):
    return registry.build("objectives", {**request.param, "temperature": 0.5}, "objective")


def unit(*shape, seed):
    drawn = np.random.default_rng(seed).normal(size=shape)
    return (drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)).astype(np.float32)


FIRST, SECOND = unit(BATCH, DIM, seed=0), unit(BATCH, DIM, seed=1)


def exempt() -> np.ndarray:
    """Return which pairs are no negatives, `[batch, batch]`, symmetric."""
    pairs = np.zeros((BATCH, BATCH), bool)
    pairs[PAIR] = pairs[PAIR[::-1]] = True
    return pairs


def loss(objective, first, second, pairs) -> tf.Tensor:
    pairs = tf.constant(pairs)
    if objective.reads == "views":
        return objective.loss(first, second, pairs)
    if objective.reads == "revisions":
        # Each example is a query with two revisions, the first and its mirror image, which look for the second.
        revised = tf.stack([first, 0.8 * tf.reverse(first, [1])], axis=1)
        scores = tf.einsum("bre,ce->brc", revised, second)
        counts = tf.tile([[1, 3]], [tf.shape(first)[0], 1])
        return objective.loss(scores, tf.eye(BATCH) > 0, pairs, tf.zeros(BATCH), counts)
    nothing, ones = tf.zeros(BATCH), tf.ones(BATCH)
    return objective.loss(first, second, nothing, pairs, ones, tf.constant(objective.temperature))


def value(objective, first=FIRST, second=SECOND, pairs=None) -> float:
    pairs = exempt() if pairs is None else pairs
    return float(loss(objective, tf.constant(first), tf.constant(second), pairs))


def test_the_loss_is_a_finite_number_not_below_zero(objective):
    assert 0 <= value(objective) < np.inf


@pytest.mark.parametrize("side", [0, 1])
def test_the_gradient_is_that_of_finite_differences(side, objective):
    variables = [tf.Variable(FIRST), tf.Variable(SECOND)]
    with tf.GradientTape() as tape:
        total = loss(objective, *variables, exempt())
    analytic = tape.gradient(total, variables[side]).numpy()
    numeric, step = np.zeros((BATCH, DIM)), 1e-2
    for place in np.ndindex(BATCH, DIM):
        ends = []
        for sign in (1, -1):
            moved = [FIRST.copy(), SECOND.copy()]
            moved[side][place] += sign * step
            ends.append(value(objective, *moved))
        numeric[place] = (ends[0] - ends[1]) / (2 * step)
    assert np.abs(numeric).max() > 0.05
    np.testing.assert_allclose(analytic, numeric, atol=2e-3)


def test_eager_and_graph_agree(objective):
    @tf.function(input_signature=[tf.TensorSpec([None, DIM]), tf.TensorSpec([None, DIM])])
    def graph(first, second):
        return loss(objective, first, second, exempt())

    assert float(graph(FIRST, SECOND)) == pytest.approx(value(objective), rel=1e-5)


def test_the_order_of_the_examples_does_not_matter(objective):
    order = [2, 0, 3, 1]
    shuffled = value(objective, FIRST[order], SECOND[order], exempt()[order][:, order])
    assert shuffled == pytest.approx(value(objective), rel=1e-5)


def test_a_pair_that_is_no_negative_pulls_and_pushes_nothing(objective):
    variable = tf.Variable(SECOND)
    with tf.GradientTape() as tape:
        total = loss(objective, tf.constant(FIRST), variable, ~np.eye(BATCH, dtype=bool))
    # every other example is exempt: there is nothing left to be told from
    assert float(total) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(tape.gradient(total, variable).numpy(), 0, atol=1e-6)


def test_one_pair_less_is_a_lower_loss(objective):
    everything = value(objective, pairs=np.zeros((BATCH, BATCH), bool))
    assert value(objective) < everything - 1e-3


def test_vectors_that_do_not_fit_are_refused(objective):
    # Revisions come as scores, in which dim is gone.
    others = [unit(BATCH - 1, DIM, seed=1)] + [unit(BATCH, DIM + 1, seed=1)] * (objective.reads != "revisions")
    for second in others:
        with pytest.raises(ShapeError, match=rf"^{registry.kind_of(objective)}: got .*expected "):
            value(objective, second=second)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("temperature", 0), *itertools.product(["temperature", "weight"], [-1, float("inf"), "much"])],
)
def test_a_setting_out_of_its_range_is_refused_by_name(name, wrong, objective):
    table = {**registry.table_of(objective), name: wrong}
    with pytest.raises(SettingError, match=rf"^objective\.{name}: got "):
        registry.build("objectives", table, "objective")


def test_a_weight_of_zero_is_refused_where_nothing_would_be_left(objective):
    table = {**registry.table_of(objective), "weight": 0}
    if objective.reads == "revisions":
        # the weight is that of the comparison; the loss of each revision stays
        assert value(registry.build("objectives", table, "objective")) > 0
        return
    with pytest.raises(SettingError, match=r"^objective\.weight: got 0"):
        registry.build("objectives", table, "objective")
