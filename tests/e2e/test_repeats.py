"""Where people come back to items, training adds their own items to the dense list, and serves what it evaluated."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recsys import config, pipeline
from recsys.cli import app
from recsys.data.prepare import prepare
from recsys.evaluation.report import load
from recsys.evaluation.verdict import verdict
from recsys.retrieval import Retriever
from tests.e2e.test_exposures import running
from tests.worlds import repeat_run, write_repeat_world
from twintower.types import Query, Repeats


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("repeats")
    write_repeat_world(made)
    return made


@pytest.fixture(scope="module")
def release(folder):
    return pipeline.train(config.from_tables(repeat_run(folder)), folder / "work", folder / "releases")


def test_own_items_take_the_first_places_and_the_report_judges_repeats_and_new_items_apart(release):
    assert json.loads((release.folder / "own" / "fusion.json").read_text())["weight"] > 0
    report = load(release.folder)
    found = {part: report.find("two_tower", "nDCG@5", part).value for part in ("all", "repeats", "new_items")}
    # Four of the five items that a user buys in a week are its staples, which it has bought every week.
    assert found["all"] > 0.6
    assert found["repeats"] > found["all"] > found["new_items"] > 0
    words = " ".join(verdict(report))
    assert "repeats, " in words
    assert "new_items, " in words


def test_what_is_served_is_what_the_history_of_all_the_data_says(release, folder):
    retriever = Retriever.load(release.folder)
    prepared = prepare(config.from_tables(repeat_run(folder)), folder / "work" / "repeats" / "prepared")
    row = prepared.queries["query_id"].to_pylist().index("user 7")
    everything = prepared.until("train", "validation", "test")
    own = everything.item_row[everything.query_row == row]
    now = int(everything.timestamp.max())
    ages = (now - everything.timestamp[everything.query_row == row]) / 86_400e6
    ids = prepared.items["item_id"].to_pylist()
    known = Query(entity_id="user 7")
    # The same meetings in a request, oldest first, give the same vector, own scores and answer.
    given = Query(history=[ids[item] for item in own], history_age_days=ages.tolist())
    encoded = retriever.encode([known, given]).vectors
    np.testing.assert_allclose(encoded[0], encoded[1], atol=1e-5)
    first, second = retriever.nearest([known, given], 10)
    assert first.item_ids == second.item_ids
    np.testing.assert_allclose(first.own_scores, second.own_scores, atol=1e-5)


def test_requests_choose_repeats_over_grpc_and_see_what_own_items_add(release, folder):
    retriever = Retriever.load(release.folder)
    rows = pq.read_table(folder / "interactions.parquet").to_pylist()
    met = {row["item_id"] for row in rows if row["user_id"] == "user 4"}
    with running(None, retriever) as (client, _):
        both, only, new = (
            client.nearest_items(Query(entity_id="user 4", repeats=each), 40) for each in ("allow", "only", "exclude")
        )
        fresh = client.nearest_items(Query(history=["item 1", "item 1"], history_age_days=[3.0, 1.0]), 40)
        runner = CliRunner()
        shown = runner.invoke(
            app, ["query", "--target", client.target, "--entity", "user 4", "--repeats", "only", "-k", "3"]
        )
    assert {item for item, own in zip(both.item_ids, both.own_scores, strict=True) if own} == met
    assert set(only.item_ids) == met
    assert not met & set(new.item_ids)
    assert new.own_scores is None
    assert len(both.item_ids) == 40
    assert [item for item, own in zip(fresh.item_ids, fresh.own_scores, strict=True) if own] == ["item 1"]
    assert shown.exit_code == 0, shown.output
    assert "own" in shown.output
    assert Repeats("only") == "only"
