"""Calls that stay open: how many at once, for how long, and how many of one caller."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from serving.runtime.call_threads import CallThreads
from serving.runtime.deadlines import Deadlines
from twintower.errors import DeadlineError, OverloadedError, QuotaError

Message = TypeVar("Message")
RETRY_AFTER_S = 1.0
ADVICE = "Begin another with what was sent so far."
LOOK_S = 1.0
"""Seconds between two looks whether a caller that sends nothing may keep its stream."""


class Places:
    """Places for calls that stay open. Safe for calls from several threads.

    Args:
        what: is open, in the plural, for messages.
        total: places.
        per_caller: places that one caller may hold.

    Attributes:
        what: as given.
        total: as given.
    """

    def __init__(self, what: str, total: int, per_caller: int) -> None:
        self.what, self.total, self._per_caller = what, total, per_caller
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()

    @contextmanager
    def held_by(self, caller: str) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            QuotaError: the caller holds as many as it may.
            OverloadedError: all are held.
        """
        with self._lock:
            if self._held.total() >= self.total:
                raise OverloadedError(f"all {self.total} places for {self.what} are taken.", RETRY_AFTER_S)
            if self._held.get(caller, 0) >= self._per_caller:
                message = f"{self._per_caller} {self.what} are open, as many as one caller may have. Close one first."
                raise QuotaError(message, RETRY_AFTER_S)
            self._held[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[caller] -= 1
                if not self._held[caller]:
                    del self._held[caller]


@dataclass(frozen=True)
class Streams:
    """Bounds of one kind of calls that stay open.

    Attributes:
        threads: each open call holds one of them; one more than there are places, to refuse what comes too much.
        places: how many may be open.
        idle_s: seconds without a message of the caller, or with one of ours that it does not take, before a call ends.
        longest_s: seconds that a call may last in which the caller sends messages.
        deadlines: ends calls whose caller takes nothing.
    """

    threads: CallThreads
    places: Places
    idle_s: float
    longest_s: float
    deadlines: Deadlines

    def requests(self, stream: Iterator[Message], check: Callable[[], None]) -> Iterator[Message]:
        """Return the requests of a stream as they come.

        Args:
            stream: blocks until the caller sends something; the next request is taken when it is wanted.
            check: raises where the caller may not keep the stream; is called every second while nothing comes.

        Raises:
            DeadlineError: the caller has sent nothing for too long, or the stream has lasted too long.
        """
        ends = time.monotonic() + self.longest_s
        reader = futures.ThreadPoolExecutor(1, thread_name_prefix="stream-reader")
        try:
            while True:
                coming = reader.submit(next, stream, None)
                idle_ends = time.monotonic() + self.idle_s
                while (left_s := min(ends, idle_ends) - time.monotonic()) > 0:
                    if futures.wait([coming], min(left_s, LOOK_S)).done:
                        break
                    check()
                if not coming.done():
                    if ends <= idle_ends:
                        raise DeadlineError(f"{self.places.what} last at most {self.longest_s:g} s. {ADVICE}")
                    raise DeadlineError(f"no message came for {self.idle_s:g} s. {ADVICE}")
                request = coming.result()
                if request is None:
                    return
                yield request
        finally:
            # A reader that still waits is let go when the call ends.
            reader.shutdown(wait=False)

    def responses(self, stream: Iterator[Message], cancel: Callable[[], object]) -> Iterator[Message]:
        """Return the responses of a stream; one that its caller does not take in time cancels the call.

        Args:
            stream: makes the responses.
            cancel: ends the call.
        """
        for response in stream:
            with self.deadlines.within(self.idle_s, cancel):
                yield response
