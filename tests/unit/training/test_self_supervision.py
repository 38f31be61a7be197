"""The second task: what it adds to training, what it leaves alone, and who is no negative."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from recsys import config
from recsys.augmentations.independent_random_mask import IndependentRandomMask
from recsys.augmentations.random_mask import RandomMask
from recsys.augmentations.value_dropout import ValueDropout
from recsys.config import Run, SelfSupervision
from recsys.data.batches import TrainingBatches, ViewBatches
from recsys.data.prepare import Prepared, prepare
from recsys.layers import BagLookup, Dense, Lookup, Tables
from recsys.objectives.contrastive import Contrastive
from recsys.stack import tf
from recsys.towers.mlp import Mlp
from recsys.training.loop import compiled, train_steps
from recsys.training.model import TwoTowerModel
from recsys.training.self_supervision import ViewTask, fields_of
from tests.unit.augmentations.draws import make_fields
from tests.worlds import block_run

SEED = tf.constant([2, 9])
MASKED = [{"kind": "correlated_mask"}, {"kind": "value_dropout"}]


@pytest.fixture(scope="module")
def prepared(block_settings: Run, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(block_settings, tmp_path_factory.mktemp("prepared") / "data")


def run_of(block_world: Path, second: dict | None = None, stages: list | None = None, **changes: object) -> Run:
    """Return the block run with a second task, and augmentations of the main task's items."""
    tables = block_run(block_world, **changes)
    tables["item"] = tables["item"] | {"augmentations": stages or []}
    return config.from_tables(tables | ({} if second is None else {"self_supervision": second}))


class Training:
    """A model at its start with its batches."""

    def __init__(self, run: Run, prepared: Prepared) -> None:
        self.batches = TrainingBatches(
            prepared, run, uniform_negatives=run.objective.uniform_negatives, mask_positives=True
        )
        second = run.self_supervision
        self.views = ViewBatches(prepared, run) if second is not None and second.rows == "catalogue" else None
        # as `fit` does for a deterministic run
        tf.config.experimental.enable_op_determinism()
        tf.keras.utils.set_random_seed(run.seed)
        self.model: TwoTowerModel = compiled(run, prepared, self.batches)

    def batch(self, step: int) -> dict:
        batch = dict(self.batches.batch(step))
        return batch if self.views is None else batch | {"views": dict(self.views.batch(step))}

    def steps(self, count: int) -> None:
        for _, _ in zip(range(count), train_steps(self.model, self.batches, views=self.views)):  # noqa: B905
            pass

    def view_losses(self) -> list[float]:
        return [float(self.model.view_loss) for _ in train_steps(self.model, self.batches, views=self.views)]


def by_name(variables: list) -> dict[str, np.ndarray]:
    return {variable.name: variable.numpy() for variable in variables}


def masked_names(tower) -> set[str]:
    return {variable.name.split("/")[-1].split(":")[0] for variable in tower.variables if "masked_" in variable.name}


@pytest.fixture(scope="module")
def plain(prepared: Prepared, block_settings: Run) -> Training:
    """The plain model at its start; no test trains it."""
    return Training(block_settings, prepared)


def test_without_a_second_task_the_model_is_the_plain_one(plain):
    # tables of taste, tags, title, town, who and of the item ids, which the history shares; two layers for each tower
    assert len(plain.model.trainable_variables) == 6 + 2 * 4
    assert not any(word in name for name in by_name(plain.model.variables) for word in ("masked", "view"))
    assert not hasattr(plain.model, "view_loss")


@pytest.mark.parametrize(
    ("second", "stages", "query", "item"),
    [
        ({"side": "item"}, [], 0, 6),
        ({"side": "query"}, [], 3, 0),
        ({"side": "both"}, [], 3, 6),
        (None, [{"kind": "random_mask"}], 0, 6),
    ],
)
def test_a_vector_that_stands_for_masked_is_there_for_each_feature_of_the_sides_that_have_views(
    second, stages, query, item, prepared, block_world
):
    model = Training(run_of(block_world, second, stages), prepared).model
    assert len(masked_names(model.query_tower)) == query
    assert len(masked_names(model.item_tower)) == item


def test_a_second_task_leaves_start_batches_and_draws_of_the_main_task_as_they_are(prepared, plain, block_world):
    second = Training(run_of(block_world, {"augmentations": MASKED, "side": "both"}), prepared)
    before = by_name(second.model.trainable_variables)
    for name, value in by_name(plain.model.trainable_variables).items():
        np.testing.assert_array_equal(before[name], value)
    for step in (0, 4, 20):
        expected, found = plain.model(plain.batch(step)), second.model(second.batch(step))
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(other.numpy(), one.numpy())


