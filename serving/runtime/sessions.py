"""How many sessions are open at once, and how long each may last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from serving.errors import DeadlineError, UnavailableError

Request = TypeVar("Request")
RETRY_AFTER_S = 1.0


class Sessions:
    """Places for sessions, each with a thread that waits for its caller. Safe for calls from several threads.

    Args:
        places: sessions that are open at the same time.
        longest_s: seconds that one may last.
    """

    def __init__(self, places: int, longest_s: float) -> None:
        self._places, self._longest_s = places, longest_s
        self._free = threading.Semaphore(places)
        # One thread more than places, so that there is always one to refuse what comes too much.
        self.threads = ThreadPoolExecutor(places + 1, thread_name_prefix="session")

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place while the block runs.

        Raises:
            UnavailableError: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise UnavailableError(f"all {self._places} places for sessions are taken.", RETRY_AFTER_S)
        try:
            yield
        finally:
            self._free.release()

    def requests(self, stream: Iterator[Request]) -> Iterator[Request]:
        """Return the requests of a stream as they come.

        Args:
            stream: blocks until the caller sends something; the next request is taken when it is asked for.

        Raises:
            DeadlineError: the session has lasted too long.
        """
        ends = time.monotonic() + self._longest_s
        reader = ThreadPoolExecutor(1, thread_name_prefix="session-reader")
        try:
            while True:
                coming = reader.submit(next, stream, None)
                try:
                    request = coming.result(max(0.0, ends - time.monotonic()))
                except TimeoutError:
                    advice = "Begin another with the feedback so far."
                    raise DeadlineError(f"the session has lasted {self._longest_s:g} s. {advice}") from None
                if request is None:
                    return
                yield request
        finally:
            # A reader that still waits is let go when the call ends.
            reader.shutdown(wait=False)
