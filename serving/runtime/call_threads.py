"""Threads for calls whose requests are here: a caller that begins a call and sends nothing takes no thread.

grpcio's own server takes a thread first and lets it wait for the request: as many callers as there are threads, which
begin a call and send no more, would stop all others. Here a request is waited for without a thread. This leans on how
that server is made inside; `test_overload` fails when it is made otherwise.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from grpc import _server
from grpc._cython import cygrpc

from serving.errors import LateRequestError, NoRequestError
from serving.runtime.admission import RETRY_AFTER_S, Admission
from serving.runtime.deadlines import Deadlines
from serving.runtime.turns import Turns
from twintower.errors import OverloadedError

MOST_BEGUN, MAX_LONG = 64, 48
"""Calls that may have begun, and those of them that may be long, which pause: the others have threads to begin on."""
MAX_EXPECTED = 10_000
"""Calls whose requests are waited for. One more ends the oldest: an ordinary request follows its headers at once."""
SWEEP_S = 0.25
"""Seconds between two looks for calls whose request does not come."""
NOTHING = object()
"""Stands where gRPC wants a request."""


class Call(NamedTuple):
    """A call as gRPC gives it to threads, without its request.

    Attributes:
        run: runs a function in the call's context.
        work: answers the call.
        event: of gRPC.
        state: of gRPC.
        behaviour: takes the request and the call's context.
        decode: of requests.
        encode: of responses.
    """

    run: Callable[..., Any]
    work: Callable[..., Any]
    event: Any
    state: Any
    behaviour: Callable[[Any, Any], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]

    def answer(self, behaviour: Callable[[Any, Any], Any], request: Any = NOTHING) -> None:
        """Answer the call on this thread with a behaviour that does not wait."""
        self.run(self.work, self.event, self.state, behaviour, lambda: request, self.decode, self.encode)


class Arrivals:
    """Calls whose headers are here and whose request is not. Safe for calls from several threads.

    They count in no queue and hold no thread. A call whose request does not come in time is ended.

    Args:
        wait_s: seconds in which the request must follow.
        refuse: returns a behaviour that ends a call with an error.
        deadlines: wakes those that wait too long.
    """

    def __init__(
        self, wait_s: float, refuse: Callable[[Exception], Callable[[Any, Any], Any]], deadlines: Deadlines
    ) -> None:
        self._wait_s, self._refuse, self._deadlines = wait_s, refuse, deadlines
        self._lock = threading.Lock()
        # In the order of their beginning. The thread that takes a call out ends it or begins it.
        self._expected: dict[Any, tuple[float, Call]] = {}
        self._sweep()

    def expect(self, call: Call, begin: Callable[[], None], admission: Admission, empty: Any = NOTHING) -> None:
        """Receive the request of a call; gRPC's state of the call must be locked.

        Args:
            call: has sent its headers.
            begin: lets the call, whose request is here, wait for its turn.
            admission: says whether it may wait.
            empty: the call is answered with this where it has ended without a request; otherwise it is refused.
        """
        state = call.state
        receive = _server._receive_message(state, call.event.call, call.decode)

        def arrive(message: cygrpc.BatchOperationEvent) -> Any:
            received = receive(message)
            with self._lock:
                is_expected = self._expected.pop(state, None) is not None
            if not is_expected or state.statused:
                return received
            if state.request is not None:
                try:
                    admission.check()
                except OverloadedError as error:
                    call.answer(self._refuse(error))
                else:
                    begin()
            elif empty is NOTHING:
                call.answer(self._refuse(NoRequestError("expected one request, got none.")))
            else:
                call.answer(call.behaviour, empty)
            return received

        with self._lock:
            self._expected[state] = (time.monotonic(), call)
        call.event.call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), arrive)
        state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
        if len(self._expected) > MAX_EXPECTED and (oldest := self._take_oldest(math.inf)) is not None:
            too_many = f"more than {MAX_EXPECTED} calls have sent no request."
            oldest.answer(self._refuse(OverloadedError(too_many, RETRY_AFTER_S)))

    def _sweep(self) -> None:
        """End the calls whose request does not come, and look again a little later."""
        while (late := self._take_oldest(time.monotonic() - self._wait_s)) is not None:
            late.answer(self._refuse(LateRequestError(f"no request came within {self._wait_s:g} s.")))
        self._deadlines.after(SWEEP_S, self._sweep)

    def _take_oldest(self, begun_before_s: float) -> Call | None:
        """Take out the call that began first; None where it began later than that, or there is none."""
        with self._lock:
            state, (begun_s, call) = next(iter(self._expected.items()), (None, (math.inf, None)))
            if begun_s >= begun_before_s:
                return None
            del self._expected[state]
            return call


class CallThreads(ThreadPoolExecutor):
    """The threads that work on calls of methods with one request.

    Args:
        count: of threads.
        arrivals: waits for requests.
        admission: says whether a call whose request is here may wait; counts those that do.
        thread_name_prefix: of the threads.

    Attributes:
        arrivals: as given.
        admission: as given.
    """

    def __init__(self, count: int, arrivals: Arrivals, admission: Admission, *, thread_name_prefix: str) -> None:
        super().__init__(count, thread_name_prefix)
        self.arrivals, self.admission = arrivals, admission
        admission.count(self.waiting)

    def submit(self, run: Callable[..., Any], work: Callable[..., Any], /, *call: Any) -> None:  # type: ignore[override]
        """Work on a call once its request has come; gRPC asks for this, with the call's state locked.

        Args:
            run: runs a function in the call's context.
            work: answers the call.
            call: its event, state, behaviour, what would wait for its request, and its decoder and encoder.
        """
        event, state, behaviour, _, decode, encode = call

        def request() -> Any:
            found, state.request = state.request, None
            return found

        self.arrivals.expect(
            Call(run, work, event, state, behaviour, decode, encode),
            lambda: self.begin(run, work, event, state, behaviour, request, decode, encode),
            self.admission,
        )

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here, on the next thread that is free."""
        super().submit(run, *work)

    def waiting(self) -> int:
        """Return how many calls wait for a thread."""
        return self._work_queue.qsize()


