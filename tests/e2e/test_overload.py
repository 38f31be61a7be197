"""More calls than can be worked on: a bounded queue, its end, and answers in a hurry."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recsys.retrieval import Retriever
from serving.runtime.admission import Admission, Effort
from serving.settings import QueueSettings
from serving.trust.rules import REFLECTION
from tests.e2e.exact_retriever import ExactRetriever, GatedRetriever
from tests.e2e.test_wire import ALONE, EAST, health, running
from twintower.client import Client
from twintower.errors import OverloadedError
from twintower.types import FeedbackItem, FeedbackKind, Query
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

CALLERS = 12
NEAREST, CHECK = "/twintower.v1.RecommendationService/NearestItems", "/grpc.health.v1.Health/Check"


@contextmanager
def silent() -> Iterator[Callable[[], Iterator[bytes]]]:
    """Makes requests of which none comes while the block runs."""
    over = threading.Event()
    try:
        yield lambda: (b"" for _ in iter(over.wait, True))
    finally:
        over.set()


def test_calls_that_find_the_queue_full_are_told_when_to_come_again_and_the_others_are_answered():
    # given: one call is worked on and waits at the gate, two may wait
    retriever = GatedRetriever()
    queue = {"max_waiting": 2, "hurry_above_waiting": 1000}
    with running(retriever, worker_threads=1, queue=queue) as server, Client(server.address, timeout_s=30) as client:
        with futures.ThreadPoolExecutor(CALLERS) as pool:
            first = pool.submit(client.nearest_items, ALONE, 1)
            retriever.entered.wait(10)
            calls = [pool.submit(client.nearest_items, ALONE, 1) for _ in range(CALLERS - 1)]
            # when all but two of the others have ended
            ends = futures.as_completed(calls, timeout=20)
            refused = [next(ends) for _ in range(CALLERS - 3)]
            # then: health is still told, and what waited is answered once the gate opens
            assert health(server) == "SERVING"
            retriever.gate.set()
            answered = [call for call in (first, *calls) if call.exception(20) is None]
        assert len(answered) == 3
        for call in refused:
            assert isinstance(call.exception(), OverloadedError)
            assert call.exception().retry_after_s > 0
        # and afterwards everything is as before
        assert client.nearest_items(ALONE, 1).item_ids


def test_a_call_whose_caller_has_gone_while_it_waited_is_not_worked_on():
    retriever = GatedRetriever()
    with running(retriever, worker_threads=1) as server, grpc.insecure_channel(server.address) as channel:
        service = pb_grpc.RecommendationServiceStub(channel)
        request = pb.NearestItemsRequest(k=1)
        request.query.vector.values.values.extend(EAST)
        request.query.excluded_ids.extend(ALONE.excluded_ids)
        first = service.NearestItems.future(request)
        retriever.entered.wait(10)
        waiting = service.NearestItems.future(request)
        last = service.NearestItems.future(request)
        waiting.cancel()
        # What comes over the same connection comes after the cancellation.
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20).status
        retriever.gate.set()
        assert first.result(20).result.item_ids
        assert last.result(20).result.item_ids
        assert retriever.calls == 2


def test_callers_who_begin_calls_and_send_nothing_hold_up_nobody():
    request = pb.NearestItemsRequest(k=1)
    request.query.vector.values.values.extend(EAST)
    with (
        running(ExactRetriever(), worker_threads=1, max_sessions=1) as server,
        silent() as requests,
        grpc.insecure_channel(server.address) as channel,
    ):
        # A connection keeps the order: what is begun first is there first.
        begun = [channel.stream_unary(method).future(requests()) for method in (NEAREST, CHECK) for _ in range(6)]
        begun += [channel.stream_stream(REFLECTION)(requests()) for _ in range(6)]
        service, checks = pb_grpc.RecommendationServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        assert service.NearestItems(request, timeout=10).result.item_ids
        assert checks.Check(health_pb2.HealthCheckRequest(), timeout=10).status
        with pytest.raises(grpc.RpcError) as caught:
            next(service.Session(iter([pb.SessionRequest()]), timeout=10))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # it was read
        assert not any(call.done() for call in begun)


def test_a_call_without_a_request_is_told_that_it_needs_one():
    with running(ExactRetriever()) as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(NEAREST)(iter(()), timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "expected one request" in caught.value.details()


def test_in_a_hurry_answers_are_marked_and_feedback_moves_nothing(block_release):
    retriever = Retriever(block_release)
    asked, liked = Query(entity_id="user 1"), [FeedbackItem("item-ü3", FeedbackKind.LIKED)]
    for hurry_below_s, hurries in ((1e6, True), (0, False)):
        queue = {"hurry_below_s": hurry_below_s}
        with running(retriever, queue=queue) as server, Client(server.address, timeout_s=30) as client:
            plain = client.nearest_items(asked, 5)
            moved = client.reformulate(asked, 5, liked, reformulator="average")
        assert plain.degraded == moved.ranking.degraded == hurries
        assert (moved.ranking.item_ids == plain.item_ids) == (moved.drift == 0) == hurries


@pytest.mark.parametrize(
    ("waiting", "left_s", "hurries"),
    [(0, None, False), (0, 5.0, False), (0, 0.001, True), (10, 5.0, False), (11, None, True)],
)
def test_a_call_hurries_near_its_deadline_and_where_many_wait(waiting, left_s, hurries):
    settings = QueueSettings(hurry_above_waiting=10, hurry_below_s=0.002)
    context = SimpleNamespace(time_remaining=lambda: left_s)
    admission = Admission(1000)
    admission.count(lambda: waiting)
    assert (Effort(settings, admission).of(context) < 1) == hurries
