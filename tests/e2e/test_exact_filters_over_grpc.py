"""Filters by numbers and times are exact over real gRPC, from the command line, and for items that were upserted."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from recsys import config, pipeline
from recsys.cli import app
from recsys.export.release import Release
from tests.e2e.test_releases import serving
from tests.exact_filters import RULES, Column, asked_numbers, asked_times, column, near_the_ends, passes
from tests.worlds import ITEMS, block_run, write_block_world
from twintower.client import Client
from twintower.errors import RequestError
from twintower.types import Condition, Diversity, Filter, FilterType, Query, Ranking, Upsert

QUERY = Query(vector=np.eye(8, dtype=np.float32)[0])
NUMBERS = {
    "i8": pa.int8(),
    "i64": pa.int64(),
    "u64": pa.uint64(),
    "f32": pa.float32(),
    "f64": pa.float64(),
    "money": pa.decimal128(38, 2),
    "wide": pa.decimal256(76, 60),
}
TIMES = {"day": pa.date32(), "ms": pa.timestamp("ms"), "us": pa.timestamp("us", "+05:30"), "ns": pa.timestamp("ns")}
KINDS = NUMBERS | TIMES
CHECKED = settings(max_examples=40, deadline=None)


def values_of(name: str, count: int) -> list[Any]:
    raw = near_the_ends(KINDS[name])
    return [raw[row * 11 % len(raw)] if row % 8 else None for row in range(count)]


COLUMNS = {name: column(kind, values_of(name, ITEMS)) for name, kind in KINDS.items()}


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    """A release trained on items with a column of each type."""
    world = tmp_path_factory.mktemp("exact")
    write_block_world(world)
    items = pq.read_table(world / "items.parquet")
    for name, made in COLUMNS.items():
        array = made.array.dictionary_encode() if name == "i64" else made.array
        items = items.append_column(name, array)
    pq.write_table(items, world / "items.parquet")
    tables = block_run(world)
    tables["item"] |= {"metadata": ["title", *KINDS], "filters": list(KINDS)}
    tables["training"] |= {"epochs": 1, "refit": "none"}
    return pipeline.train(config.from_tables(tables), world / "work", world / "releases")


@pytest.fixture(scope="module")
def client(release, tmp_path_factory) -> Iterator[Client]:
    with serving(release.folder, catalogue={"folder": tmp_path_factory.mktemp("changes") / "log"}) as (ready, _):
        yield ready


def found(client: Client, field: str, rule: str, asked: list[Any]) -> list[str]:
    values = tuple(asked) if rule in ("any_of", "none_of") else asked[0]
    ranking = client.nearest_items(QUERY, 1000, filter=Filter((Condition(field, **{rule: values}),)))
    return sorted(ranking.item_ids)


def expected(made: Column, kind: pa.DataType, rule: str, asked: list[Any], name: str = "item-ü{}") -> list[str]:
    return sorted(name.format(row) for row, value in enumerate(made.values) if passes(value, rule, asked, kind))


def test_the_release_says_which_columns_hold_numbers_and_which_times(client):
    fields = dict.fromkeys(NUMBERS, FilterType.NUMBER) | dict.fromkeys(TIMES, FilterType.TIME)
    assert client.release().filter_fields == fields


@pytest.mark.parametrize("name", NUMBERS)
@CHECKED
@given(st.data())
def test_numbers_pass_as_python_compares_them(client, name, data):
    made, rule = COLUMNS[name], data.draw(st.sampled_from(RULES))
    asked = data.draw(st.lists(asked_numbers(made), min_size=1, max_size=4 if rule in ("any_of", "none_of") else 1))
    assert found(client, name, rule, asked) == expected(made, KINDS[name], rule, asked)


@pytest.mark.parametrize("name", TIMES)
@CHECKED
@given(st.data())
def test_times_pass_to_the_nanosecond(client, name, data):
    rule, (text, time) = data.draw(st.sampled_from(RULES)), asked_times(data.draw)
    assert found(client, name, rule, [text]) == expected(COLUMNS[name], KINDS[name], rule, [time])


def shown(ranking: Ranking) -> dict[str, dict[str, Any]]:
    return dict(zip(ranking.item_ids, ranking.metadata, strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_what_the_metadata_of_an_answer_shows_a_filter_finds(client, name):
    everything = shown(client.nearest_items(QUERY, ITEMS, include_metadata=True))
    made = COLUMNS[name]
    for row, value in enumerate(made.values):
        if value is None or (name in ("f32", "f64") and not np.isfinite(value)):
            assert everything[f"item-ü{row}"][name] is None
        else:
            same = [f"item-ü{other}" for other, each in enumerate(made.values) if each == value]
            assert found(client, name, "any_of", [everything[f"item-ü{row}"][name]]) == sorted(same)


def test_upserted_items_keep_every_digit_and_are_filtered_like_the_others(release, tmp_path):
    with serving(release.folder, catalogue={"folder": tmp_path / "log"}) as (up, _):
        # given: the columns of items of the release, as an answer shows them
        everything = shown(up.nearest_items(QUERY, ITEMS, include_metadata=True))
        copies = [
            Upsert(f"new {row}", vector=QUERY.vector, metadata=everything[f"item-ü{row}"]) for row in range(ITEMS)
        ]
        # when
        up.upsert_items(copies[:25])
        up.upsert_items(copies[25:])
        up.delete_items([f"item-ü{row}" for row in range(ITEMS)])
        # then
        after = shown(up.nearest_items(QUERY, ITEMS, include_metadata=True))
        assert after == {item_id.replace("item-ü", "new "): columns for item_id, columns in everything.items()}
        for name, kind in NUMBERS.items():
            made = COLUMNS[name]
            sent = [None if value is None or not abs(value) < np.inf else value for value in made.values]
            made = Column(made.array, tuple(sent))
            for asked in (value for value in sent if value is not None):
                for rule in RULES:
                    assert found(up, name, rule, [asked]) == expected(made, kind, rule, [asked], "new {}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("i8", 128),
        ("i64", 2**63),
        ("i64", 0.5),
        ("u64", -1),
        ("u64", 2**64),
        ("f32", 2**24 + 1),
        ("f64", 2**53 + 1),
        ("f64", 2**64 + 1),
        ("money", 19.999),
        ("money", Decimal("0.001")),
        ("day", 19_000),
        ("ns", 1_700_000_000),
        ("us", "2024-01-01T00:00:00.123456789Z"),
    ],
)
def test_metadata_that_its_column_does_not_hold_exactly_is_refused(client, name, value):
    with pytest.raises(RequestError, match=rf"items\[0\]\.metadata\.{name}: got .*, expected "):
        client.upsert_items([Upsert("new", vector=QUERY.vector, metadata={name: value})])


def test_crowding_knows_sellers_apart_that_differ_in_the_last_digit(client):
    distinct = {value for value in COLUMNS["i64"].values if value is not None}
    missing = sum(value is None for value in COLUMNS["i64"].values)
    ranking = client.nearest_items(QUERY, ITEMS, diversity=Diversity("i64", 1))
    assert len(ranking.item_ids) == len(distinct) + missing


@pytest.mark.parametrize(
    ("name", "condition", "rule", "asked"),
    [
        ("i64", f"={2**53 + 1}", "any_of", 2**53 + 1),
        ("i64", f"=[{2**53 + 1}]", "any_of", 2**53 + 1),
        ("i64", f"!={2**53 + 1}", "none_of", 2**53 + 1),
        ("i64", f">{2**53}", "exclusive_minimum", 2**53),
        ("i64", ">9007199254740992.0", "exclusive_minimum", 2**53),
        ("u64", f"<{2**64 - 1}", "exclusive_maximum", 2**64 - 1),
        ("u64", f"=[{2**64 - 1}]", "any_of", 2**64 - 1),
        ("money", "=19.99", "any_of", Decimal("19.99")),
        ("money", "=[19.990]", "any_of", Decimal("19.99")),
        ("f32", "=0.1", "any_of", 0.1),
        ("f64", "<inf", "exclusive_maximum", float("inf")),
    ],
)
def test_the_command_line_keeps_every_digit(client, name, condition, rule, asked):
    target = client.target
    command = ["query", "--target", target, "--vector", "1,0,0,0,0,0,0,0", "-k", "40", "--where", f"{name}{condition}"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
    assert done.exception is None, done.output
    listed = sorted(word for word in done.output.split() if word.startswith("item-ü"))
    assert listed == expected(COLUMNS[name], KINDS[name], rule, [asked])


def test_the_command_line_reads_times_to_the_nanosecond(client):
    command = ["query", "--target", client.target, "--vector", "1,0,0,0,0,0,0,0", "-k", "40"]
    # 1,704,067,200 s after 1970 is the beginning of 2024, UTC
    command += ["--where", "ns>=2024-01-01T00:00:00.123456789", "--where", "ns<2024-01-01T01:00:00.123456790+01:00"]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "400"})
    assert done.exception is None, done.output
    listed = sorted(word for word in done.output.split() if word.startswith("item-ü"))
    times = COLUMNS["ns"].array.cast(pa.int64()).to_pylist()
    assert listed == sorted(f"item-ü{row}" for row, time in enumerate(times) if time == 1_704_067_200_123_456_789)
    assert listed
