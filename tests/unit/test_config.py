"""The run file: typed, strict, and helpful about mistakes."""

from __future__ import annotations

import tomllib

import pytest

from recsys import config, registry
from tests.worlds import block_run
from twintower.errors import SettingError


@pytest.fixture
def run_file(tmp_path, block_world):
    import tomli_w

    path = tmp_path / "run.toml"
    path.write_text(tomli_w.dumps(block_run(block_world)), encoding="utf-8")
    return path


MAIN_OBJECTIVES = "all_items, cosine_contrastive, distillation, dlae, ease, ials, sampled_softmax, softmax"


def broken(block_world, **changes):
    with pytest.raises(SettingError) as caught:
        config.from_tables(block_run(block_world, **changes))
    return str(caught.value)


def test_the_resolved_file_reads_back_as_the_same_run(run_file, tmp_path):
    run = config.load(run_file)
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(config.dumps(run))
    assert config.load(resolved) == run


def test_the_resolved_file_spells_out_defaults(run_file):
    tables = tomllib.loads(config.dumps(config.load(run_file)))
    assert tables["objective"]["logq"] == "counts"
    assert tables["item"]["features"]["taste"]["oov_buckets"] == 1


def test_an_override_is_typed_like_the_file(run_file):
    words = ["training.epochs=9", "name=other", "tower.hidden=[4, 4]", "item.features.taste.hashed=true"]
    run = config.load(run_file, words)
    assert run.training.epochs == 9
    assert run.name == "other"
    assert run.tower.hidden == (4, 4)
    assert run.item.features["taste"].hashed is True


@pytest.mark.parametrize("word", ["training.epochs", "=3", "training..epochs=3", "name.first=3"])
def test_an_override_of_another_form_is_refused(run_file, word):
    with pytest.raises(SettingError, match="--set: got"):
        config.load(run_file, [word])


def test_an_override_reaches_a_feature_of_any_name(block_world):
    names = ["x.y", "a=b", "it's", ""]
    features = {name: {"kind": "categorical"} for name in names}
    tables = block_run(block_world, item={"features": features})
    words = ["item.features.'x.y'.width=1", 'item.features."a=b".width=2', 'item.features."it\'s".width=3']
    run = config.from_tables(config.overridden(tables, [*words, 'item.features."".width=4']))
    assert [run.item.features[name].width for name in names] == [1, 2, 3, 4]
    assert config.from_tables(tomllib.loads(config.dumps(run))) == run


@pytest.mark.parametrize("path", ["", "a.", ".a", "a..b", "a.'b", 'a"b"'])
def test_a_path_with_an_empty_key_or_an_open_quote_is_refused(path):
    with pytest.raises(SettingError, match="path: got"):
        config.path_of(path)


def test_an_unknown_key_names_the_nearest_known_one(block_world):
    told = broken(block_world, training={"epohcs": 3})
    assert "training: no setting named 'epohcs'. Did you mean 'epochs'?" in told


def test_an_unknown_section_names_the_nearest_known_one(block_world):
    assert "no setting named 'trainning'. Did you mean 'training'?" in broken(block_world, trainning={})


def test_an_unknown_kind_names_its_place_and_the_nearest_known_one(block_world):
    told = broken(block_world, split={"kind": "randon"})
    assert told.startswith("split.kind: no choice in recsys.splits named 'randon'. Did you mean 'random'?")


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"self_supervision": {"schedule": "cosine"}}, "self_supervision.schedule: got 'cosine', expected a table."),
        ({"self_supervision": 3}, "self_supervision: got 3, expected a table."),
        ({"ablation": {"subjects": "cfm"}}, "ablation.subjects: got 'cfm', expected a list."),
        ({"ablation": {"variants": {"a": 3}}}, "ablation.variants.a: got 3, expected a table."),
    ],
)
def test_types_are_called_what_a_run_file_calls_them(section, told, block_world):
    assert broken(block_world, **section) == told


def test_a_share_of_the_training_data_that_is_none_is_told_at_its_place(block_world):
    told = broken(block_world, ablation={"training_rates": [1.0, -0.1]})
    assert told == "ablation.training_rates.1: got -0.1, expected greater than 0."


