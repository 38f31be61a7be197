"""Short calls in steps: all that are here take each step together, between two looks at the network."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf.message import Message
from grpc import _server
from grpc._cython import cygrpc

from serving.runtime.admission import check_wanted
from serving.runtime.call_threads import CallThreads
from serving.runtime.steps import Steps, Work, together

MAX_TOGETHER = 32
"""Calls that go together: the first one waits for the last, at some 0.1 ms each."""
MOST_EVENTS = 512
"""Events of the network that may come between two groups of calls, four for each call. They go first, and come in
faster than groups of calls go out, so that a backlog stands in the queue, which has a bound, and not within gRPC; but a
flood of calls must not stop those that are here."""
SLOW_S, REST_TIMES = 0.05, 20.0
"""Processor time that the work on a group may take. Where it takes longer, as the search of every item of a large
catalogue does, calls go to other threads, one by one, for so many times as long: the network must not wait. Nor do
further calls begin in a group whose first ones took that long to begin, as requests of ten thousand ids do."""
ENDS_S = 0.005
"""Processor time that the calls of a group may take to end, one after another: some 0.1 ms each. The others of the
group end on other threads, as calls with large metadata do, whose answers take milliseconds to encode."""
SHORT_BYTES = 8192
"""Size of a request up to which a call begins on the thread of the lane: larger ones take milliseconds to read."""
LONG_AGO_S = 0.0
"""As a deadline: what there is now."""


class Lane(CallThreads):
    """Works on the calls of methods in steps (`serving.runtime.steps`), on the thread that polls for a server's events.

    Once no event is left, all calls that are here begin, one after another; what they need alike is done at once; they
    end; and then their responses are sent. Nobody waits for company, no thread is woken for a call, and the more calls
    there are, the less each costs: what each step needs stays in the caches of the processor. What can only be done
    alone, and may take long, goes on in other threads.

    It leans on how grpcio's server is made inside, as `CallThreads` does; `test_lane` tells when it is made otherwise.

    Args:
        threads: for what is not done together; calls of both wait in one queue.
        told: is told how many works were done at once.
    """

    def __init__(self, threads: CallThreads, told: Callable[[int], None]) -> None:
        self._others, self._told = threads, told
        self._here: deque[_Call] = deque()
        self._slow_until_s = 0.0
        super().__init__(1, threads.arrivals, threads.admission, thread_name_prefix="never")

    def attend(self, server: grpc.Server) -> None:
        """Work between the events of a server that has not been started yet."""
        events = _Events()
        events.lane = self
        server._state.server.register_completion_queue(events)
        server._state.completion_queue = events

    def begin(self, run: Callable[..., Any], /, *work: Any) -> None:
        """Work on a call whose request is here, once no event is left."""
        self._here.append(_Call(run, *work[1:]))

    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return len(self._here)

    @property
    def is_empty(self) -> bool:
        """Whether no call is here."""
        return not self._here

    def work(self) -> None:
        """Work on the calls that are here, the first ones of many."""
        taken: list[Taken] = []
        started_s = time.thread_time()
        while self._here and len(taken) < MAX_TOGETHER and time.thread_time() - started_s < SLOW_S:
            taken.append(_surely(self._begun, self._here.popleft()))
        while taken:
            for step in taken:
                if isinstance(step, _Ended):
                    _surely(step.send)
            groups = self._groups([step for step in taken if isinstance(step, _Waiting)])
            taken = []
            for group in groups:
                self._told(len(group))
                started_s = time.thread_time()
                answers = together([waits.work for waits in group])
                if (took_s := time.thread_time() - started_s) > SLOW_S:
                    self._slow_until_s = time.monotonic() + REST_TIMES * took_s
                taken += self._gone_on(group, answers)

    def _gone_on(self, group: Sequence[_Waiting], answers: Sequence[Any]) -> list[Taken]:
        """Take the next step of each call of a group; where the first ones take long, the others use other threads."""
        taken: list[Taken] = []
        started_s = time.thread_time()
        for waits, answer in zip(group, answers, strict=True):
            if time.thread_time() - started_s < ENDS_S:
                taken.append(_surely(_gone_on, waits, answer))
            else:
                _surely(self._others.begin, _surely, _gone_on_to_the_end, waits, answer)
        return taken

    def _begun(self, call: _Call) -> Taken:
        """Take the first step of a call; a call with a large request takes all of them on another thread."""
        request = call.request()
        if request is None:
            return None
        if isinstance(request, Message) and request.ByteSize() > SHORT_BYTES:
            self._others.begin(_surely, lambda: _to_the_end(_first(call, request)))
            return None
        return _first(call, request)

    def _groups(self, waiting: Sequence[_Waiting]) -> Sequence[Sequence[_Waiting]]:
        """Put together what can be done together; what cannot goes to other threads."""
        alike: dict[Any, list[_Waiting]] = {}
        is_slow = time.monotonic() < self._slow_until_s
        for waits in waiting:
            if waits.work.alike is None or is_slow:
                _surely(self._others.begin, _surely, _alone, waits)
            else:
                alike.setdefault(waits.work.alike, []).append(waits)
        return list(alike.values())


class _Events(cygrpc.CompletionQueue):
    """The events of a server; where none is left, or many have gone by, the calls that are here are worked on."""

    lane: Lane
    _gone_by = 0

    def poll(self, deadline: float | None = None) -> Any:
        """Return the next event, or that of a deadline, in seconds since 1970."""
        while not self.lane.is_empty:
            if self._gone_by < MOST_EVENTS:
                event = super().poll(LONG_AGO_S)
                if event.completion_type != cygrpc.CompletionType.queue_timeout:
                    self._gone_by += 1
                    return event
            self._gone_by = 0
            self.lane.work()
        return super().poll(deadline)


class _Call(NamedTuple):
    """A call as gRPC gives it to threads.

    Attributes:
        run: runs a function in the call's context.
        event: of gRPC.
        state: of gRPC.
        behaviour: takes the request and the call's context, returns the steps.
        request: returns the decoded request; None where the call is over.
        decode: of requests.
        encode: of responses.
    """

    run: Callable[..., Any]
    event: Any
    state: Any
    behaviour: Callable[[Any, Any], Steps[Any]]
    request: Callable[[], Any]
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


class _Waiting(NamedTuple):
    """A call that needs something before it can go on with its steps."""

    call: _Call
    steps: Steps[Any]
    work: Work


class _Ended(NamedTuple):
    """A call whose response can be sent."""

    call: _Call
    response: bytes

    def send(self) -> None:
        _server._status(self.call.event, self.call.state, self.response)


Taken = _Waiting | _Ended | None
"""What comes of a step; None where the call has got an error."""


def _surely(take: Callable[..., Taken], *given: Any) -> Taken:
    """Take a step; what goes wrong beside the call's behaviour is printed, as by grpcio, and ends no other call."""
    try:
        return take(*given)
    except Exception:
        traceback.print_exc()
        return None


