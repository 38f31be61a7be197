"""Queries of several threads in one call: who goes with whom, and what becomes of errors and deadlines."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from twintower.coalescing import MAX_TOGETHER, Coalescer
from twintower.errors import DeadlineError, OverloadedError, RequestError, UnavailableError


class Server:
    """Answers `-asked`, refuses `bad`; calls wait while the gate is shut, and take some time."""

    def __init__(self, bad: int = 13, takes_s: float = 0.0) -> None:
        self.bad, self.takes_s = bad, takes_s
        self.calls: list[tuple[list[int], float]] = []
        self.trouble: Exception | None = None
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.coalescer: Coalescer[int, int] = Coalescer(self.alone, self.together)

    def alone(self, asked: int, timeout_s: float) -> int:
        return self.together([asked], timeout_s)[0]

    def together(self, asked: Sequence[int], timeout_s: float) -> list[int]:
        self.calls.append((list(asked), timeout_s))
        self.entered.release()
        assert self.gate.wait(20)
        time.sleep(self.takes_s)
        if self.trouble is not None:
            raise self.trouble
        if self.bad in asked:
            raise RequestError("query", f"{self.bad} is bad")
        return [-each for each in asked]

    def waiting(self, kind: str, count: int) -> None:
        """Wait until so many wait for a call to end."""
        deadline = time.monotonic() + 10
        while len(self.coalescer._waiting.get(kind, ())) != count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(100) as threads:
        yield threads


def asked(server: Server, pool: ThreadPoolExecutor, numbers: Sequence[int], kind: str = "k") -> list[Future]:
    """Ask for each number from a thread of its own, in this order, behind a call that has not ended."""
    pending = []
    for number in numbers:
        before = len(server.coalescer._waiting.get(kind, ()))
        pending.append(pool.submit(server.coalescer.ask, kind, number, 20.0))
        server.waiting(kind, before + 1)
    return pending


def first(server: Server, pool: ThreadPoolExecutor, number: int = 1, kind: str = "k") -> Future:
    """Begin a call that does not end before the gate opens."""
    pending = pool.submit(server.coalescer.ask, kind, number, 20.0)
    assert server.entered.acquire(timeout=10)
    return pending


def test_who_comes_when_nobody_calls_goes_alone_and_at_once(server):
    server.gate.set()
    assert [server.coalescer.ask("k", number, 5.0) for number in (1, 2)] == [-1, -2]
    assert [numbers for numbers, _ in server.calls] == [[1], [2]]
    assert server.coalescer._waiting == {}


def test_who_comes_during_a_call_goes_with_all_others_in_the_next_one(server, pool):
    pending = [first(server, pool), *asked(server, pool, [2, 3, 4])]
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, -2, -3, -4]
    assert [numbers for numbers, _ in server.calls] == [[1], [2, 3, 4]]
    assert server.coalescer._waiting == {}


def test_a_call_has_the_time_that_is_left_of_the_first_ones(server, pool):
    pending = [first(server, pool), *asked(server, pool, [2, 3])]
    time.sleep(0.2)
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, -2, -3]
    assert 15 < server.calls[1][1] <= 19.8


def test_where_a_call_for_several_fails_each_calls_for_itself(server, pool):
    pending = [first(server, pool), *asked(server, pool, [2, 13, 4])]
    server.gate.set()
    assert [pending[place].result(10) for place in (0, 1, 3)] == [-1, -2, -4]
    with pytest.raises(RequestError, match="13 is bad"):
        pending[2].result(10)
    assert [numbers for numbers, _ in server.calls][:2] == [[1], [2, 13, 4]]
    assert sorted(numbers for numbers, _ in server.calls[2:]) == [[2], [4], [13]]
    assert server.coalescer._waiting == {}


@pytest.mark.parametrize("error", [UnavailableError("gone"), OverloadedError("busy", 0.1)])
def test_a_server_that_cannot_answer_is_not_asked_again_by_each(server, pool, error):
    pending = [first(server, pool), *asked(server, pool, [2, 3])]
    server.trouble = error
    server.gate.set()
    for each in pending:
        with pytest.raises(type(error), match=str(error)):
            each.result(10)
    assert [numbers for numbers, _ in server.calls] == [[1], [2, 3]]
    assert pending[1].exception() is not pending[2].exception()


def test_the_error_of_who_goes_alone_is_only_its_own(server, pool):
    pending = [first(server, pool, 13), *asked(server, pool, [2])]
    server.gate.set()
    with pytest.raises(RequestError):
        pending[0].result(10)
    assert pending[1].result(10) == -2


def test_only_queries_of_one_kind_go_together_and_none_waits_for_another_kind(server, pool):
    pending = [first(server, pool, 1, "a"), first(server, pool, 2, "b"), *asked(server, pool, [3], "a")]
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, -2, -3]


def test_who_waits_too_long_is_told_and_the_others_go_on(server, pool):
    pending = [first(server, pool)]
    with pytest.raises(DeadlineError, match=r"did not get its turn within 0\.05 s"):
        server.coalescer.ask("k", 5, 0.05)
    pending += asked(server, pool, [6])
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, -6]
    assert [numbers for numbers, _ in server.calls] == [[1], [6]]


def test_who_is_interrupted_while_it_waits_leaves_the_line(server, pool):
    pending = [first(server, pool)]

    def interrupt() -> None:
        server.waiting("k", 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    pool.submit(interrupt)
    with pytest.raises(KeyboardInterrupt):
        server.coalescer.ask("k", 5, 20.0)
    pending += asked(server, pool, [6])
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, -6]
    assert [numbers for numbers, _ in server.calls] == [[1], [6]]
    assert server.coalescer._waiting == {}


def test_no_call_is_for_more_than_the_limit(server, pool):
    numbers = list(range(20, 20 + MAX_TOGETHER + 5))
    pending = [first(server, pool), *asked(server, pool, numbers)]
    server.gate.set()
    assert [each.result(10) for each in pending] == [-1, *[-number for number in numbers]]
    assert [len(numbers) for numbers, _ in server.calls] == [1, MAX_TOGETHER, 5]


def test_everybody_gets_their_own_answer_whatever_happens_at_once():
    # errors, deadlines that pass while somebody waits or is just about to lead, and two kinds
    server, answered, late = Server(bad=7, takes_s=3e-4), [], []
    server.gate.set()

    def ask(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(300):
            number, kind = draw.randrange(50), draw.choice("ab")
            try:
                assert server.coalescer.ask(kind, number, draw.choice((5.0, 2e-4, 0.0))) == -number
                answered.append(number)
            except DeadlineError:
                late.append(number)
            except RequestError:
                assert number == 7

    with ThreadPoolExecutor(16) as pool:
        for each in [pool.submit(ask, seed) for seed in range(16)]:
            each.result(60)
    assert server.coalescer._waiting == {}
    assert len(answered) > 1000
    assert late
    assert max(len(numbers) for numbers, _ in server.calls) > 1
