"""One log line a call: method, code, milliseconds, request id, release."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import structlog

REQUEST_ID = "x-request-id"
LONGEST_REQUEST_ID = 128


def access_log(logger: Any) -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper that logs each call when it has ended, and binds its request id for all lines within it.

    Args:
        logger: a structlog logger.
    """

    def wrap(method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            structlog.contextvars.bind_contextvars(request_id=_request_id(context))
            try:
                return behaviour(request, context)
            finally:
                code = context.code() or grpc.StatusCode.OK
                duration_ms = round((time.perf_counter() - started) * 1000, 3)
                logger.info("call", method=method, code=code.name, duration_ms=duration_ms)
                structlog.contextvars.clear_contextvars()

        return call

    return wrap


def bound_request_id() -> str:
    """Return the request id of the call being worked on; empty outside of calls."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable():
            return value[:LONGEST_REQUEST_ID]
    return uuid.uuid4().hex
