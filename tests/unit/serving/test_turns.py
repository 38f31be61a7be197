"""Turns to work: never more than allowed at the same time, new calls before long ones, and everyone gets on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent import futures

import pytest

from serving.runtime.turns import TURN_S, Turns
from twintower.errors import OverloadedError


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


class Patient:
    """A call with checkpoints that goes on until it is stopped, and waits most of the time."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self.steps, self.stopping = turns, 0, threading.Event()

    def run(self) -> None:
        with self._turns.turn():
            while not self.stopping.is_set():
                self.steps += 1
                self.work()
                self._turns.give_way()

    def work(self) -> None:
        time.sleep(TURN_S / 5)


class Long(Patient):
    """One that takes processor time, and so is long after some steps."""

    def work(self) -> None:
        take(TURN_S / 2)

    @property
    def is_long(self) -> bool:
        return self.steps > 10


def take(seconds: float) -> None:
    """Use processor time."""
    until_s = time.thread_time() + seconds
    while time.thread_time() < until_s:
        pass


@pytest.mark.parametrize("count", [1, 2])
def test_a_short_call_gets_its_turn_while_long_ones_go_on(count):
    turns = Turns(count, 10)
    longs = [Long(turns) for _ in range(count + 2)]
    with futures.ThreadPoolExecutor(len(longs) + 1) as pool:
        running = [pool.submit(long.run) for long in longs]
        wait_until(lambda: all(long.is_long for long in longs))

        def short() -> str:
            with turns.turn():
                return "done"

        assert [pool.submit(short).result(20) for _ in range(10)] == ["done"] * 10
        assert not any(call.done() for call in running)
        for long in longs:
            long.stopping.set()


def test_no_more_calls_work_at_a_time_than_there_are_turns():
    turns, lock, working, most = Turns(2, 10), threading.Lock(), 0, 0

    def step(change: int) -> None:
        nonlocal working, most
        with lock:
            working += change
            most = max(most, working)

    def call() -> None:
        with turns.turn():
            for _ in range(10):
                step(1)
                take(TURN_S / 2)
                step(-1)
                turns.give_way()

    with futures.ThreadPoolExecutor(6) as pool:
        futures.wait([pool.submit(call) for _ in range(12)], 20)
    assert most == 2
    # and all turns are free again
    with turns.turn(), turns.turn():
        pass


def test_long_calls_share_the_turns_and_go_on_beside_a_stream_of_new_calls():
    turns = Turns(1, 10)
    longs, over = [Long(turns), Long(turns)], threading.Event()

    def news() -> None:
        while not over.is_set():
            with turns.turn():
                time.sleep(TURN_S / 5)

    with futures.ThreadPoolExecutor(8) as pool:
        for work in (*(long.run for long in longs), *[news] * 6):
            pool.submit(work)
        wait_until(lambda: all(long.steps > 50 for long in longs))
        over.set()
        for long in longs:
            long.stopping.set()


def test_a_call_is_short_by_its_processor_time_and_not_by_the_clock():
    turns = Turns(1, 10)
    long, patient = Long(turns), Patient(turns)
    with futures.ThreadPoolExecutor(2) as pool:
        pool.submit(long.run)
        wait_until(lambda: long.is_long)
        pool.submit(patient.run)
        wait_until(lambda: patient.steps > 0)
        # it has its turn to the end, while a call that counts by the clock would have to share it
        before = long.steps
        wait_until(lambda: patient.steps > 20)
        assert long.steps == before
        for each in (long, patient):
            each.stopping.set()


def test_a_call_that_fails_leaves_its_turn_to_others():
    turns = Turns(1, 10)
    with pytest.raises(ValueError, match="wrong"), turns.turn():
        raise ValueError("wrong")
    with turns.turn():
        assert turns.waiting() == 0


def test_whoever_has_no_turn_has_none_to_give():
    turns = Turns(1, 10)
    with futures.ThreadPoolExecutor(1) as pool, turns.turn():
        waiting = pool.submit(lambda: turns.turn().__enter__())
        wait_until(lambda: turns.waiting() == 1)
        threading.Thread(target=turns.give_way).start()
        time.sleep(2 * TURN_S)
        assert not waiting.done()


def test_one_more_long_call_than_may_have_begun_is_refused_and_the_next_one_finds_room():
    turns = Turns(1, 2)
    longs = [Long(turns) for _ in range(2)]
    with futures.ThreadPoolExecutor(3) as pool:
        running = [pool.submit(long.run) for long in longs]
        wait_until(lambda: all(long.is_long for long in longs))
        # and a call that only waits for the machine is no long one
        patient = Patient(turns)
        waiting = pool.submit(patient.run)
        wait_until(lambda: patient.steps > 20)
        patient.stopping.set()
        waiting.result(20)
        with pytest.raises(OverloadedError) as caught:
            Long(turns).run()
        assert caught.value.retry_after_s > 0
        longs[0].stopping.set()
        running[0].result(20)
        third = Long(turns)
        last = pool.submit(third.run)
        wait_until(lambda: third.is_long)
        for long in (longs[1], third):
            long.stopping.set()
        last.result(20)
