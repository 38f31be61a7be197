"""Short calls in steps on a real server: what goes together, what does not, and who waits for whom."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recsys.retrieval import Answer, Retriever
from serving.interceptors.behaviour import on_threads
from serving.runtime.admission import Admission
from serving.runtime.call_threads import Arrivals, CallThreads
from serving.runtime.deadlines import Deadlines
from serving.runtime.lane import ENDS_S, MAX_TOGETHER, SHORT_BYTES, SLOW_S, Lane
from serving.runtime.steps import Steps, Work
from serving.servicers.recommendation import FEW, FEW_METADATA_BYTES, FEW_SEEN
from tests.e2e.exact_retriever import ExactRetriever, GatedRetriever
from tests.e2e.test_wire import EAST, running
from twintower.client import Client
from twintower.errors import DeadlineError
from twintower.types import Query

Ask = Callable[[bytes], Any]


def refused(error: Exception) -> Callable[[Any, grpc.ServicerContext], Any]:
    def refuse(request: Any, context: grpc.ServicerContext) -> Any:
        raise error

    return refuse


def workers(count: int) -> CallThreads:
    """Threads with a queue that is never full."""
    return CallThreads(count, Arrivals(20.0, refused, Deadlines()), Admission(10_000), thread_name_prefix="call")


@contextmanager
def lane_of(
    behaviour: Callable[[bytes, grpc.ServicerContext], Steps[bytes]], threads: CallThreads | None = None
) -> Iterator[tuple[Ask, list[int]]]:
    """A server with one method in steps: what begins a call of it, and how many works were done at once."""
    told: list[int] = []
    threads = threads or workers(2)
    lane = Lane(threads, told.append)
    server = grpc.server(threads)
    lane.attend(server)
    method = on_threads(lambda request, context: behaviour(request, context), lane)
    handlers = {"Do": grpc.unary_unary_rpc_method_handler(method)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("lane.Test", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        do = channel.unary_unary("/lane.Test/Do")
        yield lambda request, **how: do.future(request, **{"timeout": 20, **how}), told
    server.stop(None).wait()


def code_beside_others(
    behaviour: Callable[[bytes, grpc.ServicerContext], Steps[bytes]],
    request: bytes,
    threads: CallThreads | None = None,
    **how: Any,
) -> grpc.StatusCode:
    """Return how a call ends; one that is begun beside it and one after it are answered."""
    with lane_of(behaviour, threads) as (ask, _):
        call, good = ask(request, **how), ask(b"good")
        assert good.result(20) == b"good"
        code = call.code()
        assert ask(b"again").result(20) == b"again"
    return code


class Gate:
    """Work that is done once the gate is open; `entered` says that some waits."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        self.asked: list[list[bytes]] = []
        self.done_by: list[int] = []

    def do(self, asked: Sequence[bytes]) -> list[bytes]:
        self.asked.append(list(asked))
        self.done_by.append(threading.get_ident())
        self.entered.set()
        assert self.open.wait(20)
        if b"wrong" in asked:
            raise ValueError("wrong")
        return [each.upper() for each in asked]


def test_calls_that_come_while_others_are_worked_on_go_together():
    gate = Gate()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        return (yield Work(gate.do, request, "alike"))

    with lane_of(behaviour) as (ask, told):
        first = ask(b"first")
        assert gate.entered.wait(10)
        others = [ask(b"%d" % place) for place in range(MAX_TOGETHER + 3)]
        time.sleep(0.5)  # they are on their way
        gate.open.set()
        assert first.result(20) == b"FIRST"
        assert [other.result(20) for other in others] == [b"%d" % place for place in range(MAX_TOGETHER + 3)]
    # How many of them gRPC has ready at a time is its own affair.
    assert told == [len(asked) for asked in gate.asked]
    assert (told[0], sum(told)) == (1, 1 + MAX_TOGETHER + 3)
    assert MAX_TOGETHER / 4 < max(told) <= MAX_TOGETHER
    assert len(set(gate.done_by)) == 1


