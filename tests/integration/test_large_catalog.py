"""The run file that `recsys init` writes for a catalog too large for a closed form trains and beats popularity."""

import tomllib

import pytest

from recsys import config, pipeline
from recsys.evaluation import report
from recsys.init import run_file_for_source
from recsys.linear_models import MAX_INVERTED
from recsys.registry import kind_of

SIZE = MAX_INVERTED + 5_000
SOURCE = {
    "users": SIZE, "items": SIZE, "interactions": 150_000, "groups": 16, "sharpness": 24.0, "popularity_exponent": 0.4,
}  # fmt: skip
QUICK = {
    "training.epochs": 2,
    "training.refit": "none",
    "training.validation_cases": 200,
    "tower.dim": 32,
    "evaluation.baselines": ["popularity"],
    "evaluation.max_cases": 500,
    "evaluation.resamples": 100,
    "index.kind": "brute_force",
}


@pytest.fixture(scope="module")
def text():
    return run_file_for_source("synthetic", SOURCE, "large")


def test_histories_and_ids_are_hidden_in_training_where_a_model_is_trained_in_steps(text):
    run = config.from_tables(tomllib.loads(text))
    assert (kind_of(run.objective), kind_of(run.tower), run.tower.dim) == ("all_items", "sum", 256)
    assert run.query.features["met"].hidden_rate == 0.7
    assert run.item.features["id"].unknown_rate == 0.2


def test_the_model_is_ahead_of_popularity(text, tmp_path):
    overrides = [f"{path}={value!r}" for path, value in QUICK.items()]
    run = config.from_tables(config.overridden(tomllib.loads(text), overrides))
    judged = report.load(pipeline.train(run, tmp_path / "work", tmp_path / "releases").folder)
    ours, popular = (judged.find(name, "R@50").value for name in (report.OURS, "popularity"))
    assert ours > 1.5 * popular
