"""The data report: figures by hand on small files, and a warning for each kind of leak."""

import dataclasses
import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from recsys import config, pipeline
from recsys.data.describe import agreement, describe_data, render
from recsys.errors import DataError
from tests import carriers

ITEMS = pa.table({"item_id": ["a", "b", "c"], "colour": ["red", "red", None]})


@pytest.fixture
def report_on(tmp_path):
    """A function that writes tables and returns the report of a run over them."""

    def report(interactions, items=ITEMS, users=None, entity="user", split=None, query=None, source=None, **sections):
        tables = {"interactions": interactions, "items": items, "users": users}
        paths = {}
        for name, table in tables.items():
            if isinstance(table, str):
                paths[name] = str(tmp_path / f"{name}.csv")
                (tmp_path / f"{name}.csv").write_text(table)
            elif table is not None:
                paths[name] = str(tmp_path / f"{name}.parquet")
                pq.write_table(table, paths[name])
        features = query or {"who": {"kind": "id"}}
        run = {
            "name": "small",
            "source": {"kind": "parquet", **paths, **(source or {})},
            "split": split or {"kind": "random", "test_rate": 0.2, "validation_rate": 0.0},
            "query": {"entity": entity, **({} if entity == "item" else {"features": features})},
            "item": {"features": {"colour": {"kind": "categorical"}}},
            **sections,
        }
        report.run = config.from_tables(run)
        return describe_data(report.run)

    return report


def met(pairs, **columns):
    users, items = zip(*pairs, strict=True)
    return pa.table({"user_id": list(users), "item_id": list(items), **columns})


def warnings_about(report, *words):
    return [warning for warning in report.warnings if all(word in warning for word in words)]


def problems_about(report, *words):
    return [problem for problem in report.problems if all(word in problem for word in words)]


def test_counts_are_counted(report_on):
    report = report_on(met([("u", "a"), ("u", "a"), ("u", "b"), ("v", "a")]))

    assert report.interaction_count == 4
    assert report.item_count == 3
    assert report.query_count == 2
    # (u, a) stands there twice.
    assert report.distinct_pair_count == 3
    assert report.duplicate_count == 1
    assert sum(report.part_counts.values()) == 4


def test_the_baselines_that_will_run_are_named_and_the_others_with_the_reason(report_on):
    baselines = {"baselines": ["popularity", "ease"]}
    pairs = met([("u", "a"), ("u", "b"), ("v", "a")], daypart=["day", "night", "day"])
    assert report_on(pairs, evaluation=baselines).baselines == {"popularity": "", "ease": ""}
    features = {"daypart": {"kind": "categorical"}}
    report = report_on(pairs, entity="features", query=features, evaluation=baselines)
    assert report.baselines == {"popularity": "", "ease": "Queries of free features have no history."}
    console = Console(record=True, width=200)
    render(report, console)
    printed = console.export_text()
    assert "Baselines of the evaluation: popularity." in printed
    assert "The baseline ease will be left out: Queries of free features have no history." in printed


@pytest.mark.parametrize("excludes", [True, False])
def test_own_items_are_no_baseline_where_rankings_leave_them_out(report_on, excludes):
    pairs = met([("u", "a"), ("u", "a"), ("v", "b"), ("v", "b")])
    report = report_on(pairs, evaluation={"baselines": ["repeat"], "exclude_seen": excludes})
    assert report.baselines == {"repeat": "Rankings leave out what an entity has met." if excludes else ""}


def test_query_entities_of_both_the_table_and_the_interactions_count(report_on):
    users = pa.table({"user_id": ["u", "silent"], "town": ["Ulm", "Ulm"]})

    assert report_on(met([("u", "a"), ("new", "a")]), users=users).query_count == 3


