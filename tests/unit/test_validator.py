"""What the validator of a training measures."""

from __future__ import annotations

from recsys import config
from recsys.data.prepare import prepare
from recsys.evaluation.held_out import held_out
from recsys.pipeline import Validator
from recsys.training.choosing import choose
from recsys.training.model import TwoTowerModel
from recsys.training.solutions import SolvedTables, solve
from tests.worlds import block_run

SETTINGS = {"regularization_weight": [20.0], "query_feature_weight": [1.0], "query_exponent": [0.0]}
ITEM = {"features": {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}}
SPLIT = {"kind": "cold_items", "test_rate": 0.2, "validation_rate": 0.2, "warm_rate": 0.15}


def mixed_world(block_world, folder, **cold_start):
    objective = {"kind": "ease", **SETTINGS, "cold_start": {"regularization_weight": [1.0], **cold_start}}
    history = {"kind": "history", "shared": False, "pooling": "sum", "min_count": 0}
    run = config.from_tables(
        block_run(
            block_world,
            query={"features": {"met": history}},
            item=ITEM,
            split=SPLIT,
            tower={"kind": "sum", "dim": 8},
            objective=objective,
            training={"validation_metric": "nDCG@10"},
        )
    )
    prepared = prepare(run, folder / "prepared")
    return run, prepared, Validator(run, held_out(run, prepared, "validation"))


def test_items_with_interactions_are_judged_in_rankings_that_show_new_items_too(block_world, tmp_path):
    run, prepared, validator = mixed_world(block_world, tmp_path)
    model = TwoTowerModel(prepared, run, steps=1)
    model.encode_items()
    solution = solve(run.objective, prepared, 8, 0, "train")
    tables, values = SolvedTables(model, prepared), []
    for cold_start in (None, run.objective.cold_start):
        tables.assign(solution, cold_start, 8)
        values.append((validator(model), validator.on_trained_items(model)))
    (all_without, trained_without), (all_with, trained_with) = values
    assert all_with > all_without  # new items are found
    assert trained_with < trained_without  # and take positions from the others


def test_what_new_items_cost_the_others_decides_the_length_of_their_vectors(block_world, tmp_path):
    run, prepared, validator = mixed_world(block_world, tmp_path, length=[1.0, 0.01], residual_shrinkage=[0.0])
    chosen, metrics = choose(run, prepared, validator)
    assert chosen.objective.cold_start.length == (0.01,)
    assert len(metrics) == 1  # by all items, with the settings that were chosen
    by_all, others = choose(run, prepared, lambda model: validator(model))
    assert by_all.objective.cold_start.length == (1.0,)
    assert metrics[0] < max(others)
