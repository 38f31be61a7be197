"""No item that an entity has met is shown, whatever is asked besides and however the catalog has changed."""

from __future__ import annotations

import copy

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys import pipeline
from recsys.errors import ReleaseError
from recsys.export.seen import SeenItems
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems
from recsys.types import RowSets
from tests.unit.data.test_prepare import item_to_item
from tests.worlds import ITEMS, PER_USER, USERS
from twintower.filters import parse_filter
from twintower.types import Diversity, Exclusions, FeedbackItem, FeedbackKind, Query

IDS = [f"item-ü{row}" for row in range(ITEMS)]
FILTERS = (
    parse_filter({}),
    parse_filter({"taste": "sweet"}),
    parse_filter({"price >=": 10}),
    parse_filter({"tags": "tag 1"}),
)
DIVERSITIES = (Diversity(), Diversity("taste", 2), Diversity(mmr_weight=0.4), Diversity("tags", 3, 0.2))
RANDOM = np.random.default_rng(11)
VECTORS = RANDOM.normal(size=(ITEMS, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


def world(retriever: Retriever, owners: list[int], rows: list[int], changes: list[Change]) -> Retriever:
    """Return the retriever of a release that stores these pairs, with changes of its items."""
    twin = copy.copy(retriever)
    twin._seen = SeenItems(RowSets.from_pairs(np.array(owners, np.int64), np.array(rows, np.int64), USERS))
    if not changes:
        return twin
    live = LiveItems(twin)
    live.apply(changes)
    return live.retriever


ids = st.lists(st.sampled_from([*IDS, "new", "unknown"]), max_size=ITEMS)
rows = st.integers(0, ITEMS - 1)
# Each changed item gets a vector of its own: scores that tie could stand in either order.
NEW_VECTORS = dict(zip([*IDS, "new"], RANDOM.normal(size=(ITEMS + 1, 8)).astype(np.float32), strict=True))
changes = st.lists(
    st.builds(
        lambda item, kept: Change(item, NEW_VECTORS[item] if kept else None, {}),
        st.sampled_from([*IDS, "new"]),
        st.booleans(),
    ),
    max_size=6,
)
forms = st.one_of(
    st.integers(0, USERS + 3).map(lambda user: {"entity_id": f"user {user}"}),
    st.just({"features": {"town": "north"}}),
    st.just({"vector": VECTORS[0]}),
    ids.filter(len).map(lambda named: {"item_ids": named}),
)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pairs=st.lists(st.tuples(st.integers(0, 3), rows), max_size=80), changed=changes)
def test_no_item_that_any_source_knows_is_ever_shown(retriever, data, pairs, changed):
    found = world(retriever, [user for user, _ in pairs], [row for _, row in pairs], changed)
    queries, excluded = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        form = data.draw(forms)
        history = () if {"item_ids", "vector"} & form.keys() else data.draw(ids)
        query = Query(
            **form,
            history=history,
            excluded_ids=data.draw(ids),
            reported_ids=data.draw(ids),
            exclude_seen=data.draw(st.booleans()),
            filter=data.draw(st.sampled_from(FILTERS)),
        )
        stored = {IDS[row] for user, row in pairs if f"user {user}" == query.entity_id}
        seen = {*stored, *query.history, *query.reported_ids} if query.exclude_seen else set()
        queries.append(query)
        excluded.append({*query.excluded_ids, *query.item_ids, *seen})
    k, diversity = data.draw(st.integers(1, ITEMS + 2)), data.draw(st.sampled_from(DIVERSITIES))
    exact = data.draw(st.booleans())
    answers = found.nearest(queries, k, diversity, exact=exact)
    for query, out, answer in zip(queries, excluded, answers, strict=True):
        assert not out & set(answer.item_ids)
        (alone,) = found.nearest([query], k, diversity, exact=exact)
        assert alone.item_ids == answer.item_ids
        bare = Query(
            **{name: getattr(query, name) for name in ("entity_id", "features", "item_ids", "vector", "filter")}
        )
        bare.history = query.history
        if diversity.changes_nothing and not query.item_ids:
            (whole,) = found.nearest([bare], ITEMS + 2, exact=exact)
            left = [item_id for item_id in whole.item_ids if item_id not in out]
            np.testing.assert_allclose(
                answer.scores,
                [score for item_id, score in zip(whole.item_ids, whole.scores, strict=True) if item_id not in out][:k],
                rtol=1e-5,
                atol=1e-6,
            )
            assert len(answer.item_ids) == min(k, len(left))
            assert answer.exhausted == (len(left) <= k)
        if query.exclude_seen or query.excluded_ids:
            there = {item_id for item_id in out if item_id in found._row_of_item}
            assert answer.exclusions.total_count == len(there)
        else:
            assert answer.exclusions is None
        moved = found.reformulate(
            query,
            k,
            mentions=[FeedbackItem(IDS[5], FeedbackKind.LIKED)],
            pseudo_k=3,
            diversity=diversity,
            explained=True,
            include_feedback_items=True,
        )
        assert not out & {*moved.answer.item_ids, *moved.explanation.entered_ids}
        assert moved.answer.exclusions == answer.exclusions


def test_a_release_stores_all_that_every_entity_has_met_whatever_the_features(retriever, block_world):
    met = pq.read_table(block_world / "interactions.parquet").to_pylist()
    for user in range(USERS):
        own = {row["item_id"] for row in met if row["user_id"] == f"user {user}"}
        (answer,) = retriever.nearest([Query(entity_id=f"user {user}", exclude_seen=True)], ITEMS)
        assert set(answer.item_ids) == set(IDS) - own


def test_what_a_smaller_share_of_the_training_data_leaves_out_counts_as_met(block_world, tmp_path):
    from recsys import config
    from tests.worlds import block_run

    features = {"who": {"kind": "id", "width": 8}}
    tables = block_run(block_world, data={"training_rate": 0.3}, query={"features": features})
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="user 4", exclude_seen=True)], ITEMS)
    assert answer.exclusions == Exclusions(PER_USER, PER_USER, 0, 0, 0, release_knows_entity=True)


