"""The service over real gRPC, in this process, on a free port: what goes over the wire and what comes back."""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from recsys.errors import DataError, ReleaseError, ShapeError
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings
from tests.e2e.exact_retriever import FINGERPRINT, BrokenRetriever, ExactRetriever, GatedRetriever
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.coalescing import CoalescingClient
from twintower.errors import (
    DeadlineError,
    MissingError,
    ReleasePinError,
    RequestError,
    ServerError,
    SettingError,
    TwintowerError,
    UnavailableError,
)
from twintower.types import ExperimentUnit, Origin, Query
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

EAST = np.array([1, 0], np.float32)
ALONE = Query(vector=EAST, excluded_ids=["no item"])
"""A query that leaves something out is worked on by threads, alone."""
SERVICE = "twintower.v1.RecommendationService"


@contextmanager
def running(retriever: Any = None, *, log: io.BytesIO | None = None, **settings: Any) -> Iterator[Server]:
    """A server on a free port; with a retriever it is ready."""
    server = Server(ServerSettings(**{"port": 0, "drain_s": 5.0, **settings}), make_logger(log or io.BytesIO()))
    try:
        server.listen()
        if retriever is not None:
            server.install(retriever)
        yield server
    finally:
        server.stop()


def stub(server: Server) -> pb_grpc.RecommendationServiceStub:
    return pb_grpc.RecommendationServiceStub(grpc.insecure_channel(server.address))


