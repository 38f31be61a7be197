"""Actions at a later moment, unless they are called off: one thread for all of them."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Deadlines:
    """Runs actions when their time has come. Safe for calls from several threads.

    An action must neither wait nor raise: it would hold up those that come after it.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int]] = []
        self._actions: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_closed = False
        threading.Thread(target=self._work, name="deadlines", daemon=True).start()

    def after(self, seconds: float, action: Callable[[], object]) -> int:
        """Run an action once so many seconds have passed; return its number, by which it can be called off."""
        number = next(self._numbers)
        with self._changed:
            self._actions[number] = action
            heapq.heappush(self._due, (time.monotonic() + seconds, number))
            if self._due[0][1] == number:
                self._changed.notify()
        return number

    def call_off(self, number: int) -> None:
        """Do not run an action."""
        self._actions.pop(number, None)

    @contextmanager
    def within(self, seconds: float, action: Callable[[], object]) -> Iterator[None]:
        """Run an action if the block has not ended after so many seconds."""
        number = self.after(seconds, action)
        try:
            yield
        finally:
            self.call_off(number)

    def close(self) -> None:
        """Run no further action."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _work(self) -> None:
        while (number := self._next()) is not None:
            action = self._actions.pop(number, None)
            if action is not None:
                action()

    def _next(self) -> int | None:
        """Wait for the next action that is due and return its number; None when closed."""
        with self._changed:
            while not self._is_closed:
                left_s = self._due[0][0] - time.monotonic() if self._due else None
                if left_s is not None and left_s <= 0:
                    return heapq.heappop(self._due)[1]
                self._changed.wait(left_s)
            return None
