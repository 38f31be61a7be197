"""Work is bounded and dies with its caller: deadlines, cancellation, shutdown, sizes of answers, who waits for whom."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import load
from benchmarks.abuse import SERVICE, abuse, largest
from recsys.cancellation import checkpoint
from recsys.retrieval import Answer, Matches, Retriever
from serving import codecs
from serving.runtime.admission import CallCheck
from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_process import serving
from tests.e2e.test_wire import ALONE, EAST, health, refusal, running
from twintower import codecs as client_codecs
from twintower.client import Client
from twintower.errors import AnswerTooLargeError, DeadlineError, RequestError, ServerError
from twintower.filters import parse_filter
from twintower.types import NO_DIVERSITY, Diversity, FeedbackItem, FeedbackKind, Query
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

ENDLESS = Query(vector=EAST, excluded_ids=["endless"])
PATIENCE_S = 30.0
"""What any wait of these tests may take before it counts as never."""
ABUSE_S, SLOWEST_S = 4.0, 10.0
BATCH, LONGEST = 4000, 97
GROWTH_BYTES = 200 * 2**20


class EndlessRetriever(ExactRetriever):
    """Works endlessly, with checkpoints, on queries that exclude `endless`; on others as `ExactRetriever`."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)

    def nearest(
        self, queries: Sequence[Query], k: int, diversity: Diversity = NO_DIVERSITY, **how: Any
    ) -> list[Answer]:
        if any("endless" in query.excluded_ids for query in queries):
            self._work()
        return super().nearest(queries, k, diversity, **how)

    def search_vectors(self, vectors: np.ndarray, k: int, *, effort: float = 1.0) -> Matches:
        self._work()
        return super().search_vectors(vectors, k, effort=effort)

    def _work(self) -> None:
        self.entered.release()
        ends = time.monotonic() + 2 * PATIENCE_S  # so that a failing test ends
        while time.monotonic() < ends:
            sum(range(1000))
            checkpoint()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_ends_when_its_deadline_passes_and_when_its_caller_cancels():
    retriever = EndlessRetriever()
    message = client_codecs.query_to_proto(ENDLESS)
    with running(retriever, worker_threads=2) as server, grpc.insecure_channel(server.address) as channel:
        service = pb_grpc.RecommendationServiceStub(channel)
        asks: list[tuple[Any, Message]] = [
            (service.NearestItems, pb.NearestItemsRequest(query=message, k=1)),
            (service.BatchNearestItems, pb.BatchNearestItemsRequest(queries=[message], k=1)),
            (service.SearchVectors, pb.SearchVectorsRequest(vectors=[EAST.tobytes()], k=1)),
        ]
        for ask, request in asks:
            late = ask.future(request, timeout=0.3)
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            gone = ask.future(request, timeout=PATIENCE_S)
            assert retriever.entered.acquire(timeout=PATIENCE_S)
            gone.cancel()
            until(lambda: not server.observation.running)


def test_more_endless_calls_than_threads_work_hold_up_no_other_call_and_no_health_check():
    retriever = EndlessRetriever()
    request = pb.NearestItemsRequest(query=client_codecs.query_to_proto(ENDLESS), k=1)
    with (
        running(retriever, worker_threads=1, drain_s=0.1) as server,
        grpc.insecure_channel(server.address) as channel,
        Client(server.address, timeout_s=PATIENCE_S) as client,
    ):
        service = pb_grpc.RecommendationServiceStub(channel)
        calls = [service.NearestItems.future(request, timeout=10 * PATIENCE_S) for _ in range(5)]
        for _ in calls:
            assert retriever.entered.acquire(timeout=PATIENCE_S)
        # a query that is answered with others, and one that needs a thread
        for query in (Query(vector=EAST), ALONE):
            assert client.nearest_items(query, 1).item_ids == ("a",)
        assert health(server) == "SERVING"
        assert not any(call.done() for call in calls)


def test_a_session_beside_endless_calls_gets_on():
    retriever = EndlessRetriever()
    request = pb.NearestItemsRequest(query=client_codecs.query_to_proto(ENDLESS), k=1)
    with running(retriever, worker_threads=1, drain_s=0.1) as server, grpc.insecure_channel(server.address) as channel:
        service = pb_grpc.RecommendationServiceStub(channel)
        calls = [service.NearestItems.future(request, timeout=10 * PATIENCE_S) for _ in range(2)]
        assert retriever.entered.acquire(timeout=PATIENCE_S)
        with pytest.raises(grpc.RpcError) as caught:
            next(service.Session(iter([pb.SessionRequest()]), timeout=PATIENCE_S))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # it was read and answered
        for call in calls:
            call.cancel()


