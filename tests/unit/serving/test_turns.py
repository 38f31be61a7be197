"""Turns to work: never more than allowed at the same time, new calls before long ones, and everyone gets on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures

import pytest

from serving.runtime.turns import TURN_S, Turns


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Long:
    """A call that goes on until it is stopped, with checkpoints."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self.steps, self.stopping = turns, 0, threading.Event()

    def run(self) -> None:
        with self._turns.turn():
            while not self.stopping.is_set():
                self.steps += 1
                time.sleep(TURN_S / 5)
                self._turns.give_way()


@pytest.mark.parametrize("count", [1, 2])
def test_a_short_call_gets_its_turn_while_long_ones_go_on(count):
    turns = Turns(count)
    longs = [Long(turns) for _ in range(count + 2)]
    with futures.ThreadPoolExecutor(len(longs) + 1) as pool:
        running = [pool.submit(long.run) for long in longs]
        wait_until(lambda: all(long.steps for long in longs))

        def short() -> str:
            with turns.turn():
                return "done"

        assert [pool.submit(short).result(20) for _ in range(10)] == ["done"] * 10
        assert not any(call.done() for call in running)
        for long in longs:
            long.stopping.set()


def test_no_more_calls_work_at_a_time_than_there_are_turns():
    turns, lock, working, most = Turns(2), threading.Lock(), 0, 0

    def step(change: int) -> None:
        nonlocal working, most
        with lock:
            working += change
            most = max(most, working)

    def call() -> None:
        with turns.turn():
            for _ in range(5):
                step(1)
                time.sleep(TURN_S / 2)
                step(-1)
                turns.give_way()

    with futures.ThreadPoolExecutor(6) as pool:
        futures.wait([pool.submit(call) for _ in range(12)], 20)
    assert most == 2
    # and all turns are free again
    with turns.turn(), turns.turn():
        pass


def test_long_calls_share_the_turns_and_go_on_beside_a_stream_of_new_calls():
    turns = Turns(1)
    longs, over = [Long(turns), Long(turns)], threading.Event()

    def news() -> None:
        while not over.is_set():
            with turns.turn():
                time.sleep(TURN_S / 5)

    with futures.ThreadPoolExecutor(8) as pool:
        for work in (*(long.run for long in longs), *[news] * 6):
            pool.submit(work)
        wait_until(lambda: all(long.steps > 5 for long in longs))
        over.set()
        for long in longs:
            long.stopping.set()


def test_a_call_that_fails_leaves_its_turn_to_others():
    turns = Turns(1)
    with pytest.raises(ValueError, match="wrong"), turns.turn():
        raise ValueError("wrong")
    with turns.turn():
        assert turns.waiting() == 0


def test_whoever_has_no_turn_has_none_to_give():
    turns = Turns(1)
    with futures.ThreadPoolExecutor(1) as pool, turns.turn():
        waiting = pool.submit(lambda: turns.turn().__enter__())
        wait_until(lambda: turns.waiting() == 1)
        threading.Thread(target=turns.give_way).start()
        time.sleep(2 * TURN_S)
        assert not waiting.done()
