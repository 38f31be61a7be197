"""One item, two roles: queries by items, likes and dislikes of a trained release."""

from __future__ import annotations

import json
from dataclasses import replace

import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from recsys import config, pipeline
from recsys.data import encoders
from recsys.errors import ReleaseError
from recsys.export.query_side import FACTS, MAP, VECTORS, QuerySide
from recsys.features.history import History
from recsys.indexes import ExactSearcher
from recsys.reformulators import unit
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems
from tests.worlds import POOLED, block_run
from twintower.types import FeedbackItem, FeedbackKind, Origin, Query

LIKED, DISLIKED = FeedbackKind.LIKED, FeedbackKind.DISLIKED
ITEMS = [f"item-ü{row}" for row in range(40)]


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def side(block_release) -> QuerySide:
    facts = block_release.facts
    return QuerySide.load(block_release.folder / "query_side", facts.item_count, facts.dim)


def test_a_query_by_items_is_a_history_of_them(retriever):
    asked = [Query(item_ids=ITEMS[2:5]), Query(history=ITEMS[2:5])]
    encoding = retriever.encode(asked)
    assert encoding.origins == (Origin.ITEMS, Origin.FEATURES)
    np.testing.assert_allclose(encoding.vectors[0], encoding.vectors[1], atol=1e-6)


def test_a_query_by_items_takes_nothing_from_arrows_allocator(retriever):
    """It keeps some megabytes for each thread that has ever used it, and a server has many."""
    pool = pa.default_memory_pool()
    before = pool.total_bytes_allocated()
    retriever.encode([Query(item_ids=ITEMS), Query(history=ITEMS), Query(item_ids=ITEMS, similar=True)])
    assert pool.total_bytes_allocated() == before


def test_a_query_for_similar_items_compares_what_items_are_found_by(retriever, block_release):
    found = np.load(block_release.folder / "item_embeddings.npy")
    encoding = retriever.encode([Query(item_ids=ITEMS[2:3], similar=True), Query(item_ids=ITEMS[2:4], similar=True)])
    np.testing.assert_allclose(encoding.vectors, [found[2], unit(found[2] + found[3])], atol=1e-6)
    (answer,) = retriever.nearest([Query(item_ids=ITEMS[2:3], similar=True)], 3)
    assert ITEMS[2] not in answer.item_ids


def test_similar_items_are_found_exactly_where_the_index_misses_them(retriever, block_release):
    found = np.load(block_release.folder / "item_embeddings.npy")
    misses = retriever._twin(ExactSearcher(found[::-1].copy()))
    baskets = [Query(item_ids=[item_id]) for item_id in ITEMS[:6]]
    queries = [replace(query, similar=place not in (1, 4)) for place, query in enumerate(baskets)]
    right, answers = retriever.nearest(queries, 5, exact=True), misses.nearest(queries, 5)
    assert [each.item_ids == other.item_ids for each, other in zip(answers, right, strict=True)] == [
        query.similar for query in queries
    ]
    assert misses.nearest(queries[:1], 5)[0].item_ids == right[0].item_ids


def test_the_query_side_of_an_item_is_what_it_adds_to_an_empty_history(retriever, side):
    rows = [Query(history=[item_id]) for item_id in ITEMS]
    alone = retriever.encode(rows)
    raw = alone.vectors * alone.lengths[:, None]
    # What a history of one adds to none: the differences of two items are those of their histories.
    np.testing.assert_allclose(raw[1:] - raw[:-1], side.vectors[1:] - side.vectors[:-1], atol=1e-5)