def test_a_server_stops_within_its_drain_time_whatever_it_works_on():
    retriever = EndlessRetriever()
    request = pb.NearestItemsRequest(query=client_codecs.query_to_proto(ENDLESS), k=1)
    with running(retriever, drain_s=0.5) as server, grpc.insecure_channel(server.address) as channel:
        service = pb_grpc.RecommendationServiceStub(channel)
        calls = [service.NearestItems.future(request, timeout=10 * PATIENCE_S) for _ in range(6)]
        assert retriever.entered.acquire(timeout=PATIENCE_S)
        server.stop()
        assert {call.code() for call in calls} <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        until(lambda: not server.observation.running)


def test_a_call_that_has_ended_leaves_nothing_that_waits_for_garbage_collection():
    """What a call holds, such as a request of megabytes, must go when the call ends, however it ends."""
    retriever = EndlessRetriever()

    def held() -> int:
        return sum(isinstance(each, CallCheck) for each in gc.get_objects())

    def late(client: Client) -> None:
        with pytest.raises(DeadlineError):
            client.nearest_items(ENDLESS, 1)

    def wrong(client: Client) -> None:
        with pytest.raises(RequestError):
            client.nearest_items(Query(vector=[1.0, 2.0, 3.0]), 1)

    def converse(client: Client) -> None:
        with client.session(Query(vector=EAST), 1) as session, pytest.raises(ServerError):
            session.reformulate()

    with running(retriever) as server, Client(server.address, timeout_s=0.5) as client:
        for ask in (
            lambda client: client.nearest_items(Query(vector=EAST), 1),
            lambda client: client.nearest_items(ALONE, 1),
            lambda client: client.batch_nearest_items([ALONE] * 3, 1),
            late,
            wrong,
            converse,
        ):
            gc.collect()
            gc.disable()
            try:
                ask(client)
                until(lambda: not server.observation.running)
                until(lambda: held() == 0)
            finally:
                gc.enable()


@pytest.mark.parametrize("method", ["BatchNearestItems", "SearchVectors"])
def test_an_answer_of_too_many_items_is_the_callers_mistake(method):
    # 3 lists of 4 items are 12, one more than allowed; of 3 items each they are 9
    with running(ExactRetriever(), max_answer_items=11) as server, grpc.insecure_channel(server.address) as channel:
        service = pb_grpc.RecommendationServiceStub(channel)

        def ask(k: int) -> Any:
            if method == "SearchVectors":
                return service.SearchVectors(pb.SearchVectorsRequest(vectors=[EAST.tobytes()] * 3, k=k))
            query = client_codecs.query_to_proto(Query(vector=EAST))
            return service.BatchNearestItems(pb.BatchNearestItemsRequest(queries=[query] * 3, k=k))

        assert ask(3)
        code, details = refusal(lambda: ask(4))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details[error_details_pb2.BadRequest].field_violations
        assert violation.field == ("vectors" if method == "SearchVectors" else "queries")
        assert "12 items, expected at most 11" in violation.description


