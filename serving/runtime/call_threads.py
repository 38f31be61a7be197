"""Threads for calls whose requests are here: who begins a call and sends nothing keeps none from others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from grpc import _server
from grpc._cython import cygrpc

from serving.runtime.turns import Turns

MOST_BEGUN = 64
"""Calls that may have begun, of which most pause."""


class CallThreads(ThreadPoolExecutor):
    """The threads that work on calls of methods with one request.

    grpcio's own server takes a thread first and lets it wait for the request: as many callers as there are threads,
    who begin a call and send no more, would stop all others for as long as they like. Here the request is waited for
    without a thread. It leans on how that server is made inside; `test_overload` tells when it is made otherwise.
    """

    def __init__(self, count: int, *, thread_name_prefix: str) -> None:
        super().__init__(count, thread_name_prefix)
        # By the second of their beginning. Written by the one thread that gRPC polls with.
        self._coming: Counter[int] = Counter()

    def submit(self, run: Callable[..., Any], work: Callable[..., Any], /, *call: Any) -> None:  # type: ignore[override]
        """Work on a call once its request has come; gRPC asks for this, with the call's state locked.

        Args:
            run: runs a function in the call's context.
            work: answers the call.
            call: its event, state, behaviour, what would wait for its request, and its decoder and encoder.
        """
        event, state, behaviour, _, decode, encode = call
        receive = _server._receive_message(state, event.call, decode)
        second = int(time.monotonic())

        def come(message: cygrpc.BatchOperationEvent) -> Any:
            received = receive(message)
            self._coming[second] -= 1
            if not self._coming[second]:
                del self._coming[second]
            self.begin(run, work, event, state, behaviour, request, decode, encode)
            return received

        def request() -> Any:
            with state.condition:
                if state.request is None and state.client is _server._CLOSED and not state.statused:
                    told = b"expected one request, got none"
                    _server._abort(state, event.call, cygrpc.StatusCode.unimplemented, told)
                found, state.request = state.request, None
                return found

        self._coming[second] += 1
        event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), come)
        state.due.add(_server._RECEIVE_MESSAGE_TOKEN)

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here, on the next thread that is free."""
        super().submit(run, *work)

    def waiting(self) -> int:
        """Return how many calls wait for a thread, those included that began a moment ago and whose requests come."""
        now = int(time.monotonic())
        return self._work_queue.qsize() + self._coming[now] + self._coming[now - 1]


class TurnThreads(CallThreads):
    """Threads of which only some work at a time: the calls of the others have paused, or wait for their first turn.

    Args:
        turns: what they take.
        count: of turns.
        thread_name_prefix: of the threads.
    """

    def __init__(self, turns: Turns, count: int, *, thread_name_prefix: str) -> None:
        super().__init__(max(count, MOST_BEGUN), thread_name_prefix=thread_name_prefix)
        self.turns = turns

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here, on the next thread that is free, when it has its turn."""
        super().begin(self._in_turn, run, *work)

    def waiting(self) -> int:
        """Return how many calls wait for a thread or their first turn, as `CallThreads.waiting`."""
        return super().waiting() + self.turns.waiting()

    def _in_turn(self, run: Callable[..., Any], *work: Any) -> None:
        with self.turns.turn():
            run(*work)


class OnArrival(CallThreads):
    """No threads at all: each call is worked on by the one that its request arrives at, and no other arrives meanwhile.

    For what is done in no time and must not pile up.
    """

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="never")

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here."""
        run(*work)