def test_at_weight_zero_a_step_is_that_of_the_plain_model_bit_for_bit(prepared, block_settings, block_world):
    # in a warm-up of four steps the weight is 0, 1/4, 1/2, 3/4 of the setting
    warmup = {"augmentations": MASKED, "schedule": {"warmup_steps": 4}}
    one, other = Training(block_settings, prepared), Training(run_of(block_world, warmup), prepared)
    for training in (one, other):
        training.steps(1)
    expected, found = by_name(one.model.trainable_variables), by_name(other.model.trainable_variables)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert set(found) - set(expected) == {name for name in found if "masked_" in name}
    assert not any(found[name].any() for name in set(found) - set(expected))


@pytest.mark.parametrize(
    ("schedule", "step", "share"),
    [
        ({}, 20, 1.0),
        ({"warmup_steps": 10}, 0, 0.0),
        ({"warmup_steps": 10}, 5, 0.5),
        ({"warmup_steps": 10}, 30, 1.0),
        # 36 steps: half of a cosine from 1 to 0.2 is their mean, 0.6
        ({"kind": "cosine", "final_rate": 0.2}, 18, 0.6),
        ({"kind": "cosine", "warmup_steps": 4}, 2, 0.5),
    ],
)
def test_the_loss_is_the_sum_of_both_tasks_at_the_weight_of_the_step(
    schedule, step, share, prepared, plain, block_world
):
    section = {"objective": {"kind": "contrastive", "weight": 0.7}, "schedule": schedule, "augmentations": MASKED}
    second = Training(run_of(block_world, section), prepared)
    total = float(second.model.compute_loss(second.batch(step), training=True))
    main, other = float(plain.model.compute_loss(plain.batch(step))), float(second.model.view_loss)
    assert other > 0.1
    assert total == pytest.approx(main + share * 0.7 * other, rel=1e-5)
    assert float(second.model.view_weight(step)) == pytest.approx(share * 0.7, rel=1e-5)


@pytest.mark.parametrize("rows", ["catalogue", "training_batch"])
def test_without_augmentations_the_second_task_compares_the_plain_items_of_its_rows(rows, block_world, tmp_path):
    features = block_run(block_world)["item"]["features"] | {"id": {"kind": "id", "width": 8, "unknown_rate": 0.0}}
    section = {"objective": {"kind": "contrastive", "temperature": 0.5}, "batch_size": 16, "rows": rows}
    main = {"kind": "sampled_softmax", "uniform_negatives": 20}
    run = run_of(block_world, section, item={"features": features}, objective=main)
    second = Training(run, prepare(run, tmp_path))
    batch = second.batch(3)
    second.model.compute_loss(batch, training=True)
    # the first 64 candidates are the positives of the batch, some of them more than once
    taken = batch["views"]["row"]["item"] if rows == "catalogue" else batch["candidate_row"][:64]
    vectors = second.model.encode_items().astype(np.float64)[taken]
    shares = np.exp(vectors @ vectors.T / 0.5)
    shares[(taken[:, None] == taken) & ~np.eye(len(taken), dtype=bool)] = 0
    assert float(second.model.view_loss) == pytest.approx(
        -np.log(np.diag(shares) / shares.sum(axis=1)).mean(), rel=1e-4
    )


@pytest.mark.parametrize("side", ["item", "query"])
def test_views_are_drawn_anew_in_each_step_and_by_each_seed_and_in_one_step_always_alike(side, prepared, block_world):
    section = {"augmentations": [{"kind": "random_mask", "per": "item"}], "side": side}
    one, other = (Training(run_of(block_world, section, seed=seed), prepared) for seed in (3, 4))
    other.model.set_weights(one.model.get_weights())
    # the same rows in every step and by every seed: all that there are
    batch = one.batch(0)

    def view_loss(training: Training, step: int) -> float:
        training.model.compute_loss(batch | {"step": np.int32(step)}, training=True)
        return float(training.model.view_loss)

    first = view_loss(one, 0)
    assert view_loss(one, 0) == first
    assert abs(view_loss(one, 1) - first) > 1e-3
    assert abs(view_loss(other, 0) - first) > 1e-3


def test_both_sides_add_their_losses(prepared, block_world):
    def view_loss(side: str) -> float:
        training = Training(run_of(block_world, {"augmentations": [{"kind": "random_mask"}], "side": side}), prepared)
        # the same rows for each side: all 40 items and all 60 users
        batch = training.batch(3)
        training.model.compute_loss(batch, training=True)
        return float(training.model.view_loss)

    assert view_loss("both") == pytest.approx(view_loss("item") + view_loss("query"), rel=1e-5)


