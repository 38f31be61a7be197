"""An index fills an answer without the excluded items, wherever they stand, and looks no deeper than it must."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.indexes import ExactSearcher
from recsys.retrieval.exclusion import OVERFETCH, Excluded, search_excluding
from recsys.types import Neighbours

ITEMS = 300
LINE = np.arange(ITEMS, 0, -1, dtype=np.float32)[:, None]
"""Items in the order of their rows, for a query of 1."""
ASKED = np.ones((1, 1), np.float32)


class Watched(ExactSearcher):
    """Notes how deep it is searched, and for how many results the effort is made."""

    def __init__(self) -> None:
        super().__init__(LINE)
        self.searches: list[tuple[int, int]] = []

    def search(self, queries: np.ndarray, k: int, *, effort: float = 1.0, effort_k: int = 0) -> Neighbours:
        self.searches.append((k, effort_k))
        return super().search(queries, k)


def excluding(*rows: int) -> Excluded:
    return Excluded(np.array(sorted(rows), np.int32))


row_sets = st.frozensets(st.integers(0, ITEMS - 1), max_size=ITEMS)


@given(st.lists(st.one_of(row_sets, st.integers(0, ITEMS).map(range)), min_size=1, max_size=4), st.integers(1, ITEMS))
def test_the_best_items_that_are_not_excluded_are_found_alone_and_in_a_batch(sets, k):
    excluded = [excluding(*rows) for rows in sets]
    together = search_excluding(Watched(), np.repeat(ASKED, len(sets), axis=0), k, excluded, ITEMS)
    for rows, each, (found, scores, depth) in zip(sets, excluded, together, strict=True):
        assert found.tolist() == [row for row in range(ITEMS) if row not in rows][:k]
        np.testing.assert_array_equal(scores, LINE[found, 0])
        ((alone, _, depth_alone),) = search_excluding(Watched(), ASKED, k, [each], ITEMS)
        assert (alone.tolist(), depth_alone) == (found.tolist(), depth)


def test_excluded_items_that_are_not_among_the_best_cost_no_deeper_search():
    searcher = Watched()
    search_excluding(searcher, ASKED, 10, [excluding(*range(100, 300))], ITEMS)
    assert searcher.searches == [(10 + OVERFETCH, 10)]


def test_a_search_goes_deeper_only_while_too_few_items_remain():
    searcher = Watched()
    ((found, _, depth),) = search_excluding(searcher, ASKED, 10, [excluding(*range(200))], ITEMS)
    assert found.tolist() == list(range(200, 210))
    depths = [depth for depth, _ in searcher.searches]
    assert depths == sorted(depths)
    assert depths[-1] == depth <= 210


def test_an_item_that_several_sources_name_is_excluded_once_and_counted_in_each():
    rows = np.array([2, 5], np.int32)
    excluded = Excluded.of(release=rows, request=rows[:1], events=rows[1:], excluded_ids=rows, is_reported=True)
    counts = excluded.counts
    assert excluded.rows.tolist() == [2, 5]
    assert (counts.total_count, counts.release_count, counts.request_count) == (2, 2, 1)
    assert (counts.event_count, counts.excluded_id_count, counts.release_knows_entity) == (1, 2, True)
