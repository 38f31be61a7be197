"""Every kind of tower keeps the family's contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys import registry
from recsys.features.categorical import Categorical
from recsys.features.id import Id
from recsys.stack import tf

each_kind = pytest.mark.parametrize("kind", registry.names("towers"))
VALUES = pa.chunked_array([["a", "b", "c", "d"]])
COUNTS = np.ones(4, np.int64)
SEED = tf.constant([1, 2])


def built(kind: str, **settings: object):
    from recsys.layers import Tables

    encoders = {
        "color": Categorical(column="color", width=4).fit(VALUES, COUNTS),
        "id": Id(width=6, unknown_rate=0.5).fit(VALUES, COUNTS),
    }
    tables = Tables()
    layers = {name: encoder.build(name, name, tables) for name, encoder in encoders.items()}
    codes = {name: tf.constant(encoder.encode(VALUES.combine_chunks())) for name, encoder in encoders.items()}
    tower = registry.choice("towers", kind)(dim=5, **settings)
    return tower.build(layers, name="item_tower", mixed_precision="none"), codes


@each_kind
def test_vectors_have_unit_length(kind):
    tower, codes = built(kind)
    vectors = tower(codes).numpy()
    assert vectors.shape == (4, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@each_kind
def test_inference_does_not_draw_anything(kind):
    tower, codes = built(kind, dropout_rate=0.5)
    np.testing.assert_array_equal(tower(codes).numpy(), tower(codes).numpy())


@each_kind
def test_training_draws_by_the_seed_alone(kind):
    tower, codes = built(kind, dropout_rate=0.5)
    drawn, again = tower(codes, seed=SEED).numpy(), tower(codes, seed=SEED).numpy()
    np.testing.assert_array_equal(drawn, again)
    assert (drawn != tower(codes, seed=SEED + 1).numpy()).any()
    assert (drawn != tower(codes).numpy()).any()


@each_kind
def test_every_variable_gets_a_gradient(kind):
    tower, codes = built(kind)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(tower(codes) * tf.constant([1.0, -2.0, 3.0, 0.5, 1.5]))
    assert all(gradient is not None for gradient in tape.gradient(value, tower.trainable_variables))


@each_kind
def test_bfloat16_hidden_layers_still_give_float32_vectors(kind):
    from recsys.layers import Tables

    encoder = Categorical(column="color", width=4).fit(VALUES, COUNTS)
    tower = registry.choice("towers", kind)(dim=5)
    layer = tower.build({"color": encoder.build("color", "color", Tables())}, name="t", mixed_precision="bfloat16")
    vectors = layer({"color": tf.constant(encoder.encode(VALUES.combine_chunks()))})
    assert vectors.dtype == tf.float32
    assert {variable.dtype for variable in layer.trainable_variables} == {tf.float32}
    np.testing.assert_allclose(np.linalg.norm(vectors.numpy(), axis=1), 1, rtol=1e-5)


@each_kind
def test_without_tensorflow_it_gives_the_same_vectors(kind):
    tower, codes = built(kind)
    expected = tower(codes).numpy()
    np.testing.assert_allclose(tower.plain()({name: each.numpy() for name, each in codes.items()}), expected, atol=1e-6)