@pytest.mark.parametrize(
    "section",
    [
        {"augmentations": MASKED},
        {"augmentations": [{"kind": "random_mask", "per": "item"}], "side": "both", "batch_size": 16},
        {"augmentations": [{"kind": "independent_random_mask"}, {"kind": "embedding_dropout"}], "side": "query"},
        {
            "augmentations": [{"kind": "correlated_mask", "item_id": "masked"}],
            "rows": "training_batch",
            "objective": {"kind": "contrastive", "symmetric": True, "false_negatives": "remove"},
        },
        {"objective": {"kind": "spread_out", "form": "square"}},
    ],
    ids=["item", "both sides", "query", "training batch", "spread out"],
)
def test_training_lowers_the_loss_of_the_second_task(section, prepared, block_world):
    training = Training(run_of(block_world, section), prepared)
    masked = {
        side: [variable for variable in tower.variables if "masked_" in variable.name]
        for side, tower in (("item", training.model.item_tower), ("query", training.model.query_tower))
    }
    seen = training.view_losses()
    assert len(seen) == 36
    assert np.mean(seen[-9:]) < 0.95 * np.mean(seen[:9])
    for side, variables in masked.items():
        asked = section.get("side", "item") in (side, "both")
        assert bool(variables) == asked
        if asked and section.get("augmentations"):
            assert any(variable.numpy().any() for variable in variables)


def test_dropout_on_the_items_of_the_main_task_is_drawn_anew_in_training_and_absent_from_inference(
    prepared, plain, block_world
):
    dropping = Training(run_of(block_world, stages=[{"kind": "embedding_dropout", "rate": 0.5}]), prepared)
    np.testing.assert_array_equal(dropping.model.encode_items(), plain.model.encode_items())
    queries, candidates = dropping.model(dropping.batch(0))
    plain_queries, plain_candidates = plain.model(plain.batch(0))
    np.testing.assert_array_equal(queries.numpy(), plain_queries.numpy())
    assert (np.abs(candidates.numpy() - plain_candidates.numpy()).max(axis=1) > 0.01).all()
    again = dropping.model(dropping.batch(0))[1]
    np.testing.assert_array_equal(again.numpy(), candidates.numpy())
    later = dropping.model(dropping.batch(0) | {"step": np.int32(1)})[1]
    assert (np.abs(later.numpy() - candidates.numpy()).max(axis=1) > 0.01).all()


def test_dropout_on_the_items_of_the_main_task_trains(prepared, block_world):
    training = Training(run_of(block_world, stages=[{"kind": "embedding_dropout", "rate": 0.3}]), prepared)
    seen = [float(loss) for loss in train_steps(training.model, training.batches)]
    assert np.mean(seen[-9:]) < np.mean(seen[:9]) - 0.2


def test_augmentations_know_ids_bags_and_dependence_of_each_feature_of_a_side(prepared):
    train = prepared.parts["train"]
    counts = np.bincount(train.query_row, minlength=60)
    fields = fields_of(prepared.query_encoders, prepared.query_codes, counts)
    assert fields.names == ("recent", "town", "who")
    assert fields.ids == {"who"}
    assert fields.content == ("recent", "town")
    assert not fields.bags  # a history has a dropout of its own
    dependence = fields.dependence("mutual_information", "items")
    # a history has no codes and tells nothing; a user tells the town, which has three values of 20 users each
    assert not dependence[0].any()
    assert dependence[1, 2] == dependence[2, 1] == pytest.approx(math.log(3))
    items = fields_of(prepared.item_encoders, prepared.item_codes, prepared.item_counts)
    assert items.bags == {"tags", "title"}


def test_dependence_over_interactions_counts_each_item_as_often_as_it_was_met(prepared):
    # all interactions with the first two items, half each: the other items do not count
    counts = np.zeros(40, np.int64)
    counts[[0, 1]] = 5
    fields = fields_of(prepared.item_encoders, prepared.item_codes, counts)
    taste = fields.names.index("taste")
    over = {population: fields.dependence("mutual_information", population) for population in ("items", "interactions")}
    assert over["items"][taste, taste] == pytest.approx(math.log(2))
    id_feature = fields.names.index("id")
    assert over["items"][id_feature, id_feature] == pytest.approx(math.log(40))
    assert over["interactions"][id_feature, id_feature] == pytest.approx(math.log(2))
    normalised = fields.dependence("normalised", "items")
    # 2 log 2 / (log 2 + log 40)
    assert normalised[taste, id_feature] == pytest.approx(2 * math.log(2) / math.log(80))