def test_concentration_is_the_share_of_the_most_frequent_items(report_on):
    # Of 20 items, item 0 is met 30 times, item 1 10 times and 10 others once each: 50 in all.
    items = pa.table({"item_id": [f"i{row}" for row in range(20)], "colour": ["red"] * 20})
    pairs = [("u", "i0")] * 30 + [("u", "i1")] * 10 + [("v", f"i{row}") for row in range(2, 12)]

    shape = report_on(met(pairs), items=items).concentration

    # 1 % of 20 items rounds up to one item: 30 / 50. 10 % are two items: 40 / 50.
    assert shape.top_1_percent_rate == pytest.approx(0.6)
    assert shape.top_10_percent_rate == pytest.approx(0.8)
    assert (shape.max_per_item, shape.max_per_query, shape.items_never_met) == (30, 40, 8)
    # Ascending: 8 zeros, 10 ones (i = 9..18), 10 (i = 19), 30 (i = 20); n = 20.
    # sum (2i - 21) over i = 9..18 is 2 * 135 - 210 = 60; 10 * 17 = 170; 30 * 19 = 570; 800 / (20 * 50) = 0.8.
    assert shape.gini == pytest.approx(0.8)


def test_evenly_met_items_have_a_gini_coefficient_of_zero(report_on):
    assert report_on(met([("u", "a"), ("u", "b"), ("v", "c")])).concentration.gini == 0


def test_ids_that_the_tables_lack_are_counted_with_examples(report_on):
    users = pa.table({"user_id": ["u"], "town": ["Ulm"]})

    report = report_on(met([("u", "a"), ("u", "x"), ("w", "x"), ("w", "y")]), users=users)

    found = {each.side: each for each in report.unknown_ids}
    assert (found["item"].id_count, found["item"].interaction_count, found["item"].interaction_rate) == (2, 3, 0.75)
    assert found["item"].examples == ("x", "y")
    assert (found["query"].id_count, found["query"].interaction_count) == (1, 2)
    assert warnings_about(report, "75.0%", "item that the items lack")


def test_an_item_to_item_run_looks_for_the_query_among_the_items(report_on):
    pairs = pa.table({"source": ["a", "z", "b"], "item_id": ["b", "a", "b"]})

    report = report_on(pairs, entity="item", source={"query_column": "source"})

    assert [(each.side, each.examples) for each in report.unknown_ids] == [("query", ("z",))]
    # Of three interactions, b leads to b.
    assert warnings_about(report, "33.3%", "from an item to itself")


def test_missing_values_and_cardinalities_of_each_column(report_on):
    items = pa.table(
        {
            "item_id": ["a", "b", "c", "d"],
            "colour": ["red", "red", "blue", None],
            "price": [1.0, float("nan"), None, 2.0],
            "tags": [["x", "y"], ["x"], [], None],
            "vector": pa.array([[0.0, 1.0]] * 4, pa.list_(pa.float32(), 2)),
        }
    )

    columns = {column.name: column for column in report_on(met([("u", "a"), ("v", "b")]), items=items).columns}

    colour, price, tags, vector = (columns[name] for name in ("colour", "price", "tags", "vector"))
    assert (colour.missing_count, colour.missing_rate, colour.distinct_count) == (1, 0.25, 2)
    assert (colour.top_value, colour.top_value_rate) == ("red", pytest.approx(2 / 3))
    assert colour.read_by == ("colour",)
    assert (price.missing_count, price.distinct_count, price.read_by) == (2, 2, ())
    assert (tags.missing_count, tags.distinct_count, tags.top_value) == (2, 2, "x")
    assert vector.distinct_count is None


def test_the_time_range_is_told_in_utc(report_on):
    report = report_on(met([("u", "a"), ("v", "b")], at=[86_400, 0]), source={"timestamp_column": "at"})

    assert report.first_time == "1970-01-01T00:00:00+00:00"
    assert report.last_time == "1970-01-02T00:00:00+00:00"


def test_broken_rows_are_listed_and_too_many_stop_training(report_on):
    report = report_on("user_id,item_id\nu,a\n,a\nv,b\n")

    assert [(each.reason, each.count) for each in report.rejected] == [("query_id missing", 1)]
    assert report.rejected[0].examples[0].endswith("interactions.csv:3: None")
    assert problems_about(report, "data.max_rejected_rate: got 1 broken rows of 3, expected at most 0.01")


def test_a_source_of_nothing_but_broken_rows_is_an_error_that_names_one(report_on):
    with pytest.raises(DataError, match=r"no usable interaction.*query_id missing \(.*interactions\.csv:2"):
        report_on("user_id,item_id\n,a\n")


