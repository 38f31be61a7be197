"""Every kind of feature keeps the family's contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys import registry
from recsys.data import encoders
from recsys.errors import DataError

ROWS = 6
COLUMNS = {
    "categorical": pa.chunked_array([["a", "b", None, "a", "ü", "b"]]),
    "id": pa.chunked_array([["i0", "i1", "i2", "i3", "i4", "i5"]]),
    "multi_categorical": pa.chunked_array([[["a", "b"], [], None, ["a"], ["c", None, "a"], ["b"]]]),
    "numeric": pa.chunked_array([[1.0, 2.0, None, 4.0, 5.0, float("nan")]]),
    "text": pa.chunked_array([["Big red car", "", None, "big dog", "ÜBER car", "!!"]]),
    "embedding": pa.chunked_array([pa.array([[1.0, 2.0], [3.0, 4.0], None, [0.0, 1.0], [5.0, 6.0], [7.0, 8.0]])]),
    "history": pa.chunked_array([["i0", "i1", "i2", "i3", "i4", "i5"]]),
}
ASKED = COLUMNS | {"history": pa.chunked_array([[["i1", "i2"], [], None, ["i0"], ["never met"], ["i5"] * 40]])}
NULLS = {
    "embedding": pa.nulls(2, pa.list_(pa.float64())),
    "history": pa.nulls(2, pa.list_(pa.string())),
}
FREQUENCY = np.array([3, 1, 0, 2, 1, 1])

each_kind = pytest.mark.parametrize("kind", registry.names("features"))


def fitted(kind: str, **settings: object):
    return registry.choice("features", kind)(**settings).fit(COLUMNS[kind], FREQUENCY)


@each_kind
def test_codes_have_the_declared_shape_and_type(kind):
    encoder = fitted(kind)
    codes = encoder.encode(ASKED[kind].combine_chunks())
    assert codes.shape == (ROWS, *encoder.shape)
    assert codes.dtype == encoder.dtype


@each_kind
def test_a_row_alone_gets_the_code_that_it_gets_among_others(kind):
    encoder = fitted(kind)
    column = ASKED[kind].combine_chunks()
    together = encoder.encode(column)
    alone = np.concatenate([encoder.encode(column.slice(row, 1)) for row in range(ROWS)])
    np.testing.assert_array_equal(alone, together)


@each_kind
def test_a_raw_value_gets_the_code_that_its_column_gets(kind):
    encoder = fitted(kind)
    for value in [*ASKED[kind].to_pylist(), 1, 1.5, ["a", None], [1], True, ""]:
        code = encoder.code(value)
        if code is not None:
            expected = encoder.encode(pa.array([value], pa.string() if value is None else None))
            assert code.dtype == encoder.dtype
            np.testing.assert_array_equal(code, expected)


@each_kind
def test_what_was_saved_encodes_as_before(kind, tmp_path):
    encoder = fitted(kind)
    encoders.save({"one": encoder}, tmp_path / "encoders")
    restored = encoders.load(tmp_path / "encoders")["one"]
    column = ASKED[kind].combine_chunks()
    np.testing.assert_array_equal(restored.encode(column), encoder.encode(column))
    assert restored.settings == encoder.settings


@each_kind
def test_null_has_a_code_and_the_code_a_finite_vector(kind):
    from recsys.layers import Tables

    encoder = fitted(kind)
    codes = encoder.encode(NULLS.get(kind, pa.nulls(2)))
    vectors = encoder.build("one", "one", Tables())(codes).numpy()
    assert np.isfinite(vectors).all()
    assert np.array_equal(vectors[0], vectors[1])


@each_kind
def test_the_layer_gives_vectors_of_its_width(kind):
    from recsys.layers import Tables

    encoder = fitted(kind)
    layer = encoder.build("one", "one", Tables())
    vectors = layer(encoder.encode(ASKED[kind].combine_chunks())).numpy()
    assert vectors.shape == (ROWS, layer.width)
    assert vectors.dtype == np.float32


@each_kind
def test_an_all_null_column_is_fitted_or_refused_with_a_reason(kind):
    feature = registry.choice("features", kind)(**({} if kind == "history" else {"column": "price"}))
    nulls = pa.chunked_array([pa.nulls(ROWS)])
    if kind == "embedding":
        with pytest.raises(DataError, match="price: got no vector, expected vectors of one length"):
            feature.fit(nulls, FREQUENCY)
        return
    encoder = feature.fit(nulls, FREQUENCY)
    assert len(encoder.encode(ASKED[kind].combine_chunks())) == ROWS


@each_kind
def test_without_tensorflow_the_layer_gives_the_same_vectors(kind):
    from recsys.layers import Tables

    encoder = fitted(kind)
    layer = encoder.build("one", "one", Tables())
    codes = encoder.encode(ASKED[kind].combine_chunks())
    expected, tables = layer(codes).numpy(), {}

    def table_name(table):
        tables["table"] = table.vectors.numpy()
        return "table"

    np.testing.assert_allclose(layer.plain(table_name).vectors(codes, tables), expected, atol=1e-6)
