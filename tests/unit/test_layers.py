"""The layers: bags without a copy of every vector, and views that tell nothing of what is masked in them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binomtest

from recsys import registry
from recsys.augmentations.embedding_dropout import EmbeddingDropout
from recsys.layers import BagLookup, Dense, Tables
from recsys.stack import tf
from recsys.towers.mlp import Mlp
from recsys.views import Views
from tests.unit.augmentations.draws import make_fields

ROWS = 6
SEED = tf.constant([3, 1])
COLUMNS = {
    "brand": ("categorical", {"width": 3}, ["a", "b", None, "a", "ü", "b"]),
    "decile": ("numeric", {"transform": "quantile", "width": 3}, [1.0, 2.0, None, 4.0, 5.0, 9.0]),
    "id": ("id", {"width": 3, "unknown_rate": 0.0}, ["i0", "i1", "i2", "i3", "i4", "i5"]),
    "price": ("numeric", {}, [1.0, 2.0, None, 4.0, 5.0, 9.0]),
    "tags": ("multi_categorical", {"width": 3, "max_values": 3}, [["a", "b"], [], None, ["a"], ["c", "a"], ["b"]]),
    "title": ("text", {"width": 3}, ["Big red car", "", None, "big dog", "ÜBER car", "!!"]),
    "vector": ("embedding", {}, [[1.0, 2.0], [3.0, 4.0], None, [0.0, 1.0], [5.0, 6.0], [7.0, 8.0]]),
}
each_feature = pytest.mark.parametrize("name", COLUMNS)


def built(augmented=True, unknown_rate=0.0, **settings):
    """Return a tower over a feature of every kind, and the codes of six rows."""
    layers, codes, tables = {}, {}, Tables()
    for name, (kind, options, values) in COLUMNS.items():
        options = options | ({"unknown_rate": unknown_rate} if kind == "id" else {})
        column = pa.chunked_array([pa.array(values)])
        encoder = registry.choice("features", kind)(column=name, **options).fit(column, np.ones(ROWS, np.int64))
        layers[name] = encoder.build(name, name, tables)
        codes[name] = tf.constant(encoder.encode(column.combine_chunks()))
    mlp = Mlp(**{"hidden": (16,), "dim": 8} | settings)
    tower = mlp.build(layers, name="item_tower", mixed_precision="none", augmented=augmented)
    tower(codes)
    # What stands for 'missing', 'unknown' and 'masked' starts as zeros; here nothing is alike.
    looked_up = [variable for layer in layers.values() for variable in layer.trainable_variables]
    for place, variable in enumerate([*defaults(tower).values(), *looked_up]):
        variable.assign(tf.random.stateless_normal(variable.shape, [place, 5]))
    return tower, codes


def defaults(tower) -> dict[str, tf.Variable]:
    """Return the vectors that stand for 'masked', by feature."""
    named = {variable.name.split("/")[-1].split(":")[0]: variable for variable in tower.trainable_variables}
    places = {name: f"masked_{place}" for place, name in enumerate(tower.features)}
    return {name: named[variable] for name, variable in places.items() if variable in named}


@pytest.fixture(scope="module")
def world():
    return built()


def masking(codes, name, rows=None) -> Views:
    """Return two views of which the first masks one feature, in some rows or in all."""
    masked = np.zeros((2, 1 if rows is None else ROWS, len(COLUMNS)), bool)
    masked[0, 0 if rows is None else rows, list(COLUMNS).index(name)] = True
    return Views({each: (array,) for each, array in codes.items()}, tf.constant(masked))


def changed(codes, name):
    """Return the codes with others for one feature, in every row."""
    values = codes[name].numpy()
    other = (
        values + 1 if values.dtype == np.float32 else np.where(values >= 0, (values + 1) % (values.max() + 1), values)
    )
    assert (other != values).reshape(ROWS, -1).any(axis=1).all()
    return codes | {name: tf.constant(other)}


@each_feature
def test_what_is_masked_in_a_view_changes_no_bit_of_it(name, world):
    tower, codes = world
    before = tower.encode_views(masking(codes, name), SEED).numpy()
    after = tower.encode_views(masking(changed(codes, name), name), SEED).numpy()
    np.testing.assert_array_equal(after[0], before[0])
    assert (np.abs(after[1] - before[1]).max(axis=1) > 1e-4).sum() >= ROWS - 1


@each_feature
def test_what_is_masked_in_some_rows_changes_no_bit_of_them(name, world):
    tower, codes = world
    before = tower.encode_views(masking(codes, name, rows=[0, 3]), SEED).numpy()
    after = tower.encode_views(masking(changed(codes, name), name, rows=[0, 3]), SEED).numpy()
    np.testing.assert_array_equal(after[0, [0, 3]], before[0, [0, 3]])
    assert (after[0, [1, 2, 4, 5]] != before[0, [1, 2, 4, 5]]).any(axis=1).all()


@each_feature
def test_no_gradient_reaches_what_is_masked_in_a_view_but_one_reaches_its_default(name, world):
    tower, codes = world
    tables = tower.features[name].trainable_variables
    codes = {each: tf.identity(array) for each, array in codes.items()}
    sources = [*tables, defaults(tower)[name], *([] if tables else [codes[name]])]
    largest = []
    for view in range(2):
        with tf.GradientTape() as tape:
            tape.watch(sources)
            vectors = tower.encode_views(masking(codes, name), SEED)[view]
            told = tf.reduce_sum(vectors * tf.constant([1.0, -2.0, 3.0, 0.5, 1.5, -1.0, 2.0, 0.1]))
        gradients = [tf.convert_to_tensor(each).numpy() for each in tape.gradient(told, sources)]
        of_default = gradients.pop(len(tables))
        largest.append((max(np.abs(each).max() for each in gradients), np.abs(of_default).max()))
    (seen_masked, default_masked), (seen_shown, default_shown) = largest
    assert seen_masked == default_shown == 0
    assert default_masked > 1e-4
    assert seen_shown > 1e-4


@each_feature
def test_a_masked_feature_is_its_default_whatever_the_row(name):
    # a linear tower of one row space: two rows that differ in nothing but what is masked have one vector
    tower, codes = built(hidden=())
    alike = {each: tf.repeat(array[:1], ROWS, axis=0) for each, array in codes.items()} | {name: codes[name]}
    vectors = tower.encode_views(masking(alike, name), SEED).numpy()
    np.testing.assert_array_equal(vectors[0], np.repeat(vectors[0, :1], ROWS, axis=0))
    assert (vectors[1] != vectors[1, :1]).any()


def test_a_view_of_everything_is_the_plain_vector(world):
    tower, codes = world
    np.testing.assert_array_equal(tower.encode_views(Views.of(codes, 1), SEED).numpy()[0], tower(codes).numpy())
    for view in tower.encode_views(Views.of(codes, 2), SEED).numpy():
        np.testing.assert_allclose(view, tower(codes).numpy(), atol=1e-6)


def test_a_view_of_everything_draws_what_the_plain_tower_draws():
    tower, codes = built(unknown_rate=0.5, dropout_rate=0.3)
    view = tower.encode_views(Views.of(codes, 1), SEED).numpy()[0]
    np.testing.assert_array_equal(view, tower(codes, seed=SEED).numpy())
    assert (view != tower(codes).numpy()).any()


def test_codes_that_views_share_give_what_a_copy_for_each_view_gives(world):
    tower, codes = world
    masked = tf.constant(np.random.default_rng(0).random((2, ROWS, len(COLUMNS))) < 0.4)
    shared = Views({name: (array,) for name, array in codes.items()}, masked)
    copied = Views({name: (array, array) for name, array in codes.items()}, masked)
    np.testing.assert_array_equal(tower.encode_views(shared, SEED).numpy(), tower.encode_views(copied, SEED).numpy())


def test_each_view_reads_its_own_codes(world):
    tower, codes = world
    other = changed(codes, "tags")
    views = Views({name: (codes[name], other[name]) for name in codes}, Views.of(codes, 2).masked)
    first, second = tower.encode_views(views, SEED).numpy()
    np.testing.assert_allclose(first, tower(codes).numpy(), atol=1e-6)
    np.testing.assert_allclose(second, tower(other).numpy(), atol=1e-6)


def test_a_tower_that_is_asked_for_no_views_has_no_variable_for_them():
    tower, _ = built(augmented=False)
    assert defaults(tower) == {}
    assert len(defaults(built()[0])) == len(COLUMNS)


def dropped_inputs(*rates: float, count: int = 2) -> np.ndarray:
    """Return what is left of inputs that are all 1, `[views, rows, features, width]`.

    The tower is made to show its inputs: `[inputs, 1]` at unit length, so their ratio to the last number is exact.
    """
    rows, width = 200, 5
    layers = {name: Dense(width, name=name) for name in "ab"}
    tower = Mlp(hidden=(), dim=2 * width + 1).build(layers, name="tower", mixed_precision="none", augmented=True)
    codes = {name: tf.ones((rows, width)) for name in "ab"}
    tower(codes)
    (kernel,) = (each for each in tower.trainable_variables if "kernel" in each.name)
    (bias,) = (each for each in tower.trainable_variables if "bias" in each.name)
    kernel.assign(np.eye(2 * width, 2 * width + 1))
    bias.assign(np.eye(2 * width + 1)[-1])
    views, fields = Views.of(codes, count), make_fields("ab")
    for rate in rates:
        views = EmbeddingDropout(rate=rate).augment(views, fields, SEED)
    vectors = tower.encode_views(views, SEED).numpy()
    return (vectors[..., :-1] / vectors[..., -1:]).reshape(count, rows, 2, width)


# kept: 0.7; and 0.5 * 0.6 = 0.3
@pytest.mark.parametrize(("rates", "kept_rate"), [((0.3,), 0.7), ((0.5, 0.4), 0.3)])
def test_numbers_are_dropped_at_the_rate_and_the_others_grow_in_return(rates, kept_rate):
    inputs = dropped_inputs(*rates)
    kept = inputs > 0
    for view in kept:
        assert binomtest(int(view.sum()), view.size, kept_rate).pvalue > 1e-4
    np.testing.assert_allclose(inputs[kept], 1 / kept_rate, rtol=1e-5)


def test_views_and_features_drop_numbers_independently():
    kept = dropped_inputs(0.5) > 0
    for one, other in ((kept[0], kept[1]), (kept[:, :, 0], kept[:, :, 1])):
        assert binomtest(int((one & other).sum()), one.size, 0.25).pvalue > 1e-4


# 2^22 numbers is where the gradient stops to be a whole table; a table of 4 columns has them in 2^20 rows
each_size = pytest.mark.parametrize("rows", [50, 2**20 + 1], ids=["small table", "large table"])
BAGS = np.array([[3, 7, 3, 3], [49, -1, -1, -1], [-1, -1, -1, -1], [7, 0, -1, 12], [-1, -1, -1, -1]], np.int32)
UPSTREAM = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


def summed(table, pooling="sum"):
    return BagLookup(table, pooling, name="bags")(tf.constant(BAGS))


@each_size
def test_a_bag_is_the_sum_of_its_vectors_and_repeated_values_count(rows):
    table = Tables().get("one", rows, 4, 0)
    vectors = table.vectors.numpy()
    expected = np.stack([vectors[bag[bag >= 0]].sum(axis=0) for bag in BAGS])
    np.testing.assert_allclose(summed(table).numpy(), expected, rtol=1e-5, atol=1e-6)
    # by hand: the value 3 stands three times in the first bag
    np.testing.assert_allclose(summed(table).numpy()[0], 3 * vectors[3] + vectors[7], rtol=1e-5)


@each_size
def test_the_gradient_of_a_bag_is_that_of_looking_up_and_adding(rows):
    table = Tables().get("one", rows, 4, 0)
    expected = np.zeros((rows, 4), np.float32)
    for bag, upstream in zip(BAGS, UPSTREAM, strict=True):
        np.add.at(expected, bag[bag >= 0], upstream)

    def gradient():
        with tf.GradientTape() as tape:
            told = tf.reduce_sum(summed(table) * UPSTREAM)
        return tape.gradient(told, table.vectors)

    np.testing.assert_allclose(tf.convert_to_tensor(gradient()).numpy(), expected, rtol=1e-5, atol=1e-6)
    in_graph = tf.function(lambda: tf.convert_to_tensor(gradient()))
    np.testing.assert_allclose(in_graph().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_large_table_names_only_the_rows_that_were_met():
    table = Tables().get("one", 2**20 + 1, 4, 0)
    with tf.GradientTape() as tape:
        told = tf.reduce_sum(summed(table) * UPSTREAM)
    gradient = tape.gradient(told, table.vectors)
    assert sorted(gradient.indices.numpy().tolist()) == [0, 3, 7, 12, 49]
    assert gradient.values.shape == (5, 4)


@each_size
def test_bags_that_are_all_empty_are_zeros_without_a_gradient(rows):
    table = Tables().get("one", rows, 4, 0)
    with tf.GradientTape() as tape:
        vectors = BagLookup(table, "mean", name="bags")(tf.fill([3, 2], -1))
        told = tf.reduce_sum(vectors)
    assert not vectors.numpy().any()
    assert not tf.convert_to_tensor(tape.gradient(told, table.vectors)).numpy().any()


@pytest.mark.parametrize(("pooling", "power"), [("mean", 1.0), ("sqrt", 0.5)])
def test_the_other_poolings_divide_the_sum_by_a_power_of_the_count(pooling, power):
    table = Tables().get("one", 50, 4, 0)
    # values in the bags: 4, 1, none, 3, none; an empty bag divides by 1
    divisor = np.array([[4], [1], [1], [3], [1]]) ** power
    np.testing.assert_allclose(summed(table, pooling).numpy(), summed(table).numpy() / divisor, rtol=1e-5)