def test_empty_and_constant_columns_are_warned_about(report_on):
    items = pa.table({"item_id": ["a", "b"], "colour": pa.array([None, None], pa.string()), "shop": ["one", "one"]})

    report = report_on(met([("u", "a"), ("v", "b")]), items=items)

    assert warnings_about(report, "'colour' has no value at all")
    assert warnings_about(report, "'shop' has the same value everywhere")


def test_items_without_any_feature_are_warned_about(report_on):
    assert warnings_about(report_on(met([("u", "a")])), "1 items (33.3%)", "no value in any column")


def test_a_feature_that_reads_a_missing_column_stops_training(report_on):
    item = {"features": {"color": {"kind": "categorical"}}}

    assert problems_about(report_on(met([("u", "a")]), item=item), "item.features.color", "Did you mean 'colour'?")


def test_a_split_that_trains_on_later_rows_than_it_tests_on_is_warned_about(report_on):
    pairs = [(f"u{row}", "abc"[row % 3]) for row in range(200)]
    interactions, times = met(pairs, at=list(range(200))), {"timestamp_column": "at"}

    mixed = report_on(interactions, source=times)
    in_order = report_on(interactions, source=times, split={"kind": "by_time"})

    assert warnings_about(mixed, "before the latest training interaction")
    assert not warnings_about(in_order, "before the latest training interaction")


def test_histories_longer_than_a_transformer_reads_are_warned_about_with_their_count(report_on):
    days = pa.array([day * 86_400_000_000 for day in range(8)], pa.timestamp("us", "UTC"))
    interactions = met([("u", "a")] * 5 + [("v", "b")] * 3, time=days)
    history = {"kind": "history", "pooling": "transformer", "transformer": {"positions": 4}}
    report = report_on(interactions, query={"past": history}, source={"timestamp_column": "time"})
    assert warnings_about(report, "query.features.past", "1 of 2 query entities", "the 4 newest")
    bag = report_on(interactions, query={"past": {"kind": "history"}}, source={"timestamp_column": "time"})
    assert not warnings_about(bag, "query.features.past")


def test_the_report_says_which_history_queries_have_at_evaluation(report_on):
    interactions, times = met([("u", "a"), ("v", "b")] * 20, at=list(range(40))), {"timestamp_column": "at"}
    for split, words in (
        ({"kind": "random"}, "also those after a held-out one"),
        ({"kind": "by_time"}, "up to its first"),
    ):
        console = Console(file=io.StringIO(), width=140)
        report = report_on(interactions, source=times, split=split)
        render(report, console)
        assert words in report.history
        assert f"History of a query at evaluation: {report.history}." in console.file.getvalue()
    assert report_on(interactions, source=times, entity="features", query={"at": {"kind": "numeric"}}).history == ""


def test_a_split_that_needs_times_which_are_not_there_stops_training(report_on):
    report = report_on(met([("u", "a")]), split={"kind": "by_time"})

    assert report.part_counts == {}
    assert problems_about(report, "split.kind: got 'by_time', expected a source with times")


def free_run(report_on, **columns):
    random = np.random.default_rng(0)
    codes = random.integers(3, size=300)
    table = {"item_id": [f"{'abc'[code]}" for code in codes]}
    table |= {name: make(codes, random) for name, make in columns.items()}
    features = {name: {"kind": "categorical"} for name in columns if name != "unread"}
    return report_on(pa.table(table), entity="features", query=features, source={"query_column": ""})


def test_a_query_column_that_determines_the_item_is_a_leak(report_on):
    # Every code has two values of its own, so each value goes with one item only.
    report = free_run(
        report_on,
        order=lambda codes, random: [f"{code * 2 + random.integers(2)}" for code in codes],
        device=lambda codes, random: [f"{random.integers(4)}" for _ in codes],
    )

    assert warnings_about(report, "'order' determines the item", "100.0%")
    assert not warnings_about(report, "'device'")


def test_a_query_column_whose_values_are_all_different_is_no_evidence(report_on):
    report = free_run(report_on, session=lambda codes, random: [f"s{row}" for row in range(len(codes))])

    assert not warnings_about(report, "'session'")


