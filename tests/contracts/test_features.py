"""Every kind of feature keeps the family's contract."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import registry
from recsys.data import encoders
from recsys.errors import DataError
from tests import carriers

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

SINGLE = ("categorical", "id", "multi_categorical", "text")
NUMBERS = (*SINGLE, "numeric")
TEXTS = ("uuid", "json", "string_view", "large_string", "dictionary", "run_end_encoded")
TYPED = ("bool8", "bool", "float16", "decimal32", "decimal256", "date64", "timestamp", "time32", "time64", "duration")
LISTS = ("list", "large_list", "list_view", "large_list_view", "fixed_size_list", "fixed_shape_tensor")
READ = {
    "null": NUMBERS,
    "list of text": ("multi_categorical",),
    **dict.fromkeys(TEXTS, SINGLE),
    **dict.fromkeys(TYPED, NUMBERS),
    **dict.fromkeys(LISTS, ("multi_categorical", "embedding")),
}
"""Which kinds read which of the odd types; the others refuse them."""

each_kind = pytest.mark.parametrize("kind", registry.names("features"))


def fitted(kind: str, **settings: object):
    return registry.choice("features", kind)(**settings).fit(COLUMNS[kind], FREQUENCY)


@each_kind
def test_codes_have_the_declared_shape_and_type(kind):
    encoder = fitted(kind)
    codes = encoder.encode(ASKED[kind].combine_chunks())
    assert len(codes.shape) == 1 + len(encoder.shape)
    assert all(axis in (None, found) for axis, found in zip((ROWS, *encoder.shape), codes.shape, strict=True))
    assert codes.dtype == encoder.dtype


@each_kind
def test_a_row_alone_gets_the_code_that_it_gets_among_others(kind):
    encoder = fitted(kind)
    column = ASKED[kind].combine_chunks()
    together = encoder.encode(column)
    for row in range(ROWS):
        (alone,) = encoder.encode(column.slice(row, 1))
        # A row that may have any number of values is padded to the longest one of its batch.
        np.testing.assert_array_equal(alone, together[row][: len(alone)] if np.ndim(alone) else together[row])
        if None in encoder.shape:
            assert (together[row][len(alone) :] == -1).all()


@each_kind
def test_raw_values_get_the_codes_that_their_column_gets_or_are_refused_as_it_is(kind):
    encoder = fitted(kind)
    nan = float("nan")
    for value in [*ASKED[kind].to_pylist(), 1, 1.5, ["a", None], [1], [1.0, nan], [nan, nan], [], True, "", b"raw"]:
        try:
            expected = encoder.encode(pa.array([value]))
        except DataError:
            with pytest.raises(DataError):
                encoder.encode_values([value])
            continue
        codes = encoder.encode_values([value, None, value])
        assert codes.dtype == encoder.dtype
        np.testing.assert_array_equal(codes, encoders.stacked([expected, encoder.encode(pa.nulls(1)), expected]))


NUMERIC = {"transform": "quantile", "buckets": 3}


@pytest.mark.parametrize("kind", NUMBERS)
@settings(deadline=None, max_examples=50)
@given(number=carriers.NUMBERS, nanoseconds=carriers.MOMENTS, of_number=st.booleans(), data=st.data())
def test_a_value_has_one_code_whatever_carried_it_in_training_and_carries_it_now(
    kind, number, nanoseconds, of_number, data
):
    # given: one value in every type, in training beside others of that type
    if of_number:
        columns, asked = list(carriers.of_number(number)), [number, *carriers.texts_of_number(number)]
    else:
        columns, asked = list(carriers.of_moment(nanoseconds)), list(carriers.python_moments(nanoseconds))
    others = data.draw(st.lists(st.sampled_from([0.5, "five", None, float("nan"), 7, True]), max_size=3))
    readable = [other for other in others if kind != "numeric" or not isinstance(other, str)]
    for column in columns:
        feature = registry.choice("features", kind)(column="c", **(NUMERIC if kind == "numeric" else {}))
        trained = feature.fit(pa.chunked_array([column, pa.nulls(2, column.type)]), np.ones(3, np.int64))
        expected = trained.encode(column)
        # when, then: asked in every other type, alone and among others
        for other in columns:
            if pa.types.is_floating(column.type) or not pa.types.is_floating(other.type):
                for carrier in carriers.wrapped(other):
                    np.testing.assert_array_equal(trained.encode(carrier), expected)
        for value in asked:
            np.testing.assert_array_equal(trained.encode_values([value]), expected)
            np.testing.assert_array_equal(trained.encode_values([*readable, value])[-1:], expected)


@each_kind
@pytest.mark.parametrize("name", carriers.ODD_TYPES)
def test_every_type_is_read_or_refused_with_column_and_type(kind, name):
    if kind == "history":
        return  # of item ids, which are text
    array = carriers.ODD_TYPES[name]
    feature, column = registry.choice("features", kind)(column="c"), pa.chunked_array([array])
    if kind in READ.get(name, ()):
        assert np.isfinite(feature.fit(column, FREQUENCY[:1]).encode(array)).all()
        return
    with pytest.raises(DataError) as caught:
        feature.fit(column, FREQUENCY[:1])
    assert str(caught.value).startswith("c: got no vector" if name == "null" else f"c: got {array.type}, expected ")


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