def test_only_what_is_alike_goes_together_and_each_step_does():
    gate = Gate()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        once = yield Work(gate.do, request, request[:1])
        return (yield Work(gate.do, once.lower() + b"2", "second"))

    letters = b"abab" * 4
    with lane_of(behaviour) as (ask, _):
        calls = [ask(b"%c" % letter) for letter in letters]
        assert gate.entered.wait(10)
        time.sleep(0.5)
        gate.open.set()
        assert [call.result(20) for call in calls] == [b"%c2" % letter for letter in letters.upper()]
    firsts = [set(asked) for asked in gate.asked if asked[0] in (b"a", b"b")]
    seconds = [set(asked) for asked in gate.asked if asked[0] not in (b"a", b"b")]
    assert all(len(kinds) == 1 for kinds in firsts)
    assert {b"a2", b"b2"} in seconds
    assert len(gate.asked) < 2 * len(letters)


def test_the_mistake_of_one_call_is_not_that_of_the_others():
    gate = Gate()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        try:
            return (yield Work(gate.do, request, "alike"))
        except ValueError:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

    with lane_of(behaviour) as (ask, _):
        calls = [ask(request) for request in (b"first", b"right", b"wrong", b"good")]
        assert gate.entered.wait(10)
        time.sleep(0.5)
        gate.open.set()
        codes = [call.code() for call in calls]
    assert codes == [grpc.StatusCode.OK] * 2 + [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OK]


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_behaviour_that_fails_ends_its_call_and_no_other(place):
    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        if request == b"fail" and place == "before":
            raise OSError("secret")
        (answer,) = yield Work(lambda asked: [[each] for each in asked], request, "alike")
        if request == b"fail":
            raise OSError("secret")
        return answer

    assert code_beside_others(behaviour, b"fail") is grpc.StatusCode.UNKNOWN


def test_work_that_answers_too_few_fails_for_its_own_call_and_the_server_goes_on():
    def do(asked: Sequence[bytes]) -> list[bytes]:
        return [each for each in asked if each != b"lost"]

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        return (yield Work(do, request, "alike"))

    assert code_beside_others(behaviour, b"lost") is grpc.StatusCode.UNKNOWN


def test_a_call_that_gets_no_thread_takes_no_other_with_it():
    threads = workers(1)
    threads.shutdown()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        (answer,) = yield Work(lambda asked: [asked], request, None if request == b"alone" else "alike")
        return answer

    assert code_beside_others(behaviour, b"alone", threads, timeout=1) is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("alike", ["alike", None])
def test_the_error_of_a_work_goes_with_its_call_and_waits_for_no_garbage_collection(alike):
    gate, errors = Gate(), []

    class Wrong(Exception):
        def __init__(self) -> None:
            errors.append(weakref.ref(self))

    def do(asked: Sequence[bytes]) -> list[bytes]:
        gate.do(asked)
        raise Wrong

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        try:
            return (yield Work(do, request, alike))
        except Wrong:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "wrong")

    gc.disable()
    try:
        with lane_of(behaviour) as (ask, _):
            first = ask(b"first")
            assert gate.entered.wait(10)
            others = [ask(b"other") for _ in range(5)]
            time.sleep(0.5)  # they are on their way
            gate.open.set()
            assert {call.code() for call in (first, *others)} == {grpc.StatusCode.INVALID_ARGUMENT}
            until_s = time.monotonic() + 5
            while any(error() is not None for error in errors) and time.monotonic() < until_s:
                time.sleep(0.02)
            assert [error() for error in errors] == [None] * len(errors)
        assert len(errors) >= 6
    finally:
        gc.enable()


