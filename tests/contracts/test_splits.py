"""Every kind of split keeps the family's contract."""

from __future__ import annotations

import numpy as np
import pytest

from recsys import registry
from recsys.errors import DataError
from recsys.splits import TEST, TRAIN, VALIDATION
from recsys.types import Interactions
from twintower.errors import SettingError

each_kind = pytest.mark.parametrize("kind", registry.names("splits"))


def interactions(*, timed: bool = True, queries: int = 30, each: int = 10) -> Interactions:
    random = np.random.default_rng(0)
    query_row = np.repeat(np.arange(queries, dtype=np.int32), each)
    item_row = random.integers(0, 25, queries * each).astype(np.int32)
    timestamp = np.sort(random.integers(0, 10_000, (queries, each)), axis=1).ravel()
    return Interactions(query_row, item_row, timestamp if timed else None)


@each_kind
def test_every_interaction_falls_into_one_part_and_no_part_is_empty(kind):
    parts = registry.choice("splits", kind)().assign(interactions(), 7)
    assert len(parts) == 300
    assert set(parts) == {TRAIN, VALIDATION, TEST}


@each_kind
def test_one_seed_gives_one_split(kind):
    split = registry.choice("splits", kind)()
    np.testing.assert_array_equal(split.assign(interactions(), 7), split.assign(interactions(), 7))


@each_kind
def test_nothing_is_split_into_nothing(kind):
    assert len(registry.choice("splits", kind)().assign(interactions(queries=0), 7)) == 0


@pytest.mark.parametrize("kind", ["random", "cold_items", "cold_queries"])
def test_another_seed_gives_another_split(kind):
    split = registry.choice("splits", kind)()
    assert (split.assign(interactions(), 7) != split.assign(interactions(), 8)).any()


@pytest.mark.parametrize("kind", ["by_time", "leave_last"])
def test_a_split_by_time_refuses_data_without_times(kind):
    with pytest.raises(DataError, match="expected a source with times"):
        registry.choice("splits", kind)().assign(interactions(timed=False), 7)


@pytest.mark.parametrize("kind", ["by_time", "random", "cold_items", "cold_queries"])
def test_shares_that_leave_nothing_to_train_on_are_refused(kind):
    with pytest.raises(SettingError, match=r"split\.validation_rate: got 0\.5, expected less than 1 - test_rate"):
        registry.build("splits", {"kind": kind, "test_rate": 0.6, "validation_rate": 0.5}, "split")


def test_by_time_never_tests_on_the_past():
    met = interactions()
    parts = registry.choice("splits", "by_time")(test_rate=0.2, validation_rate=0.2).assign(met, 7)
    assert met.timestamp[parts == TRAIN].max() < met.timestamp[parts == VALIDATION].min()
    assert met.timestamp[parts == VALIDATION].max() < met.timestamp[parts == TEST].min()
    # 300 interactions, a fifth each; equal instants may move one or two
    assert np.bincount(parts).tolist() == pytest.approx([180, 60, 60], abs=3)


@each_kind
def test_a_split_that_cuts_in_time_holds_out_what_came_last_of_every_query(kind):
    met, split = interactions(), registry.choice("splits", kind)()
    parts = split.assign(met, 7)
    in_order = all(
        met.timestamp[of_query & (parts < later)].max(initial=-1)
        <= met.timestamp[of_query & (parts == later)].min(initial=10_000)
        for of_query in (met.query_row == row for row in range(30))
        for later in (VALIDATION, TEST)
    )
    assert split.cuts_in_time == (in_order and kind != "cold_queries")  # of a whole query nothing comes last


def test_leave_last_takes_the_latest_of_every_query():
    parts = registry.choice("splits", "leave_last")(test_count=2, validation_count=1).assign(interactions(), 7)
    assert parts.reshape(30, 10).tolist() == [[TRAIN] * 7 + [VALIDATION] + [TEST] * 2] * 30


def test_leave_last_leaves_short_histories_for_training():
    parts = registry.choice("splits", "leave_last")(test_count=2, validation_count=1).assign(interactions(each=3), 7)
    assert set(parts) == {TRAIN}


def test_random_keeps_repeats_of_one_pair_together():
    repeated = Interactions(np.zeros(400, np.int32), np.repeat(np.arange(100, dtype=np.int32), 4))
    parts = registry.choice("splits", "random")(test_rate=0.3, validation_rate=0.3).assign(repeated, 7)
    assert (parts.reshape(100, 4) == parts.reshape(100, 4)[:, :1]).all()


def test_cold_items_have_no_training_interaction():
    met = interactions()
    parts = registry.choice("splits", "cold_items")(test_rate=0.2, validation_rate=0.2).assign(met, 7)
    of = {part: set(met.item_row[parts == part]) for part in (TRAIN, VALIDATION, TEST)}
    assert not of[TRAIN] & of[TEST]
    assert not of[TRAIN] & of[VALIDATION]
    assert not of[VALIDATION] & of[TEST]
    # 25 items, a fifth of them 5
    assert len(of[TEST]) == len(of[VALIDATION]) == 5


def test_cold_items_are_held_out_whole_beside_some_pairs_of_the_others():
    met = interactions(queries=300)
    alone, both = (registry.choice("splits", "cold_items")(warm_rate=rate).assign(met, 7) for rate in (0.0, 0.2))
    cold = alone != TRAIN
    np.testing.assert_array_equal(both[cold], alone[cold])
    assert [np.mean(both[~cold] == part) for part in (TEST, VALIDATION)] == pytest.approx([0.2, 0.2], abs=0.03)
    pairs = met.query_row.astype(int) * 25 + met.item_row
    assert all(len(set(both[pairs == pair])) == 1 for pair in np.unique(pairs)[:200])


@pytest.mark.parametrize(("kind", "rows"), [("cold_items", "item_row"), ("cold_queries", "query_row")])
def test_a_whole_entity_falls_into_one_part(kind, rows):
    met = interactions()
    parts = registry.choice("splits", kind)().assign(met, 7)
    entity = getattr(met, rows)
    assert all(len(set(parts[entity == each])) == 1 for each in np.unique(entity))
