"""A call whose deadline has passed while it waited for a thread is not worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from serving.errors import DeadlineError


def deadline() -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that refuses expired calls."""

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        left_s = context.time_remaining()
        if left_s is not None and left_s <= 0:
            raise DeadlineError(f"{method}: the deadline passed before the work began.")
        yield

    return around
