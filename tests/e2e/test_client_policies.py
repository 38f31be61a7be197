"""Retries and hedging of both clients, against a server whose calls are slow or refused as a test wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import pytest
from grpc_status import rpc_status

from serving.status import status_of
from twintower import AsyncClient, Client, HedgingPolicy, OverloadedError, Query, QuotaError, Ranking, RetryPolicy
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

QUERY = Query.for_entity("u1")


@dataclass
class Scripted(pb_grpc.RecommendationServiceServicer):
    """Answers each call as the script says: an exception is sent, an event is waited for; beyond it at once."""

    script: list[Exception | threading.Event]
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def NearestItems(self, request: pb.NearestItemsRequest, context: grpc.ServicerContext) -> pb.NearestItemsResponse:
        with self.lock:
            number, self.calls = self.calls, self.calls + 1
        step = self.script[number] if number < len(self.script) else None
        if isinstance(step, Exception):
            context.abort_with_status(rpc_status.to_status(status_of(step, "r1")))
        if step is not None:
            step.wait(20)
        return pb.NearestItemsResponse(result=pb.RankedItems(item_ids=[str(number)], scores=[1.0]))


@contextmanager
def serving(*script: Exception | threading.Event) -> Iterator[tuple[str, Scripted]]:
    with ThreadPoolExecutor(4) as pool:
        server, servicer = grpc.server(pool), Scripted(list(script))
        pb_grpc.add_RecommendationServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}", servicer
        finally:
            for step in script:
                if isinstance(step, threading.Event):
                    step.set()
            server.stop(None).wait()


def from_a_thread(target: str, **settings) -> Ranking:
    with Client(target, timeout_s=20.0, **settings) as client:
        return client.nearest_items(QUERY)


def from_asyncio(target: str, **settings) -> Ranking:
    async def call() -> Ranking:
        async with AsyncClient(target, timeout_s=20.0, **settings) as client:
            return await client.nearest_items(QUERY)

    return asyncio.run(call())


both = pytest.mark.parametrize("ask", [from_a_thread, from_asyncio])
Ask = Callable[..., Ranking]


@both
@pytest.mark.parametrize("refusal", [OverloadedError("busy", 0.01), QuotaError("spent", 0.01)], ids=["busy", "quota"])
def test_a_refused_call_is_repeated_after_the_time_that_the_server_names_only_by_option(ask: Ask, refusal):
    with serving(refusal, refusal) as (target, servicer):
        assert ask(target, retry=RetryPolicy(honor_retry_info=True)).item_ids == ("2",)
        assert servicer.calls == 3
    with serving(refusal) as (target, servicer), pytest.raises(type(refusal)):
        ask(target)
    assert servicer.calls == 1


@both
def test_a_refused_call_is_not_repeated_more_often_than_the_policy_says_or_beyond_the_deadline(ask: Ask):
    refusal = OverloadedError("busy", 0.01)
    with serving(*[refusal] * 9) as (target, servicer):
        with pytest.raises(OverloadedError):
            ask(target, retry=RetryPolicy(max_attempts=3, honor_retry_info=True))
        assert servicer.calls == 3
    with serving(OverloadedError("busy", 60.0)) as (target, servicer):
        with pytest.raises(OverloadedError):
            ask(target, retry=RetryPolicy(honor_retry_info=True))
        assert servicer.calls == 1


@both
def test_the_first_answer_to_a_hedged_query_counts(ask: Ask):
    with serving(threading.Event()) as (target, servicer):
        # the first call never ends by itself; the second one is answered at once
        assert ask(target, hedging=HedgingPolicy(0.05)).item_ids == ("1",)
        assert servicer.calls == 2


@both
def test_an_error_that_no_repetition_mends_ends_a_hedged_query_at_once(ask: Ask):
    with serving(OverloadedError("busy", 0.01)) as (target, servicer):
        with pytest.raises(OverloadedError):
            ask(target, hedging=HedgingPolicy(15.0))
        assert servicer.calls == 1


@both
def test_a_query_that_is_answered_before_the_delay_is_sent_once(ask: Ask):
    with serving() as (target, servicer):
        assert ask(target, hedging=HedgingPolicy(15.0, max_attempts=3)).item_ids == ("0",)
        assert servicer.calls == 1
