"""What training on whole sets regularizes, and its running Gramians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys import config, registry
from recsys.data.batches import ViewBatches
from recsys.data.prepare import prepare
from recsys.stack import tf
from recsys.training.loop import compiled, train_steps, training_batches
from recsys.training.main_task import RunningGramians, penalties, teachers_of, trained_rows
from recsys.training.solutions import item_tables
from tests.worlds import block_run

DIM = 8
FEATURES = {"id": {"kind": "id", "width": DIM}, "taste": {"kind": "categorical", "width": DIM}}
HISTORY = {"kind": "history", "shared": False, "pooling": "sum", "width": DIM}


def run_of(block_world, **objective):
    return config.from_tables(
        block_run(
            block_world,
            query={"features": {"met": HISTORY}},
            item={"features": FEATURES},
            tower={"kind": "sum", "dim": DIM},
            objective={"kind": "all_items", **objective},
            training={"epochs": 2, "batch_size": 20},
        )
    )


@pytest.fixture(scope="module")
def prepared(block_world, tmp_path_factory):
    return prepare(run_of(block_world), tmp_path_factory.mktemp("prepared"))


def made(block_world, prepared, **objective):
    run = run_of(block_world, **objective)
    batches = training_batches(run, prepared)
    return run, batches, compiled(run, prepared, batches)


def test_items_are_augmented_with_their_lengths_where_the_run_says_so(block_world, prepared):
    """As the paper's baseline of feature dropout: in training alone, and without bringing vectors to unit length."""
    plain = run_of(block_world)
    dropped = [registry.build("augmentations", {"kind": "embedding_dropout", "rate": 0.5}, "item.augmentations.0")]
    run = replace(plain, item=replace(plain.item, augmentations=tuple(dropped)))
    batches = training_batches(run, prepared)
    model, batch = compiled(run, prepared, batches), next(iter(batches.dataset(0)))
    _, items = model.main_task.vectors(model, batch)
    # The sum of two features: a coordinate is 0 where both were dropped, at a rate of .5 a quarter of them.
    assert np.mean(items.numpy() == 0) == pytest.approx(0.25, abs=0.08)
    whole = model.item_tower.raw(model.codes_of(batch["candidate_row"])).numpy()
    assert np.mean(whole == 0) < 0.01
    assert np.abs(np.linalg.norm(items, axis=1) - 1).max() > 0.1


def test_items_have_one_weight_and_features_another(block_world, prepared):
    weights = {"regularization_weight": 0.25, "feature_regularization_weight": 4.0}
    run, _, model = made(block_world, prepared, **weights)
    own = {each.table.vectors.ref() for each in item_tables(model, prepared)}
    found = penalties(model, prepared, run.objective)
    assert len(found) == 3  # history, item id, taste
    for variable, weight in found:
        assert float(tf.reduce_max(weight)) == float(tf.reduce_min(weight)) == (0.25 if variable.ref() in own else 4.0)


def test_with_an_exponent_of_one_rows_are_regularized_as_often_as_they_are_trained(block_world, prepared):
    run, _, model = made(block_world, prepared, regularization_weight=0.5, regularization_exponent=1.0)
    weights = {variable.ref(): weight.numpy().ravel() for variable, weight in penalties(model, prepared, run.objective)}
    counts = prepared.item_counts
    for each in item_tables(model, prepared):
        of_items = weights[each.table.vectors.ref()][each.codes]
        np.testing.assert_allclose(of_items / of_items[0], counts / counts[0], rtol=1e-5)


def test_codes_of_bags_are_counted_by_all_rows_that_hold_them():
    codes = np.array([[0, 2, -1], [2, 2, 1]], np.int32)
    # the first row is met 3 times, the second 10: code 0 three times, 1 ten, 2 three and twice ten
    assert trained_rows(codes, np.array([3, 10]), 4).tolist() == [3, 10, 23, 0]


def test_running_gramians_are_the_mean_of_the_first_steps_and_then_forget():
    running = RunningGramians(1, rate=0.25)
    for step, value in enumerate([2.0, 4.0, 6.0]):
        running.update(tf.constant([[value]]), tf.constant([[1.0]]), tf.constant([3.0]), tf.constant(step))
    # (4 + 16 + 36) / 3; rate max(.25, 1 / 3)
    assert float(running.of_queries[0, 0]) == pytest.approx(56 / 3)
    for step in range(3, 5):
        running.update(tf.constant([[1.0]]), tf.constant([[1.0]]), tf.constant([3.0]), tf.constant(step))
    # .75 (.75 * 56 / 3 + .25) + .25
    assert float(running.of_queries[0, 0]) == pytest.approx(0.75 * (0.75 * 56 / 3 + 0.25) + 0.25)
    assert float(running.of_items[0, 0]) == pytest.approx(3)


OF_SETS = [kind for kind in registry.names("objectives") if registry.choice("objectives", kind).reads == "sets"]


@pytest.mark.parametrize("kind", OF_SETS)
def test_where_the_catalog_does_not_fit_a_sample_trains_and_the_log_says_so(kind, block_world, prepared, capsys):
    tables = {"kind": kind, "exact_items": 10, "sampled_items": 15}
    _, batches, model = made(block_world, prepared, **tables)
    assert "more than objective.exact_items = 10" in capsys.readouterr().err
    losses = [float(loss) for loss in train_steps(model, batches)]
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("kind", OF_SETS)
def test_the_second_task_trains_beside_an_objective_on_sets(kind, block_world, prepared):
    second = {"augmentations": [{"kind": "value_dropout"}], "objective": {"kind": "contrastive", "weight": 0.5}}
    tables = config.plain_tables(run_of(block_world)) | {"objective": {"kind": kind}, "self_supervision": second}
    run = config.from_tables(tables)
    batches = training_batches(run, prepared)
    model, views = compiled(run, prepared, batches), ViewBatches(prepared, run)
    losses = [float(loss) for loss in train_steps(model, batches, views=views)]
    assert np.isfinite(losses).all()
    assert float(model.view_loss) > 0


def test_an_objective_without_teachers_solves_none_and_reports_none(block_world, prepared, capsys):
    assert teachers_of(run_of(block_world).objective, prepared, seed=0) == []
    assert capsys.readouterr().err == ""
