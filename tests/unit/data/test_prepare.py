"""Preparing: thinned training data, and vocabularies that fit the tables they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config
from recsys.config import Run
from recsys.data.batches import TrainingBatches
from recsys.data.encoders import table_key
from recsys.data.prepare import Prepared, count_leaks, prepare
from recsys.errors import DataError
from recsys.objectives.all_items import AllItems
from recsys.objectives.dlae import Dlae
from recsys.training.loop import compiled, train_steps
from recsys.types import Interactions
from tests.worlds import DAY_US, block_run

PLACES = ("query_row", "item_row", "timestamp")


def rows_of(part: Interactions) -> list[tuple[int, ...]]:
    return list(zip(*(np.asarray(getattr(part, name)).tolist() for name in PLACES), strict=True))


def thinned(block_world: Path, folder: Path, rate: float, **changes: object) -> Prepared:
    run = config.from_tables(block_run(block_world, data={"training_rate": rate}, **changes))
    return prepare(run, folder)


def test_a_training_rate_keeps_its_share_of_the_training_interactions_and_their_order(block_world, tmp_path):
    whole = rows_of(thinned(block_world, tmp_path / "whole", 1.0).parts["train"])
    kept = rows_of(thinned(block_world, tmp_path / "kept", 0.3).parts["train"])
    # 60 users with 12 interactions, of which one is for the test and one for validation
    assert len(whole) == 600
    assert len(kept) == 180
    assert len(set(kept)) == 180
    assert set(kept) < set(whole)
    assert kept == sorted(kept, key=lambda row: (row[0], row[2]))


def test_a_training_rate_leaves_what_is_held_out_as_it_is(block_world, tmp_path):
    whole, kept = (thinned(block_world, tmp_path / str(rate), rate) for rate in (1.0, 0.1))
    for part in ("validation", "test"):
        assert len(whole.parts[part]) == 60
        assert rows_of(kept.parts[part]) == rows_of(whole.parts[part])


def test_one_seed_keeps_the_same_interactions_and_another_seed_others(block_world, tmp_path):
    one, again, other = (
        rows_of(thinned(block_world, tmp_path / name, 0.3, seed=seed).parts["train"])
        for name, seed in (("one", 3), ("again", 3), ("other", 4))
    )
    assert one == again
    assert one != other


def test_what_is_left_out_of_training_counts_for_nothing(block_world, tmp_path):
    kept = thinned(block_world, tmp_path, 0.3)
    assert kept.item_counts.sum() == 180
    thin = thinned(block_world, tmp_path, 0.02)
    # 12 interactions: at most that many of the 40 items and 60 users have vectors of their own
    assert len(thin.item_encoders["id"].vocabulary.known) == (thin.item_counts > 0).sum() <= 12
    assert len(thin.query_encoders["who"].vocabulary.known) <= 12


def test_a_training_rate_that_leaves_nothing_is_refused(block_world, tmp_path):
    with pytest.raises(DataError, match="got 1 training interactions, expected at least 2"):
        thinned(block_world, tmp_path, 0.002)


def item_to_item(folder: Path, **training: object) -> Run:
    """Return a run from item to item in which items 0 to 9 only ask, 10 to 19 do both, 20 to 29 are only met."""
    random = np.random.default_rng(5)
    pairs = [
        (int(asking), int(met)) for asking in range(20) for met in 10 + random.permutation(20)[:6] if met != asking
    ]
    items = [f"item {row}" for row in range(30)]
    pq.write_table(
        pa.table(
            {
                "from_id": [items[asking] for asking, _ in pairs],
                "item_id": [items[met] for _, met in pairs],
                "time": pa.array([place * DAY_US for place in range(len(pairs))], pa.timestamp("us", "UTC")),
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(
        pa.table({"item_id": items, "group": [f"group {row % 3}" for row in range(30)]}), folder / "items.parquet"
    )
    source = {
        "kind": "parquet", "interactions": str(folder / "interactions.parquet"), "items": str(folder / "items.parquet"),
        "query_column": "from_id", "timestamp_column": "time",
    }  # fmt: skip
    features = {"id": {"kind": "id", "width": 8}, "group": {"kind": "categorical", "width": 4}}
    tables = block_run(
        folder,
        source=source,
        query={"entity": "item"},
        item={"features": features},
        training={"epochs": 1, "batch_size": 32, "deterministic": True} | training,
    )
    return config.from_tables(tables)


def known_ids(prepared: Prepared, side: str) -> set[str]:
    encoders = {"item": prepared.item_encoders, "query": prepared.query_encoders}[side]
    return set(encoders["id"].vocabulary.known)


def losses(run: Run, prepared: Prepared) -> list[float]:
    batches = TrainingBatches(prepared, run, uniform_negatives=0, mask_positives=True)
    return [float(loss) for loss in train_steps(compiled(run, prepared, batches), batches)]


def test_an_id_table_that_both_sides_share_has_a_row_for_each_id_that_either_side_met(tmp_path):
    run = item_to_item(tmp_path, share_tables=True)
    prepared = prepare(run, tmp_path / "prepared")
    train = prepared.parts["train"]
    met = {f"item {row}" for row in {*train.query_row.tolist(), *train.item_row.tolist()}}
    assert known_ids(prepared, "query") == known_ids(prepared, "item") == met
    # one code for one id, whichever side it stands on
    np.testing.assert_array_equal(prepared.query_codes["id"], prepared.item_codes["id"])
    assert np.isfinite(losses(run, prepared)).all()


def test_id_tables_that_are_not_shared_know_their_own_side(tmp_path):
    run = item_to_item(tmp_path, share_tables=False)
    prepared = prepare(run, tmp_path / "prepared")
    train = prepared.parts["train"]
    assert known_ids(prepared, "query") == {f"item {row}" for row in set(train.query_row.tolist())}
    assert known_ids(prepared, "item") == {f"item {row}" for row in set(train.item_row.tolist())}
    assert known_ids(prepared, "query") != known_ids(prepared, "item")
    assert np.isfinite(losses(run, prepared)).all()


@pytest.mark.parametrize("objective", [Dlae(), AllItems(start="dlae")], ids=["solved", "started"])
def test_a_closed_form_has_a_table_of_each_side(objective, tmp_path):
    run = item_to_item(tmp_path, share_tables=True)
    assert table_key(replace(run, objective=AllItems()), "query", "group") == "item/group"
    assert table_key(replace(run, objective=objective), "query", "group") == "query/group"


def test_data_that_was_prepared_for_shared_tables_is_not_taken_for_others(tmp_path):
    shared, own = item_to_item(tmp_path, share_tables=True), item_to_item(tmp_path, share_tables=False)
    prepare(shared, tmp_path / "prepared")
    again = prepare(own, tmp_path / "prepared")
    assert known_ids(again, "query") != known_ids(again, "item")


def test_a_column_that_cannot_be_filtered_by_is_told_before_training_also_of_data_prepared_before(
    block_world, tmp_path
):
    tables = block_run(block_world)
    prepare(config.from_tables(tables), tmp_path / "prepared")
    for column, told in (("vector", "item.filters: vector: got "), ("colour", "no column named 'colour'")):
        run = config.from_tables(tables | {"item": tables["item"] | {"filters": [column]}})
        with pytest.raises(DataError, match=told):
            prepare(run, tmp_path / "prepared")


@pytest.mark.parametrize(("heaviest", "is_warned"), [(1e29, True), (1e5, False)])
def test_weights_of_which_few_outweigh_all_others_are_warned_of(block_world, tmp_path, heaviest, is_warned):
    interactions = pq.read_table(block_world / "interactions.parquet")
    weight = np.ones(len(interactions))
    weight[0] = heaviest
    pq.write_table(interactions.append_column("much", pa.array(weight)), tmp_path / "weighted.parquet")
    tables = block_run(block_world)
    tables["source"] |= {"interactions": str(tmp_path / "weighted.parquet"), "weight_column": "much"}
    warnings = prepare(config.from_tables(tables), tmp_path / "prepared").warnings
    assert any("weights lie between 1 and 1e+29" in warning for warning in warnings) == is_warned


def test_what_looks_wrong_in_the_data_is_warned_about_each_time_it_is_prepared(block_world, tmp_path, capsys):
    users = pq.read_table(block_world / "users.parquet")
    strangers = users.set_column(0, "user_id", pa.array([f"another {row}" for row in range(users.num_rows)]))
    pq.write_table(strangers, tmp_path / "users.parquet")
    tables = block_run(block_world)
    tables["source"]["users"] = str(tmp_path / "users.parquet")
    run = config.from_tables(tables)

    for _ in range(2):  # the second time from the prepared arrays
        prepare(run, tmp_path / "prepared")
        printed = capsys.readouterr().err
        assert "warning: The users table lacks the ids of 60 of 60 query entities" in printed
        assert "they name 'user 0', it has 'another 0'" in printed
        assert "warning: 720 times are before 1971" in printed


@pytest.mark.parametrize(
    ("noise", "sign", "is_leak"),
    # noise of 20 and 200 beside a standard deviation of 87: correlations of .97 and .40
    [(0, 1, True), (0, -1, True), (20, 1, True), (200, 1, False)],
)
def test_a_column_that_ranks_items_nearly_as_their_interactions_do_is_a_leak(noise, sign, is_leak):
    counts = np.arange(300)
    values = sign * counts + noise * np.random.default_rng(0).standard_normal(300)
    items = pa.table({"item_id": [f"i{row}" for row in range(300)], "sold": values, "title": ["x"] * 300})
    found = list(count_leaks(items, counts))
    assert len(found) == is_leak
    assert all("'sold'" in sentence for sentence in found)
