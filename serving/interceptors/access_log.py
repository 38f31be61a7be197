"""One log line a call: method, code, milliseconds, request id, release."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import structlog

REQUEST_ID = "x-request-id"
LONGEST_REQUEST_ID = 128


def access_log(logger: Any) -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that logs each call when it has ended, and binds its request id for all lines within it.

    Args:
        logger: a structlog logger.
    """

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=_request_id(context))
        try:
            yield
        finally:
            code = context.code() or (grpc.StatusCode.OK if context.is_active() else grpc.StatusCode.CANCELLED)
            duration_ms = round((time.perf_counter() - started) * 1000, 3)
            logger.info("call", method=method, code=code.name, duration_ms=duration_ms)
            structlog.contextvars.clear_contextvars()

    return around


def bound_request_id() -> str:
    """Return the request id of the call being worked on; empty outside of calls."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable():
            return value[:LONGEST_REQUEST_ID]
    return uuid.uuid4().hex
