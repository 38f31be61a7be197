"""The rows of an ablation: the paper's, a run's own, and the combinations of settings that are tried for each."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest

from recsys import config, registry
from recsys.ablation.rows import SUBJECTS, Subject, combinations, laid_over, put, row_tables, subjects_of
from recsys.config import AblationPlan, Run
from tests.worlds import block_run
from twintower.errors import SettingError

SEARCH = {"training.epochs": (1, 2, 3, 4, 5), "training.learning_rate": (0.1, 0.2, 0.3, 0.4)}
WEIGHT = "self_supervision.objective.weight"


def over_the_block_world(subject: Subject, chosen: dict[str, Any]) -> Run:
    tables = laid_over(config.plain_tables(config.from_tables(block_run(Path("blocks")))), subject.settings)
    for path, value in chosen.items():
        put(tables, path, value)
    return config.from_tables(tables)


def kinds(stages: tuple[Any, ...]) -> list[str]:
    return [registry.kind_of(stage) for stage in stages]


def test_the_paper_s_rows_come_first_and_in_the_order_of_its_tables():
    rows = ["baseline", "fd", "so", "rfm", "rfm_no_compl", "cfm", "cfm_no_dropout", "no_masking"]
    assert list(subjects_of(AblationPlan())) == rows


@pytest.mark.parametrize(
    ("name", "objective", "augmentations"),
    [
        ("so", "spread_out", []),
        ("rfm", "contrastive", ["random_mask", "value_dropout"]),
        ("rfm_no_compl", "contrastive", ["independent_random_mask", "value_dropout"]),
        ("cfm", "contrastive", ["correlated_mask", "value_dropout"]),
        ("cfm_no_dropout", "contrastive", ["correlated_mask"]),
        ("no_masking", "contrastive", ["value_dropout"]),
    ],
)
def test_a_row_with_a_second_task_has_the_paper_s_objective_and_augmentations(name, objective, augmentations):
    run = over_the_block_world(SUBJECTS[name], {})
    assert registry.kind_of(run.self_supervision.objective) == objective
    assert kinds(run.self_supervision.augmentations) == augmentations
    assert run.item.augmentations == ()


def test_feature_dropout_is_a_row_of_the_main_task_alone():
    run = over_the_block_world(SUBJECTS["fd"], {})
    assert kinds(run.item.augmentations) == ["embedding_dropout"]
    assert run.self_supervision is None


def test_the_baseline_is_the_run_as_it_stands():
    assert over_the_block_world(SUBJECTS["baseline"], {}) == config.from_tables(block_run(Path("blocks")))


@pytest.mark.parametrize("name", [name for name in SUBJECTS if name != "baseline"])
def test_every_row_tries_eight_combinations_so_that_all_are_tuned_with_equal_effort(name):
    tried = combinations(SUBJECTS[name].search, AblationPlan().trials, seed=0)
    assert len(tried) == 8
    assert len({tuple(chosen.items()) for chosen in tried}) == 8


@pytest.mark.parametrize("name", SUBJECTS)
def test_every_combination_of_every_row_makes_a_run_of_its_own_over_features_of_several_values(name):
    tried = combinations(SUBJECTS[name].search, 10_000, seed=0)
    runs = [over_the_block_world(SUBJECTS[name], chosen) for chosen in tried]
    assert all(one != other for one, other in itertools.combinations(runs, 2))
    assert any(registry.kind_of(feature) == "multi_categorical" for feature in runs[0].item.features.values())


@pytest.mark.parametrize(
    "shipped", [name for name in config.shipped() if config.load(name).objective.reads != "matrix"]
)
def test_every_row_fits_every_run_file_that_comes_with_the_package_and_has_features_to_mask(shipped):
    run = config.load(shipped)
    tables = config.plain_tables(run)
    masked = [feature for feature in run.item.features.values() if registry.kind_of(feature) != "id"]
    for subject in subjects_of(AblationPlan()).values():
        laid = laid_over(tables, subject.settings)
        stages = laid.get("self_supervision", {}).get("augmentations", [])
        if len(masked) < 2 and any("mask" in stage["kind"] for stage in stages):
            with pytest.raises(SettingError, match="expected at least 2 to split between the views"):
                config.from_tables(laid)
            continue
        assert (config.from_tables(laid).self_supervision is not None) == ("self_supervision" in subject.settings)


def test_a_plan_names_its_rows_once_each_and_the_baseline_is_always_the_first():
    assert list(subjects_of(AblationPlan(subjects=("cfm", "fd", "cfm")))) == ["baseline", "cfm", "fd"]
    assert list(subjects_of(AblationPlan(subjects=("cfm", "baseline")))) == ["baseline", "cfm"]


def test_an_unknown_row_is_told_with_the_nearest_one():
    with pytest.raises(SettingError, match=r"^ablation\.subjects: no row named 'cfn'\. Did you mean 'cfm'\?"):
        subjects_of(AblationPlan(subjects=("fd", "cfn")))


def variant(**table: Any) -> Subject:
    return subjects_of(AblationPlan(variants={"mine": table}))["mine"]


def test_a_variant_starts_from_the_row_that_it_is_like_and_changes_settings_by_path():
    before = copy.deepcopy(SUBJECTS["cfm"])
    settings = {"self_supervision.augmentations.1.kind": "embedding_dropout", "self_supervision.side": "both"}
    mine = variant(like="cfm", settings=settings)

    second = over_the_block_world(mine, {}).self_supervision
    assert kinds(second.augmentations) == ["correlated_mask", "embedding_dropout"]
    assert (registry.kind_of(second.objective), second.side) == ("contrastive", "both")
    assert mine.search == SUBJECTS["cfm"].search
    assert SUBJECTS["cfm"] == before


def test_a_variant_s_own_search_takes_the_place_of_its_row_s():
    mine = variant(like="cfm", search={WEIGHT: [0.5]})
    assert combinations(mine.search, 8, seed=0) == [{WEIGHT: 0.5}]


def test_a_variant_of_nothing_starts_from_the_baseline():
    mine = variant(settings={"tower.hidden": [4, 4]})
    assert over_the_block_world(mine, {}).tower.hidden == (4, 4)
    assert over_the_block_world(mine, {}).self_supervision is None
    assert combinations(mine.search, 8, seed=0) == [{}]


def test_a_variant_may_be_like_an_earlier_one():
    variants = {"first": {"like": "so", "settings": {WEIGHT: 0.5}}, "second": {"like": "first"}}
    assert subjects_of(AblationPlan(variants=variants))["second"] == Subject(
        {"self_supervision": {"objective": {"kind": "spread_out", "weight": 0.5}, "augmentations": []}},
        SUBJECTS["so"].search,
    )


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("mine", {"like": "cmf"}, r"variants\.mine\.like: no row named 'cmf'\. Did you mean 'cfm'\?"),
        ("mine", {"like": 3}, r"variants\.mine\.like: no row named '3'"),
        ("mine", {"setting": {}}, r"variants\.mine: no setting named 'setting'\. Did you mean 'settings'\?"),
        ("mine", {"settings": "all"}, r"variants\.mine\.settings: got 'all', expected a table of values by path"),
        ("mine", {"search": [1, 2]}, r"variants\.mine\.search: got \[1, 2\], expected a table of values by path"),
        ("fd", {"like": "cfm"}, r"variants\.fd: got 'fd', expected a name that no row of the paper has"),
        ("baseline", {}, r"variants\.baseline: got 'baseline'"),
        ("../mine", {"like": "cfm"}, r"ablation\.variants: got '../mine', expected letters, digits"),
        ("[b]", {"like": "cfm"}, r"ablation\.variants: got '\[b\]', expected letters, digits"),
        (
            "mine",
            {"like": "cfm", "settings": {"self_supervision.augmentations.2.rate": 0.1}},
            r"^ablation\.variants\.mine\.settings: self_supervision\.augmentations\.2\.rate: got '2'",
        ),
    ],
)
def test_a_variant_of_another_form_is_refused(name, table, message):
    with pytest.raises(SettingError, match=message):
        subjects_of(AblationPlan(variants={name: table}))


def of_row(subject: Subject, frozen: dict[str, Any], chosen: dict[str, Any]) -> Run:
    base = config.plain_tables(config.from_tables(block_run(Path("blocks"))))
    return config.from_tables(row_tables(base, frozen, subject, chosen))


def test_what_was_tuned_for_the_baseline_holds_unless_the_row_says_otherwise():
    frozen = {"tower.dim": 8, "training.epochs": 3, "training.learning_rate": 0.5}
    mine = Subject({"tower": {"dim": 16}})
    run = of_row(mine, frozen, {"training.epochs": 7})
    assert (run.tower.dim, run.training.epochs, run.training.learning_rate) == (16, 7, 0.5)
    assert of_row(SUBJECTS["cfm"], frozen, {}).tower.dim == 8


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 5),
        ("split", {"kind": "random"}),
        ("split.test_rate", 0.4),
        ("source.items", "other.parquet"),
        ("data.training_rate", 0.5),
        ("query.entity", "item"),
        ("objective.logq", "none"),
        ("evaluation.exclude_seen", True),
        ("ablation.metrics", ["R@5"]),
    ],
)
def test_no_row_may_be_asked_other_cases_than_the_baseline_nor_train_on_other_interactions(path, value):
    tables: dict[str, Any] = {}
    put(tables, path, value)
    shared = path if path in ("query.entity", "objective.logq") else path.partition(".")[0]
    with pytest.raises(SettingError, match=rf"^{shared}: got .* All rows share it"):
        of_row(Subject(tables), {}, {})
    with pytest.raises(SettingError, match=rf"^{shared}: got .* All rows share it"):
        of_row(Subject(), {}, {path: value})


def test_all_combinations_are_tried_where_there_are_no_more_than_trials():
    tried = combinations({"a": (1, 2), "b.c": ("x", "y")}, 4, seed=0)
    assert tried == [{"a": 1, "b.c": "x"}, {"a": 1, "b.c": "y"}, {"a": 2, "b.c": "x"}, {"a": 2, "b.c": "y"}]


def test_without_a_search_there_is_one_look_at_the_settings_as_they_are():
    assert combinations({}, 8, seed=0) == [{}]


def test_of_many_combinations_some_are_drawn_none_of_them_twice():
    # 5 x 4 = 20 combinations, of which 19 are drawn: with repetition, fewer than 19 would differ.
    tried = combinations(SEARCH, 19, seed=3)
    assert len({tuple(chosen.items()) for chosen in tried}) == 19
    assert all(chosen in combinations(SEARCH, 20, seed=3) for chosen in tried)


def test_the_seed_alone_decides_which_combinations_are_drawn():
    # 20 choose 8 = 125,970 draws: two seeds agree by chance once in that many times.
    assert combinations(SEARCH, 8, seed=1) == combinations(SEARCH, 8, seed=1)
    assert combinations(SEARCH, 8, seed=1) != combinations(SEARCH, 8, seed=2)


def test_each_value_of_a_search_is_drawn_equally_often():
    # 2,000 draws of 4 of 20: each combination is expected 2,000 * 4 / 20 = 400 times, standard deviation
    # sqrt(2,000 * 0.2 * 0.8) = 18; five of them on either side.
    drawn = [tuple(chosen.values()) for seed in range(2000) for chosen in combinations(SEARCH, 4, seed)]
    counts = [drawn.count(values) for values in itertools.product(*SEARCH.values())]
    assert min(counts) > 400 - 5 * 18
    assert max(counts) < 400 + 5 * 18


@pytest.mark.parametrize("values", [(), [], 5, "abc", {"epochs": [1]}])
def test_a_search_without_a_list_of_values_is_refused(values):
    with pytest.raises(SettingError, match=r"search for training: got .*, expected a list of values, at least one"):
        combinations({"training": values}, 8, seed=0)


def test_put_sets_a_value_in_tables_and_in_lists():
    tables = {"a": {"b": 1}, "list": [{"rate": 0.1}, {"rate": 0.2}], "plain": [1, 2]}
    put(tables, "a.b", 5)
    put(tables, "list.1.rate", 0.9)
    put(tables, "plain.0", 7)
    put(tables, "new.section.key", "x")
    assert tables == {
        "a": {"b": 5},
        "list": [{"rate": 0.1}, {"rate": 0.9}],
        "plain": [7, 2],
        "new": {"section": {"key": "x"}},
    }


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("self_supervision.augmentations.7.rate", r"got '7', expected .* a number from 0 to 1"),
        ("self_supervision.augmentations.2", r"got '2', expected .* a number from 0 to 1"),
        ("self_supervision.augmentations.-1.rate", r"got '-1', expected .* a number from 0 to 1"),
        ("item.augmentations.first.rate", r"got 'first', expected .* the list is empty"),
        ("training.epochs.x", r"got 'x' below the value 4"),
        ("training.epochs.x.y", r"got 'x' below the value 4"),
        ("name.x", r"got 'x' below the value 'blocks'"),
    ],
)
def test_a_path_that_does_not_fit_is_told_as_it_was_written(path, message):
    tables = laid_over(
        config.plain_tables(config.from_tables(block_run(Path("blocks")))), copy.deepcopy(SUBJECTS["cfm"].settings)
    )
    before = copy.deepcopy(tables)
    with pytest.raises(SettingError, match=f"^{path}: {message}"):
        put(tables, path, 1)
    assert tables == before


def test_laid_over_tables_keep_what_they_are_not_told_to_change_at_every_level():
    below = {"a": {"b": {"c": 1, "d": 2}, "e": [1, 2]}, "f": 3}
    above = {"a": {"b": {"c": 9}, "e": [7]}, "g": {"h": 4}}
    assert laid_over(below, above) == {"a": {"b": {"c": 9, "d": 2}, "e": [7]}, "f": 3, "g": {"h": 4}}


def test_a_table_laid_over_a_plain_value_takes_its_place_and_the_other_way_round():
    assert laid_over({"a": 1, "b": {"c": 2}}, {"a": {"x": 1}, "b": 5}) == {"a": {"x": 1}, "b": 5}


def test_laying_over_shares_nothing_with_either():
    below, above = {"a": {"list": [{"x": 1}]}}, {"b": {"list": [{"x": 1}]}}
    result = laid_over(below, above)
    put(result, "a.list.0.x", 2)
    put(result, "b.list.0.x", 2)
    assert (below, above) == ({"a": {"list": [{"x": 1}]}}, {"b": {"list": [{"x": 1}]}})
