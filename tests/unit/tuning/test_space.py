"""The search space of a study: values beside the settings, models that fit the run file, and `--try`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys import config, registry
from recsys.config import Run, Training
from recsys.search_space import Between, OneOf, search_space_of
from recsys.tuning.space import Model, models_of
from tests.worlds import block_run
from twintower.errors import SettingError

CHOICES = [
    (family, kind)
    for family in ("objectives", "towers", "features", "augmentations")
    for kind in registry.names(family)
    if search_space_of(registry.choice(family, kind))
]


def linear_run(**changes: Any) -> dict[str, Any]:
    """A run that a closed form suits."""
    sections = {
        "query": {"features": {"read": {"kind": "history"}, "town": {"kind": "categorical"}}},
        "item": {"features": {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}},
        "tower": {"kind": "sum"},
        "objective": {"kind": "dlae"},
        "training": {},
    }
    return block_run(Path("blocks"), **(sections | changes))


def run_of(tables: dict[str, Any]) -> Run:
    return config.with_default_objective(config.from_tables(tables))


def models(tables: dict[str, Any], *tries: str, has_closed_form: bool = True, has_times: bool = True):
    return models_of(tables, run_of(tables), has_closed_form=has_closed_form, has_times=has_times, tries=tries)


def paths(model: Model) -> set[str]:
    return {parameter.path for parameter in model.parameters}


@pytest.mark.parametrize(("family", "kind"), CHOICES)
def test_the_default_of_a_setting_is_among_the_values_that_are_tried(family, kind):
    cls = registry.choice(family, kind)
    for name, values in search_space_of(cls).items():
        default = getattr(registry.parse(cls, {}, ""), name)
        if default is None or default == "auto":  # another setting or the data decide
            continue
        is_list = isinstance(default, tuple) and not isinstance(values.examples[0], tuple)
        assert all(value in values for value in (default if is_list else (default,))), f"{kind}.{name} = {default}"


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_every_value_that_is_tried_is_valid(data):
    family, kind = data.draw(st.sampled_from(CHOICES))
    cls = registry.choice(family, kind)
    name, values = data.draw(st.sampled_from(sorted(search_space_of(cls).items(), key=lambda item: item[0])))
    if isinstance(values, Between):
        value = data.draw(st.floats(values.low, values.high))
    else:
        value = data.draw(st.sampled_from(values.values))
    in_list = isinstance(getattr(registry.parse(cls, {}, ""), name), tuple) and not isinstance(value, tuple)
    made = registry.parse(cls, {name: (value,) if in_list else value}, "")
    assert getattr(made, name) == ((value,) if in_list else value)


def test_the_learning_rate_is_tried_around_its_default():
    assert Training().learning_rate in search_space_of(Training)["learning_rate"]


@functools.cache
def all_models() -> list[Model]:
    return [model for tables in (linear_run(), block_run(Path("blocks"))) for model in models(tables).values()]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_every_combination_of_values_of_a_model_is_a_valid_run_file(data):
    model = data.draw(st.sampled_from(all_models()))
    drawn = {}
    for parameter in model.parameters:
        values = parameter.values
        if isinstance(values, OneOf):
            drawn[parameter.path] = data.draw(st.sampled_from(values.values))
        else:
            drawn[parameter.path] = data.draw(st.floats(values.low, values.high))
    run = config.from_tables(model.with_values(drawn))
    assert registry.kind_of(run.objective) == model.tables["objective"]["kind"]


@pytest.mark.parametrize("tables", [linear_run(), block_run(Path("blocks"))], ids=["linear", "perceptron"])
def test_the_first_model_is_the_run_file_as_it_is(tables):
    first = next(iter(models(tables).values()))
    assert config.from_tables(first.with_values({})) == run_of(tables)
    # Its first trial has the defaults of all parameters, which change nothing.
    defaults = {each.path: each.default for each in first.parameters if each.default is not None}
    assert config.from_tables(first.with_values(defaults)) == run_of(tables)


def test_every_kind_of_objective_is_tried_on_sections_of_a_linear_model():
    assert set(models(linear_run())) == set(config.kinds_of("objective"))


def test_a_run_without_a_history_is_tried_with_one():
    tables = linear_run(
        query={"features": {"town": {"kind": "categorical"}, "who": {"kind": "id"}}},
        tower={"kind": "mlp"},
        objective={"kind": "sampled_softmax"},
    )
    found = models(tables)
    assert list(found)[:3] == ["sampled_softmax", "dlae of histories", "all_items of histories"]
    run = config.from_tables(found["dlae of histories"].with_values({}))
    kinds = {name: registry.kind_of(feature) for name, feature in run.query_features.items()}
    assert kinds == {"met": "history", "town": "categorical"}


def test_data_that_are_too_large_for_a_closed_form_are_tried_without_one():
    tables = linear_run(objective={"kind": "all_items"}, tower={"kind": "sum", "dim": 64})
    found = models(tables, has_closed_form=False)
    assert not {"dlae", "ease", "ials"} & set(found)
    assert "objective.start" not in paths(found["all_items"])
    assert "objective.start" in paths(models(tables)["all_items"])


def test_a_closed_form_tries_nothing_that_only_training_in_steps_reads():
    found = models(linear_run())
    assert paths(found["dlae"]) == {
        "objective.dropout_rate",
        "objective.query_feature_weight",
        "objective.regularization_weight",
        "objective.query_exponent",
        "query.features.read.half_life_days",
    }
    assert {"tower.dim", "training.learning_rate", "query.features.read.dropout_rate"} <= paths(found["all_items"])


def test_a_half_life_is_tried_only_where_there_are_times():
    assert "query.features.read.half_life_days" not in paths(models(linear_run(), has_times=False)["dlae"])


def test_a_setting_that_holds_values_to_try_gets_one_of_them():
    changed = models(linear_run())["dlae"].with_values({"objective.regularization_weight": 30.0})
    assert config.from_tables(changed).objective.regularization_weight == (30.0,)


def test_only_the_run_file_itself_tries_whole_lists_in_one_training():
    found = models(linear_run(), has_times=False)
    assert next(found["dlae"].first_trials) == {}
    for kind in ("ease", "ials"):
        first = next(found[kind].first_trials)
        assert set(first) == paths(found[kind])
        objective = config.from_tables(found[kind].with_values(first)).objective
        for path, value in first.items():
            name = path.removeprefix("objective.")
            assert getattr(objective, name) == (value,)
            assert value == getattr(registry.parse(type(objective), {}, ""), name)[0]


def test_the_values_include_that_of_the_run_file():
    tables = linear_run(objective={"kind": "all_items", "unobserved_weight": 2.0}, tower={"kind": "sum", "dim": 96})
    found = {parameter.path: parameter for parameter in models(tables)["all_items"].parameters}
    assert (found["objective.unobserved_weight"].values.high, found["objective.unobserved_weight"].default) == (2, 2)
    assert 96 in found["tower.dim"].values.values


def test_a_name_with_dots_stands_in_quotes():
    tables = linear_run(query={"features": {"what was read.so far": {"kind": "history"}}})
    path = 'query.features."what was read.so far".half_life_days'
    model = models(tables)["dlae"]
    assert path in paths(model)
    run = config.from_tables(model.with_values({path: 30.0}))
    assert run.query_features["what was read.so far"].half_life_days == 30


def test_try_replaces_values_adds_settings_and_keeps_the_others():
    found = models(
        linear_run(),
        'objective.kind=["dlae", "all_items"]',
        "tower.dim=[32, 48]",
        "training.batch_size={low = 64, high = 512, log = true}",
    )
    assert list(found) == ["dlae", "all_items"]
    by_path = {parameter.path: parameter.values for parameter in found["all_items"].parameters}
    assert by_path["tower.dim"] == OneOf((32, 48))
    assert by_path["training.batch_size"] == Between(64, 512, log=True)
    assert "training.learning_rate" in by_path


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("split.kind=['random']", "--try: got 'split.kind', expected a setting of objective"),
        ("training.validation_metric=['R@10']", "--try: got 'training.validation_metric'"),
        ("evaluation.exclude_seen=[true]", "--try: got 'evaluation.exclude_seen'"),
        ("tower.dim", "--try: got 'tower.dim', expected path=[value, value]"),
        ("tower.dim=64", "--try tower.dim: got '64', expected path=[value, value]"),
        ("tower.dim=[]", "--try tower.dim: got '[]'"),
        ("training.learning_rate={low = 2.0, high = 1.0}", "--try training.learning_rate: got"),
        ("training.learning_rate={low = 0.0, high = 1.0, log = true}", "--try training.learning_rate: got"),
        ("tower.width=[3]", "--try tower.width: got [3], expected values that a model can have. tower: no setting"),
        ("objective.kind=['dla']", "objective.kind: got ['dla'], expected a kind of objective that suits"),
    ],
)
def test_try_refuses_what_no_trial_may_or_can_have(given, message):
    with pytest.raises(SettingError) as raised:
        models(linear_run(), given)
    assert str(raised.value).startswith(message)
