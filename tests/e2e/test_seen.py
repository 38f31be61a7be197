"""What an entity has met is left out over gRPC in every kind of call, live events included, and the answer says so."""

from __future__ import annotations

import asyncio
import time

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from recsys.cli import app
from recsys.retrieval import Retriever
from tests.e2e.test_arms import serving
from tests.e2e.test_exposures import click, running
from tests.worlds import ITEMS, PER_USER, copy_of
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import RequestError
from twintower.types import Exclusions, ExperimentUnit, FeedbackItem, Query
from twintower.types import FeedbackKind as Kind

SEEN = Query(entity_id="user 4", exclude_seen=True)
INTERLEAVED = """
[experiments.mixed]
interleave = true
arms.control = { share = 0.5, reformulator = "identity" }
arms.other = { share = 0.5, reformulator = "average" }
"""


@pytest.fixture(scope="module")
def met(block_world) -> set[str]:
    rows = pq.read_table(block_world / "interactions.parquet").to_pylist()
    return {row["item_id"] for row in rows if row["user_id"] == "user 4"}


@pytest.fixture
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


def test_every_kind_of_call_leaves_out_what_the_release_stores_and_says_so(retriever, met):
    with running(None, retriever) as (client, _):
        liked = [FeedbackItem(next(iter(met)), Kind.LIKED)]
        rankings = [client.nearest_items(SEEN, ITEMS), *client.batch_nearest_items([SEEN, SEEN], ITEMS)]
        after_feedback = [client.reformulate(SEEN, ITEMS, liked, pseudo=True, depth=3).ranking]
        with client.session(SEEN, ITEMS) as session:
            rankings.append(session.reformulate().ranking)
            after_feedback.append(session.reformulate(liked).ranking)

        async def ask() -> None:
            async with AsyncClient(client.target, timeout_s=30.0) as other:
                rankings.append(await other.nearest_items(SEEN, ITEMS))

        asyncio.run(ask())
        assert client.nearest_items(Query(entity_id="user 4"), ITEMS).exclusions is None
    # The request of feedback names the liked item, which the release stores, too.
    for ranking, named in [(each, 0) for each in rankings] + [(each, 1) for each in after_feedback]:
        assert not met & set(ranking.item_ids)
        assert len(ranking.item_ids) == ITEMS - PER_USER
        assert ranking.exclusions == Exclusions(PER_USER, PER_USER, named, 0, 0, release_knows_entity=True)


def test_items_of_events_are_left_out_at_once_in_every_round_and_by_user(retriever, met, tmp_path):
    with running(tmp_path, retriever) as (client, _), client.session(SEEN, 5) as session:
        first = session.reformulate().ranking
        shown = client.nearest_items(SEEN, 5)
        assert shown.item_ids == first.item_ids
        clicked = shown.item_ids[0]
        client.record_events([click("e", shown.attribution_token, item_id=clicked)])
        again, round_2, other = client.nearest_items(SEEN, 5), session.reformulate().ranking, Query(entity_id="user 6")
        (batched,) = client.batch_nearest_items([SEEN], 5)
        for ranking in (again, round_2, batched):
            assert ranking.item_ids[:4] == shown.item_ids[1:]
            assert ranking.exclusions == Exclusions(PER_USER + 1, PER_USER, 0, 1, 0, release_knows_entity=True)
        assert client.nearest_items(other, 5, exclude_seen=True).exclusions.event_count == 0
        assert client.nearest_items(Query(entity_id="user 4"), ITEMS).exclusions is None


def test_the_user_of_the_unit_has_met_the_items_of_queries_without_an_entity(retriever, tmp_path):
    query, zoe = Query(features={"town": "north"}), ExperimentUnit("Zoë")
    with running(tmp_path, retriever) as (client, _):
        shown = client.nearest_items(query, 3, unit=zoe)
        client.record_events([click("e", shown.attribution_token, item_id=shown.item_ids[1])])
        again = client.nearest_items(query, 3, unit=zoe, exclude_seen=True)
        assert shown.item_ids[1] not in again.item_ids
        assert again.exclusions == Exclusions(1, 0, 0, 1, 0, release_knows_entity=False)
        for unit in (ExperimentUnit("Bob"), ExperimentUnit(session_id="Zoë")):
            assert client.nearest_items(query, 3, unit=unit, exclude_seen=True).exclusions.event_count == 0


def test_another_process_of_the_log_and_one_that_starts_later_know_the_events(retriever, tmp_path):
    with running(tmp_path, retriever) as (one, _), running(tmp_path, retriever) as (other, _):
        shown = one.nearest_items(SEEN, 2)
        one.record_events([click("e", shown.attribution_token, item_id=shown.item_ids[0])])
        deadline = time.monotonic() + 30
        while other.nearest_items(SEEN, 2).exclusions.event_count == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    with running(tmp_path, retriever) as (later, _):
        assert shown.item_ids[0] not in later.nearest_items(SEEN, ITEMS).item_ids


def test_ten_thousand_excluded_ids_join_what_was_seen(retriever, met):
    others = [f"item-ü{row}" for row in range(1, 30, 2)]
    query = Query(entity_id="user 4", exclude_seen=True, excluded_ids=[*others, *(f"no {n}" for n in range(9_985))])
    with running(None, retriever) as (client, _):
        ranking = client.nearest_items(query, ITEMS)
    assert not {*met, *others} & set(ranking.item_ids)
    assert ranking.exclusions == Exclusions(PER_USER + 15, PER_USER, 0, 0, 15, release_knows_entity=True)


def test_both_arms_of_an_interleaved_list_leave_out_what_was_seen(block_release, met, tmp_path):
    root = tmp_path / "releases"
    copy_of(block_release, root)
    with serving(root, INTERLEAVED) as (client, _, _):
        liked = [FeedbackItem(item_id, Kind.LIKED) for item_id in sorted(met)[:3]]
        answer = client.reformulate(SEEN, ITEMS, liked, unit=ExperimentUnit("user 4"))
    assert answer.ranking.arms == {"mixed": "interleaved"}
    assert not met & set(answer.ranking.item_ids)
    assert answer.ranking.exclusions.release_count == PER_USER


def test_ids_that_only_a_server_can_know_are_refused_by_the_client(retriever):
    with Client("127.0.0.1:1") as client, pytest.raises(RequestError, match=r"reported_ids: got 1 ids, expected none"):
        client.nearest_items(Query(entity_id="user 4", reported_ids=["x"]), 3)


def test_the_command_line_says_what_was_left_out_and_where_the_release_knows_nothing(retriever):
    def asked(server, *words):
        done = CliRunner().invoke(app, ["query", "--target", server.address, *words], env={"COLUMNS": "200"})
        assert done.exception is None, done.output
        return done.output

    with running(None, retriever) as (_, server):
        known = asked(server, "--entity", "user 4", "--exclude-seen", "--history", "item-ü1")
        assert f"Left out: {PER_USER + 1} items ({PER_USER} that the release stores for the entity, 1 of the" in known
        unknown = asked(server, "--entity", "nobody", "--exclude-seen", "--like", "item-ü3")
        assert "Left out: 1 item (1 of the request)." in unknown
        assert "The release stores nothing that this entity has met." in unknown
        assert "Left out" not in asked(server, "--entity", "user 4")
        assert "The release" not in asked(server, "--entity", "user 4", "--exclude", "item-ü1")
