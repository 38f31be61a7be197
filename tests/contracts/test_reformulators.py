"""The contract of the family `reformulators`: nothing moves without feedback, and both array libraries agree."""

from __future__ import annotations

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from recsys import registry
from recsys.reformulators import moved, unit
from recsys.reformulators.linear_feedback import LinearFeedback
from recsys.stack import tf
from recsys.types import NO_ROW, Feedback
from twintower.types import FeedbackKind

CHOICES = [{"kind": kind} for kind in registry.names("reformulators")] + [
    {"kind": "rocchio", "gamma": 0.3},
    {"kind": "rocchio", "beta": 0.0, "gamma": 0.3},
    {"kind": "rocchio", "gamma": 0.0},
    {"kind": "history", "disliked_weight": 0.0},
    {"kind": "linear_feedback", "a": 2.0, "b": 0.5, "c": 0.4},
    {"kind": "attention", "width": 8, "heads": 2, "layers": 2, "max_rank": 3},
    {"kind": "attention", "width": 8, "heads": 2, "residual": False},
]
LEARNED = [table for table in CHOICES if registry.choice("reformulators", table["kind"]).learned]
BATCH, K, DIM = 4, 6, 5
PARTS = [field.name for field in dataclasses.fields(Feedback) if field.name != "extended"]


def name_of(table):
    return "-".join(str(value) for value in table.values())


def built(table):
    return registry.build("reformulators", table, "reformulator")


def trained(reformulator):
    """Return weights of which none is still what it was before training."""
    random = np.random.default_rng(7)
    return {
        name: value + random.normal(0, 0.3, np.shape(value)).astype(np.float32)
        for name, value in reformulator.initial(DIM, 0).items()
    }


def weights_of(reformulator, dtype=np.float32):
    """Return such weights, ready for use."""
    if not reformulator.learned:
        return {}
    return reformulator.ready(np, {name: value.astype(dtype) for name, value in trained(reformulator).items()})


@pytest.fixture(params=CHOICES, ids=name_of)
def reformulator(request):
    return built(request.param)


@pytest.fixture
def weights(reformulator):
    return weights_of(reformulator)


@pytest.fixture
def exact_weights(reformulator):
    """The weights in double precision: see `assert_equal_as_float32`."""
    return weights_of(reformulator, np.float64)


def doubled(given):
    """Return feedback with its numbers in double precision."""
    numbers = ("vectors", "lengths", "away", "scores")
    return dataclasses.replace(given, **{name: getattr(given, name).astype(np.float64) for name in numbers})


def assert_equal_as_float32(found, expected):
    """Compare numbers computed in double precision and stored as float32.

    In real numbers the order and the number of the sums change nothing, but each processor adds in an order of its
    own. Double precision leaves errors around 1e-14 for values around 1, and the one rounding to float32 can
    then differ by one unit in the last place.
    """
    np.testing.assert_allclose(found, expected, rtol=np.finfo(np.float32).eps, atol=1e-12)


