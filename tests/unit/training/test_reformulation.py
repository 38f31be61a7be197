"""A reformulator's training: it learns a known move, and continues after an interruption as if nothing had happened."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recsys.config import Reformulation
from recsys.data.mined import Mined
from recsys.errors import DataError, InterruptedRun
from recsys.evaluation.reformulation import curve
from recsys.objectives.comparative import Comparative
from recsys.reformulators import Weights
from recsys.retrieval.reformulation import NamedReformulator
from recsys.training import reformulation as training
from recsys.training.reformulation import Trained, looks_after, train_reformulator
from tests.mined import clustered
from tests.unit.training.test_loop import scalars
from tests.unit.training.test_reformulation_steps import settings
from twintower.errors import SettingError

MINED, ITEMS = clustered(320)
(LEARN, JUDGE), *_ = MINED.folds(4, 0)
SMALL = {
    "reformulator": {"kind": "attention", "width": 16, "heads": 2, "dropout_rate": 0.3},
    "objective": {"kind": "comparative", "temperature": 0.1},
    "feedback_k": 5, "revisions": 2, "batch_size": 60, "learning_rate": 0.01,
}  # fmt: skip
STEPS = 16


def small(**changes: object) -> Reformulation:
    return settings(**SMALL | changes)


def metric_of(weights: Weights) -> float:
    named = NamedReformulator("any", small().reformulator, weights)
    return curve(named, JUDGE, ITEMS, ["nDCG@10"], range(1, 6)).mean("nDCG@10")


def train(
    folder: Path,
    *,
    of: Reformulation,
    steps: int = STEPS,
    looks: int | None = None,
    mined: Mined = LEARN,
    seed: int = 4,
) -> Trained:
    return train_reformulator(mined, ITEMS, of, steps=steps, seed=seed, folder=folder, looks=looks)


def assert_same(one: Trained, other: Trained) -> None:
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)
    assert len(one.weights) == len(other.weights)
    for of_one, of_other in zip(one.weights, other.weights, strict=True):
        for name, values in of_one.items():
            np.testing.assert_allclose(values, of_other[name], atol=1e-6, err_msg=name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("uninterrupted")


@pytest.fixture(scope="module")
def uninterrupted(folder) -> Trained:
    return train(folder, of=small())


def test_it_learns_to_move_towards_the_items_that_were_found(uninterrupted):
    # every query lies off its cluster, and the first results are mostly of that cluster
    metrics = [metric_of(weights) for weights in uninterrupted.weights]
    assert max(metrics) > metrics[0] + 0.03
    assert uninterrupted.losses[-1] < uninterrupted.losses[0]


@pytest.mark.parametrize(("steps", "after"), [(1, [0, 1]), (3, [0, 1, 2, 3]), (40, list(range(0, 41, 2)))])
def test_a_training_of_any_length_keeps_its_weights_at_the_start_at_the_end_and_between(steps, after):
    assert looks_after(steps).tolist() == after


def test_there_are_as_many_looks_as_kept_weights_and_one_loss_less(uninterrupted):
    assert len(uninterrupted.weights) == len(looks_after(STEPS)) == STEPS + 1
    assert len(uninterrupted.losses) == STEPS
    initial = small().reformulator.initial(ITEMS.found.shape[1], 4)
    for name, values in uninterrupted.weights[0].items():
        np.testing.assert_array_equal(values, initial[name])


class _PowerCut(Exception):
    pass


def cut() -> None:
    raise _PowerCut


def stop() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def before_step(number: int, happens: Callable[[], None], monkeypatch) -> None:
    """Let something happen before the step of that number, counted from 0."""
    step_of = training.Steps.step

    def step(self: training.Steps, asked: int) -> training.Step:
        if asked == number:
            happens()
        return step_of(self, asked)

    monkeypatch.setattr(training.Steps, "step", step)


def test_a_training_that_breaks_off_and_is_stopped_by_a_signal_ends_like_an_uninterrupted_one(
    uninterrupted, tmp_path, monkeypatch
):
    with monkeypatch.context() as patched:
        before_step(4, cut, patched)
        with pytest.raises(_PowerCut):
            train(tmp_path, of=small())
    with monkeypatch.context() as patched:
        before_step(7, stop, patched)
        with pytest.raises(InterruptedRun, match=r"interrupted at step 8 of 16; the first 7 are kept in .*to continue"):
            train(tmp_path, of=small())
    assert_same(train(tmp_path, of=small()), uninterrupted)


def test_a_training_that_ends_early_is_the_beginning_of_the_whole_one(uninterrupted, tmp_path):
    begun = train(tmp_path, of=small(), looks=5)
    assert_same(begun, Trained(uninterrupted.weights[:6], uninterrupted.losses[:5]))


@pytest.mark.parametrize("looks", [None, 5])
def test_a_finished_training_does_not_train_again(uninterrupted, folder, monkeypatch, looks):
    before_step(0, cut, monkeypatch)
    ends = STEPS if looks is None else looks
    assert_same(
        train(folder, of=small(), looks=looks), Trained(uninterrupted.weights[: ends + 1], uninterrupted.losses[:ends])
    )


LINEAR = small(reformulator={"kind": "linear_feedback"}, learning_rate=0.05)
"""Three numbers, which train in a moment."""


def shorter(**changes: object) -> Reformulation:
    return dataclasses.replace(LINEAR, **changes)


def test_one_seed_is_one_training_and_another_another(tmp_path):
    losses = [
        train(tmp_path / name, of=LINEAR, steps=4, seed=seed).losses
        for name, seed in zip("abc", (4, 4, 5), strict=True)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_a_training_that_diverges_names_the_setting(tmp_path):
    told = r"^reformulation\.learning_rate: got 1e\+10, with which training diverged within \d steps\. Lower it"
    with pytest.raises(SettingError, match=told):
        train(tmp_path, of=shorter(learning_rate=1e10), steps=4)


def test_a_damaged_checkpoint_is_told_with_the_way_out(tmp_path):
    train(tmp_path, of=LINEAR, steps=4)
    for data in (tmp_path / "checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(DataError, match=rf"^{tmp_path}: got .*expected a checkpoint of this training\. Remove it\."):
        train(tmp_path, of=LINEAR, steps=4)


def test_every_way_to_train_lowers_the_loss(tmp_path):
    objective = Comparative(temperature=0.1, positives="hardest", stop_gradient=True, margin=0.01)
    sampled = {"exact_items": 50, "sampled_items": 40}
    drawn = {"explicit_rate": 0.5, "noise_rate": 0.2, "answers": "mask", "nested": False, "order": "ranked"}
    trained = train(tmp_path, of=shorter(objective=objective, **sampled, **drawn), steps=40)
    assert np.isfinite(trained.losses).all()
    assert np.mean(trained.losses[-2:]) < trained.losses[0]


def test_queries_are_read_by_their_direction(tmp_path):
    # doubled numbers keep their digits, so that rounding makes no difference
    longer = dataclasses.replace(LEARN, query_vectors=2 * LEARN.query_vectors)
    losses = [train(tmp_path / name, of=LINEAR, steps=4, mined=m).losses for name, m in (("a", LEARN), ("b", longer))]
    assert losses[0] == losses[1]


def test_the_training_can_be_watched_in_tensorboard(tmp_path):
    trained = train(tmp_path, of=LINEAR, steps=2)
    assert scalars(tmp_path)["training/loss"] == {
        1: pytest.approx(trained.losses[0]), 2: pytest.approx(trained.losses[1])
    }  # fmt: skip
