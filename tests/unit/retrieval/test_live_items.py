"""Items changed since the release was written: found, hidden, counted, and the same as if the release had them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys import pipeline
from recsys.indexes import ExactSearcher
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems, Segment, typed
from recsys.retrieval.plain_rows import plain_rows
from recsys.types import NO_ROW
from tests.ranking import assert_best_first, score_tolerance
from tests.unit.data.test_prepare import item_to_item
from twintower.filters import parse_filter
from twintower.types import Diversity, FeedbackItem, FeedbackKind, Origin, Query

RANDOM = np.random.default_rng(5)


def unit(count: int, dim: int = 8) -> np.ndarray:
    vectors = RANDOM.normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture
def live(retriever) -> LiveItems:
    return LiveItems(retriever)


def every(retriever: Retriever, query: Query) -> dict[str, float]:
    (answer,) = retriever.nearest([query], 1000)
    return dict(zip(answer.item_ids, answer.scores.tolist(), strict=True))


def test_without_changes_the_retriever_is_the_release_s_own(live, retriever):
    assert live.retriever is retriever
    assert (len(live), live.upserted_count, live.deleted_count) == (40, 0, 0)


def test_vectors_find_new_items_and_no_deleted_ones(live):
    vectors = unit(3)
    live.apply([Change("new", vectors[0], {}), Change("item-ü3", None)])
    for k in (5, 100):
        matches = live.retriever.search_vectors(vectors, k)
        answers = live.retriever.nearest([Query(vector=vector) for vector in vectors], k)
        assert matches.counts.tolist() == [min(k, 40)] * 3  # one item came, one went
        assert matches.item_ids == [item_id for answer in answers for item_id in answer.item_ids]
        np.testing.assert_array_equal(matches.scores, np.concatenate([answer.scores for answer in answers]))


def test_a_new_item_is_found_by_its_vector_by_its_id_and_as_feedback(live):
    vector = unit(1)[0]
    live.apply([Change("new", vector, {"title": "New thing", "price": 3})])
    found = live.retriever
    (answer,) = found.nearest([Query(vector=vector)], 3)
    assert answer.item_ids[0] == "new"
    assert answer.scores[0] == pytest.approx(1.0, abs=1e-6)
    # its neighbours are those of its vector, itself left out
    (neighbours,) = found.nearest([Query(item_ids=["new"], similar=True)], 2)
    assert (neighbours.item_ids, neighbours.origin, neighbours.missing_ids) == (answer.item_ids[1:], Origin.ITEMS, ())
    mentions = [FeedbackItem("new", FeedbackKind.LIKED)]
    liked = found.reformulate(Query(entity_id="user 1"), 5, mentions=mentions, reformulator="history")
    assert liked.missing_ids == ()
    assert liked.drift > 0
    assert found.metadata(["new", "item-ü3", "nothing"]) == [
        {"title": "New thing", "taste": None},
        {"title": "Thing number 3", "taste": "sweet"},
        {},
    ]
    assert found.nearest([Query(vector=vector, excluded_ids=["new"])], 1)[0].item_ids == answer.item_ids[1:2]


def test_a_replaced_item_has_its_new_vector_only_and_a_removed_one_none(live, retriever):
    vector = unit(1)[0]
    live.apply([Change("item-ü3", vector), Change("item-ü4")])
    before, after = every(retriever, Query(vector=vector)), every(live.retriever, Query(vector=vector))
    assert after.keys() == before.keys() - {"item-ü4"}
    assert after["item-ü3"] == pytest.approx(1.0, abs=1e-6)
    same = after.keys() - {"item-ü3"}
    assert [after[each] for each in same] == pytest.approx([before[each] for each in same])
    assert live.retriever.nearest([Query(item_ids=["item-ü4"])], 3)[0].missing_ids == ("item-ü4",)
    assert live.retriever.metadata(["item-ü4"]) == [{}]
    assert (len(live), live.upserted_count, live.deleted_count) == (39, 1, 1)


def test_what_was_changed_can_be_forgotten(live, retriever):
    live.apply([Change("item-ü3", unit(1)[0]), Change("item-ü4"), Change("new", unit(1)[0])])
    live.apply([Change(item_id, forgotten=True) for item_id in ("item-ü3", "item-ü4", "new", "unknown")])
    asked = Query(entity_id="user 2")
    assert every(live.retriever, asked) == pytest.approx(every(retriever, asked))
    assert (len(live), live.upserted_count, live.deleted_count) == (40, 0, 0)


def test_a_call_keeps_the_state_that_it_began_with(live):
    vectors = unit(3)
    live.apply([Change("new", vectors[0])])
    begun = live.retriever
    live.apply([Change("new", vectors[1]), Change("newer", vectors[2]), Change("item-ü0")])
    assert begun.nearest([Query(vector=vectors[0])], 1)[0].item_ids == ("new",)
    assert every(begun, Query(vector=vectors[0])).keys() >= {"new", "item-ü0"}
    assert "newer" not in every(begun, Query(vector=vectors[0]))


def test_popularity_knows_of_changes(live, retriever):
    (before,) = retriever.nearest([Query(features={})], 3)
    live.apply([Change(before.item_ids[0]), Change("new", unit(1)[0])])
    (after,) = live.retriever.nearest([Query(features={})], 100)
    assert after.item_ids[:2] == before.item_ids[1:]
    np.testing.assert_array_equal(after.scores[:2], before.scores[1:])
    assert (after.item_ids[-1], after.scores[-1]) == ("new", 0.0)


def test_filters_and_crowding_know_of_changes(live, retriever):
    vector = unit(1)[0]
    taste = {row["item_id"]: row["taste"] for row in retriever._items.to_pylist()}
    sweet = Query(vector=vector, filter=parse_filter({"taste": "sweet"}))
    assert set(every(live.retriever, sweet)) == {item_id for item_id, value in taste.items() if value == "sweet"}
    # 70 calls, so that their tables become one on the way
    for number in range(70):
        live.apply([Change(f"new {number}", vector, {"taste": "sweet" if number % 2 else "other"})])
    live.apply([Change("item-ü3", vector, {"taste": "other"}), Change("new 1"), Change("new 3", vector)])
    taste |= {f"new {number}": "sweet" if number % 2 else "other" for number in range(70)}
    taste |= {"item-ü3": "other", "new 3": None}
    del taste["new 1"]
    assert set(every(live.retriever, sweet)) == {item_id for item_id, value in taste.items() if value == "sweet"}
    crowded = Diversity(crowding_field="taste", max_per_value=1)
    (answer,) = live.retriever.nearest([Query(vector=vector)], 10, crowded)
    # one without a taste, and one of each: those of the release and new ones count together
    assert sorted(str(taste[item_id]) for item_id in answer.item_ids) == sorted(str(each) for each in {*taste.values()})


def test_thousands_of_changes_answer_as_exact_search_over_what_is_left(retriever):
    # given: 6,000 changes of 2,000 ids, so that rows are written anew and an index is built on the way
    live = LiveItems(retriever, index_above=500)
    expected: dict[str, np.ndarray] = {f"item-ü{row}": retriever._vectors[row] for row in range(40)}
    for start in range(0, 6000, 100):
        changes = []
        for place, vector in enumerate(unit(100), start):
            item_id = f"n{RANDOM.integers(2000)}" if place % 7 else f"item-ü{RANDOM.integers(40)}"
            removed = place % 5 == 0
            changes.append(Change(item_id, None if removed else vector))
            expected.pop(item_id, None)
            if not removed:
                expected[item_id] = vector
        live.apply(changes)
    live.wait()
    # when
    queries, row_of = unit(20), {item_id: row for row, item_id in enumerate(expected)}
    vectors = np.array(list(expected.values()))
    answers = live.retriever.nearest([Query(vector=vector) for vector in queries], 10)
    # then
    for answer, scores in zip(answers, queries @ vectors.T, strict=True):
        rows = [row_of[item_id] for item_id in answer.item_ids]
        assert_best_first(rows, scores, score_tolerance(queries, vectors))
        np.testing.assert_allclose(answer.scores, scores[rows], rtol=0, atol=score_tolerance(queries, vectors))
    assert len(live) == len(expected)


def test_a_search_goes_deeper_when_the_best_ones_are_hidden():
    # the 60 best of 100 items are hidden: 40 are left
    vectors = np.linspace(1, 0.01, 100, dtype=np.float32)[:, None]
    hidden = np.arange(100) < 60
    found = Segment(ExactSearcher(vectors), hidden, first=7).search(np.ones((1, 1), np.float32), 50)
    assert found.item_rows[0].tolist() == [*range(67, 107), *[NO_ROW] * 10]
    assert Segment(ExactSearcher(vectors), hidden).search(np.ones((1, 1), np.float32), 3).item_rows.tolist() == [
        [60, 61, 62]
    ]


def test_where_everything_is_hidden_nothing_is_found():
    found = Segment(ExactSearcher(unit(3)), np.ones(3, bool)).search(unit(2), 2)
    assert found.item_rows.tolist() == [[NO_ROW] * 2] * 2


def test_metadata_of_another_type_counts_as_missing(live):
    live.apply([Change("a", unit(1)[0], {"price": "cheap", "tags": ["x"], "title": 3}), Change("b", unit(1)[0])])
    table = live.retriever._items.slice(40).to_pylist()
    assert [(row["price"], row["tags"], row["title"]) for row in table] == [(None, ["x"], "3"), (None, None, None)]


def test_in_an_item_to_item_release_a_new_item_asks_with_its_features_or_else_its_vector(tmp_path):
    release = pipeline.train(item_to_item(tmp_path), tmp_path / "work", tmp_path / "releases")
    retriever = Retriever.load(release.folder)
    live, (vector, other) = LiveItems(retriever), unit(2)
    live.apply([Change("by features", vector, features={"group": "group 1"}), Change("by vector", other)])
    asked = [Query(item_ids=["by features"]), Query(entity_id="by features"), Query(item_ids=["by vector"])]
    encoding = live.retriever.encode(asked)
    assert encoding.origins == (Origin.ITEMS, Origin.KNOWN_ENTITY, Origin.ITEMS)
    # as the query tower sees an unknown item with these features
    (expected,) = retriever.encode([Query(entity_id="by features", features={"group": "group 1"})]).vectors
    mapped = other @ np.load(release.folder / "query_side" / "map.npy")
    np.testing.assert_allclose(encoding.vectors, [expected, expected, mapped / np.linalg.norm(mapped)], atol=1e-6)
    (answer,) = live.retriever.nearest([Query(item_ids=["by features", "item 3"])], 100)
    assert not {"by features", "item 3"} & set(answer.item_ids)
    assert "by vector" in answer.item_ids
    assert len(answer.item_ids) == 30


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        (pa.dictionary(pa.int32(), pa.string()), ["a", "b", None]),
        (pa.timestamp("us", "UTC"), ["2026-01-02T03:04:05Z", None, "2026-01-02 03:04Z"]),
        (pa.time64("us"), ["03:04:05.000006", None, "03:04"]),
        (pa.time32("s"), ["03:04:05", None, "03"]),
        (pa.int64(), [1.0, None, 2.0]),
        (pa.list_(pa.string()), [["a"], None, []]),
        (pa.bool_(), [True, None, False]),
    ],
    ids=lambda each: str(each) if isinstance(each, pa.DataType) else "",
)
def test_values_of_the_wire_become_those_of_a_column(wanted, values):
    column = typed(values, wanted)
    assert column.type == wanted
    assert column.is_null().to_pylist() == [value is None for value in values]


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_times_without_a_zone_are_utc_whatever_the_zone_of_the_column(zone):
    wanted = pa.timestamp("ms", zone)
    texts = ["2026-01-02T03:04:05.678", "2026-01-02 03:04:05.678Z", "2026-01-02T05:04:05.678+02:00"]
    assert typed(texts, wanted).cast(pa.int64()).to_pylist() == [1767323045678] * 3
    assert typed(["2026-01-02T03:04:05.6789", 1767323045678], wanted).null_count == 2


def test_the_times_that_an_answer_shows_can_be_given_to_an_item():
    times = pa.table(
        {
            "moment": pa.array([10**18 + 1, None], pa.timestamp("ns", "Asia/Kolkata")),
            "clock": pa.array([3_600_000_001, None], pa.time64("us")),
            "day": pa.array([20_000, None], pa.date32()),
        }
    )
    shown = plain_rows(times)
    for name in times.column_names:
        assert typed([row[name] for row in shown], times[name].type).equals(times[name].combine_chunks())
