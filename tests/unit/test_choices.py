"""What `recsys choices` claims of a run file, checked against the parser of run files."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from recsys import config, registry
from recsys.commands.choices import default_of, stages_of
from tests.worlds import block_run
from twintower.errors import SettingError

STAGES = stages_of(config.Run)
SETTINGS = [(section, field) for section, cls in STAGES.items() for field in dataclasses.fields(cls)]
ONLY_WITH_OTHERS = {("query", "features")}
"""Settings whose default `{}` holds for some values of another setting: see their lines in `recsys choices`."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run file in which every section stands with every setting that `dumps` writes."""
    second = {"augmentations": [{"kind": "value_dropout"}]}
    run = config.from_tables(block_run(tmp_path_factory.mktemp("world"), self_supervision=second))
    return config.plain_tables(run)


def section_of(tables: dict[str, Any], section: str) -> dict[str, Any]:
    for name in [] if section == "run" else section.split("."):
        tables = tables[name]
    return tables


@pytest.mark.parametrize(("section", "field"), SETTINGS, ids=lambda value: getattr(value, "name", value))
def test_a_setting_is_called_required_exactly_where_a_run_file_without_it_is_refused(section, field, full):
    tables = copy.deepcopy(full)
    given = section_of(tables, section).pop(field.name, None)
    if (section, field.name) in ONLY_WITH_OTHERS:
        return
    if default_of(field, section) == "required":
        assert given is not None
        with pytest.raises(SettingError, match=rf"{field.name}: got nothing, expected a value"):
            config.from_tables(tables)
    else:
        config.from_tables(tables)


@pytest.mark.parametrize("section", config.PLACES)
def test_a_section_takes_the_kinds_that_are_listed_for_it_and_no_others(section):
    family = config.PLACES[section]
    for kind in registry.names(family):
        settings = dataclasses.fields(registry.choice(family, kind))
        if any(default_of(field, section) == "required" for field in settings):
            continue  # of a source: paths and names that no test can make up
        if kind in config.kinds_of(section):
            assert registry.kind_of(config.chosen(section, {"kind": kind})) == kind
        else:
            with pytest.raises(SettingError, match=rf"kind: got '{kind}', expected one of"):
                config.chosen(section, {"kind": kind})


@pytest.mark.parametrize("section", config.DEFAULT_KINDS)
def test_a_section_with_a_default_kind_may_be_left_out_or_lack_its_kind(section):
    assert registry.kind_of(config.chosen(section, {})) == config.DEFAULT_KINDS[section]


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_a_setting_of_a_choice_is_called_required_exactly_where_the_choice_refuses_to_be_made_without_it(family):
    for kind in registry.names(family):
        cls = registry.choice(family, kind)
        required = {field.name for field in dataclasses.fields(cls) if default_of(field, "") == "required"}
        try:
            registry.build(family, {"kind": kind}, "here")
        except SettingError as error:
            missing = {line.partition(":")[0].removeprefix("here.") for line in str(error).splitlines()}
            assert missing == required, f"{family}/{kind}"
        else:
            assert required == set(), f"{family}/{kind}"


def test_every_family_has_a_section_and_every_section_a_family():
    assert set(config.PLACES.values()) == set(registry.FAMILIES)


def test_the_list_of_metrics_names_what_the_parser_takes():
    from recsys.metrics.ranking import FORMULAS, parse

    assert all(parse(f"{measure}@5").measure_name == measure for measure in FORMULAS)


def test_baselines_are_tables_or_kinds_alone_and_the_default_is_shown_as_kinds():
    spelled = config._baselines([{"kind": "ease", "regularization_weight": [3.0]}, "popularity"])
    assert [registry.table_of(each)["kind"] for each in spelled] == ["ease", "popularity"]
    assert spelled[0].regularization_weight == (3.0,)
    field = next(each for each in dataclasses.fields(config.Evaluation) if each.name == "baselines")
    assert default_of(field, "evaluation") == repr(list(config.DEFAULT_BASELINES))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ("ease", r"evaluation\.baselines: got 'ease', expected a list"),
        (["item_kn"], r"evaluation\.baselines\.0\.kind: .*Did you mean 'item_knn'"),
        (["ease", {"kind": "ease"}], r"evaluation\.baselines: got \['ease', 'ease'\], expected each kind once"),
        (
            [{"kind": "ease", "regularization_weight": [0]}],
            r"evaluation\.baselines\.0\.regularization_weight\.0: got 0",
        ),
        ([{"kind": "ease", "weights": [1]}], r"evaluation\.baselines\.0: no setting named 'weights'"),
    ],
)
def test_baselines_that_break_a_rule_are_refused_by_their_path(tables, message, full):
    evaluation = {**full["evaluation"], "baselines": tables}
    with pytest.raises(SettingError, match=message):
        config.from_tables({**full, "evaluation": evaluation})
