"""Two lists side by side."""

from __future__ import annotations

import numpy as np

from serving.explore.comparison import compare
from twintower.types import Origin, Ranking, ReleaseName, SearchPlan


def ranking(*item_ids: str) -> Ranking:
    scores = np.linspace(1, 0.5, len(item_ids)).astype(np.float32)
    shown = tuple({"title": item_id.upper()} for item_id in item_ids)
    release = ReleaseName("r", "f" * 64)
    return Ranking(
        item_ids, scores, shown, Origin.KNOWN_ENTITY, (), release, SearchPlan.INDEX, len(item_ids), False, False
    )


def test_what_entered_what_left_and_what_moved():
    # a b c d -> c a e d: c rose from 3 to 1, a fell from 1 to 2, d stayed, e entered, b left
    found = compare(ranking("a", "b", "c", "d"), ranking("c", "a", "e", "d"))
    assert [(place.item_id, place.rank, place.other_rank) for place in found.after] == [
        ("c", 1, 3), ("a", 2, 1), ("e", 3, None), ("d", 4, 4),
    ]  # fmt: skip
    assert [place.item_id for place in found.entered] == ["e"]
    assert [(place.item_id, place.rank) for place in found.left] == [("b", 2)]
    assert [place.item_id for place in found.moved] == ["c", "a"]
    assert (found.after[0].columns, found.after[0].score) == ({"title": "C"}, 1.0)


def test_lists_of_different_lengths_are_compared_too():
    found = compare(ranking("a"), ranking())
    assert ([place.item_id for place in found.left], found.entered, found.after) == (["a"], (), ())


def test_equal_lists_have_no_changes():
    found = compare(ranking("a", "b"), ranking("a", "b"))
    assert (found.entered, found.left, found.moved) == ((), (), ())
