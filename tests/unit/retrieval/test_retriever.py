"""A release answers every form of query, and says what it made of it."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import ReleaseError
from recsys.retrieval import Retriever
from tests.worlds import ITEMS, copy_of
from twintower.errors import RequestError
from twintower.types import Origin, Query


@pytest.fixture(scope="module")
def retriever(block_release):
    return Retriever.load(block_release.folder)


def unit_vector(dim=8):
    vector = np.zeros(dim, np.float32)
    vector[0] = 1
    return vector


def test_a_known_user_gets_items_of_their_taste(retriever):
    answers = retriever.nearest([Query(entity_id=f"user {row}") for row in range(20)], 5)
    assert {answer.origin for answer in answers} == {Origin.KNOWN_ENTITY}
    tastes = [
        [shown["taste"] for shown in retriever.metadata(answer.item_ids)].count(("salt", "sweet")[row % 2])
        for row, answer in enumerate(answers)
    ]
    # 20 users, 5 places: chance would be half of 100
    assert sum(tastes) >= 90


def test_scores_are_inner_products_in_falling_order(retriever):
    (answer,) = retriever.nearest([Query(vector=unit_vector())], 7)
    vectors = np.load(retriever.release.folder / "item_embeddings.npy")
    np.testing.assert_allclose(answer.scores, np.sort(vectors[:, 0])[::-1][:7], rtol=1e-6)
    assert answer.origin is Origin.VECTOR


def test_vectors_find_what_queries_find(retriever):
    vectors = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    answers = retriever.nearest([Query(vector=vector) for vector in vectors], 7)
    matches = retriever.search_vectors(vectors, 7)
    assert matches.counts.tolist() == [7] * 5
    assert matches.item_ids == [item_id for answer in answers for item_id in answer.item_ids]
    np.testing.assert_array_equal(matches.scores, np.concatenate([answer.scores for answer in answers]))
    assert not matches.degraded


@pytest.mark.parametrize(
    ("vectors", "k", "field"),
    [
        (np.ones((2, 8), np.float32), 0, "k"),
        (np.ones((2, 7), np.float32), 1, "vectors"),
        (np.ones(8, np.float32), 1, "vectors"),
        (np.array([[1] * 8, [np.nan] * 8], np.float32), 1, "vectors[1]"),
        (np.full((1, 8), 3e38, np.float32), 1, "vectors[0]"),
    ],
)
def test_vectors_that_cannot_be_searched_with_are_named(retriever, vectors, k, field):
    with pytest.raises(RequestError) as caught:
        retriever.search_vectors(vectors, k)
    assert caught.value.field == field


def test_an_unknown_user_is_answered_from_features_and_history(retriever):
    sweet = [f"item-ü{row}" for row in (1, 3, 5)]
    (answer,) = retriever.nearest([Query(entity_id="nobody", features={"town": "north"}, history=sweet)], 5)
    assert answer.origin is Origin.FEATURES
    assert answer.missing_ids == ("nobody",)


def test_an_anonymous_query_needs_no_id(retriever):
    (answer,) = retriever.nearest([Query(features={"town": "south"})], 3)
    assert answer.origin is Origin.FEATURES
    assert answer.missing_ids == ()


def test_history_changes_the_answer_of_an_anonymous_query(retriever):
    salt, sweet = ([f"item-ü{row}" for row in rows] for rows in ((0, 2, 4, 6), (1, 3, 5, 7)))
    encoding = retriever.encode([Query(history=salt), Query(history=sweet)])
    assert encoding.origins == (Origin.FEATURES, Origin.FEATURES)
    assert np.abs(encoding.vectors[0] - encoding.vectors[1]).max() > 0.01


@pytest.mark.parametrize(
    "query",
    [
        Query(entity_id="nobody"),
        Query(entity_id="nobody", history=["never met"]),
        Query(item_ids=["never met"]),
        Query(features={"town": None}),
    ],
)
def test_a_query_that_says_nothing_known_gets_the_most_popular_items(retriever, query):
    (answer,) = retriever.nearest([query], 4)
    assert answer.origin is Origin.POPULARITY
    assert len(answer.item_ids) == 4
    assert (np.diff(answer.scores) <= 0).all()
    assert 0 < answer.scores[0] < 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (Query(entity_id=7), "entity_id"),
        (Query(entity_id=np.int64(7)), "entity_id"),
        (Query(item_ids=["i7", 7]), "item_ids"),
        (Query(item_ids="i7"), "item_ids"),
        (Query(history=[7.0]), "history"),
        (Query(entity_id="u7", excluded_ids=[b"i7"]), "excluded_ids"),
    ],
)
def test_an_id_that_is_not_text_is_refused_rather_than_unknown(retriever, query, field):
    with pytest.raises(RequestError, match=r"queries\[0\]\." + field + ": got .*, expected "):
        retriever.nearest([query], 3)


def test_items_find_their_neighbours_and_not_themselves(retriever):
    named = ["item-ü2", "item-ü4", "never met"]
    (answer,) = retriever.nearest([Query(item_ids=named)], 10)
    assert answer.origin is Origin.ITEMS
    assert answer.missing_ids == ("never met",)
    assert not {"item-ü2", "item-ü4"} & set(answer.item_ids)
    assert len(answer.item_ids) == 10


def test_excluded_items_are_replaced_by_the_next_best(retriever):
    (full,) = retriever.nearest([Query(vector=unit_vector())], 5)
    (without,) = retriever.nearest([Query(vector=unit_vector(), excluded_ids=full.item_ids[:2])], 3)
    assert without.item_ids == full.item_ids[2:]


def test_more_places_than_items_give_the_whole_catalogue(retriever):
    (answer,) = retriever.nearest([Query(vector=unit_vector())], 1000)
    assert len(answer.item_ids) == len(set(answer.item_ids)) == ITEMS


def test_answers_do_not_depend_on_the_company(retriever):
    queries = [
        Query(entity_id="user 3"),
        Query(vector=unit_vector()),
        Query(features={"town": "north"}, history=["item-ü1"]),
        Query(entity_id="nobody"),
        Query(item_ids=["item-ü9"]),
        Query(entity_id="user 4"),
    ]
    together = retriever.nearest(queries, 6)
    for query, answer in zip(queries, together, strict=True):
        (alone,) = retriever.nearest([query], 6)
        assert alone.item_ids == answer.item_ids
        np.testing.assert_allclose(alone.scores, answer.scores, rtol=1e-5)


def test_vectors_do_not_depend_on_long_histories_of_the_company(retriever):
    ids = [f"item-ü{row % ITEMS}" for row in range(10_000)]
    queries = [Query(history=ids[place : place + (1, 10_000, 3)[place % 3]]) for place in range(30)]
    queries[4:4] = [Query(entity_id="user 3"), Query(item_ids=ids)]
    together = retriever.encode(queries)
    for place, query in enumerate(queries):
        np.testing.assert_allclose(retriever.encode([query]).vectors[0], together.vectors[place], atol=1e-6)


def test_no_queries_give_no_answers(retriever):
    assert retriever.nearest([], 3) == []


@pytest.mark.parametrize(
    ("query", "field", "reason"),
    [
        (Query(), "queries[0]", "got 0 forms"),
        (Query(entity_id="user 1", vector=unit_vector()), "queries[0]", "got 2 forms"),
        (Query(vector=np.ones(7, np.float32)), "queries[0].vector", "expected (8,)"),
        (Query(vector=np.full(8, np.nan, np.float32)), "queries[0].vector", "NaN, infinity or a length beyond float32"),
        (Query(features={"twon": "north"}), "queries[0].features.twon", "Did you mean 'town'?"),
        (Query(features={"town": ["north", "south"]}), "queries[0].features.town", "expected one value: text"),
    ],
)
def test_a_query_that_makes_no_sense_is_the_callers_mistake(retriever, query, field, reason):
    with pytest.raises(RequestError) as caught:
        retriever.nearest([query], 3)
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_a_mistake_among_many_queries_names_its_place(retriever):
    queries = [Query(features={"town": "north"}), Query(features={"town": ["north"]}), Query(features={"town": "x"})]
    with pytest.raises(RequestError) as caught:
        retriever.nearest(queries, 3)
    assert caught.value.field == "queries[1].features.town"


def test_k_below_one_is_refused(retriever):
    with pytest.raises(RequestError, match="k: got 0, expected >= 1"):
        retriever.nearest([Query(entity_id="user 1")], 0)


def test_the_serving_path_gives_the_vectors_of_the_training_path(retriever):
    golden = retriever.release.folder / "golden"
    offline = np.load(golden / "vectors.npy")
    served = retriever.encode([Query(entity_id=f"user {row}") for row in range(60)])
    np.testing.assert_allclose(served.vectors, offline, atol=1e-6)
    retriever.warm()


def test_a_release_whose_vocabulary_was_mixed_up_does_not_warm(block_release, tmp_path):
    import pyarrow.feather as feather

    release = copy_of(block_release, tmp_path)
    states = {
        path: feather.read_table(path, memory_map=False) for path in (release.folder / "encoders" / "query").iterdir()
    }
    ((path, state),) = [each for each in states.items() if each[1].schema.metadata[b"name"] == b"town"]
    feather.write_feather(state.take([1, 0]).replace_schema_metadata(state.schema.metadata), path)
    mixed = Retriever(release)
    with pytest.raises(ReleaseError, match="golden query vectors differ"):
        mixed.warm()
