"""Filters, seen items and diversity over real gRPC on a trained release, and from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from typer.testing import CliRunner

from recsys.cli import app
from recsys.retrieval import Retriever
from serving.server import Server
from tests.e2e.test_wire import refusal, running, stub
from tests.worlds import ITEMS, PER_USER
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import Condition, Diversity, FeedbackItem, FeedbackKind, Filter, FilterType, Query, SearchPlan
from twintower.v1 import recommendation_service_pb2 as pb

VECTOR = np.eye(8, dtype=np.float32)[0]
QUERY = Query(vector=VECTOR)
SWEET = {"taste": "sweet"}


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def server(retriever) -> Iterator[Server]:
    with running(retriever, max_conditions=2, max_filter_values=3) as up:
        yield up


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    with Client(server.address, timeout_s=10.0) as ready:
        yield ready


def rows_of(ranking):
    return [int(item_id.removeprefix("item-ü")) for item_id in ranking.item_ids]


def test_the_release_says_what_can_be_filtered_by(client):
    assert client.release().filter_fields == {
        "price": FilterType.NUMBER,
        "tags": FilterType.STRINGS,
        "taste": FilterType.STRING,
    }


def test_an_answer_holds_what_the_conditions_let_pass_and_says_how_it_was_found(client):
    ranking = client.nearest_items(QUERY, ITEMS, filter={"tags": ["tag 1", "tag 3"], "price <=": 7})
    # odd rows have one of the tags; 5 has no price
    assert sorted(rows_of(ranking)) == [1, 3, 7]
    assert (ranking.plan, ranking.candidate_count) == (SearchPlan.EXACT_SUBSET, 3)
    assert (ranking.exhausted, ranking.degraded) == (True, False)


@pytest.mark.parametrize(
    "conditions",
    [{"taste": "sweet"}, {"taste !=": "sweet"}, {"price >": 3, "price <": 9.5}, {"price": [1, 2]}, {"price !=": 4}],
)
def test_the_wire_changes_nothing_of_a_filter(client, retriever, conditions):
    (expected,) = retriever.nearest([Query(vector=VECTOR, filter=parse_filter(conditions))], ITEMS)
    assert client.nearest_items(QUERY, ITEMS, filter=conditions).item_ids == expected.item_ids
    assert client.nearest_items(QUERY, ITEMS, filter=parse_filter(conditions)).item_ids == expected.item_ids


def test_further_conditions_come_to_those_of_each_query(client):
    asked = [Query(vector=VECTOR, filter=parse_filter({"tags": f"tag {code}"})) for code in range(4)]
    rankings = client.batch_nearest_items(asked, ITEMS, filter={"taste": "salt"})
    assert [sorted(rows_of(ranking)) for ranking in rankings] == [
        list(range(0, ITEMS, 4)), [], list(range(2, ITEMS, 4)), []
    ]  # fmt: skip


def test_an_answer_without_conditions_says_that_the_index_gave_it(client):
    ranking = client.nearest_items(QUERY, 3)
    assert (ranking.plan, ranking.candidate_count, ranking.exhausted) == (SearchPlan.INDEX, 3, False)
    assert client.nearest_items(Query(entity_id="nobody"), 3, filter=SWEET).plan is None


def test_seen_items_are_left_out_whether_the_query_says_so_or_the_call(client):
    known = client.nearest_items(Query(entity_id="user 4"), ITEMS)
    by_call = client.nearest_items(Query(entity_id="user 4"), ITEMS, exclude_seen=True)
    by_query = client.nearest_items(Query(entity_id="user 4", exclude_seen=True), ITEMS)
    assert by_call.item_ids == by_query.item_ids
    # the release stores all of the items that each user has met
    assert len(known.item_ids) - len(by_call.item_ids) == PER_USER


def test_answers_may_be_mixed(client):
    ranking = client.nearest_items(QUERY, 6, diversity=Diversity("taste", 3))
    assert sorted(row % 2 for row in rows_of(ranking)) == [0, 0, 0, 1, 1, 1]
    spread = client.nearest_items(QUERY, 6, diversity=Diversity(mmr_weight=0.8))
    assert spread.item_ids != client.nearest_items(QUERY, 6).item_ids


def test_feedback_and_sessions_stay_within_the_filter(client):
    how = {"filter": SWEET, "diversity": Diversity("tags", 3), "depth": 2}
    once = client.reformulate(QUERY, 8, pseudo=True, **how)
    with client.session(QUERY, 8, **how) as session:
        rounds = [
            session.reformulate(pseudo=True),
            session.reformulate([FeedbackItem("item-ü3", FeedbackKind.DISLIKED)]),
        ]
    assert rounds[0].ranking.item_ids == once.ranking.item_ids
    for answer in rounds:
        # every item has the tag "all", so three of it are all there may be
        assert len(answer.ranking.item_ids) == 3
        assert all(row % 2 for row in rows_of(answer.ranking))


def test_the_asyncio_client_narrows_as_the_other_does(server, client):
    async def ask():
        async with AsyncClient(server.address, timeout_s=10.0) as other:
            single = await other.nearest_items(QUERY, 5, filter=SWEET, diversity=Diversity(mmr_weight=0.5))
            (batched,) = await other.batch_nearest_items([Query(entity_id="user 4")], 5, exclude_seen=True)
            moved = await other.reformulate(QUERY, 5, pseudo=True, depth=2, filter=SWEET)
            return single, batched, moved.ranking

    single, batched, moved = asyncio.run(ask())
    expected = client.nearest_items(QUERY, 5, filter=SWEET, diversity=Diversity(mmr_weight=0.5))
    assert single.item_ids == expected.item_ids
    assert batched.item_ids == client.nearest_items(Query(entity_id="user 4"), 5, exclude_seen=True).item_ids
    assert all(row % 2 for row in rows_of(moved))


def condition(**rule):
    return pb.NearestItemsRequest(
        query=pb.Query(vector=pb.Vector(float32_le=VECTOR.tobytes()), filter=pb.Filter(all_of=[pb.Condition(**rule)])),
        k=3,
    )


def values(*kinds):
    return pb.ColumnValueList(values=[pb.ColumnValue(**kind) for kind in kinds])


STRINGS = values({"string_value": "sweet"})
ONE, TWO = pb.ColumnValue(int64_value=1), pb.ColumnValue(decimal_value="2.00")


@pytest.mark.parametrize(
    ("rule", "field", "reason"),
    [
        ({"field": "taste"}, "", "got no rule, expected one of: any_of, none_of, range"),
        (
            {"field": "taste", "any_of": values({"list_value": STRINGS})},
            ".any_of[0]",
            "got list_value, expected one of",
        ),
        (
            {"field": "taste", "any_of": values({})},
            ".any_of[0]",
            "got nothing, expected one of: string_value",
        ),
        ({"field": "taste", "none_of": values()}, ".none_of", "got none, expected at least 1"),
        ({"field": "tsate", "any_of": STRINGS}, ".field", "Did you mean 'taste'?"),
        ({"field": "price", "any_of": STRINGS}, ".any_of[0]", "got 'sweet', expected a number"),
        (
            {"field": "price", "any_of": values({"decimal_value": "1e5"})},
            ".any_of[0].decimal_value",
            "got '1e5', expected digits such as 19.99, at most 76 on either side of the point",
        ),
        ({"field": "price", "none_of": values({"decimal_value": "1" * 77})}, ".none_of[0].decimal_value", "got '111"),
        ({"field": "price", "range": pb.Range()}, ".range", "got no bound, expected at least one of: minimum"),
        ({"field": "price", "range": pb.Range(minimum=pb.ColumnValue())}, ".range.minimum", "got nothing, expected"),
        ({"field": "taste", "range": pb.Range(minimum=ONE)}, ".range", "'taste' holds no numbers or times"),
        ({"field": "price", "range": pb.Range(minimum=TWO, maximum=ONE)}, ".range", "the lower bound first"),
    ],
)
def test_a_condition_that_makes_no_sense_names_its_field(server, rule, field, reason):
    code, details = refusal(lambda: stub(server).NearestItems(condition(**rule)))
    (violation,) = details[error_details_pb2.BadRequest].field_violations
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert violation.field == f"query.filter.all_of[0]{field}"
    assert reason in violation.description


def test_conditions_and_their_values_are_limited(client):
    many = Filter((Condition("price", minimum=1.0),) * 3)
    with pytest.raises(RequestError, match=r"query\.filter\.all_of: got 3 conditions, expected at most 2"):
        client.nearest_items(QUERY, 3, filter=many)
    with pytest.raises(
        RequestError, match=r"queries\[0\]\.filter\.all_of\[0\]\.any_of: got 4 values, expected at most 3"
    ):
        client.batch_nearest_items([QUERY], 3, filter={"price": [1, 2, 3, 4]})


def test_a_diversity_that_cannot_be_had_names_its_field(client):
    with pytest.raises(RequestError, match=r"diversity\.crowding_field: no column to filter by named 'colour'"):
        client.nearest_items(QUERY, 3, diversity=Diversity("colour", 1))
    with pytest.raises(RequestError, match=r"diversity\.mmr_weight: got nan, expected 0 to 1"):
        client.reformulate(QUERY, 3, diversity=Diversity(mmr_weight=float("nan")))
    with (
        pytest.raises(RequestError, match=r"begin\.diversity\.max_per_value: got 0, expected >= 1"),
        client.session(QUERY, 3, diversity=Diversity("taste")) as session,
    ):
        session.reformulate()


@pytest.mark.parametrize(
    ("narrowing", "message"),
    [
        ({"filter": {"price": [None]}}, r"filter\['price'\]: got None"),
        ({"filter": Filter((Condition("price"),))}, r"query\.filter\.all_of\[0\]: got 0 rules"),
        ({"filter": Filter((Condition("price", any_of=(b"a",)),))}, r"any_of\[0\]: got b'a', expected a string"),
        (
            {"filter": Filter((Condition("taste", any_of=("\ud800",)),))},
            r"any_of\[0\]: got '\\ud800', expected a string",
        ),
        ({"filter": {"price >=": 10**400}}, r"range\.minimum: got 1000.*or a number of at most 76 digits"),
        ({"diversity": Diversity("taste", 1.5)}, r"diversity\.max_per_value: got 1\.5, expected a whole number"),
        ({"diversity": Diversity("taste", 2**40)}, r"diversity\.max_per_value: got \d+, expected a whole number"),
        ({"diversity": Diversity(3, 1)}, r"diversity\.crowding_field: got 3, expected a column's name"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_before_it_is_sent(client, narrowing, message):
    with pytest.raises(RequestError, match=message):
        client.nearest_items(QUERY, 3, **narrowing)


def asked(server: Server, *words: str) -> str:
    """Return what `recsys query` prints of a query by vector."""
    command = ["query", "--target", server.address, "--vector", "1,0,0,0,0,0,0,0", *words]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exception is None, done.output
    return done.output


def test_the_command_line_reads_values_as_the_columns_hold_them(server):
    words = asked(server, "-k", "40", "--where", "tags=tag 1,tag 3", "--where", "price<=7").split()
    assert {word for word in words if word.startswith("item-ü")} == {"item-ü1", "item-ü3", "item-ü7"}
    assert "exact_subset of 3; no further item may be shown" in " ".join(words)
    assert "salt" not in asked(server, "--where", "taste!=salt", "--mmr", "0.3", "--exclude-seen")
    mixed = asked(server, "--crowding", "taste:1")
    assert (mixed.count("salt"), mixed.count("sweet")) == (1, 1)
    assert "sweet" not in asked(server, "--pseudo", "--depth", "2", "--where", 'taste=["salt"]')


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "taste"], "--where: got 'taste', expected COLUMN=VALUE, or != >= > <= < instead of ="),
        (["--where", "tsate=salt"], "--where: no column to filter by named 'tsate'. Did you mean 'taste'?"),
        (["--where", "price=cheap"], "--where: got 'price=cheap', expected a number"),
        (["--where", "price>=1,2"], "--where: filter['price >=']: got [1, 2], expected text, a number"),
        (["--where", "taste>=1"], "query.filter.all_of[0].range"),
        (["--crowding", "taste"], "--crowding: got 'taste', expected COLUMN:N, such as genre:2"),
        (["--mmr", "2"], "diversity.mmr_weight: got 2.0, expected 0 to 1"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_condition(server, words, message):
    done = CliRunner().invoke(app, ["query", "--target", server.address, "--vector", "1,0,0,0,0,0,0,0", *words])
    assert message in str(done.exception)