def _first(call: _Call, request: Any) -> Taken:
    """Take the first step of a call."""
    return _step(call, lambda context: call.behaviour(request, context), next)


def _gone_on(waits: _Waiting, answer: Any) -> Taken:
    """Take the next step of a call whose work has an answer or an error."""

    def go_on(steps: Steps[Any]) -> Work:
        return steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)

    try:
        return _step(waits.call, lambda context: waits.steps, go_on)
    finally:
        # The frames of an error's traceback hold the error: without this each waits for the garbage collection.
        while isinstance(answer, BaseException):
            answer.__traceback__, answer = None, answer.__context__


def _alone(waits: _Waiting) -> None:
    """Take the steps that are left of a call, each work by itself; one that nobody waits for any more is refused."""

    def check(context: Any) -> Steps[Any]:
        try:
            check_wanted(context)
        except Exception as error:
            waits.steps.throw(error)
        return waits.steps

    _to_the_end(_step(waits.call, check, lambda steps: waits.work))


def _gone_on_to_the_end(waits: _Waiting, answer: Any) -> None:
    """Take the steps that are left of a call whose work has an answer or an error."""
    _to_the_end(_gone_on(waits, answer))


def _to_the_end(taken: Taken) -> None:
    """Take the steps that are left of a call, each work by itself, and send its response."""
    while isinstance(taken, _Waiting):
        (answer,) = taken.call.run(together, [taken.work])
        taken = _gone_on(taken, answer)
    if taken is not None:
        taken.send()


def _step(call: _Call, steps_of: Callable[[Any], Steps[Any]], take: Callable[[Steps[Any]], Work]) -> Taken:
    """Take a step in the call's context; what the behaviour raises ends the call as gRPC ends one."""

    def behaviour(_request: Any, context: Any) -> Any:
        steps = steps_of(context)
        try:
            return _Waiting(call, steps, take(steps))
        except StopIteration as ended:
            return ended.value

    taken, is_well = call.run(_server._call_behavior, call.event, call.state, behaviour, None, call.decode)
    if not is_well or isinstance(taken, _Waiting):
        return taken
    response = _server._serialize_response(call.event, call.state, taken, call.encode)
    return None if response is None else _Ended(call, response)
