"""Every kind of objective keeps the family's contract."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import sparse

from recsys import registry
from recsys.errors import ShapeError
from recsys.objectives._sets import Sets
from recsys.stack import tf
from twintower.errors import SettingError

# Each kind by its settings and, where it has several forms, each form.
KINDS = registry.names("objectives")
READS = {kind: registry.choice("objectives", kind).reads for kind in KINDS}
SOLVED = [kind for kind in KINDS if READS[kind] == "matrix"]
OF_SETS = [kind for kind in KINDS if READS[kind] == "sets"]
CHOICES = [{"kind": kind} for kind in KINDS if kind not in SOLVED + OF_SETS] + [
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


@pytest.mark.parametrize("kind", SOLVED)
def test_a_solution_has_a_vector_for_each_column_and_one_for_each_item_to_be_found(kind):
    met = sparse.random_array((30, 12), density=0.3, rng=np.random.default_rng(0), dtype=np.float32).tocsr()
    met.data[:] = 1
    history, found = registry.build("objectives", {"kind": kind}, "objective").solve(met, 10, 5, seed=1)
    again, _ = registry.build("objectives", {"kind": kind}, "objective").solve(met, 10, 5, seed=1)
    assert history.shape == (12, 5)
    assert found.shape == (10, 5)
    assert history.dtype == found.dtype == np.float32
    np.testing.assert_array_equal(history, again)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if READS[kind] in ("pairs", "sets", "matrix")])
def test_an_objective_of_the_main_task_says_whether_lengths_count(kind):
    assert registry.build("objectives", {"kind": kind}, "objective").unit_length in (True, False)


def smooth(kind):
    """Return an objective on sets with a temperature of 1, if any, so that finite differences are close."""
    has_temperature = "temperature" in registry.choice("objectives", kind).__dataclass_fields__
    return registry.build("objectives", {"kind": kind} | ({"temperature": 1.0} if has_temperature else {}), "objective")


@pytest.mark.parametrize("kind", OF_SETS)
class TestObjectivesOfWholeSets:
    """Query 0 has met items 0 and 2, query 1 item 1, query 2 nothing, query 3 items 0 to 3 of five."""

    OWNER, ITEM_ROW = np.array([0, 0, 1, 3, 3, 3, 3], np.int32), np.array([0, 2, 1, 0, 1, 2, 3], np.int32)
    QUERIES, ITEMS = unit(BATCH, DIM, seed=4) * 0.7, unit(BATCH + 1, DIM, seed=5) * 1.3

    def loss(self, kind, queries, items, owner=OWNER, column=ITEM_ROW, stands_for=None):
        objective = smooth(kind)
        weight = tf.constant([1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 1.0])
        stands_for = tf.ones(tf.shape(items)[0]) if stands_for is None else tf.constant(stands_for, tf.float32)
        sets = Sets(tf.constant(owner), tf.constant(column), weight, stands_for)
        return objective.loss(queries, items, sets, *self.taught(objective, queries, items))

    def taught(self, objective, queries, items):
        """Return the scores of two teachers where the objective has some; items from the fifth on are alike."""
        if not hasattr(objective, "teachers"):
            return []
        scores = tf.constant(np.random.default_rng(7).normal(size=(2, BATCH, BATCH + 1)), tf.float32)
        columns = tf.minimum(tf.range(tf.shape(items)[0]), BATCH)
        return [tf.gather(scores[:, : tf.shape(queries)[0]], columns, axis=2)]

    def test_the_gradient_is_that_of_finite_differences(self, kind):
        given = [self.QUERIES.astype(np.float32), self.ITEMS.astype(np.float32)]
        variables = [tf.Variable(each) for each in given]
        with tf.GradientTape() as tape:
            total = self.loss(kind, *variables)
        for side, gradient in enumerate(tape.gradient(total, variables)):
            step, direction = 1e-2, unit(*given[side].shape, seed=6)
            ends = [self.loss(kind, *(each + sign * step * direction if place == side else each
                                      for place, each in enumerate(given))) for sign in (1, -1)]  # fmt: skip
            numeric = (float(ends[0]) - float(ends[1])) / (2 * step)
            assert float(tf.reduce_sum(gradient * direction)) == pytest.approx(numeric, abs=2e-3)

    def test_eager_and_graph_agree(self, kind):
        graph = tf.function(lambda queries, items: self.loss(kind, queries, items))
        given = (tf.constant(self.QUERIES, tf.float32), tf.constant(self.ITEMS, tf.float32))
        assert float(graph(*given)) == pytest.approx(float(self.loss(kind, *given)), rel=1e-5)

    def test_candidates_that_stand_for_equal_items_cost_what_these_cost(self, kind):
        # Items 4 to 6 are one item three times, which no query has met.
        items = np.concatenate([self.ITEMS, self.ITEMS[-1:], self.ITEMS[-1:]]).astype(np.float32)
        queries = tf.constant(self.QUERIES, tf.float32)
        everything = float(self.loss(kind, queries, items))
        found = self.loss(kind, queries, tf.constant(self.ITEMS, tf.float32), stands_for=[1, 1, 1, 1, 3])
        assert float(found) == pytest.approx(everything, rel=1e-5)

    def test_a_candidate_that_is_there_as_an_own_item_only_is_nothing_to_other_queries(self, kind):
        # Item 1 is an own item of queries 1 and 3; with 0 items to stand for, query 0 is the same with it anywhere.
        objective = smooth(kind)
        others, losses = tf.constant([1.0, 0, 1, 1, 1]), []
        for row in (self.ITEMS[1], -self.ITEMS[1]):
            items = self.ITEMS.copy()
            items[1] = row
            given = (tf.constant(self.QUERIES[:1], tf.float32), tf.constant(items, tf.float32))
            sets = Sets(tf.constant([0, 0]), tf.constant([0, 2]), tf.ones(2), others)
            losses.append(float(objective.loss(*given, sets, *self.taught(objective, *given))))
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