def drawn(*shape, seed):
    return unit(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def queries():
    return drawn(BATCH, DIM, seed=0)


def feedback(counts=(6, 3, 1, 4), kinds=None):
    """Return feedback of every kind, so many items a query, some of known rank."""
    random = np.random.default_rng(2)
    present = np.arange(K) < np.array(counts)[:, None]
    vectors, found = (drawn(BATCH, K, DIM, seed=seed) * present[..., None] for seed in (1, 3))
    return Feedback(
        vectors=vectors,
        lengths=random.uniform(0.1, 2, size=(BATCH, K)).astype(np.float32),
        away=found,
        kinds=random.integers(len(FeedbackKind), size=(BATCH, K)).astype(np.int32) if kinds is None else kinds,
        ranks=np.where(
            random.random((BATCH, K)) < 0.3, NO_ROW, random.permuted(np.tile(np.arange(K), (BATCH, 1)), axis=1)
        ).astype(np.int32),
        scores=np.einsum("bd,bkd->bk", queries(), found).astype(np.float32),
        present=present,
    )


def only(kind):
    return feedback(kinds=np.full((BATCH, K), kind, np.int32))


def taken(given, rows, columns):
    """Return some rows and columns of feedback."""
    return Feedback(*(getattr(given, part)[rows][:, columns] for part in PARTS))


def test_a_query_without_feedback_comes_back_bit_for_bit(reformulator, weights):
    asked = queries()
    for nothing in (feedback((0, 0, 0, 0)), taken(feedback(), slice(None), slice(0, 0))):
        result = reformulator.reformulate(asked, nothing, weights)
        np.testing.assert_array_equal(result.vectors, asked)
        np.testing.assert_array_equal(result.item_weights, np.zeros(nothing.present.shape))


def test_a_query_without_feedback_stays_also_beside_others(reformulator, weights):
    result = reformulator.reformulate(queries(), feedback((6, 0, 3, 0)), weights)
    np.testing.assert_array_equal(result.vectors[[1, 3]], queries()[[1, 3]])


def test_the_results_are_float32_and_of_unit_length(reformulator, weights):
    result = reformulator.reformulate(queries(), feedback(), weights)
    assert (result.vectors.shape, result.item_weights.shape) == ((BATCH, DIM), (BATCH, K))
    assert (result.vectors.dtype, result.item_weights.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-6)


def test_places_without_an_item_have_no_weight_and_no_say(reformulator, exact_weights):
    given, asked = doubled(feedback()), queries().astype(np.float64)
    result = reformulator.reformulate(asked, given, exact_weights)
    assert (result.item_weights[~given.present] == 0).all()
    # whatever stands there besides the vector, which is zero
    rubbish = dataclasses.replace(
        given,
        kinds=np.where(given.present, given.kinds, FeedbackKind.DISLIKED),
        ranks=np.where(given.present, given.ranks, 0),
        scores=np.where(given.present, given.scores, 9.0),
    )
    again = reformulator.reformulate(asked, rubbish, exact_weights)
    assert_equal_as_float32(again.vectors, result.vectors)


@pytest.mark.parametrize("kind", FeedbackKind)
def test_feedback_moves_the_query_unless_the_reformulator_says_that_it_ignores_its_kind(reformulator, weights, kind):
    moved_queries = reformulator.reformulate(queries(), only(kind), weights).vectors
    if kind in reformulator.ignores:
        np.testing.assert_array_equal(moved_queries, queries())
    # Pairs of equal relevance say nothing, however many there are.
    elif not isinstance(reformulator, LinearFeedback) or kind is FeedbackKind.PSEUDO:
        assert np.abs(moved_queries - queries()).max() > 1e-6


def test_the_company_does_not_matter(reformulator, exact_weights):
    given, asked = doubled(feedback()), queries().astype(np.float64)
    together = reformulator.reformulate(asked, given, exact_weights)
    for row, count in enumerate(given.counts):
        alone = reformulator.reformulate(asked[[row]], taken(given, slice(row, row + 1), slice(count)), exact_weights)
        assert_equal_as_float32(alone.vectors[0], together.vectors[row])
        assert_equal_as_float32(alone.item_weights[0], together.item_weights[row, :count])


@pytest.mark.parametrize("kind", [None, *FeedbackKind], ids=str)
def test_the_order_of_the_items_means_nothing_where_their_ranks_move_along(reformulator, exact_weights, kind):
    every = doubled(feedback((K,) * BATCH) if kind is None else only(kind))
    given, asked = taken(every, slice(0, 1), slice(None)), queries()[:1].astype(np.float64)
    order = [3, 0, 5, 1, 4, 2]
    result = reformulator.reformulate(asked, given, exact_weights)
    shuffled = reformulator.reformulate(asked, taken(given, slice(None), order), exact_weights)
    assert_equal_as_float32(shuffled.vectors, result.vectors)
    assert_equal_as_float32(shuffled.item_weights, result.item_weights[:, order])


@pytest.mark.parametrize("kind", list(FeedbackKind), ids=str)
def test_feedback_of_one_kind_alone_gives_finite_numbers(reformulator, weights, kind):
    result = reformulator.reformulate(queries(), only(kind), weights)
    assert np.isfinite(result.vectors).all()
    assert np.isfinite(result.item_weights).all()


def test_the_same_item_again_and_again_gives_finite_numbers(reformulator, weights):
    given = feedback((K,) * BATCH)
    same = dataclasses.replace(
        given,
        vectors=np.repeat(given.vectors[:, :1], K, axis=1),
        away=np.repeat(given.away[:, :1], K, axis=1),
    )
    assert np.isfinite(reformulator.reformulate(queries(), same, weights).vectors).all()


def test_feedback_that_is_the_query_or_its_opposite_gives_unit_vectors(reformulator, weights):
    for sign in (1, -1):
        vectors = np.repeat(sign * queries()[:, None], K, axis=1)
        given = dataclasses.replace(
            feedback((K,) * BATCH), vectors=vectors, away=vectors, scores=np.full((BATCH, K), sign, np.float32)
        )
        result = reformulator.reformulate(queries(), given, weights)
        np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("table", LEARNED, ids=name_of)
def test_both_array_libraries_agree(table):
    reformulator, given = built(table), feedback()
    tensors = Feedback(*(tf.constant(getattr(given, part)) for part in PARTS))
    expected = reformulator.direction(np, queries(), given, weights_of(reformulator))
    variables = {name: tf.constant(value) for name, value in trained(reformulator).items()}
    ready = reformulator.ready(tf.experimental.numpy, variables)
    found = reformulator.direction(tf.experimental.numpy, tf.constant(queries()), tensors, ready)
    for in_tensorflow, in_numpy in zip(found, expected, strict=True):
        assert (in_tensorflow is None) == (in_numpy is None)
        if in_numpy is not None:
            assert in_numpy.dtype == in_tensorflow.numpy().dtype == np.float32
            mask = given.present if in_numpy.shape == given.present.shape else np.ones(in_numpy.shape, bool)
            # Sums of up to 128 products (the default width), each rounded to float32, in whatever order.
            bound = 128 * np.finfo(np.float32).eps * max(1.0, np.abs(in_numpy[mask]).max())
            np.testing.assert_allclose(in_tensorflow.numpy()[mask], in_numpy[mask], rtol=0, atol=bound)


@pytest.mark.parametrize("table", LEARNED, ids=name_of)
def test_training_can_move_every_weight_away_from_its_start(table):
    reformulator, given = built(table), feedback()
    tensors = Feedback(*(tf.constant(getattr(given, part)) for part in PARTS))
    variables = {name: tf.Variable(value) for name, value in trained(reformulator).items()}
    with tf.GradientTape() as tape:
        ready = reformulator.ready(tf.experimental.numpy, variables)
        item_weights, further = reformulator.direction(tf.experimental.numpy, tf.constant(queries()), tensors, ready)
        total = tf.reduce_sum(tf.where(given.present, item_weights, 0) * tf.range(1.0, K + 1))
        total += 0 if further is None else tf.reduce_sum(further * tf.range(1.0, DIM + 1))
    gradients = tape.gradient(total, variables)
    for name, gradient in gradients.items():
        assert np.isfinite(tf.convert_to_tensor(gradient).numpy()).all(), name
        assert np.abs(tf.convert_to_tensor(gradient).numpy()).max() > 0, name


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("table", LEARNED, ids=name_of)
def test_a_shortened_one_adds_a_share_of_what_the_whole_one_adds(table, share):
    reformulator, given, asked = built(table), doubled(feedback()), queries().astype(np.float64)
    whole = reformulator.direction(np, asked, given, weights_of(reformulator, np.float64))
    shorter = reformulator.shortened(
        {name: value.astype(np.float64) for name, value in trained(reformulator).items()}, share
    )
    parts = reformulator.direction(np, asked, given, reformulator.ready(np, shorter))
    for part, of_whole in zip(parts, whole, strict=True):
        if of_whole is not None:
            assert_equal_as_float32(part, of_whole * share)
    if not share:
        # nothing at all, and not only nearly nothing: ties stay ties
        ready = reformulator.ready(np, reformulator.shortened(trained(reformulator), share))
        result = reformulator.reformulate(queries(), feedback(), ready).vectors
        np.testing.assert_array_equal(result, unit(unit(queries())))


@pytest.mark.parametrize("kind", sorted({table["kind"] for table in LEARNED}))
def test_a_learned_one_starts_as_the_identity(kind):
    reformulator = built({"kind": kind})
    for weights in ({}, reformulator.ready(np, reformulator.initial(DIM, 3))):
        result = reformulator.reformulate(queries(), feedback(), weights)
        np.testing.assert_allclose(result.vectors, queries(), atol=1e-6)


@pytest.mark.parametrize("table", LEARNED, ids=name_of)
def test_the_start_is_a_function_of_the_seed_and_float32(table):
    reformulator = built(table)
    first, again = reformulator.initial(DIM, 1), reformulator.initial(DIM, 1)
    assert {np.asarray(value).dtype for value in first.values()} == {np.dtype(np.float32)}
    assert first.keys() == again.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])