def test_an_unknown_setting_of_a_feature_names_its_place(block_world):
    items = {"features": {"taste": {"kind": "categorical", "widht": 3}}}
    assert "item.features.taste: no setting named 'widht'. Did you mean 'width'?" in broken(block_world, item=items)


def test_a_value_out_of_range_names_setting_value_and_rule(block_world):
    told = broken(block_world, training={"epochs": 0})
    assert told == "training.epochs: got 0, expected greater than or equal to 1."


def test_a_value_of_the_wrong_type_names_setting_and_value(block_world):
    assert "training.epochs: got 'many', expected a valid integer" in broken(block_world, training={"epochs": "many"})


def test_every_mistake_of_a_section_is_told_at_once(block_world):
    told = broken(block_world, training={"epochs": 0, "batch_size": 1})
    assert len(told.splitlines()) == 2


def test_a_choice_without_a_kind_lists_the_kinds(block_world):
    assert "Known kinds: complete_journey, enriched_movielens" in broken(block_world, source={})


def test_an_unknown_kind_lists_those_that_the_section_may_hold(block_world):
    message = broken(block_world, objective={"kind": "nope"})
    assert "Known: all_items, cosine_contrastive" in message
    assert not {"comparative", "contrastive", "spread_out"} & set(message.replace(",", " ").replace(".", " ").split())


def test_a_section_without_a_kind_has_the_default_one(block_world):
    run = config.from_tables(block_run(block_world, tower={"dropout_rate": 0.2}))
    assert (registry.kind_of(run.tower), run.tower.dropout_rate) == ("sum", 0.2)


HISTORY = {"met": {"kind": "history"}}


@pytest.mark.parametrize(
    ("changes", "objective", "dim"),
    [
        ({"query": {"features": HISTORY}}, None, "auto"),
        ({"query": {"features": HISTORY | {"town": {"kind": "categorical"}}}, "tower": {"dim": 32}}, None, 32),
        ({"query": {"features": {"town": {"kind": "categorical"}}}}, "all_items", 256),
        ({"query": {"features": HISTORY | {"who": {"kind": "id"}}}}, "all_items", 256),
        ({"query": {"features": {"met": {"kind": "history", "shared": True}}}}, "all_items", 256),
        ({"query": {"features": {"met": {"kind": "history", "pooling": "transformer"}}}}, "softmax", 256),
        ({"query": {"features": HISTORY}, "tower": {"kind": "mlp"}}, "all_items", 64),
        ({"query": {"features": HISTORY}, "self_supervision": {}}, "all_items", 256),
        ({"query": {"entity": "item"}}, "all_items", 256),
        ({"query": {"entity": "features", "features": {"town": {"kind": "categorical"}}}}, "sampled_softmax", 256),
    ],
    ids=str,
)
def test_an_objective_that_is_left_out_is_the_first_default_that_the_sections_allow(
    block_world, changes, objective, dim
):
    """None: a closed form fits, and the size of the data decides."""
    tables = block_run(block_world) | {"tower": {}} | changes
    del tables["objective"]
    run = config.from_tables(tables)
    assert (run.objective and registry.kind_of(run.objective), run.tower.dim) == (objective, dim)
    assert config.from_tables(tomllib.loads(config.dumps(run))) == run


def test_a_run_that_leaves_its_objective_to_the_data_has_one_that_is_trained_in_steps_where_that_is_needed(block_world):
    tables = block_run(block_world, query={"features": HISTORY}, tower={})
    del tables["objective"]
    run = config.with_default_objective(config.from_tables(tables), in_steps=True)
    assert (registry.kind_of(run.objective), run.tower.dim) == ("all_items", 256)


def test_a_kind_that_is_no_text_is_refused(block_world):
    assert broken(block_world, split={"kind": 3}).startswith("split: got {'kind': 3}, expected a table with a 'kind'.")


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_setting_is_a_finite_number(value, run_file):
    with pytest.raises(SettingError, match=r"training\.learning_rate: got"):
        config.load(run_file, [f"training.learning_rate={value}"])


