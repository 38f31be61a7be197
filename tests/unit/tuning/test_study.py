"""The trials of a study: their order, who runs them, and what becomes of those whose process ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import DataError
from recsys.search_space import Between, OneOf
from recsys.tuning.space import Model, Parameter
from recsys.tuning.study import FAILED, FINISHED, STOPPED_EARLY, Study

RATE = Parameter("training.learning_rate", Between(0.001, 0.1, log=True), default=0.01)
DIM = Parameter("tower.dim", OneOf((32, 64)), default=64)
SIZE = Parameter("training.batch_size", Between(8, 64))
MODELS = {
    "all_items": Model("all_items", {"objective": {"kind": "all_items"}}, (RATE, DIM, SIZE)),
    "dlae": Model("dlae", {"objective": {"kind": "dlae"}}, (RATE,)),
}


def study_in(folder: Path, models: Mapping[str, Model] = MODELS, seed: int = 1, **deciding: Any) -> Study:
    return Study(folder, models, seed, deciding)


def metric_of(values: Mapping[str, Any]) -> float:
    """Best at a learning rate of .05."""
    return -abs(math.log(values.get("training.learning_rate", 0.01) / 0.05))


def finish(study: Study, count: int) -> None:
    while (ask := study.ask(count)) is not None:
        with ask:
            ask.finish(metric_of(ask.values))


def test_the_first_trials_are_the_models_as_they_are(tmp_path):
    study = study_in(tmp_path)
    finish(study, 2)
    assert [(trial.model, trial.values) for trial in study.trials()] == [("all_items", {}), ("dlae", {})]


def test_training_from_the_solution_of_a_closed_form_is_among_the_first_trials(tmp_path):
    start = Parameter("objective.start", OneOf(("", "dlae")), default="")
    models = {"all_items": replace(MODELS["all_items"], parameters=(RATE, start))}
    study = study_in(tmp_path, models)
    finish(study, 2)
    assert [trial.values for trial in study.trials()] == [{}, {"objective.start": "dlae"}]


def test_later_trials_have_values_within_their_bounds(tmp_path):
    study = study_in(tmp_path)
    finish(study, 20)
    for trial in study.trials()[2:]:
        assert 0.001 <= trial.values.get("training.learning_rate", 0.01) <= 0.1
        assert trial.values.get("tower.dim", 64) in (32, 64)
        size = trial.values.get("training.batch_size", 8)
        assert size in range(8, 65)


def test_the_search_finds_better_values_than_the_defaults(tmp_path):
    study = study_in(tmp_path)
    finish(study, 30)
    found = [trial.metric for trial in study.trials()]
    assert max(found) > found[0]


def test_the_seed_decides_what_is_tried(tmp_path):
    def tried(name: str, seed: int) -> list[Any]:
        (tmp_path / name).mkdir()
        study = study_in(tmp_path / name, seed=seed)
        finish(study, 14)
        return [(trial.model, trial.values) for trial in study.trials()]

    assert tried("one", 1) == tried("again", 1)
    assert tried("other", 2) != tried("third", 1)


def test_interruptions_change_nothing_of_what_is_tried(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "interrupted").mkdir()
    whole = study_in(tmp_path / "whole")
    finish(whole, 14)
    for count in range(1, 15):
        study = study_in(tmp_path / "interrupted")
        with study.ask(14):  # its process ends, and the next one has the same trial
            pass
        finish(study_in(tmp_path / "interrupted"), count)
    interrupted = study_in(tmp_path / "interrupted").trials()
    assert [(trial.number, trial.model, trial.values) for trial in interrupted] == [
        (trial.number, trial.model, trial.values) for trial in whole.trials()
    ]


def test_a_trial_whose_process_ended_is_handed_out_first_with_its_values_and_looks(tmp_path):
    with study_in(tmp_path).ask(9) as left:
        left.is_hopeless([0.5])
    with study_in(tmp_path).ask(9) as taken:
        assert (taken.number, taken.model.name, taken.values) == (left.number, left.model.name, left.values)
        taken.is_hopeless([0.5, 0.6])
        taken.stop_early()
    (trial,) = study_in(tmp_path).trials()
    assert (trial.state, trial.metric) == (STOPPED_EARLY, 0.6)


def test_processes_that_share_a_study_run_different_trials_and_count_those_of_all(tmp_path):
    one, other = study_in(tmp_path), study_in(tmp_path)
    with one.ask(3) as first, other.ask(3) as second, one.ask(3) as third:
        assert sorted(ask.number for ask in (first, second, third)) == [1, 2, 3]
        assert other.ask(3) is None
        for ask in (first, second, third):
            ask.finish(0.5)
    assert other.ask(3) is None
    assert [trial.state for trial in other.trials()] == [FINISHED] * 3


def test_a_trial_is_stopped_where_half_of_the_others_were_better_after_as_many_looks(tmp_path):
    study = study_in(tmp_path)
    for metric in (0.1, 0.2, 0.3, 0.4):
        with study.ask(9) as ask:
            assert not ask.is_hopeless([metric] * 6)
            ask.finish(metric)
    with study.ask(9) as ask:
        assert not ask.is_hopeless([0.1] * 3)  # too early to say
        assert ask.is_hopeless([0.1] * 4)  # the median is .25
    with study.ask(9) as ask:
        assert ask.is_hopeless([0.1] * 6)
    with study.ask(9) as ask:
        ask.stop_early()
    with study.ask(9) as ask:
        assert not ask.is_hopeless([0.3] * 6)


def test_a_failed_trial_keeps_its_reason(tmp_path):
    study = study_in(tmp_path)
    with study.ask(9) as ask:
        ask.fail("training diverged")
    (trial,) = study.trials()
    assert (trial.state, trial.reason) == (FAILED, "training diverged")
    assert math.isnan(trial.metric)


def test_a_study_of_something_else_is_refused_with_what_differs(tmp_path):
    study_in(tmp_path, run={"seed": 1, "split": {"kind": "random"}})
    study_in(tmp_path, run={"seed": 1, "split": {"kind": "random"}})
    with pytest.raises(DataError, match=r"a study that differs in run\.split\.kind\. Add --restart"):
        study_in(tmp_path, run={"seed": 1, "split": {"kind": "by_time"}})


@pytest.mark.parametrize("name", ["with space", "50%", "a?b#c", "{braces}", "ü"])
def test_a_study_may_stand_in_a_folder_of_any_name(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    finish(study_in(folder), 1)
    assert len(study_in(folder).trials()) == 1
    assert (folder / "study.db").is_file()