def test_calls_that_take_long_to_begin_do_not_begin_one_after_another():
    gate = Gate()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        until_s = time.thread_time() + (2 * SLOW_S if request == b"long" else 0)
        while time.thread_time() < until_s:
            pass
        return (yield Work(gate.do, request, "alike"))

    with lane_of(behaviour) as (ask, told):
        first = ask(b"first")
        assert gate.entered.wait(10)
        others = [ask(b"long") for _ in range(4)]
        time.sleep(0.5)  # they are on their way
        gate.open.set()
        assert [call.result(20) for call in (first, *others)] == [b"FIRST"] + [b"LONG"] * 4
    assert told == [1] * 5


def test_calls_that_take_long_to_end_do_not_end_one_after_another():
    gate, ended_by = Gate(), []

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        answer = yield Work(gate.do, request, "alike")
        until_s = time.thread_time() + (2 * ENDS_S if request == b"long" else 0)
        while time.thread_time() < until_s:
            pass
        ended_by.append(threading.get_ident())
        return answer

    with lane_of(behaviour) as (ask, told):
        first = ask(b"first")
        assert gate.entered.wait(10)
        others = [ask(b"long") for _ in range(4)]
        time.sleep(0.5)  # they are on their way
        gate.open.set()
        assert [call.result(20) for call in (first, *others)] == [b"FIRST"] + [b"LONG"] * 4
        assert told == [1, 4]
        # the first of them where all were searched for, the others on the two other threads
        assert ended_by.count(gate.done_by[0]) == 2
        assert ask(b"last").result(20) == b"LAST"
        assert ended_by[-1] == gate.done_by[0]


def test_what_is_done_alone_holds_up_nobody():
    gate, quick = Gate(), Gate()
    quick.open.set()

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        return (yield Work(gate.do, request) if request == b"slow" else Work(quick.do, request, "alike"))

    with lane_of(behaviour) as (ask, told):
        slow = ask(b"slow")
        assert gate.entered.wait(10)
        assert ask(b"quick").result(20) == b"QUICK"
        assert not slow.done()
        gate.open.set()
        assert slow.result(20) == b"SLOW"
    assert told == [1]
    assert gate.done_by != quick.done_by


def test_after_work_that_took_long_calls_go_to_other_threads_for_a_while():
    done_by = []

    def do(asked: Sequence[bytes]) -> list[bytes]:
        done_by.append(threading.get_ident())
        until_s = time.thread_time() + (2 * SLOW_S if b"long" in asked else 0)
        while time.thread_time() < until_s:
            pass
        return list(asked)

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        return (yield Work(do, request, "alike"))

    with lane_of(behaviour) as (ask, told):
        for request in (b"short", b"long", b"short"):
            assert ask(request).result(20) == request
        assert told == [1, 1]
        assert done_by[0] == done_by[1] != done_by[2]
        # 20 times as long as it took: 2 s, and then they are worked on as before
        deadline_s = time.monotonic() + 20
        while len(told) == 2 and time.monotonic() < deadline_s:
            time.sleep(0.2)
            ask(b"short").result(20)
        assert done_by[-1] == done_by[0]


def test_every_step_of_a_call_sees_the_call_s_own_context():
    gate = Gate()
    own: contextvars.ContextVar[bytes] = contextvars.ContextVar("own")

    def behaviour(request: bytes, context: grpc.ServicerContext) -> Steps[bytes]:
        own.set(request)
        answer = yield Work(gate.do, request, "alike")
        return own.get() + answer

    with lane_of(behaviour) as (ask, _):
        calls = [ask(b"%c" % letter) for letter in b"abcdef"]
        assert gate.entered.wait(10)
        gate.open.set()
        assert [call.result(20) for call in calls] == [b"aA", b"bB", b"cC", b"dD", b"eE", b"fF"]


