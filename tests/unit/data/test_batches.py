"""Batches are a function of seed and step, and name every known positive."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import chi2

from recsys import config
from recsys.data.batches import TrainingBatches, ViewBatches, membership
from recsys.data.prepare import prepare
from recsys.objectives.contrastive import Contrastive
from recsys.stack import tf
from recsys.types import RowSets
from tests.worlds import block_run


@pytest.fixture(scope="module")
def prepared(block_settings, tmp_path_factory):
    return prepare(block_settings, tmp_path_factory.mktemp("prepared") / "data")


def views(prepared, run, **settings):
    second = config.SelfSupervision(objective=Contrastive(), **{"batch_size": 8} | settings)
    return ViewBatches(prepared, dataclasses.replace(run, self_supervision=second))


def batches(prepared, run, **settings):
    return TrainingBatches(prepared, run, **{"uniform_negatives": 0, "mask_positives": True} | settings)


def test_a_batch_depends_on_seed_and_step_alone(prepared, block_settings):
    forwards, backwards = batches(prepared, block_settings), batches(prepared, block_settings)
    steps = range(forwards.steps)
    first = [forwards.batch(step) for step in steps]
    again = [backwards.batch(step) for step in reversed(steps)][::-1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["candidate_row"], other["candidate_row"])
        for name, codes in one["query"].items():
            np.testing.assert_array_equal(codes, other["query"][name])


def test_an_epoch_takes_every_interaction_at_most_once(prepared, block_settings):
    run = dataclasses.replace(block_settings, training=dataclasses.replace(block_settings.training, batch_size=50))
    made = batches(prepared, run)
    taken = [
        (int(user), int(item))
        for step in range(made.steps_per_epoch)
        for user, item in zip(made.batch(step)["query"]["who"], made.batch(step)["candidate_row"], strict=True)
    ]
    assert len(taken) == len(set(taken)) == 600 // 50 * 50


def test_two_epochs_have_different_orders(prepared, block_settings):
    made = batches(prepared, block_settings)
    one, other = made.batch(0)["candidate_row"], made.batch(made.steps_per_epoch)["candidate_row"]
    assert (one != other).any()


def test_other_training_items_of_the_query_are_known_positives_and_its_own_is_not(prepared, block_settings):
    batch = batches(prepared, block_settings, uniform_negatives=30).batch(0)
    positives = prepared.positives("train")
    user_of_code = {int(code): row for row, code in enumerate(prepared.query_codes["who"])}
    for place, code in enumerate(batch["query"]["who"]):
        items = set(positives[user_of_code[int(code)]].tolist())
        expected = [item in items for item in batch["candidate_row"]]
        expected[place] = False
        assert batch["known_positive"][place].tolist() == expected


def test_without_masking_only_repeats_of_the_own_item_are_known(prepared, block_settings):
    batch = batches(prepared, block_settings, mask_positives=False).batch(0)
    rows = batch["candidate_row"]
    expected = rows[:, None] == rows[None, :]
    np.fill_diagonal(expected, False)
    np.testing.assert_array_equal(batch["known_positive"], expected)


def test_uniform_negatives_come_from_the_whole_catalogue(prepared, block_settings):
    made = batches(prepared, block_settings, uniform_negatives=40)
    drawn = np.concatenate([made.batch(step)["candidate_row"][made.batch_size :] for step in range(20)])
    # 800 draws from 40 items: 20 each on average, standard deviation 4.4
    counts = np.bincount(drawn, minlength=40)
    assert len(counts) == 40
    assert counts.min() > 3
    assert counts.max() < 43


def test_a_batch_larger_than_the_data_is_the_data(block_world, tmp_path):
    run = config.from_tables(block_run(block_world, training={"batch_size": 100_000, "epochs": 2}))
    data = prepare(run, tmp_path / "data")
    made = batches(data, run)
    assert made.batch_size == len(data.parts["train"]) == 600
    assert made.steps == 2


def test_membership_finds_each_candidate_in_each_set():
    sets = RowSets(np.array([0, 2, 2, 3]), np.array([4, 7, 1], np.int32))
    found = membership(sets, 9)[:, np.array([1, 7, 7, 0], np.int32)]
    assert found.toarray().tolist() == [[False, True, True, False], [False] * 4, [True, False, False, False]]


@pytest.mark.parametrize("side", ["item", "query", "both"])
def test_a_batch_of_the_second_task_depends_on_seed_and_step_alone(side, prepared, block_settings):
    forwards, backwards = views(prepared, block_settings, side=side), views(prepared, block_settings, side=side)
    first = [forwards.batch(step) for step in range(20)]
    again = [backwards.batch(step) for step in reversed(range(20))][::-1]
    for one, other in zip(first, again, strict=True):
        assert one["row"].keys() == other["row"].keys() == {"both": {"item", "query"}}.get(side, {side})
        for part in ("row", "query"):
            for name, array in one[part].items():
                np.testing.assert_array_equal(array, other[part][name])
    assert any((one["row"][name] != first[0]["row"][name]).any() for one in first for name in one["row"])
    reseeded = views(prepared, dataclasses.replace(block_settings, seed=4), side=side)
    assert any(
        (reseeded.batch(step)["row"][name] != first[step]["row"][name]).any()
        for step in range(3)
        for name in first[0]["row"]
    )


def test_no_row_stands_twice_in_a_batch_of_the_second_task(prepared, block_settings):
    made = views(prepared, block_settings, side="both", batch_size=30)
    for step in range(20):
        for rows in made.batch(step)["row"].values():
            assert len(rows) == len(np.unique(rows)) == 30
            assert rows.dtype == np.int32


def test_items_of_the_second_task_are_uniform_over_the_catalogue_whatever_is_popular(prepared, block_settings):
    few = dataclasses.replace(prepared, parts={**prepared.parts, "train": prepared.parts["train"].take(np.arange(20))})
    assert (few.item_counts == 0).sum() == 20
    made, steps = views(few, block_settings), 500
    counts = np.bincount(np.concatenate([made.batch(step)["row"]["item"] for step in range(steps)]), minlength=40)
    # 8 of 40 without replacement: an item is in a batch with p = 8 / 40, and the counts of 40 items that sum to 8 in
    # each batch have the covariance p (1 - p) 40 / 39 (1[i = j] - 1 / 40)
    statistic = ((counts - steps * 0.2) ** 2).sum() / (steps * 0.2 * 0.8 * 40 / 39)
    assert 1e-3 < chi2.sf(statistic, 39) < 1 - 1e-3


@pytest.mark.parametrize(("asked", "items", "queries"), [(100_000, 40, 60), (50, 40, 50), (0, 40, 60)])
def test_a_catalogue_smaller_than_the_batch_is_taken_whole(asked, items, queries, prepared, block_settings):
    # 0 asks for as many as the main task has, which are 64
    batch = views(prepared, block_settings, side="both", batch_size=asked).batch(3)
    assert batch["row"]["item"].tolist() == list(range(items))
    assert len(np.unique(batch["row"]["query"])) == queries


def test_query_entities_of_the_second_task_come_with_their_features_and_all_of_their_history(prepared, block_settings):
    batch = views(prepared, block_settings, side="query").batch(0)
    rows = batch["row"]["query"]
    train, item_codes = prepared.parts["train"], prepared.item_codes["id"]
    assert batch["query"].keys() == {"who", "town", "recent"}
    for name in ("who", "town"):
        np.testing.assert_array_equal(batch["query"][name], prepared.query_codes[name][rows])
    for row, codes in zip(rows, batch["query"]["recent"], strict=True):
        met = np.asarray(train.item_row)[np.asarray(train.query_row) == row]
        # the last five of ten, newest first
        assert len(met) == 10
        assert codes[:, 0].tolist() == item_codes[met[::-1][:5]].tolist()


def test_the_item_side_alone_needs_no_query_codes(prepared, block_settings):
    assert views(prepared, block_settings).batch(0)["query"] == {}


def test_the_batches_of_the_main_task_do_not_depend_on_those_of_the_second(prepared, block_settings):
    made, beside = batches(prepared, block_settings, uniform_negatives=5), views(prepared, block_settings, side="both")
    both = list(beside.beside(made, first_step=3).as_numpy_iterator())
    assert len(both) == made.steps - 3
    for step, batch in enumerate(both, 3):
        tf.nest.map_structure(np.testing.assert_array_equal, batch.pop("views"), dict(beside.batch(step)))
        tf.nest.map_structure(np.testing.assert_array_equal, batch, dict(made.batch(step)))