def test_an_item_that_was_replaced_or_came_back_stays_seen(retriever):
    live = LiveItems(world(retriever, [4, 4, 4], [0, 1, 2], []))
    live.apply([Change(IDS[0], VECTORS[0], {}), Change(IDS[1], None), Change(IDS[2], None)])
    live.apply([Change(IDS[2], VECTORS[2], {})])
    (answer,) = live.retriever.nearest([Query(entity_id="user 4", exclude_seen=True)], ITEMS)
    assert not {IDS[0], IDS[1], IDS[2]} & set(answer.item_ids)
    # item 1 was removed, so that nothing of it is left to leave out
    assert answer.exclusions == Exclusions(2, 2, 0, 0, 0, release_knows_entity=True)


def test_items_of_an_item_to_item_release_leave_out_their_companions(tmp_path):
    release = pipeline.train(item_to_item(tmp_path), tmp_path / "work", tmp_path / "releases")
    retriever = Retriever.load(release.folder)
    item_id = next(iter(retriever._row_of_query))
    companions = set(retriever._item_ids[retriever._seen.of(retriever._row_of_query[item_id])])
    assert companions
    for query in (Query(entity_id=item_id, exclude_seen=True), Query(item_ids=[item_id], exclude_seen=True)):
        (answer,) = retriever.nearest([query], ITEMS)
        assert not {item_id, *companions} & set(answer.item_ids)
        assert answer.exclusions.release_count == len(companions)
        assert answer.exclusions.release_knows_entity
        live = LiveItems(retriever)
        live.apply([Change(item_id, VECTORS[0], {}, features={"group": "group 1"})])
        (answer,) = live.retriever.nearest([query], ITEMS)
        assert not {item_id, *companions} & set(answer.item_ids)


def test_twenty_million_pairs_take_less_than_100_mb(tmp_path):
    # 200,000 entities with 100 of 100,000 items each, as the file sizes of a hundredth of them say
    entities, each = 2_000, 100
    offsets = np.arange(0, entities * each + 1, each)
    stored = SeenItems(RowSets(offsets, np.tile(np.arange(0, 100_000, 1000), entities)))
    stored.save(tmp_path / "seen")
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "seen").iterdir())
    assert 100 * size_bytes < 100e6
    assert SeenItems.load(tmp_path / "seen", entities, 100_000).of(7).tolist() == list(range(0, 100_000, 1000))


@pytest.mark.parametrize("damage", ["missing", "torn", "foreign", "descending", "outside"])
def test_a_part_that_does_not_fit_is_refused(tmp_path, damage):
    SeenItems(RowSets.from_pairs(np.array([0, 1]), np.array([3, 4]), 2)).save(tmp_path / "seen")
    offsets = tmp_path / "seen" / "offsets.npy"
    if damage == "missing":
        offsets.unlink()
    if damage == "torn":
        offsets.write_bytes(offsets.read_bytes()[:40])
    if damage == "descending":
        np.save(offsets, np.array([0, 3, 2], np.uint8))
    with pytest.raises(ReleaseError, match="seen"):
        SeenItems.load(tmp_path / "seen", 3 if damage == "foreign" else 2, 4 if damage == "outside" else 5)
