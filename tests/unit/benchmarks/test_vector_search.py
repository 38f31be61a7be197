"""How peers and our own server are compared."""

import numpy as np
import pytest

from benchmarks.peers.vector_search import FORMS, K, Task, parts, sweep

ITEMS = np.eye(20, dtype=np.float32) * np.arange(1, 21, dtype=np.float32)[:, None]
QUERIES = np.ones((3, 20), np.float32)


@pytest.fixture
def task() -> Task:
    """Item row r has the score r + 1 for every query: the best ten are rows 10 to 19, with the scores 20 to 11."""
    exact = np.tile(np.arange(20, 10, -1, dtype=np.float32), (3, 1))
    return Task(ITEMS, QUERIES, exact, (0.5, 0.9), seconds=0.01, rounds=2)


def test_recall_counts_items_that_score_as_well_as_the_last_true_one(task):
    # rows 8 and 9 score 9 and 10, less than 11: eight of ten
    assert task.recall([list(range(8, 18))] * 3) == pytest.approx(0.8)
    assert task.recall([list(range(10, 20))] * 3) == 1
    # a row that was found twice counts once
    assert task.recall([[19] * K] * 3) == pytest.approx(0.1)


def test_each_target_gets_the_least_effort_that_reaches_it(task):
    def finding(hits):
        rows = list(range(20 - hits, 20)) + list(range(K - hits))
        return lambda queries: [rows] * len(queries)

    efforts = {str(hits): ({"effort": hits}, finding(hits)) for hits in (2, 6, 8, 10)}

    found = sweep(task, {"build": "b"}, efforts)

    assert [(each.target, each.settings, each.recall) for each in found] == [
        (0.5, {"build": "b", "effort": 6}, pytest.approx(0.6)),
        (0.9, {"build": "b", "effort": 10}, 1),
    ]
    assert all(len(rates) == 2 and min(rates) > 0 for rates in found[0].queries_per_s.values())
    assert set(found[0].queries_per_s) == set(FORMS)


def test_every_query_is_answered_also_those_that_fill_no_call(task):
    many = Task(ITEMS, np.ones((450, 20), np.float32), task.exact, (0.5,), seconds=0.01, rounds=1)

    assert len(many.answered(lambda queries: [[0]] * len(queries))) == 450


def test_parts_are_full_unless_there_is_only_a_rest():
    assert [len(part) for part in parts(QUERIES, 2)] == [2]
    assert [len(part) for part in parts(QUERIES, 5)] == [3]
