"""The loop: patience, best weights, schedules, clipping, precision, TensorBoard."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from recsys import config
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare, refitted
from recsys.errors import DataError
from recsys.sources._rows import MAX_WEIGHT, MIN_WEIGHT
from recsys.stack import tf
from recsys.training.loop import compiled, fit, large_inputs, train_steps, training_batches
from tests.mined import mined_for_training
from tests.worlds import block_run


@pytest.fixture(scope="module")
def prepared(block_settings: Run, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(block_settings, tmp_path_factory.mktemp("prepared") / "data")


def with_training(run: Run, **changes: object) -> Run:
    return dataclasses.replace(run, training=dataclasses.replace(run.training, **changes))


def losses(prepared: Prepared, run: Run) -> list[float]:
    made = training_batches(run, prepared)
    tf.keras.utils.set_random_seed(run.seed)
    return [float(loss) for loss in train_steps(compiled(run, prepared, made), made)]


def test_training_lowers_the_loss(prepared, block_settings):
    run = with_training(block_settings, epochs=15)
    seen = losses(prepared, run)
    assert np.mean(seen[-5:]) < np.mean(seen[:5]) - 0.3


def test_a_metric_that_never_improves_stops_the_run_and_the_best_weights_stay(prepared, block_settings, tmp_path):
    run = with_training(block_settings, epochs=20, patience=2)
    said = iter([0.5, 0.9, 0.4, 0.3, 0.2])
    at_look: list[np.ndarray] = []

    def validate(model) -> float:
        at_look.append(model.encode_items())
        return next(said)

    fitted = fit(run, prepared, tmp_path, validate)
    assert fitted.stopped_early
    assert [look.metric for look in fitted.validations] == [0.5, 0.9, 0.4, 0.3]
    np.testing.assert_array_equal(fitted.model.encode_items(), at_look[1])


def test_a_refit_does_the_share_of_the_steps_that_validation_chose_on_training_and_validation_rows(
    prepared, block_settings, tmp_path
):
    run = with_training(block_settings, epochs=20, patience=2)
    both = refitted(run, prepared, "train", "validation")
    said = iter([0.5, 0.9, 0.4, 0.3, 0.9])
    fitted = fit(run, prepared, tmp_path, lambda model: next(said), both)
    # 600 training rows in batches of 64 are 9 steps an epoch, 660 with validation are 10; the second of 20 was best
    assert (len(prepared.parts["train"]), len(both.parts["train"])) == (600, 660)
    assert fitted.choice.steps_rate == 2 / 20
    assert fitted.steps == 20
    assert fitted.prepared is both
    assert fitted.choice.sentence == (
        "Training stopped early, after step 36 of 180: nDCG@10 had not improved in 2 validations (training.patience). "
        "The weights of step 18 are used, with the best nDCG@10 on validation cases, 0.9000."
    )
    made = training_batches(run, both)
    tf.keras.utils.set_random_seed(run.seed)
    anew = compiled(run, both, made)
    for _ in islice(train_steps(anew, made), 20):
        pass
    np.testing.assert_array_equal(fitted.model.encode_items(), anew.encode_items())


def test_without_patience_the_run_goes_to_its_end(prepared, block_settings, tmp_path):
    run = with_training(block_settings, epochs=4, patience=0)
    fitted = fit(run, prepared, tmp_path, lambda model: 0.0)
    assert not fitted.stopped_early
    assert len(fitted.validations) == 4


def test_without_validation_cases_the_last_weights_stay(prepared, block_settings, tmp_path):
    fitted = fit(with_training(block_settings, epochs=2), prepared, tmp_path, None)
    assert fitted.validations == ()
    assert fitted.steps == training_batches(with_training(block_settings, epochs=2), prepared).steps


def test_the_run_can_be_watched_in_tensorboard(prepared, block_settings, tmp_path: Path):
    fit(with_training(block_settings, epochs=2), prepared, tmp_path, lambda model: 0.5)
    written = scalars(tmp_path)
    assert written.keys() >= {"validation/nDCG@10", "training/loss"}
    assert not any("view" in name for name in written)


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Return what a run wrote for TensorBoard, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (folder / "tensorboard").glob("events.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return {
        name: {event.step: float(tf.make_ndarray(event.tensor_proto)) for event in accumulator.Tensors(name)}
        for name in accumulator.Tags()["tensors"]
    }


def test_the_second_task_can_be_watched_in_tensorboard(prepared, block_world, tmp_path: Path):
    section = {"objective": {"kind": "contrastive", "weight": 0.5}, "schedule": {"warmup_steps": 10}}
    training = {"epochs": 1, "batch_size": 64, "deterministic": True}
    run = config.from_tables(block_run(block_world, training=training, self_supervision=section))
    fitted = fit(run, prepared, tmp_path, lambda model: 0.5)
    written = scalars(tmp_path)
    # the ninth and last step has number 8: 0.8 of the weight
    assert written["training/view_weight"] == {9: pytest.approx(0.5 * 0.8)}
    assert written["training/view_loss"] == {9: pytest.approx(float(fitted.model.view_loss))}
    assert float(fitted.model.view_loss) > 0


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        ({"kind": "constant"}, 5, 1.0),
        ({"kind": "constant", "warmup_steps": 10}, 5, 0.5),
        ({"kind": "constant", "warmup_steps": 10}, 30, 1.0),
        # half of a cosine from 1 to 0.2 is their mean, 0.6
        ({"kind": "cosine", "final_rate": 0.2}, 18, 0.6),
        # the last of 36 steps: cos(35/36 pi) = -0.9962, so 0.2 + 0.8 * (1 - 0.9962) / 2
        ({"kind": "cosine", "final_rate": 0.2}, 35, 0.20152),
        ({"kind": "cosine", "warmup_steps": 4}, 2, 0.5),
    ],
)
def test_the_learning_rate_follows_its_schedule(schedule, step, share, prepared, block_world):
    training = {"epochs": 4, "batch_size": 64, "optimizer": "adagrad", "learning_rate": 0.1, "schedule": schedule}
    run = config.from_tables(block_run(block_world, training=training))
    made = training_batches(run, prepared)
    # 600 interactions in batches of 64 are 9 steps an epoch
    assert made.steps == 36
    model = compiled(run, prepared, made)
    for _ in islice(train_steps(model, made), step + 1):
        pass
    assert float(model.optimizer.learning_rate) == pytest.approx(0.1 * share, rel=1e-3)


def test_clipping_bounds_the_step(prepared, block_settings):
    def moved(**changes: object) -> float:
        run = with_training(block_settings, optimizer="sgd", learning_rate=1.0, **changes)
        made = training_batches(run, prepared)
        tf.keras.utils.set_random_seed(1)
        model = compiled(run, prepared, made)
        before = [variable.numpy() for variable in model.trainable_variables]
        next(iter(train_steps(model, made)))
        after = [variable.numpy() for variable in model.trainable_variables]
        return float(np.sqrt(sum(((old - new) ** 2).sum() for old, new in zip(before, after, strict=True))))

    # with plain descent at rate 1 the step is the gradient; rows of a table that repeat are summed after clipping
    assert moved(clip_norm=0.01) == pytest.approx(0.01, rel=0.1)
    assert moved() > 0.1


def test_bfloat16_trains_and_keeps_float32_weights(prepared, block_settings):
    run = with_training(block_settings, mixed_precision="bfloat16", epochs=10)
    seen = losses(prepared, run)
    assert np.isfinite(seen).all()
    assert np.mean(seen[-5:]) < np.mean(seen[:5])


@pytest.mark.parametrize("logq", ["none", "counts", "streaming"])
def test_every_correction_trains_with_uniform_negatives_and_a_learned_temperature(logq, prepared, block_world):
    objective = {"kind": "sampled_softmax", "logq": logq, "uniform_negatives": 16, "learned_temperature": True}
    run = config.from_tables(block_run(block_world, objective=objective))
    made = training_batches(run, prepared)
    model = compiled(run, prepared, made)
    start = float(model.main_task.temperature)
    seen = [float(loss) for loss in train_steps(model, made)]
    assert np.isfinite(seen).all()
    assert float(model.main_task.temperature) != start


def test_the_mixture_probability_is_the_share_of_each_item_among_the_drawn_candidates(prepared, block_world):
    objective = {"kind": "sampled_softmax", "uniform_negatives": 64}
    run = config.from_tables(block_run(block_world, objective=objective))
    made = training_batches(run, prepared)
    model = compiled(run, prepared, made)
    rows = np.arange(40, dtype=np.int32)
    log_q = model.main_task._log_q(tf.constant(rows), tf.constant(64)).numpy()
    # half of the candidates come from the data, half uniformly from 40 items
    p = prepared.item_counts / prepared.item_counts.sum()
    np.testing.assert_allclose(np.exp(log_q), 0.5 * p + 0.5 / 40, rtol=1e-4)
    drawn = np.concatenate([made.batch(step)["candidate_row"] for step in range(made.steps)])
    seen = np.bincount(drawn, minlength=40) / len(drawn)
    np.testing.assert_allclose(seen, np.exp(log_q), atol=0.012)


@pytest.mark.parametrize("uniform", [0, 32])
def test_the_mixture_probability_counts_hard_negatives_too(uniform, prepared, block_world, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    hard = {"file": str(tmp_path / "mined.arrow"), "per_query": 2}
    objective = {"kind": "sampled_softmax", "uniform_negatives": uniform, "hard_negatives": hard}
    run = config.from_tables(block_run(block_world, objective=objective))
    made = training_batches(run, prepared)
    rows = np.arange(40, dtype=np.int32)
    log_q = compiled(run, prepared, made).main_task._log_q(tf.constant(rows), tf.constant(64)).numpy()
    drawn = np.concatenate([made.batch(step)["candidate_row"] for step in range(made.steps)])
    assert len(drawn) == made.steps * (64 + uniform + 64 * 2)
    assert np.exp(log_q).sum() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(np.bincount(drawn, minlength=40) / len(drawn), np.exp(log_q), atol=0.012)


def test_a_run_trains_with_hard_negatives(prepared, block_world, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    hard = {"file": str(tmp_path / "mined.arrow")}
    run = config.from_tables(block_run(block_world, objective={"kind": "sampled_softmax", "hard_negatives": hard}))
    fitted = fit(run, prepared, tmp_path / "training", lambda model: 0.5)
    seen = [look.loss for look in fitted.validations]
    assert seen[-1] < seen[0]


def test_a_refit_on_more_rows_draws_from_the_hard_negatives_of_the_training_part(prepared, block_world, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    hard = {"file": str(tmp_path / "mined.arrow"), "per_query": 2}
    run = config.from_tables(block_run(block_world, objective={"kind": "sampled_softmax", "hard_negatives": hard}))
    first = 12 * 5  # the training rows of the first five users are not in the training part
    train = prepared.parts["train"]
    few = dataclasses.replace(prepared, parts={**prepared.parts, "train": train.take(np.arange(first, len(train)))})
    mined_for_training(few).write(tmp_path / "mined.arrow")
    both = refitted(run, few, "train", "validation")
    assert len(np.unique(both.parts["train"].query_row)) > len(np.unique(few.parts["train"].query_row))
    made = training_batches(run, both)
    assert made.expected_hard.sum() == pytest.approx(64 * 2, rel=1e-5)
    rows = made.batch(0)["candidate_row"]
    assert len(rows) == 64 + 64 * 2
    assert ((rows >= 0) & (rows < 40)).all()


def test_a_history_reads_the_table_of_the_item_ids(block_world, prepared):
    run = config.from_tables(block_run(block_world))
    model = compiled(run, prepared, training_batches(run, prepared))
    # 40 item ids, 1 bucket and 'missing', 8 wide: the history reads the item ids' table, so it is there once
    assert [tuple(variable.shape) for variable in model.trainable_variables].count((42, 8)) == 1


def test_a_loss_that_is_not_finite_names_large_inputs_beside_the_learning_rate(prepared, block_settings, tmp_path):
    vectors = np.full_like(np.asarray(prepared.item_codes["vector"]), 1e14)
    large = dataclasses.replace(prepared, item_codes={**prepared.item_codes, "vector": vectors})
    run = with_training(block_settings, learning_rate=1e30, optimizer="sgd")
    with pytest.raises(DataError) as raised:
        fit(run, large, tmp_path, lambda model: 0.0)
    told = str(raised.value)
    assert "training: got a loss of nan by step" in told
    assert "item.features.vector reaches 1e+14" in told
    assert "training.learning_rate = 1e+30 is too high: lower it" in told


def test_weights_of_very_unequal_size_are_named(prepared):
    train = prepared.parts["train"]
    weight = np.ones(len(train), np.float32)
    assert large_inputs(prepared) == []
    weight[0] = 1e30
    uneven = dataclasses.replace(prepared, parts={**prepared.parts, "train": dataclasses.replace(train, weight=weight)})
    assert large_inputs(uneven) == ["the interactions' weights lie between 1 and 1e+30"]


def test_weights_as_large_as_the_door_lets_in_train_to_a_finite_loss(prepared, block_settings):
    train = prepared.parts["train"]
    for weight in (MIN_WEIGHT, MAX_WEIGHT):
        same = dataclasses.replace(train, weight=np.full(len(train), weight, np.float32))
        run = with_training(block_settings, epochs=1)
        assert np.isfinite(losses(dataclasses.replace(prepared, parts={**prepared.parts, "train": same}), run)).all()
