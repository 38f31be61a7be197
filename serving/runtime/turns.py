"""Turns: a limited number of calls work at a time, and those that have used the least time go first."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from twintower.errors import OverloadedError

TURN_S = 0.002
"""Processor time by which a call must be ahead of one that waits to pause for it."""
OLDEST_EVERY = 4
"""Every nth turn goes to the call that has waited longest, so that new calls cannot starve long ones."""
RETRY_AFTER_S = 1.0


class _Waiting(NamedTuple):
    """A call that waits for its turn; compared in this order.

    Attributes:
        used_s: processor time that it has used.
        place: grows from one that waits to the next.
        called: held until its turn has come.
    """

    used_s: float
    place: int
    called: threading.Lock


class Turns:
    """Gives out turns to work. Safe for calls from several threads.

    A call has a turn while its thread is within `turn`. At its checkpoints it calls `give_way`: it pauses when it has
    used more than another that waits, by `TURN_S`. So a short call waits a few milliseconds, however much the long ones
    have to do. What counts is a thread's own processor time: on a busy machine a short call seems long by the clock.

    A paused call keeps its thread and its memory. At most `max_long` calls that have paused may be in progress; one
    more is refused, so that long calls never take all threads.

    Args:
        count: calls that work at the same time.
        max_long: calls that have paused and may be in progress.
    """

    def __init__(self, count: int, max_long: int) -> None:
        self._free, self._new, self._long, self._max_long = count, 0, 0, max_long
        self._lock = threading.Lock()
        self._waiting: list[_Waiting] = []
        self._places, self._passed_on = itertools.count(), itertools.count(1)
        self._of_thread = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Work while the block runs; wait for a turn first."""
        of_thread = self._of_thread
        of_thread.is_long, of_thread.began_s = False, None
        self._take(0.0)
        of_thread.began_s = time.thread_time()
        try:
            yield
        finally:
            of_thread.began_s = None
            with self._lock:
                self._long -= of_thread.is_long
                self._pass_on()

    def give_way(self) -> None:
        """Pause this thread's call if others are to work; without a turn nothing happens.

        Raises:
            OverloadedError: the call is to pause, and as many calls have paused as may.
        """
        of_thread = self._of_thread
        began_s = getattr(of_thread, "began_s", None)
        if began_s is None or not self._waiting:
            return
        used_s = time.thread_time() - began_s
        with self._lock:
            if not self._waiting or used_s < self._waiting[0].used_s + TURN_S:
                return
            if not of_thread.is_long:
                if self._long >= self._max_long:
                    message = f"{self._max_long} long calls are worked on, as many as may. Ask for less, or later."
                    raise OverloadedError(message, RETRY_AFTER_S)
                self._long, of_thread.is_long = self._long + 1, True
            self._pass_on()
        self._take(used_s)

    def waiting(self) -> int:
        """Return how many calls wait for their first turn."""
        return self._new

    def _take(self, used_s: float) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            called = threading.Lock()
            called.acquire()
            heapq.heappush(self._waiting, _Waiting(used_s, next(self._places), called))
            self._new += not used_s
        called.acquire()  # released by the thread that passes its turn on

    def _pass_on(self) -> None:
        """Let the next call work; `_lock` is held."""
        if not self._waiting:
            self._free += 1
            return
        if next(self._passed_on) % OLDEST_EVERY:
            following = heapq.heappop(self._waiting)
        else:
            following = min(self._waiting, key=lambda waiting: waiting.place)
            self._waiting.remove(following)
            heapq.heapify(self._waiting)
        self._new -= not following.used_s
        following.called.release()
