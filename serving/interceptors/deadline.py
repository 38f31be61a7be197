"""A call whose deadline has passed, or whose caller has gone, while it waited for a thread is not worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from serving.errors import DeadlineError, GoneError


def deadline() -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that refuses expired and cancelled calls."""

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        if not context.is_active():
            raise GoneError(f"{method}: cancelled before the work began.")
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlineError(f"{method}: the deadline passed before the work began.")
        yield

    return around
