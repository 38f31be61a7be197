"""The record of every call is shown to the log and the metrics when the call has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import grpc

from serving.telemetry import calls
from serving.telemetry.calls import Call, Observer

REQUEST_ID = "x-request-id"
LONGEST_REQUEST_ID = 128


def call_record(
    observers: Sequence[Observer], running: set[Call]
) -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that times each call that has begun (`calls.begin`) and names its code.

    Args:
        observers: are shown each call when it has ended.
        running: holds the calls that have not.
    """

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        started, call = time.perf_counter(), calls.current()
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


def request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the caller's id of a call where it sent one that can be shown, or one made up."""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and value.isprintable():
            return value[:LONGEST_REQUEST_ID]
    return f"{random.getrandbits(128):032x}"
