"""The load generator against a real gRPC server."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from benchmarks import load, wire
from twintower.errors import TwintowerError

METHOD = "/a.B/C"


class Handler(grpc.GenericRpcHandler):
    """Echoes; `refuse` is refused, and `slow` takes 50 ms."""

    def service(self, handler_call_details):
        def answer(request, context):
            if request == b"refuse":
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
            time.sleep(0.05 if request == b"slow" else 0)
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def target() -> Iterator[str]:
    """The address of a server with one thread."""
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_requests_take_turns_and_each_answer_and_status_is_kept(target):
    long = b"x" * 50_000  # more than one frame of 16,384 bytes each way

    told = wire.closed(target, METHOD, [b"short", b"refuse", long], callers=3, seconds=0.3)

    assert set(told.statuses) == {"OK", "RESOURCE_EXHAUSTED"}
    # two of three requests are answered, give or take the turn that was under way at the end
    assert abs(told.statuses["OK"] - 2 * told.statuses["RESOURCE_EXHAUSTED"]) <= 3
    assert told.answers == {0: b"short", 2: long}
    assert told.ok.sum() == told.statuses["OK"]
    assert 0 < told.goodput <= told.statuses["OK"] / 0.3


def test_an_open_loop_counts_from_when_a_call_was_due_however_long_the_queue(target):
    # one thread does 20 calls a second, 60 are asked for: after half a second 30 were due, and the last one waits until
    # all before it are done: 30 * 50 ms - 500 ms = 1 s
    told = wire.opened(target, METHOD, [b"slow"], rate=60, seconds=0.5)

    assert told.statuses == {"OK": 30}
    assert told.latency_ms(100) > 700
    assert told.late_s.shape == (30,)


def test_calls_past_their_deadline_are_not_goodput(target):
    told = wire.opened(target, METHOD, [b"slow"], rate=60, seconds=0.5, timeout_s=0.2)

    assert told.statuses["OK"] < 30
    assert sum(told.statuses.values()) == 30


def test_a_server_that_is_not_there_is_one_sentence():
    with pytest.raises(TwintowerError, match=r"127\.0\.0\.1:1: .*Is the server running\?"):
        wire.closed("127.0.0.1:1", METHOD, [b""], callers=1, seconds=0.1)


def test_the_process_that_listens_is_told_from_one_that_does_not(tmp_path):
    with load.bare_server(1, tmp_path) as address:
        own, *children = load.family(os.getpid())
        assert own == os.getpid()
        assert [pid for pid in children if load.listens(pid, address)] != []
        assert not load.listens(own, address)
        assert load.calls_per_s(address, METHOD, [b""], callers=2, seconds=0.2) > 0


def test_memory_is_that_of_a_process():
    resident, proportional = load.memory_of(os.getpid())

    assert 0 < proportional <= resident
