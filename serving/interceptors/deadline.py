"""A call whose deadline has passed, or whose caller has gone, while it waited for a thread is not worked on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from serving.runtime.admission import check_wanted


def deadline() -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that refuses expired and cancelled calls."""

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        check_wanted(context)
        yield

    return around
