"""A release answers a query that feedback has moved, and says what the feedback did."""

from __future__ import annotations

import dataclasses

import hypothesis
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from recsys import registry
from recsys.export.release import derive
from recsys.reformulators import unit
from recsys.retrieval import Retriever, Revision
from recsys.retrieval.guard import Guard
from recsys.retrieval.reformulation import NamedReformulator
from tests.worlds import copy_of
from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import FeedbackItem, FeedbackKind, Origin, Query

LIKED, DISLIKED, CLICKED = FeedbackKind.LIKED, FeedbackKind.DISLIKED, FeedbackKind.CLICKED
SKIPPED = FeedbackKind.SKIPPED
ITEMS = 40


@pytest.fixture(scope="module")
def retriever(block_release, tmp_path_factory):
    """The block world with a guard that lets nothing pass, a Rocchio with negatives, and ranks made visible."""
    careful = registry.build("reformulators", {"kind": "rocchio"}, "careful")
    negative = registry.build("reformulators", {"kind": "rocchio", "gamma": 0.4}, "negative")
    attention = registry.build("reformulators", {"kind": "attention", "width": 8, "heads": 2}, "ranked")
    weights = attention.initial(8, 0)
    weights["item_weight"] = np.arange(8, dtype=np.float32)[:, None]

    def change(folder):
        NamedReformulator("careful", careful, guard=Guard(max_drift=0.0)).save(folder, default=False)
        NamedReformulator("negative", negative).save(folder, default=False)
        NamedReformulator("ranked", attention, weights).save(folder, default=False)
        return {}

    return Retriever.load(derive(copy_of(block_release, tmp_path_factory.mktemp("reformulate")), change).folder)


@pytest.fixture(scope="module")
def vectors(block_release):
    ids = pq.read_table(block_release.folder / "items.parquet")["item_id"].to_pylist()
    return dict(zip(ids, np.load(block_release.folder / "item_embeddings.npy"), strict=True))


@pytest.fixture(scope="module")
def met(block_release):
    """What having met each item adds to the vector of a typical query."""
    ids = pq.read_table(block_release.folder / "items.parquet")["item_id"].to_pylist()
    return dict(zip(ids, np.load(block_release.folder / "query_side" / "vectors.npy"), strict=True))


Q = np.eye(1, 8, dtype=np.float32)[0]
QUERY = Query(vector=Q)


def likes(*rows):
    return [FeedbackItem(f"item-ü{row}", LIKED) for row in rows]


def best(vectors, vector, k, without=()):
    ranked = sorted(
        (item_id for item_id in vectors if item_id not in without), key=lambda each: -vectors[each] @ vector
    )
    return tuple(ranked[:k])


def test_the_answer_is_the_nearest_items_of_the_moved_query(retriever, vectors, met):
    # 0.4 q + 0.6 (m3 + m5) / 2 - 0.4 (v8 - c), as directions q + 0.75 (m3 + m5) - (v8 - c): liked ones as met, disliked
    # ones as found, without what all items share
    said = [*likes(3, 5), FeedbackItem("item-ü8", DISLIKED)]
    answer = retriever.reformulate(QUERY, 6, mentions=said, reformulator="negative")
    moved = unit(
        Q + 0.75 * (met["item-ü3"] + met["item-ü5"]) - (vectors["item-ü8"] - np.mean(list(vectors.values()), axis=0))
    )
    np.testing.assert_allclose(answer.vector, moved, rtol=1e-4, atol=1e-6)
    assert answer.answer.item_ids == best(vectors, moved, 6, without=[each.item_id for each in said])
    assert answer.drift == pytest.approx(1 - Q @ moved, rel=1e-4)
    assert (answer.answer.origin, answer.fell_back, answer.confidence) == (Origin.VECTOR, False, 1)


def test_without_feedback_the_answer_is_that_of_the_query_bit_for_bit(retriever):
    queries = [
        Query(entity_id="user 3"),
        QUERY,
        Query(vector=3 * Q),
        Query(item_ids=["item-ü3", "item-ü4"]),
        Query(features={"town": "south"}),
        Query(entity_id="user 3", excluded_ids=["item-ü1"]),
    ]
    for name in retriever.reformulators:
        for query in queries:
            (plain,) = retriever.nearest([query], 7)
            for how in ({}, {"mentions": likes(3), "depth": 0}, {"pseudo_k": 3, "depth": 0}):
                answer = retriever.reformulate(query, 7, reformulator=name, explained=True, **how)
                assert answer.answer.item_ids == plain.item_ids
                np.testing.assert_array_equal(answer.answer.scores, plain.scores)
                np.testing.assert_array_equal(answer.vector, retriever.encode([query]).vectors[0])
                assert (answer.drift, answer.fell_back) == (0, False)
                told = answer.explanation
                assert (told.item_ids, told.entered_ids, told.left_ids) == ((), (), ())