def health(server: Server, service: str = "") -> str:
    checks = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.address))
    response = checks.Check(health_pb2.HealthCheckRequest(service=service), timeout=5, wait_for_ready=True)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def log_lines(log: io.BytesIO, count: int) -> list[dict[str, Any]]:
    """Wait for that many lines of the log."""
    deadline = time.monotonic() + 20
    while log.getvalue().count(b"\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in log.getvalue().splitlines()]


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, dict[type, Any]]:
    """Return the code of a failing raw call and its details by type, each kind once."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    details = {}
    for packed in rpc_status.from_call(caught.value).details:
        kind = getattr(error_details_pb2, packed.TypeName().removeprefix("google.rpc."))
        assert kind not in details
        details[kind] = kind()
        packed.Unpack(details[kind])
    return caught.value.code(), details


@pytest.fixture(scope="module")
def retriever() -> ExactRetriever:
    return ExactRetriever()


@pytest.fixture(scope="module")
def server(retriever) -> Iterator[Server]:
    with running(retriever, max_batch=3, max_k=100, max_ids=4, max_feature_bytes=200, max_message_bytes=4096) as up:
        yield up


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    with Client(server.address, timeout_s=10.0) as ready:
        yield ready


def test_a_vector_finds_the_items_with_the_largest_inner_products(client):
    # (1, 0) against a = (1, 0), c = (0.6, 0.8), b = (0, 1), ü = (-1, 0): 1, 0.6, 0, -1
    ranking = client.nearest_items(Query(vector=EAST), k=3)
    assert ranking.item_ids == ("a", "c", "b")
    np.testing.assert_allclose(ranking.scores, [1, 0.6, 0], rtol=1e-6)
    assert ranking.scores.dtype == np.float32
    assert ranking.origin is Origin.VECTOR
    assert ranking.metadata == ()


def test_a_vector_may_come_as_numbers_or_as_bytes(server):
    as_numbers = pb.Query(vector=pb.Vector(values=pb.FloatList(values=[1, 0])))
    as_bytes = pb.Query(vector=pb.Vector(float32_le=bytes.fromhex("0000803f00000000")))
    answers = [stub(server).NearestItems(pb.NearestItemsRequest(query=each, k=4)) for each in (as_numbers, as_bytes)]
    assert answers[0] == answers[1]
    assert list(answers[0].result.item_ids) == ["a", "c", "b", "ü"]


def test_a_known_entity_with_a_unicode_id_is_answered_from_the_release(client):
    ranking = client.nearest_items(Query(entity_id="Zoë", features={"taste": "east"}), k=1)
    assert (ranking.item_ids, ranking.origin, ranking.missing_ids) == (("b",), Origin.KNOWN_ENTITY, ())


def test_an_unknown_entity_falls_back_on_its_features_and_is_named_as_missing(client):
    ranking = client.nearest_items(Query(entity_id="somebody", features={"taste": "east"}, history=["a", "gone"]), k=1)
    assert (ranking.item_ids, ranking.origin) == (("a",), Origin.FEATURES)
    assert ranking.missing_ids == ("somebody", "gone")


def test_an_anonymous_visitor_without_anything_known_gets_the_popular_items(client):
    ranking = client.nearest_items(Query(features={}), k=2)
    assert (ranking.item_ids, ranking.origin) == (("c", "a"), Origin.POPULARITY)
    assert ranking.scores.tolist() == [0.5, 0.25]


def test_several_items_are_asked_with_at_once_and_unknown_ones_come_back(client):
    # the mean of a = (1, 0) and ü = (-1, 0) is (0, 0): all scores are 0
    ranking = client.nearest_items(Query(item_ids=["a", "ü", "none"]), k=4)
    assert ranking.origin is Origin.ITEMS
    assert ranking.missing_ids == ("none",)
    assert ranking.scores.tolist() == [0, 0, 0, 0]


def test_excluded_items_are_left_out_and_the_list_is_still_filled(client):
    ranking = client.nearest_items(Query(vector=EAST, excluded_ids=["a", "never heard of"]), k=2)
    assert ranking.item_ids == ("c", "b")


def test_more_items_than_there_are_gives_the_whole_catalogue(client):
    assert client.nearest_items(Query(vector=EAST), k=99).item_ids == ("a", "c", "b", "ü")


def test_display_columns_come_only_when_asked_for_and_keep_their_types(client):
    ranking = client.nearest_items(Query(vector=EAST), k=1, include_metadata=True)
    assert ranking.metadata == ({"title": "Thing a", "tags": ["x", "y"], "price": None},)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("taste", "east"),
        ("number", -3),
        ("real", 2.5),
        ("several", ["x", "ü"]),
        ("vector", [0.5, -1.0]),
        ("nothing", None),
    ],
)
def test_each_kind_of_feature_value_arrives_as_it_was_sent(client, retriever, name, value):
    client.nearest_items(Query(features={name: value}), k=1)
    assert retriever.features[-1] == {name: value}
    assert type(retriever.features[-1][name]) is type(value)


def test_a_feature_that_is_not_a_number_arrives_as_unknown(client, retriever):
    client.nearest_items(Query(features={"real": float("nan")}), k=1)
    assert retriever.features[-1] == {"real": None}


def test_a_batch_is_answered_query_by_query_in_order(client):
    queries = [Query(vector=EAST), Query(entity_id="Zoë"), Query(item_ids=["nobody"])]
    rankings = client.batch_nearest_items(queries, k=1)
    assert [ranking.item_ids for ranking in rankings] == [("a",), ("b",), ("c",)]
    assert [ranking.origin for ranking in rankings] == [Origin.VECTOR, Origin.KNOWN_ENTITY, Origin.POPULARITY]
    assert [ranking.missing_ids for ranking in rankings] == [(), (), ("nobody",)]


def test_vectors_are_searched_row_by_row(client):
    matches = client.search_vectors(np.array([[1, 0], [0, 1]], np.float32), k=2)
    assert matches.item_ids == (("a", "c"), ("b", "c"))
    np.testing.assert_allclose(matches.scores, [[1, 0.6], [1, 0.8]], rtol=1e-6)
    assert {scores.dtype for scores in matches.scores} == {np.dtype(np.float32)}
    assert (matches.release.fingerprint, matches.degraded) == (FINGERPRINT, False)
    assert client.search_vectors([[1, 0]], k=99).item_ids == (("a", "c", "b", "ü"),)


@pytest.mark.parametrize(
    ("vectors", "told"),
    [
        (EAST, "vectors: got shape (2,), expected 2 dimensions"),
        ([[1, 0, 0]], "vectors[0]: got 12 bytes, expected 8, 4 for each of 2 numbers"),
        ([["a", "b"]], "vectors: got [['a', 'b']], expected numbers"),
        (np.zeros((0, 2), np.float32), "vectors: got 0, expected 1 to 3"),
        (np.zeros((4, 2), np.float32), "vectors: got 4, expected 1 to 3"),
    ],
)
def test_vectors_that_cannot_be_searched_with_are_named(client, vectors, told):
    with pytest.raises(RequestError) as caught:
        client.search_vectors(vectors, k=1)
    assert told in str(caught.value)


def test_rows_of_unlike_lengths_are_named_by_their_place(server):
    request = pb.SearchVectorsRequest(vectors=[EAST.tobytes(), EAST.tobytes()[:-1]], k=1)
    code, details = refusal(lambda: stub(server).SearchVectors(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field == "vectors[1]"


def test_vectors_pinned_to_another_release_are_refused(client):
    with pytest.raises(ReleasePinError):
        client.search_vectors([[1, 0]], k=1, release_pin="another")


def test_the_vector_of_a_query_comes_back_and_may_be_asked_with(client):
    encoded = client.encode_query(Query(entity_id="Zoë"))
    assert encoded.vector.tolist() == [0, 1]
    assert encoded.vector.dtype == np.float32
    assert encoded.origin is Origin.KNOWN_ENTITY
    by_vector = client.nearest_items(Query(vector=encoded.vector), k=4)
    assert by_vector.item_ids == client.nearest_items(Query(entity_id="Zoë"), k=4).item_ids


def test_a_query_of_which_nothing_is_known_has_no_vector(client):
    encoded = client.encode_query(Query(entity_id="somebody"))
    assert (encoded.vector, encoded.origin, encoded.missing_ids) == (None, Origin.POPULARITY, ("somebody",))


def test_every_response_names_the_release(client):
    asked = [
        client.nearest_items(Query(vector=EAST), k=1).release,
        client.batch_nearest_items([Query(vector=EAST)], k=1)[0].release,
        client.encode_query(Query(vector=EAST)).release,
        client.release(),
    ]
    assert {(release.name, release.fingerprint) for release in asked} == {("exact-0123456789ab", FINGERPRINT)}


def test_the_release_says_what_an_application_must_know_of_it(client):
    release = client.release()
    assert (release.dim, release.item_count, release.known_entity_count) == (2, 4, 1)
    assert (release.query_entity, release.query_features, release.reads_history) == ("user", ("taste",), False)
    assert (release.index, release.index_recall, dict(release.metrics)) == ("brute_force", 1.0, {"nDCG@10": 0.5})
    assert release.created.isoformat() == "2026-01-02T03:04:05+00:00"
    assert release.notice == "made up"
    assert (release.reformulators, release.default_reformulator) == (("average", "identity"), "average")


@pytest.mark.parametrize("pin", ["exact-0123456789ab", FINGERPRINT, FINGERPRINT[:8]])
def test_a_pin_to_the_served_release_is_answered(client, pin):
    assert client.nearest_items(Query(vector=EAST), k=1, release_pin=pin).item_ids == ("a",)


@pytest.mark.parametrize("pin", ["exact-fedcba987654", "f" * 64, FINGERPRINT[:7], FINGERPRINT + "0"])
def test_a_pin_to_another_release_is_a_failed_precondition(client, server, pin):
    with pytest.raises(ReleasePinError) as caught:
        client.nearest_items(Query(vector=EAST), k=1, release_pin=pin)
    assert caught.value.pin == pin
    request = pb.EncodeQueryRequest(query=pb.Query(entity=pb.Entity(entity_id="Zoë")), release_pin=pin)
    code, details = refusal(lambda: stub(server).EncodeQuery(request))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert details[error_details_pb2.ErrorInfo].reason == "RELEASE_NOT_SERVED"
    assert details[error_details_pb2.PreconditionFailure].violations[0].subject == pin


BAD_QUERIES = [
    (Query(vector=[1, 0, 0]), "query.vector"),
    (Query(vector=[]), "query.vector"),
    (Query(vector=[1, float("nan")]), "query.vector"),
    (Query(vector=[1, float("inf")]), "query.vector"),
    (Query(), "query"),
    (Query(features={"colour": "red"}), "query.entity.features.colour"),
    (Query(features={"taste": "x" * 300}), "query.entity.features"),
    (Query(entity_id="x", history=["a"] * 5), "query.entity.history"),
    (Query(item_ids=["a"] * 5), "query.items.item_ids"),
    (Query(vector=EAST, excluded_ids=["a"] * 5), "query.excluded_ids"),
]


@pytest.mark.parametrize(
    ("query", "field"), BAD_QUERIES, ids=[f"{place}-{bad[1]}" for place, bad in enumerate(BAD_QUERIES)]
)
def test_a_query_that_cannot_be_answered_is_the_callers_mistake_and_names_the_field(client, query, field):
    with pytest.raises(RequestError) as single:
        client.nearest_items(query, k=1)
    assert single.value.field == field
    with pytest.raises(RequestError) as encoded:
        client.encode_query(query)
    assert encoded.value.field == field


@pytest.mark.parametrize(
    ("query", "field"), BAD_QUERIES, ids=[f"{place}-{bad[1]}" for place, bad in enumerate(BAD_QUERIES)]
)
def test_a_bad_query_in_a_batch_is_named_by_its_place(client, query, field):
    with pytest.raises(RequestError) as caught:
        client.batch_nearest_items([Query(vector=EAST), query], k=1)
    assert caught.value.field == field.replace("query", "queries[1]", 1)


def test_a_query_of_items_without_ids_is_refused(server):
    request = pb.NearestItemsRequest(query=pb.Query(items=pb.Items()), k=1)
    code, details = refusal(lambda: stub(server).NearestItems(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field == "query.items.item_ids"


@pytest.mark.parametrize("vector", [pb.Vector(), pb.Vector(float32_le=b"12345")])
def test_a_vector_without_whole_numbers_is_refused(server, vector):
    request = pb.NearestItemsRequest(query=pb.Query(vector=vector), k=1)
    code, details = refusal(lambda: stub(server).NearestItems(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field.startswith("query.vector")


@pytest.mark.parametrize("k", [0, -1, 101])
def test_k_outside_its_limits_is_the_callers_mistake(client, k):
    for ask in (
        lambda: client.nearest_items(Query(vector=EAST), k=k),
        lambda: client.batch_nearest_items([Query(vector=EAST)], k=k),
        lambda: client.search_vectors([[1, 0]], k=k),
    ):
        with pytest.raises(RequestError, match=f"got {k}, expected 1 to 100") as caught:
            ask()
        assert caught.value.field == "k"


@pytest.mark.parametrize("count", [0, 4])
def test_a_batch_has_at_least_one_query_and_at_most_the_limit(client, count):
    with pytest.raises(RequestError, match="1 to 3") as caught:
        client.batch_nearest_items([Query(vector=EAST)] * count, k=1)
    assert caught.value.field == "queries"


def test_a_request_larger_than_the_limit_is_the_callers_mistake(client):
    with pytest.raises(RequestError, match="larger than max") as caught:
        client.nearest_items(Query(item_ids=["x" * 5000]), k=1)
    assert caught.value.field == "request"


def test_a_refused_request_carries_one_error_info_and_the_request_id(server):
    request = pb.NearestItemsRequest(query=pb.Query(vector=pb.Vector(float32_le=b"")), k=0)
    metadata = (("x-request-id", "order-66"),)
    code, details = refusal(lambda: stub(server).NearestItems(request, metadata=metadata))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert set(details) == {error_details_pb2.ErrorInfo, error_details_pb2.BadRequest}
    info = details[error_details_pb2.ErrorInfo]
    assert (info.domain, info.reason, info.metadata["request_id"]) == ("twintower", "INVALID_REQUEST", "order-66")
    assert details[error_details_pb2.BadRequest].field_violations[0].field == "k"


@pytest.mark.parametrize(
    "error", [ZeroDivisionError, DataError, ShapeError, ReleaseError], ids=lambda kind: kind.__name__
)
def test_a_failure_of_the_server_is_told_without_its_reason_and_logged_with_it(error):
    log = io.BytesIO()
    retriever = BrokenRetriever(error("secret of the disk"))
    with (
        running(retriever, log=log) as server,
        Client(server.address, timeout_s=10.0) as client,
        pytest.raises(ServerError) as caught,
    ):
        client.nearest_items(Query(vector=EAST), k=1)
    assert "secret" not in str(caught.value)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (explained,) = (line for line in lines if line["level"] == "error")
    assert "secret of the disk" in explained["exception"]
    assert explained["request_id"] in str(caught.value)


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (MissingError("no such thing"), grpc.StatusCode.NOT_FOUND, MissingError),
        (RequestError("queries[0].history", "too old"), grpc.StatusCode.INVALID_ARGUMENT, RequestError),
    ],
    ids=["missing", "request"],
)
def test_what_the_caller_can_mend_is_told_in_full_and_not_logged_as_a_failure(error, code, kind):
    log = io.BytesIO()
    with running(BrokenRetriever(error), log=log) as server, Client(server.address, timeout_s=10.0) as client:
        with pytest.raises(kind) as caught:
            client.nearest_items(Query(vector=EAST), k=1)
        assert str(error).rpartition(": ")[2] in str(caught.value)
        request = pb.NearestItemsRequest(query=pb.Query(entity=pb.Entity()), k=1)
        assert refusal(lambda: stub(server).NearestItems(request))[0] is code
    assert {json.loads(line)["level"] for line in log.getvalue().splitlines()} == {"info"}


def test_each_call_is_one_line_of_json_with_method_code_time_request_id_and_release():
    log = io.BytesIO()
    with running(ExactRetriever(), log=log) as server:
        request = pb.NearestItemsRequest(query=pb.Query(vector=pb.Vector(values=pb.FloatList(values=[1, 0]))), k=1)
        stub(server).NearestItems(request, metadata=(("x-request-id", "first"),))
        with pytest.raises(grpc.RpcError):
            stub(server).NearestItems(pb.NearestItemsRequest())
        stub(server).GetRelease(pb.GetReleaseRequest())
    good, bad, other = (json.loads(line) for line in log.getvalue().splitlines())
    assert (good["method"], good["code"], good["request_id"]) == (f"/{SERVICE}/NearestItems", "OK", "first")
    assert good["release"] in ("exact-0123456789ab", FINGERPRINT)
    assert 0 < good["duration_ms"] < 10_000
    assert bad["code"] == "INVALID_ARGUMENT"
    assert len({good["request_id"], bad["request_id"], other["request_id"]}) == 3


def test_health_follows_the_release_and_calls_before_it_are_told_when_to_come_back():
    with running() as server:
        assert [health(server), health(server, SERVICE)] == ["NOT_SERVING", "NOT_SERVING"]
        code, details = refusal(lambda: stub(server).GetRelease(pb.GetReleaseRequest()))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details[error_details_pb2.RetryInfo].retry_delay.ToMilliseconds() > 0
        server.install(ExactRetriever())
        assert [health(server), health(server, SERVICE)] == ["SERVING", "SERVING"]
        assert stub(server).GetRelease(pb.GetReleaseRequest()).fingerprint == FINGERPRINT


def test_a_client_waits_until_the_release_is_there():
    with running() as server, Client(server.address) as client:
        with pytest.raises(UnavailableError):
            client.wait_until_ready(timeout_s=0.3)
        timer = threading.Timer(0.3, server.install, [ExactRetriever()])
        timer.start()
        client.wait_until_ready(timeout_s=10)
        timer.join()
        assert client.release().fingerprint == FINGERPRINT


def test_reflection_lists_the_service(server):
    reflection = reflection_pb2_grpc.ServerReflectionStub(grpc.insecure_channel(server.address))
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    [answer] = reflection.ServerReflectionInfo(asked, timeout=5)
    names = {service.name for service in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


def test_watchers_take_no_thread_of_other_calls_and_do_not_hold_up_the_end_when_they_leave_at_the_same_moment():
    watch = health_pb2.HealthCheckRequest(service=SERVICE)
    with running(ExactRetriever(), worker_threads=1) as server:
        checks = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.address))
        watches = [checks.Watch(watch, timeout=30) for _ in range(8)]
        assert {next(each).status for each in watches} == {health_pb2.HealthCheckResponse.SERVING}
        assert stub(server).GetRelease(pb.GetReleaseRequest(), timeout=10).fingerprint == FINGERPRINT
        for each in watches:
            each.cancel()


def test_stopping_says_so_refuses_new_calls_and_lets_the_running_one_end():
    retriever = GatedRetriever()
    with running(retriever) as server, Client(server.address, timeout_s=20.0) as client:
        checks = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.address))
        watch = checks.Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        with futures.ThreadPoolExecutor(2) as pool:
            # given: a call that is being worked on
            running_call = pool.submit(client.nearest_items, ALONE, k=1)
            assert retriever.entered.wait(10)
            # when
            stopped = pool.submit(server.stop)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            with Client(server.address, timeout_s=1.0) as late, pytest.raises((UnavailableError, DeadlineError)):
                late.nearest_items(ALONE, k=1)
            assert not stopped.done()
            retriever.gate.set()
            # then
            assert running_call.result(10).item_ids == ("a",)
            stopped.result(10)


def test_a_call_that_waited_too_long_for_a_thread_is_not_worked_on():
    retriever = GatedRetriever()
    with (
        running(retriever, worker_threads=1) as server,
        futures.ThreadPoolExecutor(1) as pool,
        Client(server.address, timeout_s=20.0) as patient,
        Client(server.address, timeout_s=0.3) as hasty,
    ):
        # given: the only thread is busy
        first = pool.submit(patient.nearest_items, ALONE, k=1)
        assert retriever.entered.wait(10)
        # when
        with pytest.raises(DeadlineError):
            hasty.nearest_items(ALONE, k=1)
        retriever.gate.set()
        first.result(10)
        # then: the thread is free again, and answered the first call and this one only
        patient.nearest_items(ALONE, k=1)
        assert retriever.answered == 2


def test_a_call_that_its_caller_gave_up_is_not_logged_as_good():
    retriever, log = GatedRetriever(), io.BytesIO()
    with running(retriever, log=log) as server, Client(server.address, timeout_s=0.3) as hasty:
        with pytest.raises(DeadlineError):
            hasty.nearest_items(ALONE, k=1)
        time.sleep(0.2)  # the server hears of it a moment later
        retriever.gate.set()
        (line,) = log_lines(log, 1)
    assert (line["code"], line["level"]) == ("CANCELLED", "info")


def test_a_port_in_use_is_a_wrong_setting_and_not_shared():
    with running() as server, pytest.raises(SettingError, match=str(server.port)), running(port=server.port):
        pass


def test_a_coalescing_client_answers_as_another_and_each_thread_gets_its_own_error(client, server, retriever):
    unlike = [Query(vector=EAST), Query(entity_id="Zoë"), Query(item_ids=["b"], excluded_ids=["c"]), Query(features={})]
    wrong = Query(vector=np.ones(3, np.float32))
    expected = [client.nearest_items(query, k=2, include_metadata=True) for query in unlike]

    def ask(together: Client, place: int) -> None:
        for turn in range(60):
            if (place + turn) % 5 == 4:
                with pytest.raises(RequestError, match=r"query\.vector"):
                    together.nearest_items(wrong, k=2)
            else:
                query, wanted = unlike[(place + turn) % 5], expected[(place + turn) % 5]
                found = together.nearest_items(query, k=2, include_metadata=True)
                assert (found.item_ids, found.metadata, found.origin) == (
                    wanted.item_ids,
                    wanted.metadata,
                    wanted.origin,
                )

    any_number = np.float32(10.0)
    with CoalescingClient(server.address, timeout_s=any_number) as together, futures.ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(ask, together, place) for place in range(3)]:
            each.result(60)
        # who says who is asking goes alone
        assert together.nearest_items(Query(vector=EAST), k=1, unit=ExperimentUnit("me")).item_ids == ("a",)


def test_the_asyncio_client_answers_as_the_synchronous_one(client, server):
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(server.address, timeout_s=10.0) as other:
            await other.wait_until_ready(10)
            first, batch, matches, encoded, release = await asyncio.gather(
                other.nearest_items(Query(vector=EAST), k=2, include_metadata=True),
                other.batch_nearest_items([Query(entity_id="Zoë"), Query(features={})], k=2),
                other.search_vectors([[0, 1]], k=2),
                other.encode_query(Query(item_ids=["a"])),
                other.release(),
            )
            with pytest.raises(RequestError) as refused:
                await other.nearest_items(Query(vector=EAST), k=0)
            with pytest.raises(ReleasePinError):
                await other.encode_query(Query(vector=EAST), release_pin="another")
            return first, batch, matches, encoded, release, refused.value.field

    first, batch, matches, encoded, release, field = asyncio.run(ask())
    assert matches.item_ids == (("b", "c"),)
    expected = client.nearest_items(Query(vector=EAST), k=2, include_metadata=True)
    assert (first.item_ids, first.metadata, first.origin) == (expected.item_ids, expected.metadata, expected.origin)
    assert [ranking.item_ids for ranking in batch] == [("b", "c"), ("c", "a")]
    assert encoded.vector.tolist() == [1, 0]
    assert release == client.release()
    assert field == "k"


class FailingService(pb_grpc.RecommendationServiceServicer):
    """Ends the first calls with a code, and counts the attempts."""

    def __init__(self, code: grpc.StatusCode, failures: int) -> None:
        self.code, self.failures, self.attempts = code, failures, 0

    def GetRelease(self, request: pb.GetReleaseRequest, context: grpc.ServicerContext) -> pb.Release:
        self.attempts += 1
        if self.attempts <= self.failures:
            context.abort(self.code, "not now")
        return pb.Release(name="at last")


@contextmanager
def failing(code: grpc.StatusCode, failures: int) -> Iterator[tuple[FailingService, Client]]:
    service = FailingService(code, failures)
    server = grpc.server(futures.ThreadPoolExecutor(1))
    pb_grpc.add_RecommendationServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}", timeout_s=10.0) as client:
            yield service, client
    finally:
        server.stop(None)


def test_a_call_that_meets_unavailable_is_tried_again():
    with failing(grpc.StatusCode.UNAVAILABLE, failures=2) as (service, client):
        assert client.release().name == "at last"
        assert service.attempts == 3


def test_a_call_that_a_stopping_server_closes_is_told_as_unavailable():
    with failing(grpc.StatusCode.CANCELLED, failures=1) as (_, client), pytest.raises(UnavailableError):
        client.release()


def test_a_server_that_stays_unavailable_is_given_up():
    with failing(grpc.StatusCode.UNAVAILABLE, failures=100) as (service, client):
        with pytest.raises(UnavailableError):
            client.release()
        assert 2 <= service.attempts <= 5


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code not in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)]
)
def test_no_other_failure_is_tried_again(code):
    with failing(code, failures=1) as (service, client):
        with pytest.raises(TwintowerError):
            client.release()
        assert service.attempts == 1


TWO_FORMS = [
    Query(vector=EAST, entity_id="Zoë"),
    Query(vector=EAST, item_ids=["a"]),
    Query(item_ids=["a"], history=["b"]),
    Query(item_ids=["a"], features={}),
]


@pytest.mark.parametrize("query", TWO_FORMS, ids=range(len(TWO_FORMS)))
def test_a_query_of_two_forms_is_refused_and_not_answered_by_one_of_them(client, query):
    with pytest.raises(RequestError):
        client.nearest_items(query, k=1)
    with pytest.raises(RequestError) as caught:
        client.batch_nearest_items([Query(vector=EAST), query], k=1)
    assert caught.value.field == "queries[1]"


@pytest.mark.parametrize("value", [object(), [["x"]], {"a": 1}, b"bytes"], ids=["object", "nested", "mapping", "bytes"])
def test_a_feature_value_that_the_wire_does_not_carry_is_the_callers_mistake(client, value):
    with pytest.raises(RequestError) as caught:
        client.batch_nearest_items([Query(vector=EAST), Query(features={"taste": value})], k=1)
    assert caught.value.field.startswith("queries[1].entity.features.taste")


def test_numpy_values_may_be_features(client, retriever):
    features = {"number": np.int32(7), "real": np.float32(0.1), "vector": np.array([1, 2], np.float32)}
    client.nearest_items(Query(features=features), k=1)
    vector = retriever.features[-1].pop("vector")
    assert retriever.features[-1] == {"number": 7, "real": 0.1}
    assert (vector.dtype, vector.tolist()) == (np.float32, [1, 2])


def test_a_call_made_before_the_server_is_up_is_answered_when_it_comes():
    # given: a port where nobody listens yet
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    servers: list[Server] = []

    def come_up() -> None:
        time.sleep(0.3)
        servers.append(Server(ServerSettings(port=port), make_logger(io.BytesIO())))
        servers[0].listen()
        servers[0].install(ExactRetriever())

    with Client(f"127.0.0.1:{port}", timeout_s=10.0) as client, futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(come_up)
        try:
            assert client.release().fingerprint == FINGERPRINT
        finally:
            coming.result(10)
            servers[0].stop()


@pytest.mark.parametrize("kind", [Client, CoalescingClient])
def test_a_time_limit_of_0_is_over_at_once(server, kind):
    with kind(server.address, timeout_s=0) as hasty:
        for call in (
            lambda: hasty.nearest_items(Query(vector=EAST), 3),
            lambda: hasty.batch_nearest_items([Query(vector=EAST)], 3),
            lambda: hasty.release(),
            lambda: hasty.reload_release(timeout_s=0),
        ):
            with pytest.raises(DeadlineError):
                call()
    with Client(server.address, timeout_s=10.0) as patient, pytest.raises(DeadlineError):
        patient.reload_release(timeout_s=0)


def test_a_time_limit_of_0_is_over_at_once_in_asyncio_too(server):
    async def call() -> None:
        async with AsyncClient(server.address, timeout_s=0) as hasty:
            with pytest.raises(DeadlineError):
                await hasty.nearest_items(Query(vector=EAST), 3)
        async with AsyncClient(server.address, timeout_s=10.0) as patient:
            with pytest.raises(DeadlineError):
                await patient.reload_release(timeout_s=0)

    asyncio.run(call())