def test_a_query_column_that_equals_the_item_is_a_leak_even_when_no_feature_reads_it(report_on):
    report = free_run(
        report_on,
        hour=lambda codes, random: [f"{random.integers(24)}" for _ in codes],
        unread=lambda codes, random: ["abc"[code] for code in codes],
    )

    assert warnings_about(report, "'unread' equals the item id in 100.0%", "No feature of the run reads it")


def test_a_user_column_that_holds_the_answer_is_a_leak(report_on):
    users = pa.table({"user_id": [f"u{row}" for row in range(60)], "last": ["abc"[row % 3] for row in range(60)]})
    pairs = [(f"u{row}", "abc"[row % 3]) for row in range(60)]

    report = report_on(met(pairs), users=users)

    assert warnings_about(report, "'last' equals the item id in 100.0%")


def test_an_item_column_counted_from_the_interactions_is_a_leak(report_on):
    # Item i is met i + 1 times, and its column `sold` says so; `shelf` is in another order.
    ids = [f"i{row}" for row in range(12)]
    items = pa.table(
        {
            "item_id": ids,
            "colour": ["red"] * 12,
            "sold": list(range(1, 13)),
            "shelf": [5, 1, 8, 2, 11, 0, 9, 3, 7, 4, 10, 6],
        }
    )
    pairs = [(f"u{time}", f"i{row}") for row in range(12) for time in range(row + 1)]

    report = report_on(met(pairs), items=items)

    assert warnings_about(report, "'sold' orders the items as their number of interactions does")
    assert not warnings_about(report, "'shelf' orders")


def test_agreement_is_the_chance_that_two_rows_with_one_value_have_one_item():
    values = np.array([0, 0, 0, 1, 1, 2])
    items = np.array([5, 5, 6, 7, 7, 8])

    found, chance, rows = agreement(values, items)

    # Value 0: two rows with item 5 find one of two others alike, the row with item 6 none: 1/2 + 1/2 + 0.
    # Value 1: both rows find the other alike: 1 + 1. Value 2 occurs once and does not count. 3 / 5.
    assert found == pytest.approx(3 / 5)
    assert rows == 5
    # Two of the 6 rows picked at random: items 5 and 7 twice each: (2 * 1 + 2 * 1) / (6 * 5).
    assert chance == pytest.approx(4 / 30)


def test_the_report_is_plain_json_and_prints(report_on):
    report = report_on("user_id,item_id\nu,a\n,a\nv,x\n")
    console = Console(file=io.StringIO(), width=140)

    render(report, console)

    assert json.loads(json.dumps(dataclasses.asdict(report)))["interaction_count"] == 2
    printed = console.file.getvalue()
    for words in ("Unknown ids", "Broken rows", "interactions.csv:3", "Gini", "warning"):
        assert words in printed


def test_brackets_in_the_data_are_printed_as_they_are(report_on):
    items = pa.table({"item_id": ["a", "b"], "colour": ["[/red]", "[/red]"], "[bold]": ["x", "y"]})
    console = Console(file=io.StringIO(), width=140)

    render(report_on("user_id,item_id\nu,a\n,[/b]\nv,[/x]\n", items=items), console)

    printed = console.file.getvalue()
    assert all(text in printed for text in ("[/red]", "[bold]", "[/x]"))


@pytest.mark.parametrize(
    ("values", "missing"),
    [
        (pa.nulls(2), 2),
        (pa.array([[["x"]], [[]]]), 1),
        (pa.array([{"x": 1}, None]), 1),
        (pa.array([b"x", None]), 1),
        (pa.array([True, None]), 1),
        (pa.array([[None], ["x"]], pa.list_(pa.string())), 1),
        (pa.array([[float("nan")], [0.5, None]]), 1),
        (pa.array([float("nan"), 0.5]).dictionary_encode(), 1),
        (pa.array([[], None], pa.list_(pa.string())), 2),
    ],
)
def test_missing_values_are_counted_in_columns_of_any_type(report_on, values, missing):
    items = pa.table({"item_id": ["a", "b"], "colour": ["red", "blue"], "odd": values})

    report = report_on(met([("u", "a"), ("v", "b")]), items=items)

    assert [column.missing_count for column in report.columns if column.name == "odd"] == [missing]


