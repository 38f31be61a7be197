"""Evaluation cases know what came before them and nothing after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config, registry
from recsys.data.decisions import decide
from recsys.data.prepare import prepare
from recsys.data.repeats import is_repeat_consumption
from recsys.evaluation.held_out import held_out
from tests.worlds import DAY_US, POOLED, block_run, repeat_run, write_block_world, write_repeat_world

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
        query={"features": {"recent": {"kind": "history", "length": DAYS, **POOLED}}},
        **changes,
    )
    return config.from_tables(tables)


def days_of_codes(prepared, codes):
    """Return the days of the items in a row of history codes."""
    encoder = prepared.query_encoders["recent"]
    known = set(encoder.vocabulary.known)
    of_code = {int(encoder.vocabulary.code(f"i{day}")): day for day in range(DAYS) if f"i{day}" in known}
    return [of_code[int(code)] for code in codes if int(code) in of_code]


@pytest.mark.parametrize("kind", registry.names("splits"))
def test_the_histories_of_the_model_and_of_the_baselines_are_those_that_the_split_allows(tmp_path, kind):
    run = run_over_days(tmp_path, split={"kind": kind})
    prepared = prepare(run, tmp_path / "prepared")
    for part, earlier in (("validation", ("train",)), ("test", ("train", "validation"))):
        asked = held_out(run, prepared, part)
        assert len(asked.cases) > 0
        trained = {int(row) for row in np.unique(prepared.parts["train"].item_row)}
        for place, query_row in enumerate(asked.query_rows):
            met = prepared.positives(*earlier)[int(query_row)]
            if run.split.cuts_in_time:
                met = [day for day in met if day < min(asked.cases.relevant[place])]
            assert sorted(asked.histories.counts[[place]].indices) == sorted(met)
            # newest first, without the items that no training interaction gave a place in the vocabulary
            expected = sorted(trained & {int(day) for day in met}, reverse=True)
            assert days_of_codes(prepared, asked.codes["recent"][place, :, 0]) == expected


def test_a_split_by_chance_asks_with_all_that_trains_also_what_came_later(tmp_path):
    run = run_over_days(tmp_path, split={"kind": "random", "test_rate": 0.3, "validation_rate": 0.0})
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    # of 20 days, those that are not asked for
    assert (test.histories.counts.getnnz(axis=1) == DAYS - test.cases.relevant.sizes).all()
    assert "also those after" in test.cases.history


def test_what_is_met_at_the_instant_of_a_held_out_interaction_is_in_no_history(tmp_path):
    run = run_over_days(tmp_path, split={"kind": "leave_last"})
    met = pq.read_table(tmp_path / "interactions.parquet")
    # all of a user's last three days are one basket; the last two items are held out
    days = np.minimum(np.arange(met.num_rows) % DAYS, DAYS - 3)
    met = met.set_column(2, "time", pa.array(days * DAY_US).cast(pa.timestamp("us", "UTC")))
    pq.write_table(met, tmp_path / "interactions.parquet")
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    assert (test.histories.counts.getnnz(axis=1) == DAYS - 3).all()
    assert all(max(days_of_codes(prepared, codes)) < DAYS - 3 for codes in test.codes["recent"][..., 0])


def test_a_split_by_time_keeps_all_of_the_past(tmp_path):
    run = run_over_days(tmp_path, split={"kind": "leave_last", "test_count": 1, "validation_count": 1})
    prepared = prepare(run, tmp_path / "prepared")
    test = held_out(run, prepared, "test")
    for place in range(len(test.cases)):
        # day 19 is asked for; of the 19 days before it, newest first, 18 were trained on
        codes = test.codes["recent"][place, :, 0]
        assert (codes >= 0).sum() == DAYS - 1
        assert days_of_codes(prepared, codes) == list(range(DAYS - 3, -1, -1))


@pytest.mark.parametrize("given", [None, False, True])
@pytest.mark.parametrize(
    ("write", "tables", "repeats"), [(write_block_world, block_run, False), (write_repeat_world, repeat_run, True)]
)
def test_what_an_entity_has_met_is_left_out_where_the_run_says_so_or_where_it_does_not_and_nobody_comes_back(
    tmp_path, given, write, tables, repeats
):
    write(tmp_path)
    run = config.from_tables(tables(tmp_path))
    run = replace(run, evaluation=replace(run.evaluation, exclude_seen=given))
    prepared = prepare(run, tmp_path / "prepared")
    expected = not repeats if given is None else given
    decided, sentences = decide(run, prepared)
    assert decided.evaluation.exclude_seen is expected
    assert any(f"evaluation.exclude_seen: {str(expected).lower()}," in each for each in sentences) == (given is None)
    for asked in (run, decided):
        cases = held_out(asked, prepared, "test").cases
        assert (cases.excluded is not None) == expected
        assert (cases.known is None) == expected


def test_the_share_of_the_training_rows_that_is_kept_does_not_decide_whether_repeats_count(tmp_path):
    write_repeat_world(tmp_path)
    tables = repeat_run(tmp_path) | {"data": {"training_rate": 0.02}}
    run = config.from_tables(tables)
    prepared = prepare(run, tmp_path / "prepared")
    assert not is_repeat_consumption(prepared.parts["train"])
    assert decide(run, prepared)[0].evaluation.exclude_seen is False


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


def test_how_long_a_closed_form_takes_is_said_where_it_takes_long(tmp_path, monkeypatch):
    write_block_world(tmp_path)
    run = config.from_tables(
        block_run(tmp_path)
        | {
            "query": {"features": {"met": {"kind": "history"}}},
            "item": {"features": {"id": {"kind": "id"}}},
            "objective": {"kind": "ease"},
            "tower": {"kind": "sum"},
        }
    )
    prepared = prepare(run, tmp_path / "prepared")
    assert not any("GiB" in each for each in decide(run, prepared)[1])
    monkeypatch.setattr("recsys.data.decisions.LONG_S", 0)
    # Four weights and three exponents to try, the length of the vectors, and the refit.
    assert any("9 solutions" in each and "GiB" in each for each in decide(run, prepared)[1])
