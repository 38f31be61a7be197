"""A release searched with other settings, as arms of experiments do."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from recsys.indexes.scann import Scann
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems
from twintower.errors import SettingError
from twintower.types import Condition, Diversity, Filter, Query

INDEX = Scann(brute_force_below=0, leaves=8, leaves_to_search=8, quantisation="ah", reorder_k=40)


@pytest.fixture(scope="module")
def retriever(exact, tmp_path_factory) -> Retriever:
    """The release with an index that has something to tune."""
    folder = tmp_path_factory.mktemp("index")
    INDEX.build(exact._vectors, folder)
    return exact._twin(INDEX.load(folder, exact._vectors))


@pytest.fixture(scope="module")
def exact(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


def found(retriever: Retriever, k: int = 4) -> list[tuple[str, ...]]:
    return [each.item_ids for each in retriever.nearest([Query(entity_id=f"user {row}") for row in range(20)], k)]


def test_fewer_leaves_find_less_and_the_release_itself_stays_as_it_was(retriever):
    before = found(retriever)
    tuned = retriever.tuned({"index.leaves_to_search": 1})
    assert found(tuned) != before == found(retriever) == found(retriever.tuned({"index.leaves_to_search": 8}))
    assert tuned.release is retriever.release


def test_the_same_settings_are_made_once_and_let_go_with_the_release(block_release):
    retriever = Retriever.load(block_release.folder)
    tuned = retriever.tuned({"planner.pool": 20})
    assert retriever.tuned({"planner.pool": 20}) is tuned
    alive = weakref.ref(tuned)
    gc.disable()  # nothing may wait for the collector
    try:
        del tuned, retriever
        assert alive() is None
    finally:
        gc.enable()


def test_changed_items_are_tuned_with_their_release_and_never_out_of_date(retriever):
    live = LiveItems(retriever)
    before = live.retriever.tuned({"index.leaves_to_search": 8})
    vector = np.eye(8, dtype=np.float32)[0]
    live.apply([Change("new", vector)])
    (answer,) = live.retriever.tuned({"index.leaves_to_search": 8}).nearest([Query(vector=vector)], 3)
    assert answer.item_ids[0] == "new"
    (answer,) = before.nearest([Query(vector=vector)], 3)
    assert "new" not in answer.item_ids


def test_the_planner_goes_as_deep_as_it_is_told(exact):
    diverse = Diversity(mmr_weight=0.9)
    (few,), (more,) = (
        exact.tuned({"planner.pool": pool}).nearest([Query(entity_id="user 1")], 3, diverse) for pool in (2, 10)
    )
    assert (few.candidate_count, more.candidate_count) != (0, 0)
    assert few.item_ids != more.item_ids
    # All pass the filter: what narrows the search is found exactly in a catalogue of 40 items, whatever the margin.
    query = Query(entity_id="user 1", filter=Filter((Condition("taste", any_of=("salt",)),)))
    assert exact.tuned({"planner.margin": 0.0}).nearest([query], 3)[0].item_ids == exact.nearest([query], 3)[0].item_ids


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"index.leaves": 4}, "index.leaves: no setting that this index is searched with named 'leaves'"),
        ({"index.leaves_to_search": 9}, "index.leaves_to_search: got 9, expected 1 to 8"),
        ({"index.leaves_to_search": 2.5}, "index.leaves_to_search: got 2.5, expected 1 to 8"),
        ({"index.reorder_k": 0}, "index.reorder_k: got 0, expected 1 to 40"),
        ({"planner.depth": 4}, "planner: no setting named 'depth'"),
        ({"planner.pool": "many"}, "planner.pool: got 'many', expected"),
        ({"tower.dim": 4}, "settings: got 'tower.dim', expected index.* or planner.*"),
        ({"index": 4}, "no setting that this index is searched with named ''"),
    ],
)
def test_a_setting_that_there_is_not_is_refused(retriever, settings, told):
    with pytest.raises(SettingError, match=told.replace("*", r"\*")):
        retriever.tuned(settings)


def test_exact_search_has_nothing_to_tune(exact):
    with pytest.raises(SettingError, match=r"index.leaves_to_search: no setting of exact search named"):
        exact.tuned({"index.leaves_to_search": 2})