@pytest.mark.parametrize(
    "name", [name for name in carriers.ODD_TYPES if not name.endswith(("interval", "union", "run_end_encoded"))]
)
def test_columns_of_every_type_that_parquet_holds_are_reported_with_it(report_on, name):
    odd = pa.concat_arrays([carriers.ODD_TYPES[name]] * 2)
    items = pa.table({"item_id": ["a", "b"], "colour": ["red", "blue"], "odd": odd})
    users = pa.table({"user_id": ["u", "v"], "odd": odd})

    report = report_on(met([("u", "a"), ("v", "b")] * 30), items=items, users=users)

    found = [(column.side, column.missing_count) for column in report.columns if column.name == "odd"]
    assert found == [(side, 2 if name == "null" else 0) for side in ("item", "query")]


@pytest.mark.parametrize("kind", config.kinds_of("objective"))
def test_the_data_of_a_run_with_any_objective_are_described(kind):
    run = config.from_tables(
        {
            "name": "s",
            "source": {"kind": "synthetic", "users": 20, "items": 10, "interactions": 400, "groups": 2},
            "query": {"features": {"met": {"kind": "history", "shared": False, "pooling": "sum"}}},
            "item": {"features": {"item": {"kind": "id"}}},
            "split": {"kind": "by_time", "test_rate": 0.2, "validation_rate": 0.2},
            "tower": {"kind": "sum", "dim": 4},
            "objective": {"kind": kind},
        }
    )
    assert describe_data(run).problems == ()


def test_the_report_says_what_a_run_leaves_to_the_data(report_on):
    history, item = {"met": {"kind": "history"}}, {"features": {"id": {"kind": "id"}}}
    pairs = [(f"u{user}", "ab"[user % 2]) for user in range(40)]
    objective, seen = report_on(met(pairs), query=history, item=item).decisions
    assert objective.startswith("objective: 'dlae', 40 query entities and 3 items are few enough")
    assert seen.startswith("evaluation.exclude_seen: true")
    named = report_on(
        met(pairs), query=history, item=item, objective={"kind": "ease"}, evaluation={"exclude_seen": False}
    )
    assert named.decisions == ()


def test_the_notice_of_the_data_is_told():
    run = config.from_tables(
        {
            "name": "s",
            "source": {"kind": "synthetic", "users": 20, "items": 10, "interactions": 200, "groups": 2},
            "query": {"features": {"segment": {"kind": "categorical"}}},
            "item": {"features": {"category": {"kind": "categorical"}}},
        }
    )
    console = Console(file=io.StringIO(), width=140)

    report = describe_data(run)
    render(report, console)

    assert report.interaction_count == 200
    assert "Synthetic" in report.notice
    assert report.notice in console.file.getvalue()


def test_a_table_that_matches_less_than_half_is_warned_about_with_an_id_of_either_side(report_on):
    users = pa.table({"user_id": ["00001", "00002", "00003"], "town": ["Ulm", "Bonn", "Köln"]})

    report = report_on(met([("1", "a"), ("2", "b"), ("00003", "c")]), users=users)

    # Two of three entities have no row.
    assert warnings_about(report, "users table lacks the ids of 2 of 3 query entities", "they name '1', it has '00001'")
    assert not warnings_about(report, "The items table")


def test_items_without_a_known_id_are_a_report_with_ids_of_both_sides(report_on):
    report = report_on(met([("u", "7"), ("v", "8")]), items=pa.table({"item_id": ["00007"], "colour": ["red"]}))

    assert report.unknown_ids[0].interaction_rate == 1
    assert report.part_counts == {}
    assert problems_about(report, "unknown id: 2", "'item_id': '7'", "the items have '00007'")
    assert warnings_about(report, "items table lacks the ids of 2 of 2 interactions", "name '7', it has '00007'")


@pytest.mark.parametrize("entity", ["user", "item"])
def test_interactions_that_name_no_query_are_refused_with_the_settings_that_help(report_on, entity):
    with pytest.raises(
        DataError, match=rf"query\.entity: got '{entity}', expected 'features'.*set source\.query_column"
    ):
        report_on(met([("u", "a")]), entity=entity, source={"query_column": ""})


