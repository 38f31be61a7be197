"""Evaluation cases know what came before them and nothing after."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import config
from recsys.data.prepare import prepare
from recsys.evaluation.held_out import held_out
from tests.worlds import DAY_US, block_run

DAYS = 20


def run_over_days(folder, **changes):
    """Return a run in which user u meets item d on day d, all items being known by their day."""
    users = [f"u{row}" for row in range(30)]
    pairs = [(user, f"i{day}", day) for user in users for day in range(DAYS)]
    pq.write_table(
        pa.table(
            {
                "user_id": [user for user, _, _ in pairs],
                "item_id": [item for _, item, _ in pairs],
                "time": pa.array([day * DAY_US for _, _, day in pairs], pa.timestamp("us", "UTC")),
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(pa.table({"item_id": [f"i{day}" for day in range(DAYS)]}), folder / "items.parquet")
    pq.write_table(pa.table({"user_id": users}), folder / "users.parquet")
    tables = block_run(
        folder,
        item={"features": {"id": {"kind": "id"}}},
        query={"features": {"recent": {"kind": "history", "length": DAYS}}},
        **changes,
    )
    return config.from_tables(tables)


def days_of_codes(prepared, codes):
    """Return the days of the items in a row of history codes."""
    encoder = prepared.query_encoders["recent"]
    known = set(encoder.vocabulary.known)
    of_code = {int(encoder.vocabulary.code(f"i{day}")): day for day in range(DAYS) if f"i{day}" in known}
    return [of_code[int(code)] for code in codes if int(code) in of_code]


def test_no_history_reaches_past_its_case_even_where_the_split_is_by_chance(tmp_path):
    run = run_over_days(tmp_path, split={"kind": "random", "test_rate": 0.3, "validation_rate": 0.1})
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    for place in range(len(test.cases)):
        first_asked = min(test.cases.relevant[place].tolist())
        assert all(day < first_asked for day in days_of_codes(prepared, test.codes["recent"][place]))


def test_a_split_by_time_keeps_all_of_the_past(tmp_path):
    run = run_over_days(tmp_path, split={"kind": "leave_last", "test_count": 1, "validation_count": 1})
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    for place in range(len(test.cases)):
        # day 19 is asked for; of the 19 days before it, newest first, 18 were trained on
        codes = test.codes["recent"][place]
        assert (codes >= 0).sum() == DAYS - 1
        assert days_of_codes(prepared, codes) == list(range(DAYS - 3, -1, -1))


def test_an_item_is_never_asked_to_be_its_own_neighbour(tmp_path):
    run = run_over_days(tmp_path)
    met = pq.read_table(tmp_path / "interactions.parquet")
    rows = np.arange(met.num_rows) % DAYS
    met = met.set_column(0, "user_id", pa.array([f"i{(row + shift) % DAYS}" for shift, row in enumerate(rows)]))
    pq.write_table(met, tmp_path / "interactions.parquet")
    tables = block_run(tmp_path, item={"features": {"id": {"kind": "id"}}}, query={"entity": "item"})
    tables["source"].pop("users")
    tables["split"] = {"kind": "random", "test_rate": 0.3}
    run = config.from_tables(tables)
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    for place, row in enumerate(test.query_rows):
        assert row not in test.cases.reachable[place]
        assert row in test.cases.excluded[place]
