"""More calls than can be worked on: a bounded queue, its end, and answers in a hurry."""

from __future__ import annotations

from concurrent import futures
from types import SimpleNamespace

import pytest

from recsys.retrieval import Retriever
from recsys.types import FeedbackKind, Mention, Query
from serving.client import Client
from serving.errors import OverloadedError
from serving.runtime.admission import Admission
from serving.settings import QueueSettings
from serving.v1 import recommendation_service_pb2 as pb
from tests.e2e.exact_retriever import GatedRetriever
from tests.e2e.test_wire import EAST, health, running, stub

ASKED = Query(vector=EAST)
CALLERS = 12


def test_calls_that_find_the_queue_full_are_told_when_to_come_again_and_the_others_are_answered():
    # given: one call is worked on and waits at the gate, two may wait
    retriever = GatedRetriever()
    queue = {"max_waiting": 2, "hurry_above_waiting": 1000}
    with running(retriever, worker_threads=1, queue=queue) as server, Client(server.address, timeout_s=30) as client:
        with futures.ThreadPoolExecutor(CALLERS) as pool:
            first = pool.submit(client.nearest_items, ASKED, 1)
            retriever.entered.wait(10)
            calls = [pool.submit(client.nearest_items, ASKED, 1) for _ in range(CALLERS - 1)]
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
        assert client.nearest_items(ASKED, 1).item_ids


def test_a_call_whose_caller_has_gone_while_it_waited_is_not_worked_on():
    retriever = GatedRetriever()
    with running(retriever, worker_threads=1) as server:
        service = stub(server)
        request = pb.NearestItemsRequest(k=1)
        request.query.vector.values.values.extend(EAST)
        first = service.NearestItems.future(request)
        retriever.entered.wait(10)
        waiting = service.NearestItems.future(request)
        last = service.NearestItems.future(request)
        waiting.cancel()
        retriever.gate.set()
        assert first.result(20).result.item_ids
        assert last.result(20).result.item_ids
        assert retriever.calls == 2


def test_in_a_hurry_answers_are_marked_and_feedback_moves_nothing(block_release):
    retriever = Retriever(block_release)
    asked, liked = Query(entity_id="user 1"), [Mention("item-ü3", FeedbackKind.LIKED)]
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
    assert (Admission(settings, lambda: waiting).effort(context) < 1) == hurries