def test_items_of_which_none_is_usable_are_an_error_that_names_a_row(report_on):
    with pytest.raises(DataError, match=r"source\.items: got no usable item.*item_id missing \(.*items\.csv:2"):
        report_on("user_id,item_id\nu,a\n", items="item_id,colour\n,red\n")


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (["20260101", "20260102"], "2 times are numbers that spell a date"),
        ([20260101, 20260102], "interactions.parquet:1: 20260101"),
        ([20260101235959, 1714521600], "1 times are numbers that spell a date"),
        ([0, 1714521600], "1 times are before 1971"),
        ([-1714521600, 1714521600], "1 times are before 1971"),
        (["9999-12-31", "2024-05-01"], "1 times are in the future"),
        ([1714521600, 253402300799], "1 times are not in seconds, as the first number"),
        ([1714521600, 1714521600000], "1 times are not in seconds, as the first number of the column"),
    ],
)
def test_odd_times_are_warned_about_with_an_example(report_on, at, words):
    report = report_on(met([("u", "a"), ("v", "b")], at=at), source={"timestamp_column": "at"})

    assert warnings_about(report, words, "write dates as 2026-01-31")


def test_usual_times_are_not_warned_about(report_on):
    for at in ([1714521600, 1714521601], ["2024-05-01", "1714521600"], ["2024-05-01T00:00:00Z", "2024-05-02"]):
        report = report_on(met([("u", "a"), ("v", "b")], at=at), source={"timestamp_column": "at"})
        assert not warnings_about(report, "times are")


def test_equal_times_are_refused_by_time_with_advice_that_helps(report_on):
    pairs = [(f"u{row}", "abc"[row % 3]) for row in range(30)]
    interactions, times = met(pairs, at=["2024-05-01"] * 30), "timestamp_column"

    report = report_on(interactions, source={times: "at"}, split={"kind": "by_time"})

    assert problems_about(report, "100.0% of the interactions at the earliest time", "Use split.kind = 'random'")
    assert warnings_about(report, "All interactions have the same time (2024-05-01T00:00:00+00:00)")
    assert report_on(interactions, source={times: "at"}, split={"kind": "random"}).problems == ()


FAULTS = {
    "a text column that is declared numeric": {"item": {"features": {"colour": {"kind": "numeric"}}}},
    "a feature without its column": {"item": {"features": {"color": {"kind": "categorical"}}}},
    "metadata without its column": {"item": {"features": {"colour": {"kind": "text"}}, "metadata": ["color"]}},
    "a filter without its column": {"item": {"features": {"colour": {"kind": "text"}}, "filters": ["color"]}},
    "a reserved column": {"items": ITEMS.append_column("training_count", pa.array([1, 2, 3]))},
    "no known item": {"items": pa.table({"item_id": ["x"], "colour": ["red"]})},
    "too many unknown items": {"items": ITEMS.slice(0, 2)},
    "times that are missing": {"split": {"kind": "by_time"}},
    "nothing to train on": {"split": {"kind": "random", "test_rate": 0.99, "validation_rate": 0.0}},
    "nothing to test with": {"split": {"kind": "random", "test_rate": 1e-9, "validation_rate": 0.0}},
    "query features without a value": {
        "entity": "features",
        "query": {"hour": {"kind": "numeric"}},
        "interactions": pa.table({"item_id": list("abc") * 10, "hour": pa.nulls(30)}),
        "source": {"query_column": ""},
    },
    "hard negatives that are not there": {"objective": {"kind": "sampled_softmax", "hard_negatives": {"file": "no"}}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_stops_training_is_reported_first(report_on, tmp_path, fault):
    pairs = [(f"u{row}", "abc"[row % 3]) for row in range(30)]
    report = report_on(**{"interactions": met(pairs), **FAULTS[fault]})

    with pytest.raises(DataError) as stopped:
        pipeline.train(report_on.run, tmp_path / "work", tmp_path / "releases")

    assert str(stopped.value) in report.problems