def test_an_answer_of_too_many_bytes_is_refused_in_every_method_and_says_so(block_release):
    queries, liked = (
        [Query(entity_id=f"user {row}") for row in range(20)],
        [FeedbackItem("item-ü3", FeedbackKind.LIKED)],
    )
    with (
        running(Retriever(block_release), max_answer_bytes=1024) as server,
        Client(server.address, timeout_s=PATIENCE_S) as client,
    ):
        for ask in (
            lambda k: client.nearest_items(queries[0], k, include_metadata=True),
            lambda k: client.batch_nearest_items(queries[: k // 10 + 1], k, include_metadata=True),
            lambda k: client.search_vectors(np.ones((k, 8), np.float32), k),
            lambda k: client.reformulate(queries[0], k, liked, include_metadata=True),
        ):
            assert ask(2)
            with pytest.raises(AnswerTooLargeError, match="max_answer_bytes = 1024"):
                ask(40)
        with client.session(queries[0], 40, include_metadata=True) as session, pytest.raises(AnswerTooLargeError):
            session.reformulate(liked)
        with grpc.insecure_channel(server.address) as channel:
            request = pb.NearestItemsRequest(
                query=client_codecs.query_to_proto(queries[0]), k=40, include_metadata=True
            )
            code, details = refusal(lambda: pb_grpc.RecommendationServiceStub(channel).NearestItems(request))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details[error_details_pb2.ErrorInfo].reason == "ANSWER_TOO_LARGE"
    assert error_details_pb2.RetryInfo not in details


@given(st.lists(st.lists(st.text(max_size=4), max_size=5), max_size=6))
def test_parts_that_are_encoded_one_after_the_other_are_the_whole_message(lists):
    results = [pb.RankedItems(item_ids=ids, scores=range(len(ids))) for ids in lists]
    whole = pb.BatchNearestItemsResponse(results=results, release=pb.ReleaseId(name="r"))
    parts = [pb.BatchNearestItemsResponse(release=pb.ReleaseId(name="r"))]
    parts += [pb.BatchNearestItemsResponse(results=[result]) for result in results]
    size = whole.ByteSize()
    assert pb.BatchNearestItemsResponse.FromString(codecs.encoded(parts, size)) == whole
    with pytest.raises(RequestError):
        codecs.encoded(parts, size - 1)


def busy_s(pid: int) -> float:
    """Seconds of processor time that a process has taken so far."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


def test_abusive_callers_with_short_deadlines_harm_nobody_and_leave_nothing_behind(block_release, tmp_path):
    """Holds on a busy machine, too.

    Every ordinary call and health check ends well and within `SLOWEST_S`, the server's memory grows by less than
    `GROWTH_BYTES`, after the last abusive call the server comes to rest, and under such work it stops within its drain
    time and `SLOWEST_S`.
    """
    # Over 40 items such batches are as much work as 1,024 queries are over a catalog of ordinary size.
    most = LONGEST * BATCH
    limits = {"max_batch": BATCH, "max_answer_items": most, "max_answer_bytes": 2**30, "drain_s": 1}
    settings = [word for name, value in limits.items() for word in ("--set", f"{name}={value}")]
    ids, vectors = [f"item-ü{row}" for row in range(40)], np.load(block_release.folder / "golden" / "vectors.npy")
    messages = largest(
        ids, vectors, text_field="taste", number_field="price", batch=BATCH, answer_items=most, max_k=LONGEST
    )
    requests = [(rpc, message.SerializeToString()) for rpc, message in messages.values()]
    over, codes = threading.Event(), Counter[str]()
    with (
        serving(block_release, tmp_path, *settings) as (process, client),
        futures.ThreadPoolExecutor(len(requests)) as pool,
    ):
        address = f"127.0.0.1:{(tmp_path / 'port').read_text().strip()}"
        with grpc.insecure_channel(address) as channel:
            checks = health_pb2_grpc.HealthStub(channel)
            ordinary = [Query(entity_id="user 1"), Query(entity_id="user 2", filter=parse_filter({"taste": "salt"}))]
            for query in ordinary:
                client.nearest_items(query, 5, include_metadata=True)
            before, _ = load.memory_of(process.pid)
            with ExitStack() as stack:
                stack.callback(over.set)
                for place, (rpc, request) in enumerate(requests):
                    pool.submit(abuse, address, rpc, request, 0.05 if place % 2 else 0.3, over, codes)
                took_s, ends = [], time.monotonic() + ABUSE_S
                while time.monotonic() < ends:
                    for query in ordinary:
                        started = time.monotonic()
                        assert len(client.nearest_items(query, 5, include_metadata=True).item_ids) == 5
                        took_s.append(time.monotonic() - started)
                    started = time.monotonic()
                    assert checks.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status
                    took_s.append(time.monotonic() - started)
                over.set()
        assert max(took_s) < SLOWEST_S
        assert codes["DEADLINE_EXCEEDED"] > 0  # they did ask for more than they waited for
        assert load.memory_of(process.pid)[0] - before < GROWTH_BYTES

        def rests() -> bool:
            spent_s = busy_s(process.pid)
            time.sleep(0.5)
            return busy_s(process.pid) - spent_s < 0.1

        until(rests)
        # and under such work it stops in time
        with grpc.insecure_channel(address) as channel:
            rpc, message = messages["MMR"]
            call = channel.unary_unary(f"{SERVICE}{rpc}")
            calls = [call.future(message.SerializeToString(), timeout=10 * PATIENCE_S) for _ in range(16)]
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(1 + SLOWEST_S) == 0
            assert all(call.code() is not None for call in calls)