@pytest.mark.parametrize("name", ["average", "negative", "ranked", "careful"])
def test_queries_that_are_moved_together_are_answered_as_alone(retriever, name):
    revisions = [
        Revision(QUERY, likes(3, 5)),
        Revision(Query(entity_id="user 1"), [*likes(2, 99), FeedbackItem("item-ü8", DISLIKED, position=4)], pseudo_k=3),
        Revision(Query(features={}), likes(1)),
        Revision(Query(vector=2 * Q)),
        Revision(Query(item_ids=["item-ü3", "item-ü4"], excluded_ids=["item-ü1"]), pseudo_k=4, depth=2),
    ]
    answers = retriever.reformulate_all(revisions, 7, reformulator=name, explained=True)
    assert [answer.fell_back for answer in answers] == [name == "careful" and place != 2 and place != 3
                                                        for place in range(5)]  # fmt: skip
    for revision, answer in zip(revisions, answers, strict=True):
        (alone,) = retriever.reformulate_all([revision], 7, reformulator=name, explained=True)
        assert answer.answer.item_ids == alone.answer.item_ids
        np.testing.assert_allclose(answer.answer.scores, alone.answer.scores, rtol=1e-4, atol=1e-6)
        assert (answer.fell_back, answer.missing_ids, answer.answer.origin) == (
            alone.fell_back, alone.missing_ids, alone.answer.origin)  # fmt: skip
        assert (answer.vector is None) == (alone.vector is None) == (answer.answer.origin is Origin.POPULARITY)
        if answer.vector is not None:
            np.testing.assert_allclose(answer.vector, alone.vector, rtol=1e-4, atol=1e-6)
        told, expected = answer.explanation, alone.explanation
        assert (told.item_ids, told.entered_ids, told.left_ids) == (
            expected.item_ids, expected.entered_ids, expected.left_ids)  # fmt: skip
        np.testing.assert_allclose(told.item_weights, expected.item_weights, rtol=1e-4, atol=1e-6)


def test_pseudo_feedback_is_what_the_query_finds_first(retriever, vectors, met):
    answer = retriever.reformulate(QUERY, 5, pseudo_k=3, reformulator="average", explained=True)
    first = best(vectors, Q, 3)
    assert answer.explanation.item_ids == first
    lengths = [np.linalg.norm(met[item_id]) for item_id in first]
    np.testing.assert_allclose(answer.explanation.item_weights, lengths, rtol=1e-5)
    np.testing.assert_allclose(answer.vector, unit(Q + sum(met[item_id] for item_id in first)), rtol=1e-4, atol=1e-6)


def test_items_that_the_query_names_are_neither_answer_nor_pseudo_feedback(retriever, vectors):
    excluded = best(vectors, Q, 2)
    query = Query(vector=Q, excluded_ids=excluded)
    answer = retriever.reformulate(query, ITEMS, pseudo_k=2, reformulator="average", explained=True)
    assert answer.explanation.item_ids == best(vectors, Q, 4)[2:]
    assert set(answer.answer.item_ids) == set(vectors) - set(excluded)
    # in feedback they may stand
    said = [FeedbackItem(excluded[0], LIKED), *likes(3)]
    answer = retriever.reformulate(query, ITEMS, mentions=said, explained=True, include_feedback_items=True)
    assert answer.explanation.item_ids == (excluded[0], "item-ü3")
    assert "item-ü3" in answer.answer.item_ids
    assert excluded[0] not in answer.answer.item_ids


