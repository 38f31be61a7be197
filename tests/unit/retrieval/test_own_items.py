"""An entity's own items are added to the dense list exactly, whatever else narrows the answer."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import ReleaseError
from recsys.export.own_items import Fusion, OwnWeights
from recsys.export.seen import SeenItems
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems
from recsys.types import RowSets
from tests.worlds import ITEMS, USERS
from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import Diversity, FeedbackItem, FeedbackKind, Query, Repeats

IDS = [f"item-ü{row}" for row in range(ITEMS)]
FILTERS = (parse_filter({}), parse_filter({"taste": "sweet"}), parse_filter({"price >=": 10}))


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


def with_own(retriever: Retriever, weights: dict[int, float], weight: float = 0.5) -> Retriever:
    """Return the retriever of a release in which user 4 has met some items so much."""
    rows = sorted(weights)
    twin = copy.copy(retriever)
    twin._seen = SeenItems(RowSets.from_pairs(np.full(len(rows), 4), np.array(rows, np.int64), USERS))
    twin._own = OwnWeights(Fusion(weight, 0.0), np.array([weights[row] for row in rows], np.float32))
    return twin


owned = st.dictionaries(st.integers(0, ITEMS - 1), st.floats(0.125, 4.0, width=32), max_size=20)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=owned,
    k=st.integers(1, ITEMS + 2),
    excluded=st.lists(st.sampled_from(IDS), max_size=10),
    filtered=st.sampled_from(FILTERS),
    repeats=st.sampled_from(list(Repeats)),
)
def test_the_answer_is_the_best_of_all_sums_of_inner_product_and_own_score(
    retriever, weights, k, excluded, filtered, repeats
):
    found = with_own(retriever, weights)
    query = Query(entity_id="user 4", excluded_ids=excluded, filter=filtered, repeats=repeats)
    (answer,) = found.nearest([query], k)
    added = np.zeros(ITEMS, np.float32)
    if repeats is not Repeats.EXCLUDE:
        added[list(weights)] = [0.5 * weight for weight in weights.values()]
    sums = found._vectors @ found.encode([query]).vectors[0] + added
    allowed = set(np.flatnonzero(found._filters.allowed(filtered, "").mask)) - {IDS.index(each) for each in excluded}
    if repeats is Repeats.ONLY:
        allowed &= set(weights)
    if repeats is Repeats.EXCLUDE:
        allowed -= set(weights)
    expected = sorted(allowed, key=lambda row: -sums[row])[:k]
    np.testing.assert_allclose(answer.scores, sums[expected], atol=1e-5)
    assert {IDS[row] for row in allowed} >= set(answer.item_ids)
    if answer.own_scores is not None:
        np.testing.assert_allclose(answer.own_scores, added[[IDS.index(each) for each in answer.item_ids]], atol=1e-6)


def test_an_unknown_visitor_s_own_items_are_those_of_the_request_counted_and_aged(retriever):
    found = copy.copy(retriever)
    found._own = OwnWeights(Fusion(1.0, 10.0), np.zeros(0, np.float32))
    query = Query(history=[IDS[3], IDS[5], IDS[3]], history_age_days=[20.0, 0.0, 10.0], repeats=Repeats.ONLY)
    (answer,) = found.nearest([query], 5)
    # item 3: 1/4 + 1/2, item 5: 1
    own = dict(zip(answer.item_ids, answer.own_scores.tolist(), strict=True))
    assert own == pytest.approx({IDS[3]: 0.75, IDS[5]: 1.0}, rel=1e-5)


@pytest.mark.parametrize("half_life_days", [0.0, 10.0])
def test_a_history_without_ages_counts_every_meeting_alike(retriever, half_life_days):
    found = copy.copy(retriever)
    found._own = OwnWeights(Fusion(1.0, half_life_days), np.zeros(0, np.float32))
    (answer,) = found.nearest([Query(history=[IDS[3], "no item", IDS[5], IDS[3]], repeats=Repeats.ONLY)], 5)
    own = dict(zip(answer.item_ids, answer.own_scores.tolist(), strict=True))
    assert own[IDS[3]] == pytest.approx(2 * own[IDS[5]])
    assert set(own) == {IDS[3], IDS[5]}


def test_repeats_only_finds_the_items_of_a_history_where_own_items_add_nothing(retriever):
    (answer,) = retriever.nearest([Query(history=[IDS[3], IDS[5]], repeats=Repeats.ONLY)], 5)
    assert set(answer.item_ids) == {IDS[3], IDS[5]}


def test_own_items_follow_an_item_that_is_changed_and_vanish_with_one_that_is_removed(retriever):
    live = LiveItems(with_own(retriever, {2: 2.0, 7: 1.0, 9: 3.0}))
    live.apply([Change(IDS[2], np.ones(8, np.float32) / 8**0.5, {}), Change(IDS[9], None, {})])
    (answer,) = live.retriever.nearest([Query(entity_id="user 4", repeats=Repeats.ONLY)], 5)
    assert dict(zip(answer.item_ids, answer.own_scores.tolist(), strict=True)) == {IDS[2]: 1.0, IDS[7]: 0.5}


def test_a_diverse_answer_is_chosen_from_sums(retriever):
    found = with_own(retriever, dict.fromkeys(range(0, ITEMS, 2), 4.0))
    (answer,) = found.nearest([Query(entity_id="user 4")], 6, Diversity("taste", 3))
    assert sum(score > 0 for score in answer.own_scores) == 3  # the even items are all of one taste


def test_feedback_moves_the_dense_part_and_keeps_own_items(retriever):
    found = with_own(retriever, dict.fromkeys(range(5), 4.0), weight=1.0)
    answer = found.reformulate(Query(entity_id="user 4"), 5, pseudo_k=3, reformulator="rocchio", guarded=False).answer
    assert set(answer.item_ids) == set(IDS[:5])


@pytest.mark.parametrize(
    "query",
    [
        Query(item_ids=[IDS[0]], repeats=Repeats.ONLY),
        Query(vector=np.ones(8, np.float32), repeats=Repeats.ONLY),
        Query(entity_id="user 4", repeats=Repeats.ONLY, exclude_seen=True),
    ],
)
def test_own_items_alone_need_an_entity_whose_items_are_not_left_out(retriever, query):
    with pytest.raises(RequestError, match=r"repeats: got 'only'"):
        retriever.nearest([query], 3)


def test_weights_of_another_release_are_refused(tmp_path):
    OwnWeights(Fusion(0.5, 30.0), np.ones(3, np.float32)).save(tmp_path / "own")
    assert OwnWeights.load(tmp_path / "own", 3).fusion == Fusion(0.5, 30.0)
    with pytest.raises(ReleaseError, match="not the weights of 4 pairs"):
        OwnWeights.load(tmp_path / "own", 4)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=owned, item=st.integers(0, ITEMS - 1), filtered=st.sampled_from(FILTERS[:2]))
def test_a_disliked_item_loses_its_own_score_and_comes_last(retriever, weights, item, filtered):
    found = with_own(retriever, weights)
    query = Query(entity_id="user 4", filter=filtered)
    (before,) = found.nearest([query], ITEMS)
    mentions = [FeedbackItem(IDS[item], FeedbackKind.DISLIKED)]
    for name in ("history", "identity"):
        how = {"mentions": mentions, "reformulator": name}
        after = found.reformulate(query, ITEMS, include_feedback_items=True, **how).answer
        assert set(after.item_ids) == set(before.item_ids)
        if IDS[item] in before.item_ids:
            assert after.item_ids[-1] == IDS[item]
            assert after.own_scores is None or after.own_scores[-1] == 0
    # The order of the others is what it was.
    assert [each for each in after.item_ids if each != IDS[item]] == [
        each for each in before.item_ids if each != IDS[item]
    ]


def test_a_liked_item_counts_as_met_once_more(retriever):
    found = with_own(retriever, {3: 2.0})
    mentions = [FeedbackItem(IDS[row], FeedbackKind.LIKED) for row in (3, 8)]
    asked = Query(entity_id="user 4")
    how = {"mentions": mentions, "reformulator": "history", "include_feedback_items": True}
    after = found.reformulate(asked, ITEMS, **how).answer
    own = dict(zip(after.item_ids, after.own_scores.tolist(), strict=True))
    assert {item_id: score for item_id, score in own.items() if score} == {IDS[3]: 1.5, IDS[8]: 0.5}
