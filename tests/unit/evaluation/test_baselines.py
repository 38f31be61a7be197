"""Baselines choose their settings on validation cases alone and say what they were fitted on."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from recsys import config, registry
from recsys.baselines.dlae import Dlae
from recsys.baselines.ease import Ease
from recsys.baselines.ials import Ials
from recsys.baselines.item_knn import ItemKnn
from recsys.baselines.popularity import Popularity
from recsys.data.prepare import prepare
from recsys.evaluation.baselines import choose, fit_baselines, recommender
from recsys.evaluation.held_out import held_out
from recsys.metrics import measure
from recsys.objectives import ials as objectives_ials
from recsys.types import RowSets
from tests.worlds import block_run, write_block_world
from twintower.errors import SettingError

METRIC = "nDCG@10"
SEARCHING = (ItemKnn(), Ease(), Dlae(), Ials(dim=(4,)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The validation and test cases of the block world."""
    folder = tmp_path_factory.mktemp("blocks")
    write_block_world(folder)
    run = config.from_tables(block_run(folder, evaluation={"exclude_seen": True}))
    prepared = prepare(run, folder / "prepared")
    return tuple(held_out(run, prepared, part) for part in ("validation", "test"))


def value(baseline, part):
    reachable = part.cases.reachable
    ranked = recommender(baseline, part).recommend(np.arange(len(reachable)), 10).item_rows
    return measure([METRIC], ranked, reachable)[METRIC].mean()


@pytest.mark.parametrize("baseline", SEARCHING, ids=registry.kind_of)
def test_the_chosen_settings_are_the_best_of_all_on_validation_cases(baseline, parts):
    validation, _ = parts
    choice = choose(baseline, validation, METRIC, search_s=60)
    values = [value(candidate, validation) for candidate in baseline.candidates()]
    assert choice.baseline == baseline.candidates()[int(np.argmax(values))]
    assert choice.tried == choice.candidates == len(values) > 1


@pytest.mark.parametrize("baseline", SEARCHING, ids=registry.kind_of)
def test_on_a_world_of_tastes_it_is_ahead_of_popularity(baseline, parts):
    _, test = parts
    assert value(baseline, test) > value(Popularity(), test) + 0.05


def test_the_search_takes_no_test_data():
    # By its arguments: nothing but the validation part is given, and that part knows only what precedes it.
    assert "test" not in inspect.signature(choose).parameters


def test_other_answers_to_the_test_cases_change_no_choice(parts):
    validation, test = parts
    other = RowSets.from_pairs(np.arange(len(test.cases)), np.zeros(len(test.cases), np.int64), len(test.cases))
    changed = replace(test, cases=replace(test.cases, relevant=other))
    fits = []
    for judged in (test, changed):
        fitted, _ = fit_baselines(SEARCHING, validation, judged, metric=METRIC, search_s=60)
        fits.append([each.fit.settings for each in fitted.values()])
    assert fits[0] == fits[1]


def test_a_baseline_is_judged_after_all_that_precedes_the_test_part(parts):
    validation, test = parts
    fitted, left_out = fit_baselines([Popularity(), Ease()], validation, test, metric=METRIC, search_s=60)
    assert left_out == {}
    assert {name: each.fit.parts for name, each in fitted.items()} == {
        "popularity": ("train", "validation"),
        "ease": ("train", "validation"),
    }
    assert len(test.interactions.interactions) > len(validation.interactions.interactions)
    assert fitted["ease"].fit.settings["regularization_weight"] in Ease().regularization_weight


def test_without_time_only_the_first_candidate_is_tried(parts):
    validation, _ = parts
    choice = choose(Ease(), validation, METRIC, search_s=0)
    assert (choice.tried, choice.candidates) == (1, len(Ease().candidates()))
    assert choice.baseline == Ease().candidates()[0]


def test_a_search_that_the_time_cuts_reports_how_many_settings_were_tried(parts, capsys):
    validation, _ = parts
    choose(Ease(), validation, METRIC, search_s=0)
    sentence = f"ease: 1 of {len(Ease().candidates())} settings were tried in evaluation.baseline_search_s = 0."
    assert sentence in capsys.readouterr().err
    choose(Ease(), validation, METRIC, search_s=60)
    assert "were tried" not in capsys.readouterr().err


def test_the_closing_line_of_a_search_shows_the_best_metric(parts, capsys):
    validation, _ = parts
    baseline = Ials(dim=(4,), unobserved_weight=(0.1,), regularization_weight=(0.01, 1000.0))
    best, worse = (value(candidate, validation) for candidate in baseline.candidates())
    assert best > worse
    choose(baseline, validation, METRIC, search_s=60)
    assert f"best {METRIC} {best:.4f}" in capsys.readouterr().err.splitlines()[-1]


def test_both_forms_of_ials_try_the_same_settings_from_weak_to_strong_regularization():
    for name in ("unobserved_weight", "regularization_weight"):
        assert getattr(Ials(), name) == getattr(objectives_ials.Ials(), name)
    assert max(Ials().regularization_weight) >= 30 * min(Ials().regularization_weight)


def test_without_validation_cases_the_first_candidate_is_taken(parts):
    validation, _ = parts
    nobody = replace(validation.cases, relevant=RowSets.empty(len(validation.cases)))
    choice = choose(Ease(), replace(validation, cases=nobody), METRIC, search_s=60)
    assert (choice.baseline, choice.tried) == (Ease().candidates()[0], 0)


def test_a_baseline_with_one_value_for_each_setting_is_taken_as_it_is(parts):
    validation, _ = parts
    assert choose(Ease(regularization_weight=(7,)), validation, METRIC, search_s=60).tried == 0


@registry.settings()
class Fragile:
    """EASE that has no solution for a weight of 1 or less."""

    reads_history: ClassVar[bool] = True
    weights: tuple[float, ...] = (1.0, 5.0)

    def candidates(self):
        return tuple(replace(self, weights=(weight,)) for weight in self.weights)

    def obstacle(self, queries, items):
        return ""

    def fit(self, training):
        if self.weights[0] <= 1:
            raise SettingError("weights: got a value without a solution, expected a larger one.")
        return Ease(regularization_weight=self.weights).fit(training)


def test_a_candidate_without_a_solution_counts_as_the_worst_and_none_with_one_leaves_the_baseline_out(parts):
    validation, test = parts
    assert choose(Fragile(), validation, METRIC, search_s=60).baseline.weights == (5.0,)
    for weights in ((1.0,), (1.0, 0.5)):
        fitted, left_out = fit_baselines(
            [Popularity(), Fragile(weights=weights)], validation, test, metric=METRIC, search_s=60
        )
        assert list(fitted) == ["popularity"]
        assert list(left_out.values()) == ["weights: got a value without a solution, expected a larger one."]


def test_a_baseline_that_the_data_are_too_large_for_is_left_out_and_says_why(parts):
    validation, test = parts
    large = replace(test, interactions=dataclasses.replace(test.interactions, owners=30_000, items=30_000))
    fitted, left_out = fit_baselines([Ease()], validation, large, metric=METRIC, search_s=60)
    assert fitted == {}
    assert "at most 20,000" in left_out["ease"]


def test_queries_of_free_features_are_compared_with_popularity_alone(parts):
    validation, test = parts
    test = replace(test, has_histories=False)
    fitted, left_out = fit_baselines([Popularity(), *SEARCHING], validation, test, metric=METRIC, search_s=60)
    assert list(fitted) == ["popularity"]
    assert set(left_out.values()) == {"Queries of free features have no history."}
