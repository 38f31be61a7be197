"""Turns: only so many calls work at the same time, and one that takes long pauses for those that came after it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import OverloadedError

TURN_S = 0.005
"""How long a call works before it pauses for others."""
NEW_IN_A_ROW = 3
"""Calls that begin one after another before one that pauses goes on."""
RETRY_AFTER_S = 1.0


class Turns:
    """Gives out turns to work. Safe for calls from several threads.

    A call has a turn while its thread is within `turn`. At its checkpoints it calls `give_way`. A call that has worked
    for `TURN_S` while others wait is long: it pauses and goes on after them, and from then on pauses as soon as a new
    call waits. So a short call waits a few milliseconds, however much the long ones have to do.

    A paused call keeps its thread and its memory. At most `max_long` calls that have used `TURN_S` of processor time
    may be in progress; one more is refused, so that long calls never take all threads. Time that the machine gave to
    other processes does not count.

    Args:
        count: calls that work at the same time.
        max_long: long calls that may have begun.
    """

    def __init__(self, count: int, max_long: int) -> None:
        self._free, self._in_a_row, self._long, self._max_long = count, 0, 0, max_long
        self._lock = threading.Lock()
        self._new: deque[threading.Lock] = deque()
        self._paused: deque[threading.Lock] = deque()
        self._of_thread = threading.local()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Work while the block runs; wait for a turn first."""
        self._of_thread.is_long = self._of_thread.is_counted = False
        self._of_thread.cpu_s = time.thread_time()
        self._take(self._new)
        try:
            yield
        finally:
            self._pass_on()
            if self._of_thread.is_counted:
                with self._lock:
                    self._long -= 1

    def give_way(self) -> None:
        """Pause this thread's call if others are to work; without a turn nothing happens.

        Raises:
            OverloadedError: the call turns out to be long, and as many long calls as may have begun.
        """
        began_s = getattr(self._of_thread, "began_s", None)
        if began_s is None or not (self._new or self._paused):
            return
        if (self._new and self._of_thread.is_long) or time.monotonic() - began_s > TURN_S:
            self._count_as_long()
            self._pass_on()
            self._take(self._paused)

    def _count_as_long(self) -> None:
        of_thread = self._of_thread
        of_thread.is_long = True
        if of_thread.is_counted or time.thread_time() - of_thread.cpu_s < TURN_S:
            return
        with self._lock:
            if self._long >= self._max_long:
                message = f"{self._max_long} long calls are worked on already, as many as may. Ask for less, or later."
                raise OverloadedError(message, RETRY_AFTER_S)
            self._long += 1
        of_thread.is_counted = True

    def waiting(self) -> int:
        """Return how many calls wait for their first turn."""
        return len(self._new)

    def _take(self, line: deque[threading.Lock]) -> None:
        with self._lock:
            if self._free:
                self._free, called = self._free - 1, None
            else:
                called = threading.Lock()
                called.acquire()
                line.append(called)
        if called is not None:
            called.acquire()  # released by the thread that passes its turn on
        self._of_thread.began_s = time.monotonic()

    def _pass_on(self) -> None:
        self._of_thread.began_s = None
        with self._lock:
            is_next_new = bool(self._new) and (not self._paused or self._in_a_row < NEW_IN_A_ROW)
            self._in_a_row = self._in_a_row + 1 if is_next_new else 0
            line = self._new if is_next_new else self._paused
            if line:
                line.popleft().release()
            else:
                self._free += 1