class TurnThreads(CallThreads):
    """Threads of which only some work at a time: the calls of the others have paused, or wait for their first turn.

    Args:
        turns: what they take.
        count: of turns.
        arrivals: waits for requests.
        admission: says whether a call whose request is here may wait; counts those that do.
        thread_name_prefix: of the threads.
    """

    def __init__(
        self, turns: Turns, count: int, arrivals: Arrivals, admission: Admission, *, thread_name_prefix: str
    ) -> None:
        self.turns = turns
        super().__init__(max(count, MOST_BEGUN), arrivals, admission, thread_name_prefix=thread_name_prefix)

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here, on the next thread that is free, when it has its turn."""
        super().begin(self._in_turn, run, *work)

    def waiting(self) -> int:
        """Return how many calls wait for a thread or their first turn."""
        return super().waiting() + self.turns.waiting()

    def _in_turn(self, run: Callable[..., Any], *work: Any) -> None:
        with self.turns.turn():
            run(*work)


class StreamThreads(CallThreads):
    """The threads that work on calls whose requests are a stream, once the first of them is here."""

    def submit(self, run: Callable[..., Any], work: Callable[..., Any], /, *call: Any) -> None:  # type: ignore[override]
        """Work on a call once its first request has come; see `CallThreads.submit`."""
        event, state, behaviour, following, decode, encode = call

        def requests() -> Iterator[Any]:
            first, state.request = state.request, None
            return itertools.chain((first,), following())

        self.arrivals.expect(
            Call(run, work, event, state, behaviour, decode, encode),
            lambda: self.begin(run, work, event, state, behaviour, requests, decode, encode),
            self.admission,
            empty=iter(()),
        )


class AtOnce(ThreadPoolExecutor):
    """No threads at all: a call is answered when its headers are here, without its request.

    For refusals, which are made in no time and must not pile up.
    """

    def __init__(self) -> None:
        super().__init__(1, thread_name_prefix="never")

    def submit(self, run: Callable[..., Any], work: Callable[..., Any], /, *call: Any) -> None:  # type: ignore[override]
        """Answer a call; gRPC asks for this, with the call's state locked."""
        event, state, behaviour, _, decode, encode = call
        Call(run, work, event, state, behaviour, decode, encode).answer(behaviour)
