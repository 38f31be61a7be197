"""A value that was trained in one type finds its vector when a request carries it in another: over a real server."""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import config, pipeline
from recsys.export.release import Release
from tests import carriers
from tests.e2e.test_releases import serving
from twintower.client import Client
from twintower.types import Query, Upsert

NUMBERS = {
    pa.int64(): ("4006381333931", "5", "0", "-7"),
    pa.uint64(): (str(2**64 - 1), "1", "9007199254740993", "9007199254740992"),
    pa.float64(): ("4006381333931", "0.5", "1", "0.1"),
    pa.float32(): ("0.1", "0.2", "16777216", "5"),
    pa.decimal128(20, 3): ("4006381333931", "5", "0.125", "5.1"),
    pa.bool_(): ("1", "0"),
}
MOMENTS = {
    pa.date32(): (0, 20_454 * 86_400 * 10**9),
    pa.timestamp("ms"): (1_500_000_000, 20_454 * 86_400 * 10**9),
    pa.timestamp("us", "Asia/Kolkata"): (1_767_270_600_500_000_000, 20_454 * 86_400 * 10**9),
}
WIDTHS = {"categorical": {"width": 4}, "numeric": {"transform": "quantile", "buckets": 4, "width": 4}}
KINDS = {"categorical": {}, "multi_categorical": {}, "numeric": WIDTHS["numeric"]}
MISSING = [None, math.nan, np.float32("nan"), Decimal("NaN"), np.datetime64("NaT", "s")]


def typed_columns() -> dict[str, tuple[pa.Array, list[list[Any]]]]:
    """Return training columns by name, with all that carries each of their values in a request."""
    columns: dict[str, tuple[pa.Array, list[list[Any]]]] = {}
    for type_, texts in NUMBERS.items():
        exact = [Decimal(text) for text in texts]
        whole = pa.types.is_integer(type_) or pa.types.is_boolean(type_)
        values = exact if pa.types.is_decimal(type_) else [int(each) if whole else float(each) for each in exact]
        array = pa.array([bool(value) for value in values] if pa.types.is_boolean(type_) else values, type_)
        columns[str(type_)] = array, [list(numbers_carried(each)) for each in exact]
    for type_, moments in MOMENTS.items():
        array = pa.array([np.datetime64(moment, "ns") for moment in moments]).cast(type_)
        columns[str(type_)] = array, [list(carriers.python_moments(moment)) for moment in moments]
    times = [datetime.time(0, 0, 1), datetime.time(12, 30)]
    asked = [[datetime.time(0, 0, 1), "00:00:01", 1], [datetime.time(12, 30), "12:30", 45_000.0]]
    columns["time"] = pa.array(times, pa.time64("us")), asked
    spans = [datetime.timedelta(seconds=1.5), datetime.timedelta(days=1)]
    columns["duration"] = pa.array(spans), [[spans[0], 1.5, "1.50"], [spans[1], 86_400, np.timedelta64(1, "D")]]
    words = [["5.0"], ["5", 5, 5.0, Decimal("5.00"), np.float32(5)], ["true", True, np.True_]]
    columns["text"] = pa.array([each[0] for each in words]), words
    columns["dictionary"] = pa.array([each[0] for each in words]).dictionary_encode(), words
    return columns


def numbers_carried(number: Decimal) -> Iterator[Any]:
    """Yield what carries a number in a request."""
    yield from (number, number.quantize(Decimal("1.0000")), *carriers.texts_of_number(number))
    if number == int(number):
        yield int(number)
    if Decimal(repr(float(number))) == number and (number != int(number) or int(float(number)) == number):
        yield from (float(number), np.float64(float(number)))
    if Decimal(str(np.float32(float(number)))) == number:
        yield np.float32(float(number))
    if number in (0, 1):
        yield from (bool(number), str(bool(number)))


COLUMNS = typed_columns()
FEATURES = {
    f"{kind} of {column}": (kind, column)
    for kind in KINDS
    for column in COLUMNS
    if kind != "numeric" or column not in ("text", "dictionary")
}


