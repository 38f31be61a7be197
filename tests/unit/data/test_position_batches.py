"""Each position of a history is a query whose items are those met at the next instant; nothing later is known there."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config
from recsys.data.batches import PositionBatches
from recsys.data.prepare import prepare
from recsys.errors import DataError
from recsys.forward import unpacked

USERS, ITEMS, POSITIONS = 12, 30, 7
HOUR_US = 3_600_000_000


def write(folder, baskets, timed=True):
    """Write interactions from `{user: [[item, ...] of the first hour, of the second, ...]}`."""
    rows = [(user, item, hour) for user, hours in baskets.items() for hour, items in enumerate(hours) for item in items]
    table = {"user_id": [f"u{user}" for user, _, _ in rows], "item_id": [f"i{item}" for _, item, _ in rows]}
    if timed:
        table["time"] = pa.array([hour * HOUR_US for _, _, hour in rows], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(table), folder / "interactions.parquet")
    pq.write_table(pa.table({"item_id": [f"i{item}" for item in range(ITEMS)]}), folder / "items.parquet")


def run_of(folder, timed=True, **history):
    source = {"kind": "parquet", "interactions": f"{folder}/interactions.parquet", "items": f"{folder}/items.parquet"}
    return config.from_tables(
        {
            "name": "order",
            "source": source | ({"timestamp_column": "time"} if timed else {}),
            "query": {
                "features": {
                    "who": {"kind": "id", "width": 4},
                    "met": {
                        "kind": "history",
                        "pooling": "transformer",
                        "width": 4,
                        "transformer": {"positions": POSITIONS},
                        **history,
                    },
                }
            },
            "item": {"features": {"id": {"kind": "id", "width": 4}}},
            "tower": {"kind": "sum", "dim": 4},
            "objective": {"kind": "softmax"},
            "split": {"kind": "leave_last"} if timed else {"kind": "random"},
            "training": {"epochs": 2, "batch_size": 3},
        }
    )


def users_of(batch, prepared):
    """The query row of each place in a batch."""
    row_of_code = {int(code): row for row, code in enumerate(prepared.query_codes["who"])}
    return np.array([row_of_code[int(code)] for code in batch["query"]["who"]])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Users with 1 to 12 baskets of 1 to 3 distinct items, so that some histories are longer than the transformer."""
    folder, random = tmp_path_factory.mktemp("baskets"), np.random.default_rng(4)
    baskets = {
        user: [
            random.choice(ITEMS, random.integers(1, 4), replace=False).tolist() for _ in range(random.integers(1, 13))
        ]
        for user in range(USERS)
    }
    write(folder, baskets)
    run = run_of(folder)
    return run, prepare(run, folder / "prepared")


def test_the_items_of_a_position_are_those_of_the_instant_after_its_newest_item(world):
    run, prepared = world
    made, train = PositionBatches(prepared, run), prepared.parts["train"]
    encoder = prepared.query_encoders["met"]
    row_of = {code: row for row, code in enumerate(encoder.vocabulary.codes_of(prepared.items["item_id"].to_pylist()))}
    events = {}
    for user, item, time in zip(train.query_row, train.item_row, train.timestamp, strict=True):
        events.setdefault(user, []).append((time, item))
    for step in range(made.steps):
        batch = made.batch(step)
        codes, _, ages = unpacked(batch["query"]["met"])
        users = users_of(batch, prepared)
        for query, (place, position) in enumerate(batch["position"]):
            known = [row_of[code] for code in codes[place, position:] if code >= 0][::-1]
            of_user = events[users[place]]
            # Everything known is the entity's past until an instant, without a gap; what was met there comes next.
            matches = [
                end
                for end in range(1, len(of_user))
                if [item for _, item in of_user[max(0, end - len(known)) : end]] == known
            ]
            expected = [
                {item for time, item in of_user if time == of_user[end][0]}
                for end in matches
                if of_user[end][0] > of_user[end - 1][0]
            ]
            found = set(batch["candidate_row"][batch["column"][batch["owner"] == query]].tolist())
            assert found in expected
        assert (np.diff(batch["owner"]) >= 0).all()
        assert batch["owner"].max() == len(batch["position"]) - 1
        assert (np.where(codes >= 0, ages, 0) >= 0).all()


def test_each_instant_but_the_first_of_a_short_history_is_found_once_an_epoch(world):
    run, prepared = world
    made, train = PositionBatches(prepared, run), prepared.parts["train"]
    counts = np.zeros(prepared.query_count, int)
    for step in range(made.steps_per_epoch):
        batch = made.batch(step)
        users = users_of(batch, prepared)
        np.add.at(counts, users[batch["position"][batch["owner"], 0]], 1)
    for user in np.flatnonzero(counts):
        times, items = train.timestamp[train.query_row == user], train.item_row[train.query_row == user]
        if len(times) <= POSITIONS:
            later = times > times[0]
            assert counts[user] == len(set(zip(times[later], items[later], strict=True)))


def test_a_batch_depends_on_seed_and_step_alone(world):
    run, prepared = world
    one, other = PositionBatches(prepared, run), PositionBatches(prepared, run)
    for step in reversed(range(one.steps)):
        other.batch(step)
    for step in range(one.steps):
        for name, values in one.batch(step).items():
            again = other.batch(step)[name]
            if name == "query":
                np.testing.assert_array_equal(values["met"], again["met"])
            else:
                np.testing.assert_array_equal(values, again)


def test_epochs_take_different_parts_of_a_history_that_is_too_long(tmp_path):
    write(tmp_path, {0: [[hour % ITEMS] for hour in range(60)], 1: [[1], [2], [3], [4]]})
    run = run_of(tmp_path)
    made = PositionBatches(prepare(run, tmp_path / "prepared"), run)
    seen = {tuple(made.batch(step)["query"]["met"][0, :, 0]) for step in range(made.steps)}
    assert len(seen) == made.steps == 2


@pytest.mark.parametrize(
    ("baskets", "timed", "rule"),
    [
        ({user: [[1], [2], [3]] for user in range(9)}, False, "a source with times"),
        ({user: [[1, 2, 3]] for user in range(9)}, True, "at least one to learn the order from"),
    ],
    ids=["no times", "one instant each"],
)
def test_data_without_order_are_refused(baskets, timed, rule, tmp_path):
    write(tmp_path, baskets, timed)
    run = run_of(tmp_path, timed)
    with pytest.raises(DataError, match=rule):
        PositionBatches(prepare(run, tmp_path / "prepared"), run)
