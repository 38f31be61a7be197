"""A release answers every form of query within a filter, and moves queries by feedback that the filter lets pass."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.retrieval import Retriever
from tests.worlds import ITEMS, PER_USER
from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import (
    Diversity,
    Exclusions,
    FeedbackItem,
    FeedbackKind,
    Filter,
    FilterType,
    Origin,
    Query,
    SearchPlan,
)

SWEET = parse_filter({"taste": "sweet"})
FORMS = {
    "known": {"entity_id": "user 0"},
    "features": {"features": {"town": "north"}, "history": ["item-ü1"]},
    "items": {"item_ids": ["item-ü2"]},
    "vector": {"vector": np.eye(8, dtype=np.float32)[0]},
    "popularity": {"entity_id": "nobody"},
}


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


def rows_of(answer):
    return [int(item_id.removeprefix("item-ü")) for item_id in answer.item_ids]


def test_the_run_file_says_what_can_be_filtered_by(retriever):
    assert retriever.filter_fields == {
        "taste": FilterType.STRING,
        "tags": FilterType.STRINGS,
        "price": FilterType.NUMBER,
    }


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_query_is_answered_within_the_filter(retriever, form):
    (whole,) = retriever.nearest([Query(**form)], ITEMS)
    (answer,) = retriever.nearest([Query(**form, filter=SWEET)], 5)
    # what is left of the whole answer: odd items are sweet
    assert rows_of(answer) == [row for row in rows_of(whole) if row % 2][:5]
    assert answer.origin is whole.origin


def test_conditions_on_several_columns_must_all_hold(retriever):
    asked = parse_filter({"taste": "salt", "tags": "tag 2", "price >=": 10, "price <": 30})
    (answer,) = retriever.nearest([Query(**FORMS["vector"], filter=asked)], ITEMS)
    # rows 10, 14, ... 26 have the tag; 10 has no price, as every fifth
    assert sorted(rows_of(answer)) == [14, 18, 22, 26]
    assert answer.exhausted
    assert answer.plan is SearchPlan.EXACT_SUBSET


def test_an_item_without_a_value_passes_none_of_alone(retriever):
    (answer,) = retriever.nearest([Query(**FORMS["vector"], filter=parse_filter({"price !=": [1, 2]}))], ITEMS)
    assert sorted(rows_of(answer)) == [0, *range(3, ITEMS)]


def test_queries_of_a_batch_have_filters_of_their_own(retriever):
    filters = [Filter(), SWEET, parse_filter({"taste": "salt"}), parse_filter({"taste": "bitter"}), SWEET]
    asked = [Query(**form, filter=each) for form, each in zip(list(FORMS.values()), filters, strict=True)]
    together = retriever.nearest(asked, 6)
    for query, answer in zip(asked, together, strict=True):
        (alone,) = retriever.nearest([query], 6)
        assert alone.item_ids == answer.item_ids
    assert together[3].item_ids == ()
    assert together[3].exhausted


def test_plain_answers_say_that_the_index_gave_them(retriever):
    (answer,) = retriever.nearest([Query(**FORMS["vector"])], 5)
    assert (answer.plan, answer.candidate_count, answer.exhausted) == (SearchPlan.INDEX, 5, False)
    (answer,) = retriever.nearest([Query(**FORMS["items"])], ITEMS)
    assert (answer.plan, answer.candidate_count, answer.exhausted) == (SearchPlan.OVER_FETCH, ITEMS, True)
    (answer,) = retriever.nearest([Query(**FORMS["popularity"])], 5)
    assert (answer.origin, answer.plan) == (Origin.POPULARITY, None)


def test_what_an_entity_has_met_is_left_out_whole_where_asked(retriever, block_world):
    interactions = pq.read_table(block_world / "interactions.parquet").to_pylist()
    met = {row["item_id"] for row in interactions if row["user_id"] == "user 4"}
    (whole,) = retriever.nearest([Query(entity_id="user 4")], ITEMS)
    (unseen,) = retriever.nearest([Query(entity_id="user 4", exclude_seen=True)], ITEMS)
    # the history feature has five places; the user met twelve items in training, validation and test
    assert len(met) == PER_USER
    assert unseen.item_ids == tuple(item_id for item_id in whole.item_ids if item_id not in met)
    assert unseen.exclusions == Exclusions(PER_USER, PER_USER, 0, 0, 0, release_knows_entity=True)


def test_the_requests_own_history_counts_as_seen(retriever):
    asked = {"history": ["item-ü1", "item-ü3"], "exclude_seen": True}
    (answer,) = retriever.nearest([Query(**asked, filter=SWEET)], ITEMS)
    assert sorted(rows_of(answer)) == list(range(5, ITEMS, 2))
    (known,) = retriever.nearest([Query(entity_id="user 4", **asked)], ITEMS)
    assert not {"item-ü1", "item-ü3"} & set(known.item_ids)


def test_an_answer_says_that_the_release_knows_nothing_of_an_entity(retriever):
    (answer,) = retriever.nearest([Query(entity_id="nobody", exclude_seen=True)], ITEMS)
    assert len(answer.item_ids) == ITEMS
    assert answer.exclusions == Exclusions(0, 0, 0, 0, 0, release_knows_entity=False)


def test_an_answer_says_how_many_items_each_source_leaves_out(retriever, block_world):
    interactions = pq.read_table(block_world / "interactions.parquet").to_pylist()
    met = [row["item_id"] for row in interactions if row["user_id"] == "user 4"]
    other = [f"item-ü{row}" for row in range(1, 9, 2)]  # user 4 only meets even items
    query = Query(
        entity_id="user 4",
        history=[met[0], other[0], other[0]],
        excluded_ids=[met[1], other[1], "unknown"],
        reported_ids=[met[2], other[2], other[3]],
        exclude_seen=True,
    )
    (answer,) = retriever.nearest([query], ITEMS)
    assert answer.exclusions == Exclusions(PER_USER + 4, PER_USER, 2, 3, 2, release_knows_entity=True)
    assert not {*met, *other} & set(answer.item_ids)
    # without exclude_seen only the named items are left out
    (answer,) = retriever.nearest([Query(entity_id="user 4", excluded_ids=[met[1], "unknown"])], ITEMS)
    assert answer.exclusions == Exclusions(1, 0, 0, 0, 1, release_knows_entity=False)
    (answer,) = retriever.nearest([Query(entity_id="user 4")], ITEMS)
    assert answer.exclusions is None


def test_crowding_mixes_the_values_of_a_column(retriever):
    (answer,) = retriever.nearest([Query(entity_id="user 0")], 6, Diversity("taste", 3))
    assert sorted(row % 2 for row in rows_of(answer)) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_distance_weight_changes_the_order_and_keeps_the_best(retriever, form):
    (plain,) = retriever.nearest([Query(**form)], 8)
    (diverse,) = retriever.nearest([Query(**form)], 8, Diversity(mmr_weight=0.7))
    assert diverse.item_ids[0] == plain.item_ids[0]
    assert diverse.item_ids != plain.item_ids
    assert len(set(diverse.item_ids)) == 8


def test_feedback_without_a_word_comes_from_within_the_filter(retriever):
    query = Query(**FORMS["vector"], filter=SWEET)
    answer = retriever.reformulate(query, 5, pseudo_k=3, reformulator="average", explained=True)
    (first,) = retriever.nearest([query], 5)
    assert answer.explanation.item_ids == first.item_ids[:3]
    assert all(row % 2 for row in rows_of(answer.answer))
    # the moved query is answered as its vector would be
    (moved,) = retriever.nearest([Query(vector=answer.vector, filter=SWEET)], 5)
    assert answer.answer.item_ids == moved.item_ids
    assert set(answer.explanation.left_ids) == set(first.item_ids) - set(moved.item_ids)


def test_items_of_the_feedback_count_although_the_filter_hides_them(retriever):
    liked = [FeedbackItem("item-ü2", FeedbackKind.LIKED)]
    answer = retriever.reformulate(Query(**FORMS["vector"], filter=SWEET), 5, mentions=liked, reformulator="average")
    assert answer.drift > 0
    assert all(row % 2 for row in rows_of(answer.answer))


def test_a_diverse_answer_is_compared_with_a_diverse_one(retriever):
    diversity = Diversity("taste", 2)
    query = Query(**FORMS["vector"])
    answer = retriever.reformulate(query, 4, reformulator="identity", explained=True, diversity=diversity)
    assert answer.answer.item_ids == retriever.nearest([query], 4, diversity)[0].item_ids
    assert answer.explanation.entered_ids == answer.explanation.left_ids == ()


def test_popular_items_after_feedback_stay_within_the_filter(retriever):
    query = Query(entity_id="nobody", filter=SWEET, exclude_seen=True)
    answer = retriever.reformulate(query, 4, diversity=Diversity("tags", 2))
    assert answer.vector is None
    # every item has the tag "all"
    assert len(answer.answer.item_ids) == 2
    assert all(row % 2 for row in rows_of(answer.answer))


def test_a_filter_that_lets_nothing_pass_still_moves_the_query(retriever):
    nothing = Query(**FORMS["vector"], filter=parse_filter({"taste": "bitter"}))
    answer = retriever.reformulate(nothing, 4, pseudo_k=3, explained=True)
    assert (answer.answer.item_ids, answer.explanation.item_ids, answer.drift) == ((), (), 0)


def test_a_mistake_in_a_filter_names_its_query(retriever):
    asked = [Query(**FORMS["vector"]), Query(**FORMS["vector"], filter=parse_filter({"colour": "red"}))]
    with pytest.raises(RequestError) as caught:
        retriever.nearest(asked, 3)
    assert caught.value.field == "queries[1].filter.all_of[0].field"
    assert "Known: price, tags, taste." in caught.value.reason
