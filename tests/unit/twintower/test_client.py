"""The clients: their signatures, arguments that are refused before anything is sent, and a missing server."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from pathlib import Path

import pytest

from twintower import (
    AsyncClient,
    AsyncSession,
    Client,
    CoalescingClient,
    Condition,
    Event,
    FeedbackItem,
    FeedbackKind,
    Filter,
    HedgingPolicy,
    Query,
    RequestError,
    RetryPolicy,
    Session,
    SettingError,
    UnavailableError,
    Upsert,
)

ROOT = Path(__file__).parents[3]
QUERY = Query.for_entity("somebody")
LIKED = FeedbackItem("a", FeedbackKind.LIKED)
NO_SERVER = "127.0.0.1:1"


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


def test_the_client_for_threads_is_what_make_proto_makes_of_the_one_for_asyncio():
    spec = importlib.util.spec_from_file_location("blocking_client", ROOT / "proto" / "blocking_client.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    source, made = ((ROOT / "twintower" / name).read_text(encoding="utf-8") for name in ("aio.py", "client.py"))
    assert generator.blocking(source) == made


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Session, AsyncSession)])
def test_both_clients_have_the_same_methods_arguments_and_defaults(one, other):
    theirs = {name: str(signature).replace("Async", "") for name, signature in public(other).items()}
    assert {name: str(signature).replace("Async", "") for name, signature in public(one).items()} == theirs


def test_the_coalescing_client_changes_no_signature():
    assert public(CoalescingClient)["nearest_items"] == public(Client)["nearest_items"]


def test_every_argument_is_named_in_the_signature_and_has_a_line_in_the_documentation():
    for name, signature in public(Client).items():
        kinds = {parameter.kind for parameter in signature.parameters.values()}
        assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}, name


@pytest.fixture(scope="module")
def client():
    with Client(NO_SERVER) as made:
        yield made


WRONG = [
    (lambda to: to.nearest_items(QUERY, 2.5), "k: got 2.5, expected an integer"),
    (lambda to: to.nearest_items(QUERY, 2**31), "k: got 2147483648, expected an integer"),
    (lambda to: to.nearest_items(QUERY, True), "k: got True, expected an integer"),
    (lambda to: to.reformulate(QUERY, depth="3"), "depth: got '3', expected an integer"),
    (
        lambda to: to.reformulate(QUERY, feedback=[FeedbackItem("a", FeedbackKind.PSEUDO)]),
        "feedback.items[0].kind: got",
    ),
    (lambda to: to.reformulate(QUERY, feedback=[FeedbackItem("a", 1, "x")]), "feedback.items[0].position: got 'x'"),
    (lambda to: to.nearest_items(QUERY, filter={3: 1}), "filter: got 3, expected the name of a column"),
    (lambda to: to.nearest_items(QUERY, filter=Filter((Condition("a"),))), "query.filter.all_of[0]: got 0 rules"),
    (lambda to: to.batch_nearest_items([QUERY, Query.for_items("ab")]), "queries[1].items.item_ids: got the text 'ab'"),
    (lambda to: to.search_vectors("a"), "vectors: got 'a', expected numbers"),
    (lambda to: to.search_vectors([[1.0], [1.0, 2.0]]), "vectors: got [[1.0], [1.0, 2.0]], expected numbers"),
    (lambda to: to.upsert_items([Upsert("a", {}, [1.0])]), "items[0]: got features and a vector, expected one of them"),
    (lambda to: to.delete_items("ab"), "item_ids: got the text 'ab', expected a list of ids"),
    (lambda to: to.record_events([Event("a", "b", "c", value="x")]), "events[0].value: got 'x', expected a number"),
]


@pytest.mark.parametrize(("call", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_value_that_the_wire_cannot_carry_is_refused_by_its_path_before_it_is_sent(call, message, client):
    with pytest.raises(RequestError) as caught:
        call(client)
    assert message in str(caught.value)


def test_the_asyncio_client_refuses_the_same_values():
    async def messages() -> list[str]:
        found = []
        async with AsyncClient(NO_SERVER) as client:
            for call, _ in WRONG:
                with pytest.raises(RequestError) as caught:
                    await call(client)
                found.append(str(caught.value))
        return found

    assert all(expected in message for message, (_, expected) in zip(asyncio.run(messages()), WRONG, strict=True))


@pytest.mark.parametrize("timeout_s", [2.0, 10.0])
def test_without_a_server_a_call_fails_within_two_seconds_and_says_how_to_start_one(timeout_s):
    expected = rf"^no server at {NO_SERVER}; start one with: recsys serve RELEASES$"
    with Client(NO_SERVER, timeout_s=timeout_s) as client, pytest.raises(UnavailableError, match=expected):
        client.nearest_items(QUERY)

    async def call() -> None:
        async with AsyncClient(NO_SERVER, timeout_s=timeout_s) as client:
            await client.nearest_items(QUERY)

    with pytest.raises(UnavailableError, match=expected):
        asyncio.run(call())


@pytest.mark.parametrize("wrong", ["1", None, -1.0, float("nan"), float("inf"), 1e300])
def test_a_time_that_is_no_number_of_seconds_is_refused(wrong, client):
    calls = (
        lambda: Client(NO_SERVER, timeout_s=wrong),
        lambda: client.reload_release(timeout_s=wrong),
        lambda: client.session(QUERY, 5, session_s=wrong),
        lambda: client.wait_until_ready(wrong),
    )
    for call in calls:
        message = r"^(timeout|session)_s: got .*, expected a number of seconds, 0 to 1e\+09\.$"
        with pytest.raises(SettingError, match=message):
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
    with Client(NO_SERVER, token=12345) as client, pytest.raises(SettingError) as caught:
        client.release()
    assert str(caught.value) == "token: expected printable ASCII characters in one line."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RetryPolicy(max_attempts=0), "max_attempts: got 0, expected an integer between 1 and 5."),
        (lambda: RetryPolicy(max_attempts=9), "max_attempts: got 9, expected an integer between 1 and 5."),
        (lambda: RetryPolicy(initial_backoff_s=0), "initial_backoff_s: got 0, expected a number of seconds above 0."),
        (lambda: RetryPolicy(backoff_multiplier=0.5), "backoff_multiplier: got 0.5, expected a number >= 1."),
        (lambda: HedgingPolicy(0), "delay_s: got 0, expected a number of seconds above 0."),
        (lambda: HedgingPolicy(0.1, max_attempts=1), "max_attempts: got 1, expected an integer between 2 and 5."),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(make, message):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == message
