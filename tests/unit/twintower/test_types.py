"""The client's types: constructors of queries, and answers as items and as columns."""

from __future__ import annotations

import json

import numpy as np
import pytest

from twintower import Query, Ranking, ReleaseName, ScoredItem, VectorMatches

RELEASE = ReleaseName("r", "0" * 64)


def ranking(metadata: tuple[dict, ...] = ()) -> Ranking:
    scores = np.array([0.5, 0.25], np.float32)
    return Ranking(("a", "b"), scores, metadata, None, (), RELEASE, None, 2, False, False)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (Query.for_entity("u1"), Query(entity_id="u1")),
        (Query.for_features({"age": 3}, history=["a"]), Query(features={"age": 3}, history=["a"])),
        (Query.for_items(["a", "b"], similar=True), Query(item_ids=["a", "b"], similar=True)),
        (Query.for_vector([1.0]), Query(vector=[1.0])),
    ],
)
def test_each_form_of_a_query_has_a_constructor(made, expected):
    assert made == expected


def test_an_answer_is_a_sequence_of_scored_items():
    assert list(ranking()) == [ScoredItem("a", 0.5, {}), ScoredItem("b", 0.25, {})]
    assert len(ranking()) == 2
    assert [item.metadata for item in ranking(({"title": "A"}, {}))] == [{"title": "A"}, {}]


def test_an_answer_converts_to_columns_that_json_takes():
    columns = ranking(({"title": "A", "item_id": "a"}, {"year": 1990})).to_columns()
    assert columns == {"item_id": ["a", "b"], "score": [0.5, 0.25], "title": ["A", None], "year": [None, 1990]}
    assert json.loads(json.dumps(columns)) == columns


def test_the_matches_of_vectors_are_lists_of_scored_items():
    matches = VectorMatches(
        (("a",), ("b",)), (np.array([1.0], np.float32), np.array([2.0], np.float32)), RELEASE, False
    )
    assert list(matches) == [[ScoredItem("a", 1.0, {})], [ScoredItem("b", 2.0, {})]]
