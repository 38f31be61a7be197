"""Batches are a function of seed and step, and name every known positive."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys import config
from recsys.data.batches import TrainingBatches, membership
from recsys.data.prepare import prepare
from recsys.types import RowSets
from tests.worlds import block_run


@pytest.fixture(scope="module")
def prepared(block_settings, tmp_path_factory):
    return prepare(block_settings, tmp_path_factory.mktemp("prepared") / "data")


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
