"""What happens around every call, outermost first.

A full queue, record, spans, audit, error mapping, decoding, encoding, auth, deadline.

The order is fixed here, by hand, because it matters: log, metrics and spans must see the code that the mapping chose,
the mapping must see what all within it raised, and what a call takes from its caller's quota stands in the decoded
request.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from serving.interceptors.audit import Audit
from serving.interceptors.auth import Auth
from serving.interceptors.behaviour import Behaviour, Intercept, Surrounding, on_threads, replaced
from serving.interceptors.call_record import call_record
from serving.interceptors.deadline import deadline
from serving.interceptors.decoding import Decoding
from serving.interceptors.encoding import Encoding
from serving.interceptors.error_mapping import error_mapping
from serving.interceptors.refusing import Refusing
from serving.runtime.admission import Admission
from serving.runtime.lane import Lane
from serving.runtime.steps import Steps
from serving.runtime.turns import Turns
from serving.telemetry.observation import Observation
from serving.trust.callers import Callers
from serving.trust.reloaded import Reloaded
from serving.trust.rules import REFLECTION

REFLECTIONS_AT_ONCE = 4
IN_STEPS = frozenset(f"/serving.v1.RecommendationService/{rpc}" for rpc in ("NearestItems", "Reformulate"))
"""Methods whose behaviour is a generator (`serving.runtime.steps`)."""


def interceptors(
    logger: Any,
    observation: Observation,
    admission: Admission,
    streams: ThreadPoolExecutor,
    lane: Lane,
    turns: Turns,
    callers: Reloaded[Callers] | None = None,
) -> list[grpc.ServerInterceptor]:
    """Return the interceptors of a server, outermost first.

    Args:
        logger: a structlog logger.
        observation: sees every call.
        admission: knows when no further call may wait.
        streams: the threads of calls whose requests are a stream.
        lane: the thread of calls in steps.
        turns: of calls that have threads.
        callers: who may call; None for everybody.
    """
    record, mapping = call_record(observation.observers, observation.running), error_mapping(logger)
    reflections = ThreadPoolExecutor(REFLECTIONS_AT_ONCE, thread_name_prefix="reflection")

    def around(surrounding: Surrounding) -> Around:
        return Around(surrounding, streams, reflections, lane)

    return [
        Refusing(admission, (record, mapping)),
        around(record),
        *([around(observation.around)] if observation.around is not None else []),
        Audit(logger),
        around(mapping),
        Decoding(),
        Encoding(),
        *([Auth(callers)] if callers is not None else []),
        around(deadline(turns.give_way)),
    ]


class Around(Intercept):
    """Put a block around every call that answers one request with one response, or a stream with a stream.

    Args:
        surrounding: gives the block.
        streams: the threads of calls whose requests are a stream. Such a call keeps its thread while it waits for its
            caller; threads of its own keep that from holding up all others.
        reflections: those of reflection, which has no limits: who leaves it open holds up nobody else.
        lane: the thread of calls in steps.
    """

    def __init__(
        self, surrounding: Surrounding, streams: ThreadPoolExecutor, reflections: ThreadPoolExecutor, lane: Lane
    ) -> None:
        super().__init__()
        self._surrounding, self._streams, self._reflections, self._lane = surrounding, streams, reflections, lane

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the method's handler within the block; one that streams one way only is left as it is."""
        if handler.unary_unary is None and handler.stream_stream is None:
            return handler

        def change(inner: Behaviour) -> Behaviour:
            def answer(request: Any, context: grpc.ServicerContext) -> Any:
                with self._surrounding(method, context):
                    return inner(request, context)

            def answer_in_steps(request: Any, context: grpc.ServicerContext) -> Steps[Any]:
                with self._surrounding(method, context):
                    return (yield from inner(request, context))

            def converse(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
                with self._surrounding(method, context):
                    yield from inner(requests, context)

            if handler.request_streaming:
                return on_threads(converse, self._reflections if method == REFLECTION else self._streams)
            return on_threads(answer_in_steps, self._lane) if method in IN_STEPS else answer

        return replaced(handler, change)