def test_likes_extend_the_history_and_the_tower_encodes_again(retriever):
    query = Query(features={"town": "north"}, history=ITEMS[:2])
    mentions = [FeedbackItem(ITEMS[5], LIKED), FeedbackItem(ITEMS[7], FeedbackKind.CLICKED)]
    answer = retriever.reformulate(query, 5, mentions=mentions, reformulator="history")
    (longer,) = retriever.encode([Query(features={"town": "north"}, history=[*ITEMS[:2], ITEMS[7], ITEMS[5]])]).vectors
    assert answer.reformulator == "history"
    np.testing.assert_allclose(answer.vector, longer, atol=1e-5)
    by_items = retriever.reformulate(Query(item_ids=ITEMS[:2]), 5, mentions=mentions, reformulator="history")
    (longer,) = retriever.encode([Query(item_ids=[*ITEMS[:2], ITEMS[7], ITEMS[5]])]).vectors
    np.testing.assert_allclose(by_items.vector, longer, atol=1e-5)


def test_liking_what_the_history_holds_already_moves_nothing(retriever):
    query = Query(history=ITEMS[:3])
    answer = retriever.reformulate(query, 5, mentions=[FeedbackItem(ITEMS[1], LIKED)], reformulator="history")
    np.testing.assert_allclose(answer.vector, retriever.encode([query]).vectors[0], atol=1e-5)


def test_a_like_on_a_query_by_vector_adds_what_having_met_the_item_means(retriever, side):
    query = np.eye(1, side.vectors.shape[1], dtype=np.float32)[0]
    answer = retriever.reformulate(
        Query(vector=query), 5, mentions=[FeedbackItem(ITEMS[4], LIKED)], reformulator="history"
    )
    np.testing.assert_allclose(answer.vector, unit(query + side.vectors[4]), atol=1e-5)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(user=st.integers(0, 59), item=st.integers(0, 39), name=st.sampled_from(["", "rocchio", "identity"]))
def test_a_dislike_always_lowers_the_rank_of_the_disliked_item(retriever, user, item, name):
    query = Query(entity_id=f"user {user}")
    (before,) = retriever.nearest([query], len(ITEMS))
    mentions = [FeedbackItem(ITEMS[item], DISLIKED)]
    answer = retriever.reformulate(query, len(ITEMS), mentions=mentions, reformulator=name, include_feedback_items=True)
    assert set(answer.answer.item_ids) == set(before.item_ids)
    assert answer.answer.item_ids[-1] == ITEMS[item]


def test_a_new_item_gets_its_query_side_from_the_map_and_a_known_one_keeps_it(retriever, side):
    vector = unit(np.random.default_rng(3).normal(size=side.map.shape[0]).astype(np.float32))
    live = LiveItems(retriever)
    live.apply([Change("new", vector), Change(ITEMS[3], vector)])
    query = Query(vector=np.eye(1, len(vector), dtype=np.float32)[0])
    for item_id, expected in (("new", vector @ side.map), (ITEMS[3], side.vectors[3])):
        answer = live.retriever.reformulate(query, 5, mentions=[FeedbackItem(item_id, LIKED)], reformulator="history")
        np.testing.assert_allclose(answer.vector, unit(query.vector + expected), atol=1e-5)
    # in a history of known and new items both count
    (both, known) = live.retriever.encode([Query(item_ids=[ITEMS[5], "new"]), Query(item_ids=[ITEMS[5]])]).vectors
    assert np.abs(both - known).max() > 1e-4


def test_a_new_item_counts_in_a_history_beside_known_items_and_features(retriever, side):
    live = LiveItems(retriever)
    vector = unit(np.arange(1, retriever._vectors.shape[1] + 1, dtype=np.float32))
    live.apply([Change("new", vector)])
    alone, basket, both, known = live.retriever.encode(
        [
            Query(history=["new"]),
            Query(item_ids=["new"]),
            Query(features={"town": "north"}, history=[*ITEMS[:2], "new"]),
            Query(features={"town": "north"}, history=ITEMS[:2]),
        ]
    ).vectors
    np.testing.assert_allclose(alone, basket, atol=1e-6)
    encoding = retriever.encode([Query(features={"town": "north"}, history=ITEMS[:2])])
    expected = unit(encoding.vectors[0] * encoding.lengths[0] + vector @ side.map)
    np.testing.assert_allclose(known, encoding.vectors[0], atol=1e-6)
    np.testing.assert_allclose(both, expected, atol=1e-5)
    assert live.retriever.encode([Query(history=["new"])]).origins == (Origin.FEATURES,)


