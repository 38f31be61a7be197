"""The client: arguments of a wrong kind are told by name, before anything is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from twintower.client import AsyncClient, Client
from twintower.errors import RequestError, SettingError
from twintower.types import Condition, Event, FeedbackItem, FeedbackKind, Filter, Query, Upsert

QUERY = Query(entity_id="somebody")
LIKED = FeedbackItem("a", FeedbackKind.LIKED)
NOBODY_LISTENS = "127.0.0.1:1"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(NOBODY_LISTENS) as made:
        yield made


WRONG = [
    (lambda to: to.reformulate({"entity_id": "a"}, 5), "query: got {'entity_id': 'a'}, expected Query"),
    (lambda to: to.reformulate(QUERY, None), "k: got None, expected a whole number of places"),
    (lambda to: to.reformulate(QUERY, 5, "abc"), "mentions: got 'abc', expected a list of FeedbackItem"),
    (lambda to: to.reformulate(QUERY, 5, None), "mentions: got None, expected a list of FeedbackItem"),
    (lambda to: to.reformulate(QUERY, 5, LIKED), "mentions: got FeedbackItem("),
    (lambda to: to.reformulate(QUERY, 5, [LIKED, "b"]), "mentions[1]: got 'b', expected FeedbackItem"),
    (lambda to: to.reformulate(QUERY, 5, [FeedbackItem("a", [])]), "mentions[0].kind: got [], expected FeedbackKind"),
    (lambda to: to.reformulate(QUERY, 5, pseudo="yes"), "pseudo: got 'yes', expected bool"),
    (lambda to: to.reformulate(QUERY, 5, depth="3"), "depth: got '3', expected a whole number of places"),
    (lambda to: to.reformulate(QUERY, 5, reformulator=3), "reformulator: got 3, expected str"),
    (lambda to: to.reformulate(QUERY, 5, where=3), "where: got 3, expected Mapping or Filter"),
    (lambda to: to.reformulate(QUERY, 5, depht=3), "depht: no argument named 'depht'. Did you mean 'depth'?"),
    (lambda to: to.nearest_items(Query(history=5), 5), "query.history: got 5, expected a list of str"),
    (lambda to: to.nearest_items(Query(vector=[1.0], filter="x"), 5), "query.filter: got 'x', expected Filter"),
    (lambda to: to.nearest_items(QUERY, 5, unit="me"), "unit: got 'me', expected ExperimentUnit"),
    (lambda to: to.nearest_items(QUERY, 5, diversity=3), "diversity: got 3, expected Diversity"),
    (lambda to: to.nearest_items(Query(filter=Filter((Condition("a", any_of=5),))), 5), "'int' object is not iterable"),
    (lambda to: to.batch_nearest_items(QUERY, 5), "queries: got Query(entity_"),
    (lambda to: to.batch_nearest_items([QUERY, "a"], 5), "queries[1]: got 'a', expected Query"),
    (lambda to: to.search_vectors("a", 5), "vectors: got 'a', expected numbers"),
    (lambda to: to.search_vectors([[1.0]], "5"), "k: got '5', expected a whole number of places"),
    (lambda to: to.search_vectors([[1.0], [1.0, 2.0]], 5), "vectors: got [[1.0], [1.0, 2.0]], expected numbers"),
    (lambda to: to.encode_query("a"), "query: got 'a', expected Query"),
    (lambda to: to.encode_query(QUERY, release_pin=3), "release_pin: got 3, expected str"),
    (lambda to: to.session("a", 5), "query: got 'a', expected Query"),
    (lambda to: to.release(release_label=3), "release_label: got 3, expected str"),
    (lambda to: to.reload_release(3), "release: got 3, expected str"),
    (lambda to: to.roll_back_release(label=3), "label: got 3, expected str"),
    (lambda to: to.upsert_items([{"item_id": "a"}]), "items[0]: got {'item_id': 'a'}, expected Upsert"),
    (lambda to: to.upsert_items([Upsert("a", features="x")]), "items[0].features: got 'x', expected Mapping or None"),
    (lambda to: to.delete_items(None), "item_ids: got None, expected a list of str"),
    (lambda to: to.record_events([3]), "events[0]: got 3, expected Event"),
    (
        lambda to: to.record_events([Event("a", "b", "c", time="now")]),
        "events[0].time: got 'now', expected datetime or",
    ),
]


@pytest.mark.parametrize(("call", "told"), WRONG, ids=[told.partition(",")[0] for _, told in WRONG])
def test_an_argument_of_a_wrong_kind_is_told_by_its_name(call: Callable[[Client], Any], told: str, client):
    with pytest.raises(RequestError) as caught:
        call(client)
    assert told in str(caught.value)


def test_the_asyncio_client_tells_the_same():
    async def told() -> list[str]:
        messages = []
        async with AsyncClient(NOBODY_LISTENS) as client:
            for call, _ in WRONG:
                with pytest.raises(RequestError) as caught:
                    await call(client)
                messages.append(str(caught.value))
        return messages

    assert all(expected in message for message, (_, expected) in zip(asyncio.run(told()), WRONG, strict=True))


def test_a_round_of_a_session_with_wrong_feedback_is_not_sent(client):
    told = r"^mentions: got 'abc', expected a list of FeedbackItem$"
    with client.session(QUERY, 5) as session, pytest.raises(RequestError, match=told):
        session.ask("abc")


@pytest.mark.parametrize("wrong", ["1", None, -1.0, float("nan"), float("inf"), 1e300])
def test_a_time_that_is_no_number_of_seconds_is_refused(wrong, client):
    calls = (
        lambda: Client(NOBODY_LISTENS, timeout_s=wrong),
        lambda: client.reload_release(timeout_s=wrong),
        lambda: client.session(QUERY, 5, session_s=wrong),
        lambda: client.wait_until_ready(wrong),
    )
    for call in calls:
        told = r"^(timeout|session)_s: got .*, expected a number of seconds, 0 to 1e\+09\.$"
        with pytest.raises(SettingError, match=told):
            call()


@pytest.mark.parametrize(
    "wrong",
    [50051, None, b"localhost:50051", "", "local host:50051", "localhost:50051\n", "localhost\0:50051", "\ud800:50051"],
)
def test_a_target_that_is_no_address_is_refused(wrong):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match=r"^target: got .*, expected `host:port`"):
            kind(wrong)


def test_a_token_that_is_no_text_is_refused_without_being_shown():
    with Client(NOBODY_LISTENS, token=12345) as client, pytest.raises(SettingError) as caught:
        client.release()
    assert str(caught.value) == "token: expected printable ASCII characters in one line."
