"""What happens around every call, outermost first.

Admission control, record, spans, audit, error mapping, decoding, encoding, charging, bounds of streams, deadline.

The order is fixed here, by hand, because it matters: log, metrics and spans must see the code that the mapping chose,
the mapping must see what all within it raised, and what a call takes from its caller's quota stands in the decoded
request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from serving.interceptors.admission_control import AdmissionControl
from serving.interceptors.audit import Audit
from serving.interceptors.auth import Auth, Charging
from serving.interceptors.behaviour import Behaviour, Intercept, Surrounding, on_threads, replaced
from serving.interceptors.call_record import call_record
from serving.interceptors.deadline import deadline
from serving.interceptors.decoding import Decoding
from serving.interceptors.encoding import Encoding
from serving.interceptors.error_mapping import error_mapping
from serving.interceptors.refusal import Refusal
from serving.interceptors.stream_bounds import StreamBounds
from serving.runtime.executors import IN_STEPS, Executors
from serving.telemetry.observation import Observation


class Interceptors:
    """Makes the interceptors of one server.

    Args:
        logger: a structlog logger.
        observation: sees every call.

    Attributes:
        refusal: ends calls that are not let in.
    """

    def __init__(self, logger: Any, observation: Observation) -> None:
        self._spans = observation.around
        self._record = call_record(observation.observers, observation.running)
        self._mapping = error_mapping(logger, observation.sampled_failures)
        self._audit = Audit(logger, observation.sampled)
        self.refusal = Refusal(self._record, self._mapping, self._audit)

    def around(self, executors: Executors, auth: Auth | None = None) -> list[grpc.ServerInterceptor]:
        """Return the interceptors, outermost first.

        Args:
            executors: work on the calls.
            auth: knows who may call; None for everybody.
        """
        threads = executors.by_method
        return [
            AdmissionControl(auth, executors.admission, self.refusal),
            Around(self._record, threads),
            *([Around(self._spans, threads)] if self._spans is not None else []),
            self._audit,
            Around(self._mapping, threads),
            Decoding(),
            Encoding(),
            *([Charging(auth)] if auth is not None else []),
            StreamBounds(executors.streams, auth.check_held if auth is not None else lambda: None),
            Around(deadline(executors.turns.give_way), threads),
        ]


class Around(Intercept):
    """Put a block around every call.

    Args:
        surrounding: gives the block.
        threads: of methods whose calls are worked on by threads of their own, by full name.
    """

    def __init__(self, surrounding: Surrounding, threads: Mapping[str, ThreadPoolExecutor]) -> None:
        super().__init__()
        self._surrounding, self._threads = surrounding, threads

    def around(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        """Return the method's handler within the block."""

        def change(inner: Behaviour) -> Behaviour:
            def answer(request: Any, context: grpc.ServicerContext) -> Any:
                with self._surrounding(method, context):
                    return inner(request, context)

            def answer_in_parts(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with self._surrounding(method, context):
                    return (yield from inner(request, context))

            in_parts = method in IN_STEPS or handler.response_streaming
            behaviour = answer_in_parts if in_parts else answer
            return on_threads(behaviour, self._threads[method]) if method in self._threads else behaviour

        return replaced(handler, change)