def test_likes_extend_what_new_items_and_the_history_say_together(retriever):
    vector = unit(np.arange(1, retriever._vectors.shape[1] + 1, dtype=np.float32))
    live = LiveItems(retriever)
    live.apply([Change("new", vector)])
    liked = [FeedbackItem(ITEMS[5], LIKED)]
    queries = [
        (Query(features={"town": "north"}, history=[*ITEMS[:2], "new"]), {"features": {"town": "north"}}, "history"),
        (Query(item_ids=[*ITEMS[:2], "new"]), {}, "item_ids"),
    ]
    for query, others, name in queries:
        answer = live.retriever.reformulate(query, 5, mentions=liked, reformulator="history")
        longer = Query(**others, **{name: [*ITEMS[:2], ITEMS[5], "new"]})
        np.testing.assert_allclose(answer.vector, live.retriever.encode([longer]).vectors[0], atol=1e-5)


def test_a_history_goes_through_the_tower_where_the_query_entities_are_items(retriever, block_world, tmp_path):
    met = pq.read_table(block_world / "interactions.parquet")
    pairs = pa.table({"met_id": [ITEMS[row % 20] for row in range(len(met))], "item_id": met["item_id"]})
    pq.write_table(pairs, tmp_path / "pairs.parquet")
    tables = block_run(
        block_world,
        query={"entity": "item", "features": {"recent": {"kind": "history", **POOLED}}},
        split={"kind": "random"},
    )
    tables["source"] |= {"interactions": str(tmp_path / "pairs.parquet"), "query_column": "met_id"}
    for unused in ("timestamp_column", "users"):
        del tables["source"][unused]
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    opened = Retriever.load(release.folder)
    by_history, by_items = opened.encode([Query(history=ITEMS[2:5]), Query(item_ids=ITEMS[2:5])]).vectors
    codes = encoders.only_histories(opened._encoders, [ITEMS[2:5]])
    np.testing.assert_allclose(by_history, opened._query_tower.encode(codes)[0][0], atol=1e-6)
    assert np.abs(by_history - by_items).max() > 1e-3


@pytest.mark.parametrize("damage", [VECTORS, MAP, FACTS])
def test_a_query_side_of_another_release_is_refused(side, tmp_path, damage):
    folder = tmp_path / "query_side"
    side.save(folder)
    if damage == FACTS:
        (folder / FACTS).write_text(json.dumps({"typical_length": -1}))
    else:
        np.save(folder / damage, np.zeros((3, 3), np.float32))
    with pytest.raises(ReleaseError, match="query_side: got"):
        QuerySide.load(folder, *side.vectors.shape)
    (folder / damage).write_bytes(b"")
    with pytest.raises(ReleaseError, match="not a part that this version wrote"):
        QuerySide.load(folder, *side.vectors.shape)


@pytest.mark.parametrize(("pooling", "expected"), [("sum", 1.0), ("mean", 4.0), ("sqrt", 2.0)])
def test_one_more_item_moves_a_pooled_history_as_it_moves_their_sum(pooling, expected):
    # four items: the fifth moves their mean by a fourth of what it moves their sum, and a sum over the root by half
    fitted = History(pooling=pooling).fit(pa.chunked_array([ITEMS]), np.ones(len(ITEMS), np.int64))
    codes = {"met": fitted.encode_values([ITEMS[:4], []])}
    lengths = encoders.evidence({"met": fitted}, codes, np.ones(2, np.float32))
    np.testing.assert_allclose(lengths, [expected, 1], rtol=1e-6)