# Rows 0 and 1 are alike, but for the order of the values of t; row 2 differs from them in everything, row 3 in t alone,
# row 4 in the second number of v alone.
CODES = {
    "a": np.array([1, 1, 2, 1, 1], np.int32),
    "t": np.array([[1, 2, -1], [2, 1, -1], [3, -1, -1], [3, 4, 2], [1, 2, -1]], np.int32),
    "v": np.array([[0.5, 1], [0.5, 1], [0.25, 2], [0.5, 1], [0.5, 1.5]], np.float32),
}
FIELDS = make_fields("atv", bags="t")


@pytest.fixture(scope="module")
def tower():
    tables = Tables()
    layers = {
        "a": Lookup(tables.get("a", 5, 4, 0), name="a"),
        "t": BagLookup(tables.get("t", 5, 4, 0), "mean", name="t"),
        "v": Dense(2, name="v"),
    }
    tf.keras.utils.set_random_seed(1)
    built = Mlp(hidden=(), dim=8).build(layers, name="tower", mixed_precision="none", augmented=True)
    built(codes_of([0]))
    return built


def codes_of(rows, names="atv") -> dict[str, tf.Tensor]:
    return {name: tf.constant(CODES[name][rows]) for name in names}


def view_loss(tower, rows, false_negatives="remove", stages=(), seed=SEED, known="atv") -> float:
    objective = Contrastive(temperature=0.5, false_negatives=false_negatives)
    second = SelfSupervision(objective=objective, augmentations=stages)
    task = ViewTask(second, FIELDS, {name: CODES[name] for name in known})
    return float(task.loss(tower, codes_of(rows), tf.constant(rows), seed))


def test_two_items_that_show_the_same_are_no_negatives_unless_they_are_kept(tower):
    assert view_loss(tower, [0, 1]) == pytest.approx(0, abs=1e-6)
    # two equal vectors and one positive: log 2
    assert view_loss(tower, [0, 1], "keep") == pytest.approx(math.log(2), rel=1e-5)


@pytest.mark.parametrize("other", [2, 3, 4])
def test_items_that_differ_in_anything_that_is_shown_are_negatives(other, tower):
    assert view_loss(tower, [0, other]) == pytest.approx(view_loss(tower, [0, other], "keep"))
    assert view_loss(tower, [0, other]) > 0.05


def test_only_those_that_are_alike_leave_the_negatives(tower):
    # rows 0 and 1 are one item to the task: each has row 2 as its negative, and row 2 has both
    vectors = tower(codes_of([0, 1, 2])).numpy().astype(np.float64)
    same, other = math.exp(1 / 0.5), math.exp(vectors[0] @ vectors[2] / 0.5)
    expected = -(2 * math.log(same / (same + other)) + math.log(same / (same + 2 * other))) / 3
    assert view_loss(tower, [0, 1, 2]) == pytest.approx(expected, rel=1e-4)


def test_what_a_view_hides_does_not_tell_two_items_apart(tower):
    # rows 0 and 3 differ in t alone, which one of two complementary views hides; in that view they are alike
    for number in range(8):
        seed = tf.constant([number, 1])
        assert view_loss(tower, [0, 3], stages=(RandomMask(),), seed=seed) == pytest.approx(0, abs=1e-6)


def test_what_both_views_show_tells_two_items_apart(tower):
    stages = (IndependentRandomMask(mask_rate=0.3),)
    met = set()
    for number in range(12):
        seed = tf.constant([number, 1])
        task = ViewTask(SelfSupervision(objective=Contrastive(), augmentations=stages), FIELDS, CODES)
        shown_by_both = not task.views(codes_of([0, 3]), seed).masked.numpy()[:, 0, 1].any()
        met.add(shown_by_both)
        assert (view_loss(tower, [0, 3], stages=stages, seed=seed) > 1e-3) == shown_by_both
    assert met == {True, False}


@pytest.mark.parametrize("false_negatives", ["keep", "remove"])
def test_an_item_that_stands_twice_in_a_batch_is_no_negative_of_itself(false_negatives, tower):
    assert view_loss(tower, [2, 2], false_negatives) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("known", ["av", ""])
def test_a_feature_without_codes_such_as_a_history_always_tells_items_apart(known, tower):
    # rows 0 and 1 are alike, but as far as the task knows their histories are not
    assert view_loss(tower, [0, 1], known=known) == pytest.approx(math.log(2), rel=1e-5)


def test_an_emptied_bag_tells_nothing(tower):
    # rate 0.99 empties both bags in one view at least; a and v are equal in rows 0 and 3
    stages = (ValueDropout(rate=0.99),)
    for number in range(8):
        seed = tf.constant([number, 1])
        assert view_loss(tower, [0, 3], stages=stages, seed=seed) == pytest.approx(0, abs=1e-6)
