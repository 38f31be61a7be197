"""The planner takes the cheaper plan, and every plan finds what may be shown."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.indexes import ExactSearcher
from recsys.retrieval.filtering import Allowed, ItemFilters
from recsys.retrieval.narrowed import Narrow, NarrowedSearch, is_few, over_fetch_depth
from recsys.types import NO_ROW, Neighbours
from tests.mined import unit
from twintower.errors import RequestError
from twintower.types import NO_DIVERSITY, Diversity, SearchPlan

ITEMS, DIM = 4_000, 64
RANDOM = np.random.default_rng(0)
VECTORS = unit(RANDOM.normal(size=(ITEMS, DIM)))
QUERIES = unit(RANDOM.normal(size=(4, DIM)))
GENRES = [("even", "odd")[row % 2] for row in range(ITEMS)]
FILTERS = ItemFilters(pa.table({"genre": GENRES, "number": np.arange(ITEMS) % 1_000}), ("genre", "number"))


class Recorder(ExactSearcher):
    """Exact search that keeps what it was asked."""

    def __init__(self, vectors):
        super().__init__(vectors)
        self.asked = []

    def search(self, queries, k, *, effort=1.0):
        self.asked.append((len(queries), k, effort))
        return super().search(queries, k, effort=effort)


def allowing(rows, banned=()):
    mask = np.zeros(ITEMS, bool)
    mask[rows] = True
    return Narrow.of(Allowed(mask), np.array(sorted(banned), np.int32))


def best(query, rows, k):
    """The definition: the allowed rows by falling score."""
    rows = np.asarray(sorted(rows))
    return rows[np.argsort(-(VECTORS[rows] @ query), kind="stable")][:k].tolist()


def search(narrow, k=10, queries=QUERIES[:1], searcher=None, diversity=NO_DIVERSITY):
    searched = NarrowedSearch(searcher or ExactSearcher(VECTORS), VECTORS, FILTERS)
    return searched.search(queries, k, narrow, diversity)


def test_few_allowed_items_are_searched_exactly():
    recorder = Recorder(VECTORS)
    (found,) = search([allowing(range(0, ITEMS, 40))], searcher=recorder)
    assert (found.plan, found.candidate_count, found.exhausted) == (SearchPlan.EXACT_SUBSET, 100, False)
    assert found.rows.tolist() == best(QUERIES[0], range(0, ITEMS, 40), 10)
    assert recorder.asked == []


def test_many_allowed_items_are_picked_from_deeper_results_of_the_index():
    recorder = Recorder(VECTORS)
    rows = range(3_900)
    (found,) = search([allowing(rows)], searcher=recorder)
    # (10 + 3 sqrt(10)) 4000 / 3900 = 20, up to the next power of two
    assert recorder.asked == [(1, 32, pytest.approx(np.sqrt(3.2)))]
    assert (found.plan, found.candidate_count) == (SearchPlan.OVER_FETCH, 32)
    assert found.rows.tolist() == best(QUERIES[0], rows, 10)


def test_where_the_index_finds_too_few_every_allowed_item_is_searched():
    rows = best(-QUERIES[0], range(ITEMS), 3_900)
    (found,) = search([allowing(rows)])
    assert (found.plan, found.candidate_count) == (SearchPlan.ESCALATED, 3_900)
    assert found.rows.tolist() == best(QUERIES[0], rows, 10)


def test_exact_search_is_chosen_where_it_multiplies_less_than_candidates_cost():
    # A candidate costs as much as 2,000 multiplications, a call as much as 80 candidates: 2000 (80 + 20) = 200,000,
    # which is 64 * 3,125.
    assert is_few(3_125, 20, 64)
    assert not is_few(3_126, 20, 64)


@pytest.mark.parametrize(
    ("k", "allowed", "items", "depth"),
    [
        (10, 1_000, 1_000, 10),
        (10, 400, 500, 32),  # 19.49 * 1.25 = 24.4
        (1, 100, 1_000, 64),  # (1 + 3) 10 = 40
        (10, 1, 100, 100),
    ],
)
def test_an_over_fetch_is_deep_enough_for_chance_and_no_deeper_than_the_catalogue(k, allowed, items, depth):
    assert over_fetch_depth(k, allowed, items) == depth


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    shares=st.lists(st.sampled_from([0, 0.001, 0.01, 0.3, 0.9, 1]), min_size=4, max_size=4),
    k=st.sampled_from([1, 7, 50, ITEMS + 5]),
    banned=st.sampled_from([0, 3, 200]),
)
def test_every_query_of_a_batch_gets_the_best_items_that_it_may_show(seed, shares, k, banned):
    random = np.random.default_rng(seed)
    sets = [random.permutation(ITEMS)[: int(share * ITEMS)] for share in shares]
    bans = [set(random.choice(ITEMS, banned, replace=False).tolist()) for _ in shares]
    narrow = [allowing(rows, ban) for rows, ban in zip(sets, bans, strict=True)]
    for found, query, rows, ban in zip(search(narrow, k, QUERIES), QUERIES, sets, bans, strict=True):
        shown = set(rows.tolist()) - ban
        expected = best(query, shown, k) if shown else []
        np.testing.assert_allclose(found.scores, VECTORS[expected] @ query, rtol=1e-4, atol=1e-6)
        assert set(found.rows.tolist()) <= shown
        assert len(found.rows) == len(expected)
        assert found.exhausted == (len(shown) <= k)


def test_what_may_not_be_shown_is_made_up_for():
    first = best(QUERIES[0], range(ITEMS), 30)
    (found,) = search([allowing(range(ITEMS), first[:20])])
    assert found.plan is SearchPlan.OVER_FETCH
    assert found.rows.tolist() == first[20:]


def test_queries_with_the_same_filter_are_searched_together():
    recorder = Recorder(VECTORS)
    narrow = allowing(range(3_900))
    search([narrow] * 4, queries=QUERIES, searcher=recorder)
    assert [count for count, _, _ in recorder.asked] == [4]


def test_an_index_that_finds_nothing_is_no_excuse():
    class Blind(ExactSearcher):
        def search(self, queries, k, *, effort=1.0):
            shape = (len(queries), k)
            return Neighbours(np.full(shape, NO_ROW, np.int32), np.full(shape, -np.inf, np.float32))

    rows = range(3_900)
    (found,) = search([allowing(rows)], searcher=Blind(VECTORS))
    assert (found.plan, found.rows.tolist()) == (SearchPlan.ESCALATED, best(QUERIES[0], rows, 10))


def test_at_most_so_many_of_a_value_however_deep_they_lie():
    # The 500 best are all even, so the 11th item that may be shown lies 500 places down.
    order = best(QUERIES[0], range(ITEMS), ITEMS)
    genres = np.array(["even"] * ITEMS, object)
    genres[order[500:]] = "odd"
    filters = ItemFilters(pa.table({"genre": genres.tolist()}), ("genre",))
    searched = NarrowedSearch(ExactSearcher(VECTORS), VECTORS, filters)
    (found,) = searched.search(QUERIES[:1], 10, [allowing(range(ITEMS))], Diversity("genre", 6))
    assert found.rows.tolist() == order[:6] + order[500:504]
    assert not found.exhausted


def test_an_answer_that_crowding_leaves_short_says_that_there_is_no_more():
    (found,) = search([allowing(range(ITEMS))], diversity=Diversity("genre", 2))
    assert [GENRES[row] for row in found.rows].count("even") == 2
    assert (len(found.rows), found.exhausted) == (4, True)


def test_crowding_and_distance_over_the_whole_catalogue_show_all_that_there_may_be():
    (found,) = search([allowing(range(ITEMS))], diversity=Diversity("genre", 3, 0.5))
    assert sorted(GENRES[row] for row in found.rows) == ["even"] * 3 + ["odd"] * 3
    assert found.rows[0] == best(QUERIES[0], range(ITEMS), 1)[0]
    assert found.exhausted


def test_the_scale_of_a_query_changes_nothing_about_diversity():
    diversity = Diversity(mmr_weight=0.4)
    (found,) = search([allowing(range(ITEMS))], diversity=diversity)
    (scaled,) = search([allowing(range(ITEMS))], queries=QUERIES[:1] * np.float32(50), diversity=diversity)
    assert found.rows.tolist() == scaled.rows.tolist()
    # not increasing any more: some item was put before a better one for its distance
    assert (np.diff(found.scores) > 0).any()
    np.testing.assert_allclose(found.scores, VECTORS[found.rows] @ QUERIES[0], rtol=1e-5)


def test_popular_items_are_narrowed_as_well():
    searched = NarrowedSearch(ExactSearcher(VECTORS), VECTORS, FILTERS)
    rows, shares = np.arange(ITEMS), np.linspace(0.5, 0, ITEMS).astype(np.float32)
    found = searched.popular(rows, shares, 3, allowing([1, 3, 4, 8], [3]), NO_DIVERSITY)
    assert (found.rows.tolist(), found.plan, found.exhausted) == ([1, 4, 8], None, True)
    found = searched.popular(rows, shares, 3, allowing(range(ITEMS)), Diversity("genre", 1))
    assert (found.rows.tolist(), found.exhausted) == ([0, 1], True)
    found = searched.popular(rows, shares, 3, allowing(range(ITEMS)), Diversity(mmr_weight=1.0))
    assert found.rows[0] == 0
    assert len(found.rows) == 3


@pytest.mark.parametrize(
    ("diversity", "field", "reason"),
    [
        (Diversity("gerne", 1), "diversity.crowding_field", "Did you mean 'genre'?"),
        (Diversity("genre"), "diversity.max_per_value", "got None, expected >= 1"),
        (Diversity("genre", -1), "diversity.max_per_value", "got -1, expected >= 1"),
        (Diversity(max_per_value=2), "diversity.max_per_value", "got 2 without crowding_field"),
        (Diversity(mmr_weight=1.1), "diversity.mmr_weight", "got 1.1, expected 0 to 1"),
        (Diversity(mmr_weight=-0.1), "diversity.mmr_weight", "got -0.1, expected 0 to 1"),
        (Diversity(mmr_weight=float("nan")), "diversity.mmr_weight", "got nan, expected 0 to 1"),
    ],
)
def test_a_diversity_that_cannot_be_had_is_the_callers_mistake(diversity, field, reason):
    with pytest.raises(RequestError) as caught:
        NarrowedSearch(ExactSearcher(VECTORS), VECTORS, FILTERS).check(diversity)
    assert caught.value.field == field
    assert reason in caught.value.reason