def entity(feature: str, row: int | None) -> str:
    """Return the user with one value in one column only, or with NaN there."""
    return f"{feature}: {'nothing' if row is None else row}"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release in which each user has one value of one column, and no other feature."""
    folder = tmp_path_factory.mktemp("typed")
    random = np.random.default_rng(3)
    table = {name: [] for name in ("user_id", *FEATURES)}
    arrays = {name: COLUMNS[column][0] for name, (_, column) in FEATURES.items()}
    rows = [(name, row) for name, array in arrays.items() for row in (*range(len(array)), None)]
    indices = {name: [row if name == owner else None for owner, row in rows] for name in FEATURES}
    table = {"user_id": pa.array([entity(*each) for each in rows])}
    for name, (kind, _) in FEATURES.items():
        values = arrays[name].take(pa.array(indices[name], pa.int32()))
        if pa.types.is_floating(values.type):  # what is missing is NaN, not null
            values = values.fill_null(math.nan)
        if kind == "multi_categorical" and not pa.types.is_dictionary(values.type):
            values = pa.ListArray.from_arrays(np.arange(len(values) + 1, dtype=np.int32), values)
        table[name] = values
    write(folder / "users.parquet", table)
    met = [(user, f"i{item}") for user, _ in enumerate(rows) for item in random.choice(12, 6, replace=False)]
    write(folder / "met.parquet", {"user_id": [entity(*rows[user]) for user, _ in met], "item_id": [i for _, i in met]})
    sizes = pa.array([4006381333931.0, 0.5, math.nan, None] * 3)
    write(folder / "items.parquet", {"item_id": [f"i{row}" for row in range(12)], "size": sizes, "label": ["a"] * 12})
    run = {
        "name": "typed",
        "source": {
            "kind": "parquet",
            "interactions": str(folder / "met.parquet"),
            "items": str(folder / "items.parquet"),
            "users": str(folder / "users.parquet"),
        },
        "query": {"features": {name: {"kind": kind, **KINDS[kind]} for name, (kind, _) in FEATURES.items()}},
        "item": {"features": {"size": {"kind": "categorical", "width": 4}}, "filters": ["label"]},
        "split": {"kind": "random", "test_rate": 0.1, "validation_rate": 0.0},
        "tower": {"kind": "mlp", "hidden": [], "dim": 8},
        "objective": {"kind": "sampled_softmax"},
        "training": {"epochs": 3, "batch_size": 64, "optimizer": "adagrad", "learning_rate": 0.3},
        "evaluation": {"exclude_seen": False, "resamples": 100, "baselines": []},
        "index": {"kind": "brute_force"},
    }
    return pipeline.train(config.from_tables(run), folder / "work", folder / "releases")


def write(path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), path)


@pytest.fixture(scope="module")
def client(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with serving(release.folder, catalogue={"folder": tmp_path_factory.mktemp("log")}) as (client, _):
        yield client


@pytest.fixture(scope="module")
def trained(client: Client) -> dict[str, np.ndarray]:
    """The vector of each user, by id: what training made of the one value that the user has."""
    return {
        entity(name, row): client.encode_query(Query(entity_id=entity(name, row))).vector
        for name, (_, column) in FEATURES.items()
        for row in (*range(len(COLUMNS[column][0])), None)
    }


def asked(name: str, carrier: Any) -> Query:
    return Query(features={name: carrier})


@settings(deadline=None, max_examples=200)
@given(name=st.sampled_from(list(FEATURES)), data=st.data())
def test_a_request_finds_what_training_made_of_its_value_alone_and_in_a_batch(client, trained, name, data):
    # given: a value of a column, and any type that carries it
    _, column = FEATURES[name]
    row = data.draw(st.integers(0, len(COLUMNS[column][0]) - 1), "row")
    carrier = data.draw(st.sampled_from(COLUMNS[column][1][row]), "carrier")
    # when: alone
    vector = client.encode_query(asked(name, carrier)).vector
    # then
    np.testing.assert_allclose(vector, trained[entity(name, row)], atol=1e-6)
    # when: among others, some of which no column knows
    others = data.draw(
        st.lists(
            st.sampled_from(list(FEATURES)).flatmap(
                lambda other: st.sampled_from(sum(COLUMNS[FEATURES[other][1]][1], [0.5, 77, math.nan])).map(
                    lambda value: asked(other, value)
                )
            ),
            max_size=4,
        ),
        "others",
    )
    place = data.draw(st.integers(0, len(others)), "place")
    batch = client.batch_nearest_items([*others[:place], asked(name, carrier), *others[place:]], 12)
    known = client.nearest_items(Query(entity_id=entity(name, row)), 12)
    np.testing.assert_allclose(np.sort(batch[place].scores), np.sort(known.scores), atol=1e-6)


def test_values_of_a_column_have_vectors_of_their_own(trained):
    for name, (kind, column) in FEATURES.items():
        if kind != "numeric":  # which shares vectors among the numbers of a quantile
            vectors = [trained[entity(name, row)] for row in (*range(len(COLUMNS[column][0])), None)]
            assert len({vector.tobytes() for vector in vectors}) == len(vectors), name


def test_nan_in_training_is_null_in_a_request(client, trained):
    # A request without any other value would be answered by popularity: one with a value in another column is not.
    for name, (_, column) in FEATURES.items():
        beside = "categorical of int64" if column != "int64" else "categorical of text"
        value = {beside: COLUMNS[FEATURES[beside][1]][1][0][0]}
        expected = client.encode_query(Query(features=value)).vector
        for missing in MISSING:
            got = client.encode_query(Query(features={**value, name: missing}))
            np.testing.assert_array_equal(got.vector, expected)
    nothing = [trained[entity(name, None)] for name in FEATURES]
    np.testing.assert_allclose(nothing, np.broadcast_to(nothing[0], np.shape(nothing)), atol=1e-6)


def test_a_number_of_single_precision_is_found_by_the_double_next_to_it(client, trained):
    name = "categorical of float"
    for value in (np.float32(0.1).item(), 0.1, "0.1", Decimal("0.100")):
        np.testing.assert_allclose(client.encode_query(asked(name, value)).vector, trained[entity(name, 0)], atol=1e-6)


def test_the_command_line_leaves_it_to_the_column_whether_a_value_is_a_number(client, trained):
    from recsys.commands.query import _feature

    for text, row in (("categorical of text=5.0", 0), ("categorical of text=5", 1), ("categorical of text=true", 2)):
        vector = client.encode_query(Query(features=dict([_feature(text)]))).vector
        np.testing.assert_allclose(vector, trained[entity("categorical of text", row)], atol=1e-6)
    for text in ("4006381333931", "4006381333931.0", "4.006381333931e12", json.dumps(4006381333931.0)):
        vector = client.encode_query(Query(features=dict([_feature(f"categorical of double={text}")]))).vector
        np.testing.assert_allclose(vector, trained[entity("categorical of double", 0)], atol=1e-6)


def test_an_upserted_item_has_the_vector_of_trained_ones_with_its_value(client):
    # Items 0, 1 and 2 are 4006381333931, 0.5 and NaN in size.
    sizes = {
        "i0": [4006381333931, 4006381333931.0, "4006381333931.00", Decimal("4006381333931")],
        "i1": [0.5, "0.50", np.float32(0.5)],
        "i2": [None, math.nan],
    }
    for item_id, values in sizes.items():
        expected = client.encode_query(Query(item_ids=[item_id])).vector
        client.upsert_items([Upsert(f"new {place}", {"size": value}) for place, value in enumerate(values)])
        for place in range(len(values)):
            vector = client.encode_query(Query(item_ids=[f"new {place}"])).vector
            np.testing.assert_allclose(vector, expected, atol=1e-6)
        client.delete_items([f"new {place}" for place in range(len(values))])


def test_a_number_upserted_into_a_column_of_text_is_filtered_by_its_spelling(client):
    from twintower.filters import parse_filter

    items = [Upsert(f"label {number}", {"size": 0.5}, metadata={"label": number}) for number in (4006381333931, 0.5)]
    client.upsert_items(items)
    for number in ("4006381333931", "0.5"):
        found = client.nearest_items(Query(item_ids=["i0"], filter=parse_filter({"label": number})), 3)
        assert found.item_ids == (f"label {number}",)
    client.delete_items([item.item_id for item in items])