@pytest.mark.parametrize("kind", [kind for kind in registry.names("reformulators") if kind != "attention"])
def test_the_weights_of_the_items_tell_the_whole_move(kind):
    reformulator = built({"kind": kind})
    given, asked = feedback(), queries()
    result = reformulator.reformulate(asked, given, weights_of(reformulator))
    towards, away = np.maximum(result.item_weights, 0), np.minimum(result.item_weights, 0)
    told = unit(asked + np.einsum("bk,bkd->bd", towards, given.vectors) + np.einsum("bk,bkd->bd", away, given.away))
    np.testing.assert_allclose(result.vectors, told, atol=1e-6)


@hypothesis.settings(deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(2, 30),
    kind=st.sampled_from([FeedbackKind.DISLIKED, FeedbackKind.SKIPPED]),
    dim=st.integers(2, 8),
)
@pytest.mark.parametrize("kind_of", ["history", "rocchio"])
def test_a_dislike_never_raises_the_rank_of_the_disliked_item(kind_of, seed, items, kind, dim):
    random = np.random.default_rng(seed)
    found = random.normal(size=(items, dim))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    directions = random.normal(size=(items, dim))  # whatever having met the items means
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    query, disliked = random.normal(size=(1, dim)), random.integers(items)
    given = Feedback(
        vectors=directions[None, [disliked]],
        lengths=np.full((1, 1), 3.0),
        away=found[None, [disliked]],
        kinds=np.array([[kind]], np.int32),
        ranks=np.full((1, 1), NO_ROW, np.int32),
        scores=query @ found[[disliked]].T,
        present=np.ones((1, 1), bool),
    )
    result = built({"kind": kind_of}).reformulate(query, given).vectors.astype(np.float64)
    before, after = found @ query[0], found @ result[0]
    # an item that was ahead by more than float32 may lose is still not behind
    was_ahead = before > before[disliked] + 1e-5
    assert (after[was_ahead] > after[disliked]).all()


def test_a_query_moves_towards_an_item_by_its_query_side_and_away_from_it_by_what_it_is_found_by():
    # (1, 0, 0) + 2 * 0.5 (0, 1, 0) - 0.25 (0, 0, 1): the length counts towards an item only
    given = Feedback(
        vectors=np.array([[[0, 1, 0], [1, 0, 0]]], np.float32),
        lengths=np.array([[0.5, 9]], np.float32),
        away=np.array([[[1, 0, 0], [0, 0, 1]]], np.float32),
        kinds=np.zeros((1, 2), np.int32),
        ranks=np.zeros((1, 2), np.int32),
        scores=np.zeros((1, 2), np.float32),
        present=np.ones((1, 2), bool),
    )
    result = moved(np.array([[4, 0, 0]], np.float32), given, np.array([[2, -0.25]], np.float32))
    np.testing.assert_allclose(result.vectors, unit(np.array([[1, 1, -0.25]], np.float32)), rtol=1e-6)
    np.testing.assert_allclose(result.item_weights, [[1, -0.25]])
