"""Calls that do not wait for a thread: health checks, and those that find the queue full and are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc

from serving.interceptors.behaviour import Behaviour, Surrounding, on_threads, replaced
from serving.runtime.admission import Admission
from serving.runtime.call_threads import CallThreads, OnArrival
from serving.trust.rules import RULES, Role

_CHECKS = frozenset(method for method, rule in RULES.items() if rule.role is Role.NOBODY)


class Refusing(grpc.ServerInterceptor):
    """Answer a call that may not wait, or must not, without the threads of the others.

    It stands before all others, because only what stands there is asked for every call. Calls that need no role
    (health checks) are always answered: a server that is busy is not dead.

    Args:
        admission: knows whether the queue is full.
        surroundings: the blocks that a refused call still runs in, outermost first: its record and the error mapping.
    """

    def __init__(
        self,
        admission: Admission,
        surroundings: Sequence[Surrounding],
    ) -> None:
        self._admission, self._surroundings = admission, surroundings
        self._refusing = OnArrival()  # a queue of refused calls would be one without a bound
        self._refusing_streams = ThreadPoolExecutor(1, thread_name_prefix="refuse-stream")
        self._checking = CallThreads(1, thread_name_prefix="check")
        self._made: dict[str, grpc.RpcMethodHandler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler | None:
        """Return the method's handler, or one that refuses."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None:
            return None
        if method in _CHECKS:
            # Health.Watch, which has no thread anyway, stays as it is.
            return self._once(method, handler, self._check) if handler.unary_unary is not None else handler
        return self._once(method, handler, self._refusal) if self._admission.is_full else handler

    def _once(
        self,
        method: str,
        handler: grpc.RpcMethodHandler,
        make: Callable[[str, grpc.RpcMethodHandler], grpc.RpcMethodHandler],
    ) -> grpc.RpcMethodHandler:
        if method not in self._made:
            self._made[method] = make(method, handler)
        return self._made[method]

    def _check(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        del method

        def change(inner: Behaviour) -> Behaviour:
            # Another function, because the attribute of threads may not be set on a method's own.
            return on_threads(lambda request, context: inner(request, context), self._checking)

        return replaced(handler, change)

    def _refusal(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        def refuse(request: Any, context: grpc.ServicerContext) -> Any:
            with ExitStack() as stack:
                for surrounding in self._surroundings:
                    stack.enter_context(surrounding(method, context))
                raise self._admission.refusal()

        def refuse_stream(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            yield refuse(requests, context)

        # The request is not even decoded.
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(on_threads(refuse_stream, self._refusing_streams))
        return grpc.unary_unary_rpc_method_handler(on_threads(refuse, self._refusing))