@hypothesis.settings(
    max_examples=80, deadline=None, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
@hypothesis.given(data=st.data())
def test_items_of_the_feedback_are_left_out_and_when_included_the_disliked_ones_come_last(retriever, vectors, data):
    names = st.sampled_from(["", *retriever.reformulators])
    name, k, pseudo_k = data.draw(names), data.draw(st.integers(1, ITEMS + 2)), data.draw(st.integers(0, 3))
    kinds = data.draw(st.dictionaries(st.integers(0, ITEMS - 1), st.sampled_from([LIKED, DISLIKED, CLICKED, SKIPPED])))
    query = data.draw(
        st.sampled_from(
            [
                QUERY,
                Query(entity_id="user 3"),
                Query(entity_id="user 4", filter=parse_filter({"taste": "sweet"}), repeats="only"),
                Query(entity_id="user 3", excluded_ids=["item-ü1", "item-ü2"]),
                Query(features={}),
                Query(features={"town": "north"}, filter=parse_filter({"taste": "salt"})),
            ]
        )
    )
    said = [FeedbackItem(f"item-ü{row}", kind) for row, kind in kinds.items()]
    (plain,) = retriever.nearest([query], ITEMS + 2)
    how = {"mentions": said, "pseudo_k": pseudo_k, "reformulator": name}
    named = {each.item_id for each in said}
    left_out = retriever.reformulate(query, k, **how).answer
    assert not named & set(left_out.item_ids)
    assert len(left_out.item_ids) == min(k, len(set(plain.item_ids) - named))  # filled up to k
    assert left_out.exhausted == (len(set(plain.item_ids) - named) <= k)
    whole = retriever.reformulate(query, k, include_feedback_items=True, **how).answer
    assert len(whole.item_ids) == min(k, len(plain.item_ids))
    disliked = [each.item_id for each in said if each.kind is DISLIKED and each.item_id in plain.item_ids]
    others = len(plain.item_ids) - len(disliked)
    assert not set(disliked) & set(whole.item_ids[:others])
    assert set(whole.item_ids[others:]) <= set(disliked)
    assert (np.diff(whole.scores) <= 0).all()
    assert whole.exhausted == (len(plain.item_ids) <= k)


def test_feedback_that_the_reformulator_does_not_read_is_named_in_the_answer(retriever):
    said = [*likes(3), FeedbackItem("item-ü8", DISLIKED), FeedbackItem("item-ü9", SKIPPED)]

    def ignored(name, **how):
        return retriever.reformulate(QUERY, 5, mentions=said, reformulator=name, **how).ignored_kinds

    assert ignored("average", pseudo_k=2) == (DISLIKED, SKIPPED)
    assert ignored("history", pseudo_k=2) == (FeedbackKind.PSEUDO,)
    assert ignored("identity") == (LIKED, DISLIKED, SKIPPED)
    assert ignored("identity", depth=1) == (LIKED,)  # what does not count is not ignored
    assert ignored("negative", pseudo_k=2) == ignored("ranked") == ()


@pytest.mark.parametrize(
    ("depth", "counted"),
    [
        (None, ("said", "second", "first", "third")),
        (4, ("said", "second", "first", "third")),
        (3, ("said", "second", "first")),
        (2, ("said", "second")),
        (1, ("said",)),
        (0, ()),
    ],
)
def test_depth_counts_mentions_first_and_then_first_results(retriever, vectors, depth, counted):
    first = best(vectors, Q, 3)
    item_of = {"said": best(vectors, Q, ITEMS)[-1], "first": first[0], "second": first[1], "third": first[2]}
    said = [
        FeedbackItem("unknown", LIKED),
        FeedbackItem(item_of["said"], LIKED),
        FeedbackItem(item_of["second"], DISLIKED),
    ]
    answer = retriever.reformulate(QUERY, 5, mentions=said, pseudo_k=3, depth=depth, explained=True)
    assert answer.explanation.item_ids == tuple(item_of[name] for name in counted)
    assert answer.missing_ids == ("unknown",)


def test_the_rank_of_an_item_is_its_position_or_else_its_place_in_the_first_results(retriever, vectors):
    second = best(vectors, Q, 2)[1]

    def moved(position, pseudo_k):
        said = [FeedbackItem(second, CLICKED, position)]
        answer = retriever.reformulate(
            QUERY, 5, mentions=said, pseudo_k=pseudo_k, depth=1, reformulator="ranked", explained=True
        )
        assert answer.explanation.item_ids == (second,)
        return answer.vector.tobytes()

    # found second, so its rank is 1; without a search nothing is known of it
    assert moved(None, 2) == moved(1, 0) == moved(1, 2)
    assert len({moved(None, 0), moved(0, 0), moved(1, 0)}) == 3


def test_an_item_that_is_mentioned_twice_counts_once_as_mentioned_last(retriever, met):
    said = [
        *likes(3),
        FeedbackItem("item-ü4", LIKED),
        FeedbackItem("item-ü3", DISLIKED),
        FeedbackItem("x", LIKED),
        FeedbackItem("x", LIKED),
    ]
    answer = retriever.reformulate(QUERY, 5, mentions=said, reformulator="average", explained=True)
    assert answer.explanation.item_ids == ("item-ü3", "item-ü4")
    np.testing.assert_allclose(answer.explanation.item_weights, [0, np.linalg.norm(met["item-ü4"])], rtol=1e-5)
    assert answer.missing_ids == ("x",)


def test_what_entered_and_left_is_told_against_the_original_answer(retriever):
    (plain,) = retriever.nearest([QUERY], 8)
    answer = retriever.reformulate(QUERY, 8, mentions=likes(3, 5, 7), reformulator="average", explained=True)
    told, after = answer.explanation, answer.answer.item_ids
    assert told.entered_ids
    assert tuple(each for each in after if each in plain.item_ids or each in told.entered_ids) == after
    assert set(plain.item_ids) - set(told.left_ids) | set(told.entered_ids) == set(after)
    assert [plain.item_ids.index(each) for each in told.left_ids] == sorted(map(plain.item_ids.index, told.left_ids))
    assert retriever.reformulate(QUERY, 8, mentions=likes(3)).explanation is None


def test_the_guard_keeps_the_original_query(retriever):
    (plain,) = retriever.nearest([QUERY], 5)
    kept = retriever.reformulate(QUERY, 5, mentions=likes(3), reformulator="careful", explained=True)
    assert (kept.fell_back, kept.answer.item_ids) == (True, plain.item_ids)
    np.testing.assert_array_equal(kept.vector, Q)
    free = retriever.reformulate(QUERY, 5, mentions=likes(3), reformulator="careful", guarded=False)
    assert not free.fell_back
    assert (free.drift, kept.explanation.left_ids) == (kept.drift, ())
    assert np.abs(free.vector - Q).max() > 0.01


def test_more_places_and_more_feedback_than_items_give_the_whole_catalogue(retriever):
    answer = retriever.reformulate(QUERY, 1000, pseudo_k=1000, explained=True)
    assert len(set(answer.answer.item_ids)) == len(answer.answer.item_ids) == ITEMS
    assert len(answer.explanation.item_ids) == ITEMS


def test_a_query_of_which_nothing_is_known_is_not_moved(retriever):
    query = Query(entity_id="nobody")
    (plain,) = retriever.nearest([query], 4)
    answer = retriever.reformulate(
        query, 4, mentions=[*likes(3), FeedbackItem("gone", LIKED)], pseudo_k=2, explained=True
    )
    assert (answer.answer.item_ids, answer.answer.origin) == (plain.item_ids, Origin.POPULARITY)
    assert (answer.vector, answer.drift, answer.confidence, answer.fell_back) == (None, 0, 1, False)
    assert (answer.missing_ids, answer.answer.missing_ids) == (("gone",), ("nobody",))
    assert answer.explanation.item_ids == ()


@pytest.mark.parametrize(
    ("how", "field"),
    [
        ({"k": 0}, "k"),
        ({"pseudo_k": -1}, "pseudo_k"),
        ({"depth": -1}, "depth"),
        ({"reformulator": "rochio"}, "reformulator"),
        ({"query": Query(vector=np.full(8, np.nan, np.float32))}, "queries[0].vector"),
        ({"query": Query()}, "queries[0]"),
    ],
)
def test_what_makes_no_sense_is_the_callers_mistake(retriever, how, field):
    with pytest.raises(RequestError) as caught:
        retriever.reformulate(**{"query": QUERY, "k": 3, "mentions": likes(3), **how})
    assert caught.value.field == field


def test_the_names_of_the_reformulators_are_known(retriever, block_release):
    known = ("average", "careful", "history", "identity", "negative", "ranked", "rocchio")
    assert retriever.reformulators == known
    assert retriever.default_reformulator in known
    assert retriever.reformulate(QUERY, 3).reformulator == retriever.default_reformulator
    assert dataclasses.asdict(retriever.reformulate(QUERY, 3))["explanation"] is None
