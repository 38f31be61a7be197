"""A reformulator's training: it learns a known move, goes on as if nothing had happened, and stops when it should."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.config import Reformulation
from recsys.data.mined import Mined
from recsys.errors import DataError, InterruptedRun, SettingError
from recsys.evaluation.reformulation import mean_metric
from recsys.objectives.comparative import Comparative
from recsys.reformulators import Weights
from recsys.retrieval.reformulation import NamedReformulator
from recsys.training.reformulation import Trained, train_reformulator
from tests.mined import clustered
from tests.unit.training.test_loop import scalars
from tests.unit.training.test_reformulation_steps import settings

MINED, ITEMS = clustered(320)
LEARN, CHOOSE = MINED.halves(0.25, 0)
SMALL = {
    "reformulator": {"kind": "attention", "width": 16, "heads": 2, "dropout_rate": 0.3},
    "objective": {"kind": "comparative", "temperature": 0.1},
    "feedback_k": 5, "revisions": 2, "batch_size": 60, "learning_rate": 0.01, "epochs": 4, "patience": 0,
}  # fmt: skip


def small(**changes: object) -> Reformulation:
    return settings(**SMALL | changes)


def scored(of: Reformulation) -> Callable[[Weights], float]:
    return lambda weights: mean_metric(
        NamedReformulator("any", of.reformulator, weights), CHOOSE, ITEMS, "nDCG@10", range(1, 6)
    )


def train(
    folder: Path,
    validate: Callable[[Weights], float] = lambda weights: 0.0,
    *,
    of: Reformulation,
    mined: Mined = LEARN,
    seed: int = 4,
) -> Trained:
    return train_reformulator(mined, ITEMS, of, seed=seed, validate=validate, folder=folder)


def assert_same(one: Trained, other: Trained) -> None:
    np.testing.assert_allclose(one.metrics, other.metrics, atol=1e-6)
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
    for name, values in one.weights.items():
        np.testing.assert_allclose(values, other.weights[name], atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def uninterrupted(folder) -> Trained:
    return train(folder, scored(small()), of=small())


def test_it_learns_to_move_towards_the_items_that_were_found(uninterrupted):
    # every query lies off its cluster, and the first results are mostly of that cluster
    assert len(uninterrupted.metrics) == 5
    assert max(uninterrupted.metrics) > uninterrupted.metrics[0] + 0.03
    assert uninterrupted.losses[-1] < uninterrupted.losses[0]


def test_the_weights_are_those_of_the_best_epoch(uninterrupted):
    assert scored(small())(uninterrupted.weights) == pytest.approx(max(uninterrupted.metrics), abs=1e-6)


class _PowerCut(Exception):
    pass


def cut() -> None:
    raise _PowerCut


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def during(look: int, happens: Callable[[], None]) -> Callable[[Weights], float]:
    """Return a validation during whose look of that number, counted from 0, something happens."""
    validate, looks = scored(small()), itertools.count()

    def validated(weights: Weights) -> float:
        if next(looks) == look:
            happens()
        return validate(weights)

    return validated


def test_a_training_that_breaks_off_and_is_stopped_by_a_signal_ends_like_an_uninterrupted_one(uninterrupted, tmp_path):
    with pytest.raises(_PowerCut):
        train(tmp_path, during(2, cut), of=small())
    # the look after the second epoch was lost, so that this one repeats that epoch, and is asked to stop after it
    with pytest.raises(InterruptedRun, match=r"interrupted in epoch 3 of 4; the 2 before are kept in .*Run the same"):
        train(tmp_path, during(0, stop), of=small())
    assert_same(train(tmp_path, scored(small()), of=small()), uninterrupted)


def test_a_finished_training_does_not_train_again(uninterrupted, folder):
    assert_same(train(folder, during(0, cut), of=small()), uninterrupted)


LINEAR = small(reformulator={"kind": "linear_feedback"}, learning_rate=0.05)
"""Three numbers, which train in a moment."""


def shorter(**changes: object) -> Reformulation:
    return dataclasses.replace(LINEAR, **changes)


def test_one_seed_is_one_training_and_another_another(tmp_path):
    losses = [
        train(tmp_path / name, of=shorter(epochs=1), seed=seed).losses
        for name, seed in zip("abc", (4, 4, 5), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_metric_that_no_longer_improves_stops_the_training(tmp_path):
    said, seen = iter([0.5, 0.9, 0.4, 0.3, 0.2]), []

    def validate(weights: Weights) -> float:
        seen.append(weights)
        return next(said)

    trained = train(tmp_path, validate, of=shorter(epochs=9, patience=2))
    assert trained.metrics == (0.5, 0.9, 0.4, 0.3)
    assert len(trained.losses) == 3
    # the second look, after one epoch, was the best
    for name, values in trained.weights.items():
        np.testing.assert_array_equal(values, seen[1][name])
        assert (values != seen[2][name]).any()


def test_a_training_that_only_makes_it_worse_gives_the_weights_it_began_with(tmp_path):
    said = iter([0.5, 0.4, 0.3])
    trained = train(tmp_path, lambda weights: next(said), of=shorter(epochs=2))
    for name, values in LINEAR.reformulator.initial(ITEMS.found.shape[1], 4).items():
        np.testing.assert_array_equal(trained.weights[name], values)


def test_a_training_that_diverges_names_the_setting(tmp_path):
    told = r"^reformulation\.learning_rate: got 1e\+10, with which training diverged in epoch 1\. Lower it"
    with pytest.raises(SettingError, match=told):
        train(tmp_path, of=shorter(learning_rate=1e10))


def test_a_damaged_checkpoint_is_told_with_the_way_out(tmp_path):
    train(tmp_path, of=shorter(epochs=1))
    for data in (tmp_path / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"^{tmp_path}: got .*expected a checkpoint of this training\. Remove it\."):
        train(tmp_path, of=shorter(epochs=1))


def test_every_way_to_train_lowers_the_loss(tmp_path):
    objective = Comparative(temperature=0.1, positives="hardest", stop_gradient=True, margin=0.01)
    sampled = {"exact_items": 50, "sampled_items": 40}
    drawn = {"explicit_rate": 0.5, "noise_rate": 0.2, "answers": "mask", "nested": False, "order": "ranked"}
    trained = train(tmp_path, of=shorter(objective=objective, **sampled, **drawn))
    assert np.isfinite(trained.losses).all()
    assert np.mean(trained.losses[-2:]) < trained.losses[0]


def test_queries_are_read_by_their_direction(tmp_path):
    # doubled numbers keep their digits, so that rounding makes no difference
    longer = dataclasses.replace(LEARN, query_vectors=2 * LEARN.query_vectors)
    losses = [train(tmp_path / name, of=shorter(epochs=1), mined=m).losses for name, m in (("a", LEARN), ("b", longer))]
    assert losses[0] == losses[1]


def test_the_training_can_be_watched_in_tensorboard(tmp_path):
    trained = train(tmp_path, lambda weights: 0.25, of=shorter(epochs=2))
    written = scalars(tmp_path)
    assert written["validation/nDCG@10"] == {0: 0.25, 1: 0.25, 2: 0.25}
    assert written["training/loss"] == {1: pytest.approx(trained.losses[0]), 2: pytest.approx(trained.losses[1])}
