"""Batches of whole sets of items, with the whole catalog or a sample of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys import config
from recsys.data.batches import SetBatches
from recsys.data.prepare import prepare
from tests.worlds import block_run


@pytest.fixture(scope="module")
def prepared(block_world, tmp_path_factory):
    return prepare(config.from_tables(block_run(block_world)), tmp_path_factory.mktemp("prepared"))


def batches(block_world, prepared, **objective):
    objective = {"kind": "all_items", **objective}
    run = config.from_tables(block_run(block_world, objective=objective, training={"batch_size": 7}))
    return SetBatches(prepared, run)


@pytest.mark.parametrize("exact_items", [1000, 10])
def test_each_pair_of_a_query_is_there_once_whatever_is_sampled(exact_items, block_world, prepared):
    made = batches(block_world, prepared, exact_items=exact_items, sampled_items=5)
    train = prepared.parts["train"]
    wanted = set(zip(train.query_row.tolist(), train.item_row.tolist(), strict=True))
    found = []
    for step in range(made.steps_per_epoch):
        batch = made.batch(step)
        assert (np.diff(batch["candidate_row"]) > 0).all()
        assert (np.diff(batch["owner"]) >= 0).all()
        found += [len(batch["owner"])]
        items = set(batch["candidate_row"][batch["column"]].tolist())
        assert items <= {item for _, item in wanted}
    # 60 users in batches of 7 leave 4 of them out; each user has 10 training items
    assert sum(found) == made.steps_per_epoch * 7 * 10


def test_a_catalog_that_fits_is_read_whole_and_each_item_stands_for_itself(block_world, prepared):
    batch = batches(block_world, prepared, exact_items=1000).batch(0)
    assert batch["candidate_row"].tolist() == list(range(prepared.item_count))
    assert batch["stands_for"].tolist() == [1] * prepared.item_count


def test_a_sample_stands_for_the_whole_catalog_and_own_items_beside_it_for_nothing(block_world, prepared):
    made = batches(block_world, prepared, exact_items=10, sampled_items=5)
    drawn = np.zeros(prepared.item_count)
    for step in range(400):
        batch = made.batch(step)
        assert batch["stands_for"].sum() == pytest.approx(prepared.item_count)
        assert (batch["stands_for"] > 0).sum() == 5
        drawn[batch["candidate_row"]] += batch["stands_for"]
    # an item is drawn in 5 of 40 steps, so that it stands for 1 on average: 400 draws, deviation sqrt(7 / 400) = 0.13
    np.testing.assert_allclose(drawn / 400, 1, atol=0.13 * 5)


def test_an_item_that_nobody_met_in_training_is_no_candidate(block_world, prepared):
    train = prepared.parts["train"]
    kept = train.item_row != 3
    columns = {name: None if (values := getattr(train, name)) is None else values[kept]
               for name in ("query_row", "item_row", "timestamp", "weight")}  # fmt: skip
    without = dataclasses.replace(prepared, parts={**prepared.parts, "train": type(train)(**columns)})
    for exact_items in (1000, 10):
        made = batches(block_world, without, exact_items=exact_items, sampled_items=30)
        assert all(3 not in made.batch(step)["candidate_row"] for step in range(20))