def test_an_item_cannot_have_a_history(block_world):
    told = broken(block_world, item={"features": {"past": {"kind": "history"}}})
    assert told.startswith("item.features.past.kind: got 'history', expected one of categorical, embedding, id, ")


def test_free_features_cannot_have_an_id(block_world):
    query = {"entity": "features", "features": {"who": {"kind": "id"}}}
    assert "expected a feature that needs no query entity" in broken(block_world, query=query)


def test_a_query_side_without_features_is_refused(block_world):
    assert broken(block_world, query={}).startswith(
        "query.features: got none, expected at least one feature. Add a feature of kind 'history'"
    )


def test_an_item_to_item_run_uses_the_items_features_on_both_sides(block_world):
    run = config.from_tables(block_run(block_world, query={"entity": "item"}))
    assert run.query_features == run.item.features


MASK = {"kind": "correlated_mask"}


def second_task(block_world, **section):
    return config.from_tables(block_run(block_world, self_supervision=section)).self_supervision


def test_without_the_section_there_is_no_second_task(block_world, run_file):
    assert config.load(run_file).self_supervision is None
    assert "self_supervision" not in tomllib.loads(config.dumps(config.load(run_file)))


def test_an_empty_section_is_the_contrastive_task_on_plain_items_of_the_catalogue(block_world):
    second = second_task(block_world)
    assert registry.kind_of(second.objective) == "contrastive"
    assert second.augmentations == ()
    assert second.rows == "catalogue"
    assert second.sides == ("item",)


def test_a_resolved_file_with_a_second_task_reads_back_as_the_same_run(block_world, tmp_path):
    section = {
        "objective": {"kind": "contrastive", "temperature": 0.1, "symmetric": True, "false_negatives": "remove"},
        "augmentations": [MASK | {"item_id": "ranked"}, {"kind": "value_dropout", "rate": 0.2}],
        "side": "both",
        "batch_size": 32,
        "schedule": {"kind": "cosine", "warmup_steps": 3},
    }
    tables = block_run(block_world, self_supervision=section)
    tables["item"] = tables["item"] | {"augmentations": [{"kind": "embedding_dropout", "rate": 0.4}]}
    run = config.from_tables(tables)
    assert run.self_supervision.augmentations[0].item_id == "ranked"
    assert run.item.augmentations[0].rate == 0.4
    path = tmp_path / "resolved.toml"
    path.write_text(config.dumps(run))
    assert config.load(path) == run


def test_an_unknown_augmentation_names_the_nearest_known_one(block_world):
    told = broken(block_world, self_supervision={"augmentations": [{"kind": "random_masc"}]})
    assert "Did you mean 'random_mask'?" in told


def test_an_augmentation_s_setting_out_of_range_names_its_place(block_world):
    told = broken(block_world, self_supervision={"augmentations": [{"kind": "value_dropout", "rate": 1.0}]})
    assert told.startswith("self_supervision.augmentations.0.rate: got 1.0, expected less than 1.")


@pytest.mark.parametrize("value", ["correlated_mask", {"kind": "correlated_mask"}, 3])
def test_augmentations_are_a_list(value, block_world):
    told = broken(block_world, self_supervision={"augmentations": value})
    assert told.startswith("self_supervision.augmentations: got ")
    assert "expected a list of tables, each with a 'kind'." in told


@pytest.mark.parametrize("section", ["self_supervision", "item"])
def test_two_augmentations_that_mask_could_hide_everything_and_are_refused(section, block_world):
    stages = {"augmentations": [MASK, {"kind": "value_dropout"}, {"kind": "random_mask"}]}
    tables = block_run(block_world)
    told = broken(block_world, **{section: tables.get(section, {}) | stages})
    assert told.startswith(
        f"{section}.augmentations: got ['correlated_mask', 'random_mask'], expected at most one that masks features."
    )


