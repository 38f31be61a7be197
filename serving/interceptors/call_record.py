"""Every call gets a record, which is shown to the log and the metrics when it has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import grpc

from serving.telemetry import calls
from serving.telemetry.calls import Call, Observer

REQUEST_ID = "x-request-id"
LONGEST_REQUEST_ID = 128


def call_record(
    observers: Sequence[Observer], running: set[Call]
) -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that times each call and names its code.

    Args:
        observers: are shown each call when it has ended.
        running: holds the calls that have not.
    """

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started = time.perf_counter()
        call = Call(method, _request_id(context))
        calls.begin(call)
        running.add(call)
        try:
            yield
        finally:
            running.discard(call)
            call.code = calls.code_of(context)
            call.duration_s = time.perf_counter() - started
            for observe in observers:
                observe(call)

    return around


def _request_id(context: grpc.ServicerContext) -> str:
    for key, value in context.invocation_metadata():
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable():
            return value[:LONGEST_REQUEST_ID]
    return f"{random.getrandbits(128):032x}"
