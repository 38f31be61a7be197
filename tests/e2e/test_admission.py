"""Calls that send nothing, floods, and places that are held: what they cost others, over real HTTP/2 frames."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import tomli_w
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from benchmarks.admission import ends_at_once
from benchmarks.streams import Streams, flood
from recsys.retrieval import Retriever
from serving.server import Server
from serving.settings import Auth
from serving.trust.rules import CHECK, NEAREST_ITEMS, REFLECTION, SESSION, WATCH
from tests.e2e.exact_retriever import ExactRetriever, GatedRetriever
from tests.e2e.test_wire import ALONE, EAST, health, refusal, running, stub
from twintower.client import Client
from twintower.types import Query
from twintower.v1 import recommendation_service_pb2 as pb

QUOTA = {"queries_per_s": 0.001, "burst": 2}
BATCH = "/twintower.v1.RecommendationService/BatchNearestItems"
OVERLOADED = "RESOURCE_EXHAUSTED OVERLOADED with RetryInfo"


def bearer(name: str) -> dict[str, bytes]:
    return {"authorization": f"Bearer key of {name}".encode()}


def as_caller(name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer key of {name}"),)


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    def caller(name: str, **more: Any) -> dict[str, Any]:
        return {"role": "read", "keys_sha256": [hashlib.sha256(f"key of {name}".encode()).hexdigest()], **more}

    path = tmp_path / "auth.toml"
    callers = {"shop": caller("shop"), "other": caller("other"), "guest": caller("guest", quota=QUOTA)}
    path.write_text(tomli_w.dumps({"callers": callers}))
    return Auth(file=path)


@contextmanager
def connection(server: Server, window: int = 65_535) -> Iterator[Streams]:
    streams = Streams(server.address, window)
    try:
        yield streams
    finally:
        streams.close()


def nearest() -> pb.NearestItemsRequest:
    request = pb.NearestItemsRequest(k=1)
    request.query.vector.values.values.extend(EAST)
    return request


def begin() -> pb.SessionRequest:
    query = pb.Query(entity=pb.Entity(entity_id="user 1"))
    return pb.SessionRequest(begin=pb.ReformulateRequest(k=1, query=query))


@pytest.fixture(scope="module")
def retriever(block_release) -> Retriever:
    return Retriever(block_release)


def eventually(holds: Callable[[], bool], within_s: float = 20.0) -> bool:
    until = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < until:
        time.sleep(0.02)
    return held


def lines(log: io.BytesIO, **facts: Any) -> list[dict[str, Any]]:
    """The log lines that hold some facts; every line must be JSON."""
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if facts.items() <= line.items()]


# Calls that send nothing


@pytest.mark.parametrize("method", [NEAREST_ITEMS, BATCH, SESSION, REFLECTION])
def test_a_call_without_a_key_is_refused_before_its_request_comes(auth, method):
    log = io.BytesIO()
    with running(ExactRetriever(), auth=auth, log=log) as server, connection(server) as streams:
        assert streams.wait(streams.open(method)) == "UNAUTHENTICATED"
        assert eventually(lambda: bool(lines(log, method=method, code="UNAUTHENTICATED", reason="UNAUTHENTICATED")))


@pytest.mark.parametrize("method", [NEAREST_ITEMS, BATCH, SESSION, REFLECTION, CHECK, WATCH])
def test_a_call_whose_request_does_not_come_ends_after_a_while(auth, method):
    log = io.BytesIO()
    with running(ExactRetriever(), auth=auth, log=log, request_s=0.3) as server, connection(server) as streams:
        assert streams.wait(streams.open(method, bearer("shop"))) == "DEADLINE_EXCEEDED"
        assert eventually(lambda: bool(lines(log, method=method, code="DEADLINE_EXCEEDED", reason="NO_REQUEST")))


def test_a_call_of_which_only_a_part_of_the_request_comes_ends_after_a_while():
    with running(ExactRetriever(), request_s=0.3) as server, connection(server) as streams:
        stream = streams.open(NEAREST_ITEMS)
        streams.send_part(stream, nearest().SerializeToString())
        assert streams.wait(stream) == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("first", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], ids=["nothing", "preface"])
def test_a_connection_that_does_not_begin_is_closed_after_a_while(first):
    with (
        running(ExactRetriever(), request_s=0.3) as server,
        socket.create_connection(("127.0.0.1", server.port)) as silent,
    ):
        silent.settimeout(20)
        silent.sendall(first)
        while silent.recv(65_536):
            pass


def test_calls_whose_requests_have_not_come_take_no_place_in_the_queue_and_no_thread(retriever, auth):
    with (
        running(
            retriever, auth=auth, queue={"max_waiting": 1}, worker_threads=1, max_sessions=1, request_s=600.0
        ) as server,
        connection(server) as streams,
        Client(server.address, timeout_s=20, token="key of other") as client,
    ):
        for method in (NEAREST_ITEMS, BATCH, SESSION, REFLECTION, CHECK, WATCH):
            for _ in range(8):
                streams.open(method, bearer("shop"))
        streams.read(0.3)
        assert client.nearest_items(Query(entity_id="user 1"), 1).item_ids
        assert client.nearest_items(Query(entity_id="user 1", excluded_ids=["no item"]), 1).item_ids
        assert next(iter(stub(server).Session(iter([begin()]), metadata=as_caller("other"), timeout=20))).round == 1
        assert health(server) == "SERVING"
        assert streams.ended == {}


def test_more_calls_without_requests_than_may_be_open_end_the_oldest(monkeypatch):
    monkeypatch.setattr("serving.runtime.call_threads.MAX_EXPECTED", 3)
    with running(ExactRetriever(), request_s=600.0, drain_s=0.0) as server, connection(server) as streams:
        opened = [streams.open(NEAREST_ITEMS) for _ in range(5)]
        assert [streams.wait(stream) for stream in opened[:2]] == ["RESOURCE_EXHAUSTED"] * 2
        assert not set(opened[2:]) & set(streams.ended)
        assert streams.wait(streams.open(NEAREST_ITEMS, request=nearest().SerializeToString())) == "OK"


def test_streams_of_one_connection_are_limited_and_those_of_a_client_wait(auth):
    with running(ExactRetriever(), auth=auth, max_streams=5) as server, connection(server) as streams:
        opened = [streams.open(NEAREST_ITEMS, bearer("shop")) for _ in range(8)]
        assert eventually(lambda: streams.read(0.05) or len(streams.ended) == 3)
        assert set(streams.ended) == set(opened[5:])
        ends = ends_at_once(server.address, nearest().SerializeToString(), "key of shop", 200, 1)
        assert ends == {"OK": 200}


def test_connections_are_limited():
    with running(ExactRetriever(), max_connections=2) as server:
        first, second = Streams(server.address), Streams(server.address)
        for streams in (first, second):
            assert streams.wait(streams.open(CHECK, request=b"")) == "OK"
        third = Streams(server.address)
        third.read(10)
        assert not third.is_open
        assert first.wait(first.open(CHECK, request=b"")) == "OK"
        for streams in (first, second, third):
            streams.close()


FLOODS = {
    "headers without a key": (NEAREST_ITEMS, {}),
    "headers with a key": (NEAREST_ITEMS, {"token": "key of shop"}),
    "sessions without a request": (SESSION, {"token": "key of shop"}),
    "watches without a request": (WATCH, {}),
    "watches": (WATCH, {"request": b""}),
    "checks": (CHECK, {"request": b""}),
    "streams that are reset": (NEAREST_ITEMS, {"resets": True}),
    "streams with a key that are reset": (NEAREST_ITEMS, {"token": "key of shop", "resets": True}),
    "a method that there is not": ("/no.Such/Method", {}),
}


@pytest.mark.parametrize("name", FLOODS)
def test_beside_a_flood_every_call_of_another_caller_is_answered_and_the_log_stays_small(auth, name):
    method, how = FLOODS[name]
    log = io.BytesIO()
    with (
        running(ExactRetriever(), auth=auth, log=log, queue={"max_waiting": 20}) as server,
        Client(server.address, timeout_s=20, token="key of other") as client,
    ):
        how = {"rate": 400, "seconds": 1.5, **how}
        attacker = threading.Thread(target=flood, args=(server.address, method), kwargs=how)
        attacker.start()
        asked, started = 0, time.monotonic()
        while attacker.is_alive():
            assert client.nearest_items(Query(vector=EAST), 1).item_ids == ("a",)
            asked += 1
        attacker.join()
        assert asked
        if name != "checks":  # those that are answered are logged as every call
            seconds = time.monotonic() - started
            refused = (line for line in lines(log, method=method) if line.get("caller") != "other")
            # what ended well, as a session that its caller closes, is logged as every call
            counts = Counter(line["code"] for line in refused if line["code"] != "OK")
            # ten of each kind in each second that has begun, and one that counts the others
            assert all(count <= 11 * (seconds + 2) for count in counts.values()), (counts, seconds)


def test_refusals_that_are_not_logged_are_counted_in_the_log_and_in_the_metrics(auth):
    log = io.BytesIO()
    with running(ExactRetriever(), auth=auth, log=log, telemetry={"metrics_port": 0}) as server:
        with connection(server) as streams:
            opened = [streams.open(NEAREST_ITEMS) for _ in range(50)]
            assert {streams.wait(stream) for stream in opened} == {"UNAUTHENTICATED"}
        assert eventually(lambda: bool(lines(log, event="lines left out")))
        logged = len(lines(log, event="call", code="UNAUTHENTICATED"))
        left_out = sum(line["count"] for line in lines(log, event="lines left out", code="UNAUTHENTICATED"))
        assert logged + left_out == 50
        assert logged < 50
        url = f"http://{server.observation.metrics_address}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        assert 'recsys_rpc_errors_total{reason="UNAUTHENTICATED",rpc="NearestItems"} 50.0' in text


# One queue


@pytest.mark.parametrize(("count", "channels"), [(3000, 1), (3000, 40)])
def test_each_of_thousands_of_calls_at_once_is_answered_or_told_when_to_come_back(count, channels):
    log = io.BytesIO()
    with running(ExactRetriever(), log=log, queue={"max_waiting": 200}) as server:
        ends = ends_at_once(server.address, nearest().SerializeToString(), "", count, channels)
        assert set(ends) <= {"OK", OVERLOADED}
        assert ends["OK"]
        assert ends.total() == count
        if refused := ends[OVERLOADED]:
            assert eventually(lambda: _counted(log, "RESOURCE_EXHAUSTED") == refused)
        # and afterwards everything is as before
        assert ends_at_once(server.address, nearest().SerializeToString(), "", 5, 1) == {"OK": 5}


def _counted(log: io.BytesIO, code: str) -> int:
    left_out = sum(line["count"] for line in lines(log, event="lines left out", code=code))
    return left_out + len(lines(log, event="call", code=code))


def test_the_queue_is_bounded_where_all_calls_wait_for_a_thread():
    # given: one call is worked on and waits at the gate; calls of both kinds of threads wait for it
    retriever = GatedRetriever()
    request = nearest()
    request.query.excluded_ids.extend(ALONE.excluded_ids)
    with (
        running(retriever, worker_threads=1, queue={"max_waiting": 5, "hurry_above_waiting": 100}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        ask = channel.unary_unary(NEAREST_ITEMS)
        calls = [ask.future(request.SerializeToString(), timeout=20) for _ in range(60)]
        assert retriever.entered.wait(10)
        assert eventually(lambda: sum(call.done() for call in calls) >= 60 - 1 - 5)
        retriever.gate.set()
        codes = Counter(call.code() for call in calls)
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    # one more than may wait, unless they all came before the first began
    assert codes[grpc.StatusCode.OK] in (5, 6)


# Places that are held


def test_one_caller_holds_a_share_of_the_places_and_the_others_stay_free(retriever, auth):
    with running(retriever, auth=auth, max_sessions=4, max_sessions_per_caller=2) as server:
        with connection(server) as streams:
            held = [streams.open(SESSION, bearer("shop")) for _ in range(3)]
            for stream in held:
                streams.send(stream, begin().SerializeToString())
            assert eventually(lambda: streams.read(0.05) or len(streams.ended) == 1)
            assert set(streams.ended.values()) == {"RESOURCE_EXHAUSTED"}
            sessions = stub(server)
            code, details = refusal(lambda: list(sessions.Session(iter([begin()]), metadata=as_caller("shop"))))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details[error_details_pb2.ErrorInfo].reason == "QUOTA_EXCEEDED"
            assert error_details_pb2.RetryInfo in details
            answers = list(sessions.Session(iter([begin()]), metadata=as_caller("other"), timeout=20))
            assert len(answers) == 1
        # the connection is closed: the places are free
        assert eventually(lambda: _has_room(server, "shop"))


def _has_room(server: Server, name: str) -> bool:
    try:
        return len(list(stub(server).Session(iter([begin()]), metadata=as_caller(name), timeout=20))) == 1
    except grpc.RpcError:
        return False


def test_a_caller_whose_quota_is_used_up_takes_no_place_and_keeps_none(retriever, auth):
    log = io.BytesIO()
    with running(retriever, auth=auth, log=log) as server, connection(server) as streams:
        held = streams.open(SESSION, bearer("guest"))
        streams.send(held, begin().SerializeToString())
        assert eventually(lambda: streams.read(0.05) or held in streams.messages)
        # when the quota of 2 is used up
        request = pb.NearestItemsRequest(k=1, query=begin().begin.query)
        stub(server).NearestItems(request, metadata=as_caller("guest"), timeout=20)
        assert streams.wait(held) == "RESOURCE_EXHAUSTED"
        assert streams.wait(streams.open(SESSION, bearer("guest"))) == "RESOURCE_EXHAUSTED"
        assert eventually(lambda: len(lines(log, method=SESSION, reason="QUOTA_EXCEEDED", caller="guest")) == 2)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (SESSION, begin().SerializeToString()),
        (REFLECTION, reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()),
    ],
    ids=["Session", "Reflection"],
)
def test_a_stream_on_which_nothing_comes_any_more_is_given_back(retriever, auth, method, message):
    with running(retriever, auth=auth, idle_s=0.3) as server, connection(server) as streams:
        stream = streams.open(method, bearer("shop"))
        streams.send(stream, message)
        assert streams.wait(stream) == "DEADLINE_EXCEEDED"
        assert streams.messages[stream]


@pytest.mark.parametrize("method", [SESSION, WATCH])
def test_a_stream_whose_caller_takes_nothing_is_given_back_and_holds_up_nobody(retriever, auth, method):
    settings = {"idle_s": 0.5, "max_sessions": 1, "max_watches": 1}
    with running(retriever, auth=auth, **settings) as server:
        with connection(server, window=0) as streams:
            stream = streams.open(method, bearer("shop"))
            streams.send(stream, begin().SerializeToString() if method == SESSION else b"")
            streams.read(0.2)
            # a watcher that does not read holds up neither checks nor changes
            assert health(server) == "SERVING"
            server.ready()
            assert streams.wait(stream) == "CANCELLED"
        assert eventually(lambda: _has_room(server, "other"))


def test_health_watches_are_limited_and_the_refused_are_told_when_to_come_back():
    with (
        running(ExactRetriever(), max_watches=3, max_watches_per_caller=2) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stubbed = health_pb2_grpc.HealthStub(channel)
        watches = [stubbed.Watch(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(2)]
        for watch in watches:
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        code, details = refusal(lambda: list(stubbed.Watch(health_pb2.HealthCheckRequest(), timeout=20)))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_details_pb2.RetryInfo in details
        watches[0].cancel()
        again = []
        assert eventually(lambda: _watches(stubbed, again))
        # every change is told
        server._readiness.drain()
        for watch in (watches[1], again[0]):
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()


def _watches(stubbed: Any, kept: list[Any]) -> bool:
    watch = stubbed.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    try:
        next(watch)
    except grpc.RpcError:
        return False
    kept.append(watch)
    return True


def test_an_unknown_service_is_watched_until_it_is_known():
    with running(ExactRetriever()) as server, grpc.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="none"), timeout=20)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()


def test_a_method_that_there_is_not_is_refused_and_counted_without_its_name(auth):
    log = io.BytesIO()
    with running(ExactRetriever(), auth=auth, log=log) as server, grpc.insecure_channel(server.address) as channel:
        code, details = refusal(lambda: channel.unary_unary("/no.Such/Method-4711")(b"", timeout=20))
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert details[error_details_pb2.ErrorInfo].reason == "UNKNOWN_METHOD"
        assert eventually(lambda: bool(lines(log, method="unknown")))
        assert b"4711" not in log.getvalue()
