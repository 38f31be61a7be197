"""Every kind of long work of a retriever can be ended on its way, and leaves nothing half done."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from recsys.cancellation import cancel_by
from recsys.indexes.scann import Scann
from recsys.retrieval import Retriever
from recsys.retrieval.live_items import Change, LiveItems
from twintower.filters import parse_filter
from twintower.types import Diversity, FeedbackItem, FeedbackKind, Query

BATCH = 40
IDS = [f"item-ü{row}" for row in range(40)]
VECTORS = np.random.default_rng(2).normal(size=(BATCH, 8)).astype(np.float32)
PRICES = [parse_filter({"price >": price}) for price in range(30)]
LIKED = [FeedbackItem(item_id, FeedbackKind.LIKED) for item_id in IDS[:5]]


class Unwanted(Exception):
    """Nobody waits any more."""


class Visits:
    """Counts checkpoints and ends the work at one of them."""

    def __init__(self, last: int | None = None) -> None:
        self.count, self._last = 0, last

    def __call__(self) -> None:
        if self.count == self._last:
            raise Unwanted
        self.count += 1


def run(work: Callable[[], Any], visits: Visits) -> Any:
    def checked() -> Any:
        cancel_by(visits)
        return work()

    return contextvars.copy_context().run(checked)


@pytest.fixture(scope="module")
def plain(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def changed(plain) -> Retriever:
    live = LiveItems(plain)
    live.apply([Change("new", VECTORS[0], {"title": "New"}), Change("item-ü3", None)])
    return live.retriever


@pytest.fixture(params=["plain", "changed"])
def retriever(request) -> Retriever:
    return request.getfixturevalue(request.param)


def each(**how: Any) -> list[Query]:
    return [Query(vector=vector, **how) for vector in VECTORS]


WORK: dict[str, Callable[[Retriever], Any]] = {
    "vectors": lambda r: r.nearest(each(), 10),
    "flat lists": lambda r: r.search_vectors(VECTORS, 10),
    "known users": lambda r: r.nearest([Query(entity_id=f"user {row}") for row in range(BATCH)], 10),
    "histories": lambda r: r.encode([Query(history=IDS) for _ in range(BATCH)]),
    "items": lambda r: r.nearest([Query(item_ids=IDS[:5]) for _ in range(BATCH)], 10),
    "exclusions": lambda r: r.nearest(each(excluded_ids=IDS[:20]), 10),
    "seen items": lambda r: r.nearest([Query(entity_id="user 1", exclude_seen=True)] * BATCH, 10),
    "filters": lambda r: r.nearest(
        [Query(vector=v, filter=parse_filter({"price >": n % 30})) for n, v in enumerate(VECTORS)], 10
    ),
    "diversity": lambda r: r.nearest(each(), 10, Diversity(mmr_weight=0.3)),
    "crowding": lambda r: r.nearest(each(), 10, Diversity("tags", 2)),
    "popularity": lambda r: r.nearest([Query(entity_id="nobody")] * BATCH, 10, Diversity("taste", 3)),
    "exact search": lambda r: r.nearest(each(), 10, exact=True),
    "metadata": lambda r: [r.metadata(IDS) for _ in range(BATCH)],
    "feedback": lambda r: [r.reformulate(Query(vector=v), 10, mentions=LIKED, reformulator="rocchio") for v in VECTORS],
}


@pytest.mark.parametrize("name", WORK)
def test_work_has_at_least_one_checkpoint_a_query_and_ends_at_any_of_them(name, retriever):
    work = lambda: WORK[name](retriever)  # noqa: E731
    before, visits = repr(work()), Visits()
    assert repr(run(work, visits)) == before
    assert visits.count >= BATCH
    for last in {0, 1, visits.count // 2, visits.count - 1}:
        with pytest.raises(Unwanted):
            run(work, Visits(last))
    # and nothing of what was ended is left
    assert repr(work()) == before


def test_mmr_has_a_checkpoint_for_each_place(plain):
    visits = Visits()
    run(lambda: plain.nearest([Query(vector=VECTORS[0])], 20, Diversity(mmr_weight=0.5)), visits)
    assert visits.count >= 20


def test_scann_is_asked_for_few_queries_at_a_time(tmp_path):
    vectors = np.random.default_rng(3).normal(size=(200, 8)).astype(np.float32)
    index = Scann(leaves=4, leaves_to_search=4, reorder_k=50, brute_force_below=0)
    index.build(vectors, tmp_path)
    searcher, visits = index.load(tmp_path, vectors), Visits()
    together = run(lambda: searcher.search(vectors[:100], 100), visits)
    # 16 queries at most: 7 parts of 100
    assert visits.count >= 7
    for row in (0, 15, 16, 99):
        alone = searcher.search(vectors[row : row + 1], 100)
        np.testing.assert_array_equal(np.sort(alone.item_rows), np.sort(together.item_rows[row : row + 1]))


def test_a_long_batch_is_answered_as_each_of_its_queries_alone(plain):
    users = [Query(entity_id=f"user {row % 60}", excluded_ids=IDS[: row % 20]) for row in range(100)]
    filtered = [Query(entity_id=f"user {row % 60}", filter=PRICES[row % 30]) for row in range(100)]
    for queries in (users, users + filtered):
        together = plain.nearest(queries, 7)
        assert len(together) == len(queries)
        for query, answer in zip(queries, together, strict=True):
            (alone,) = plain.nearest([query], 7)
            assert answer.plan is alone.plan
            # equal up to rounding: a batch is multiplied otherwise than a single query
            np.testing.assert_allclose(answer.scores, alone.scores, rtol=0, atol=1e-5)


def test_a_mistake_late_in_a_long_batch_is_named_by_its_place_in_the_batch(plain):
    queries = [Query(entity_id="user 1")] * 150 + [Query(entity_id="user 1", filter=parse_filter({"no_column": 1}))]
    with pytest.raises(ValueError, match=r"queries\[150\]\.filter"):
        plain.nearest(queries, 3)