@pytest.mark.parametrize("kind", ["correlated_mask", "random_mask", "independent_random_mask"])
def test_a_mask_needs_two_features_besides_the_id(kind, block_world):
    features = {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}
    stages = {"augmentations": [{"kind": kind}]}
    told = broken(block_world, item={"features": features}, self_supervision=stages)
    rule = f"got {kind} over 1 features besides the id, expected at least 2"
    assert told.startswith(f"self_supervision.augmentations on the item side: {rule}")
    assert broken(block_world, item={"features": features} | stages).startswith(f"item.augmentations: {rule}")


def test_a_mask_needs_two_features_on_the_side_that_it_is_for(block_world):
    query = {"features": {"who": {"kind": "id"}, "recent": {"kind": "history"}}}
    told = broken(block_world, query=query, self_supervision={"augmentations": [MASK], "side": "both"})
    assert told.startswith("self_supervision.augmentations on the query side: got correlated_mask over 1 features")
    section = {"augmentations": [MASK], "side": "item"}
    run = config.from_tables(block_run(block_world, query=query, self_supervision=section))
    assert run.self_supervision.sides == ("item",)


def test_dropout_needs_no_second_feature(block_world):
    features = {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}
    stages = {"augmentations": [{"kind": "value_dropout"}, {"kind": "embedding_dropout"}]}
    run = config.from_tables(block_run(block_world, item={"features": features}, self_supervision=stages))
    assert len(run.self_supervision.augmentations) == 2


@pytest.mark.parametrize("kind", ["contrastive", "spread_out"])
def test_an_objective_over_views_cannot_be_the_main_task(kind, block_world):
    told = broken(block_world, objective={"kind": kind})
    assert told == f"objective.kind: got '{kind}', expected one of {MAIN_OBJECTIVES}."


def test_an_objective_over_pairs_cannot_be_the_second_task(block_world):
    told = broken(block_world, self_supervision={"objective": {"kind": "sampled_softmax"}})
    rule = "got 'sampled_softmax', expected one of contrastive, spread_out."
    assert told == f"self_supervision.objective.kind: {rule}"


@pytest.mark.parametrize("side", ["query", "both"])
def test_the_query_side_has_no_rows_in_the_training_batch(side, block_world):
    told = broken(block_world, self_supervision={"rows": "training_batch", "side": side})
    rule = f"got 'training_batch', expected 'catalogue' where side is '{side}'."
    assert told.startswith(f"self_supervision.rows: {rule}")
    assert second_task(block_world, rows="training_batch").sides == ("item",)


def test_the_weight_of_the_second_task_is_above_zero(block_world):
    told = broken(block_world, self_supervision={"objective": {"kind": "contrastive", "weight": 0.0}})
    assert told == "self_supervision.objective.weight: got 0.0, expected greater than 0."


def test_an_unknown_key_of_the_second_task_names_the_nearest_known_one(block_world):
    assert "self_supervision: no setting named 'sides'. Did you mean 'side'?" in broken(
        block_world, self_supervision={"sides": "item"}
    )


@pytest.mark.parametrize("rate", [0.0, 1.1])
def test_a_training_rate_is_a_share_above_zero(rate, block_world):
    assert broken(block_world, data={"training_rate": rate}).startswith(f"data.training_rate: got {rate}, expected ")


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_the_seeds_of_an_ablation_have_the_range_of_the_run_s_own(seed, block_world):
    assert broken(block_world, ablation={"seeds": [1, seed]}).startswith(f"ablation.seeds.1: got {seed}, expected ")
    assert broken(block_world, ablation={"tuning_seed": seed}).startswith(f"ablation.tuning_seed: got {seed}, ")


def test_a_missing_file_names_the_shipped_ones(tmp_path):
    with pytest.raises(SettingError, match="complete_journey"):
        config.load(tmp_path / "complete_journy")