def test_a_call_that_waited_too_long_for_its_turn_is_not_worked_on():
    retriever = GatedRetriever()
    with (
        running(retriever) as server,
        futures.ThreadPoolExecutor(1) as pool,
        Client(server.address, timeout_s=20.0) as patient,
        Client(server.address, timeout_s=0.3) as hasty,
    ):
        first = pool.submit(patient.nearest_items, Query(vector=EAST), k=1)
        assert retriever.entered.wait(10)
        with pytest.raises(DeadlineError):
            hasty.nearest_items(Query(vector=EAST), k=1)
        retriever.gate.set()
        assert first.result(10).item_ids == ("a",)
        patient.nearest_items(Query(vector=EAST), k=1)
        assert retriever.answered == 2


def test_every_one_of_many_callers_at_once_gets_the_answer_to_its_own_query(block_release):
    retriever = Retriever(block_release)
    entities = [f"user {number}" for number in range(1, 9)]
    expected = {entity: retriever.nearest([Query(entity_id=entity)], 5)[0] for entity in entities}
    asked = [entities[place % len(entities)] for place in range(200)]
    with (
        running(retriever) as server,
        Client(server.address, timeout_s=20.0) as client,
        futures.ThreadPoolExecutor(16) as pool,
    ):
        found = list(pool.map(lambda entity: client.nearest_items(Query(entity_id=entity), 5), asked))
    for entity, ranking in zip(asked, found, strict=True):
        assert ranking.item_ids == expected[entity].item_ids
        np.testing.assert_allclose(ranking.scores, expected[entity].scores, rtol=1e-5)


def test_what_is_for_many_items_or_by_many_or_large_is_searched_on_another_thread_than_what_is_short():
    class Noting(ExactRetriever):
        def __init__(self) -> None:
            super().__init__()
            self.threads: list[int] = []
            self.seen = 0

        def seen_count(self, query: Query) -> int:
            return self.seen

        def nearest(self, queries: Sequence[Query], *asked: Any, **how: Any) -> list[Answer]:
            self.threads.append(threading.get_ident())
            return super().nearest(queries, *asked, **how)

    retriever, many = Noting(), [f"item {number}" for number in range(FEW + 1)]
    with running(retriever, worker_threads=1) as server, Client(server.address, timeout_s=20.0) as client:
        client.nearest_items(Query(vector=EAST), k=FEW)
        client.nearest_items(Query(entity_id="Zoë", history=many[:FEW]), k=1)
        client.nearest_items(Query(vector=EAST), k=FEW + 1)
        client.nearest_items(Query(item_ids=many), k=1)
        client.nearest_items(Query(entity_id="Zoë", history=many), k=1)
        client.nearest_items(Query(features={"taste": SHORT_BYTES * "x"}), k=1)
        for retriever.seen in (FEW_SEEN, FEW_SEEN + 1):
            client.nearest_items(Query(entity_id="Zoë", exclude_seen=True), k=1)
        for retriever.metadata_bytes in (FEW_METADATA_BYTES / 4, FEW_METADATA_BYTES / 4 + 1):
            client.nearest_items(Query(vector=EAST), k=4, include_metadata=True)
    polling = retriever.threads[0]
    is_polling = [thread == polling for thread in retriever.threads]
    assert is_polling == [True] * 2 + [False] * 4 + [True, False] * 2


def test_a_flood_of_other_calls_does_not_stop_the_lane():
    over = threading.Event()

    def flood(address: str) -> None:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            checks = health_pb2_grpc.HealthStub(channel)
            while not over.is_set():
                for check in [checks.Check.future(health_pb2.HealthCheckRequest(), timeout=20) for _ in range(50)]:
                    assert check.result(20).status

    with (
        running(ExactRetriever()) as server,
        Client(server.address, timeout_s=20.0) as client,
        futures.ThreadPoolExecutor(4) as pool,
    ):
        floods = [pool.submit(flood, server.address) for _ in range(4)]
        try:
            for _ in range(20):
                assert client.nearest_items(Query(vector=EAST), k=1).item_ids == ("a",)
        finally:
            over.set()
        for each in floods:
            each.result(20)


def test_a_lane_can_be_shut_down():
    threads = workers(1)
    lane = Lane(threads, lambda count: None)
    lane.shutdown()
    threads.shutdown()