def test_a_file_that_is_not_toml_says_where(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("name = \n")
    with pytest.raises(SettingError, match=r"run\.toml: not TOML: .*line 1"):
        config.load(path)


@pytest.mark.parametrize("name", config.shipped())
def test_every_shipped_run_file_is_valid(name):
    assert config.load(name).name


def test_without_the_section_reformulation_has_its_defaults_and_they_are_written_back(run_file):
    run = config.load(run_file)
    assert registry.kind_of(run.reformulation.reformulator) == "attention"
    assert registry.kind_of(run.reformulation.objective) == "comparative"
    written = tomllib.loads(config.dumps(run))["reformulation"]
    assert written["feedback_k"] == 10
    assert written["reformulator"]["heads"] == 4
    assert written["objective"]["positives"] == "all"


def test_another_kind_of_reformulator_leaves_the_written_settings_of_the_first_behind(run_file, tmp_path):
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(config.dumps(config.load(run_file, ["reformulation.reformulator.heads=2"])))
    words = ["reformulation.reformulator.kind=linear_feedback", "reformulation.reformulator.c=0.5"]
    assert config.load_spelt_out(resolved, words) == config.load(run_file, words)
    same = config.load_spelt_out(resolved, ["reformulation.reformulator.kind=attention"])
    assert same.reformulation.reformulator.heads == 2


def test_a_reformulation_section_reads_back_as_it_was(run_file, tmp_path):
    words = [
        "reformulation.reformulator.kind='linear_feedback'", "reformulation.reformulator.c=0.5",
        "reformulation.objective.margin=0.1", "reformulation.answers='mask'", "reformulation.nested=false",
    ]  # fmt: skip
    run = config.load(run_file, words)
    assert run.reformulation.reformulator.c == 0.5
    resolved = tmp_path / "resolved.toml"
    resolved.write_text(config.dumps(run))
    assert config.load(resolved) == run


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"epochs": 3}, "reformulation: the setting 'epochs' was removed. Set reformulation.steps, or leave it out"),
        ({"only_sure": True}, "reformulation: the setting 'only_sure' was removed. Leave it out: significance decides"),
        ({"feedbak_k": 3}, "reformulation: no setting named 'feedbak_k'. Did you mean 'feedback_k'?"),
        ({"feedback_k": 0}, "reformulation.feedback_k: got 0, expected greater than or equal to 1"),
        ({"answers": "kep"}, "reformulation.answers: got 'kep'"),
        ({"order": "random"}, "reformulation.order: got 'random'"),
        ({"explicit_rate": 1.5}, "reformulation.explicit_rate: got 1.5, expected less than or equal to 1"),
        ({"noise_rate": -0.1}, "reformulation.noise_rate: got -0.1"),
        ({"folds": 1}, "reformulation.folds: got 1, expected greater than or equal to 2"),
        ({"revisions": 5, "feedback_k": 3}, "at most feedback_k + 1 = 4 revisions, one for each number of items"),
        ({"reformulator": {"kind": "atention"}}, "Did you mean 'attention'?"),
        ({"reformulator": {"widht": 3}}, "reformulation.reformulator: no setting named 'widht'. Did you mean 'width'?"),
        ({"reformulator": {"width": 30}}, "width 30 is no multiple of heads 4"),
        (
            {"reformulator": {"kind": "rocchio"}},
            "reformulation.reformulator.kind: got 'rocchio', expected one of attention, linear_feedback.",
        ),
        ({"objective": {"kind": "contrastive"}}, "reformulation.objective.kind: got 'contrastive', expected one of"),
        ({"objective": {"margin": -1}}, "reformulation.objective.margin: got -1"),
        ({"objective": "comparative"}, "reformulation.objective: got 'comparative'"),
        ("attention", "reformulation: got 'attention', expected a table"),
    ],
)
def test_a_mistake_in_the_reformulation_section_is_told_by_its_place(section, told, block_world):
    assert told in broken(block_world, reformulation=section)


def test_an_objective_of_revisions_is_no_main_task_and_no_second_one(block_world):
    told = broken(block_world, objective={"kind": "comparative"})
    assert told == f"objective.kind: got 'comparative', expected one of {MAIN_OBJECTIVES}."
    told = broken(block_world, self_supervision={"objective": {"kind": "comparative"}})
    assert told.startswith("self_supervision.objective.kind: got 'comparative', expected one of contrastive")
