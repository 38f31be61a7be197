"""No work for a call whose deadline has passed or whose caller has gone: neither is it begun, nor does it go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc

from recsys.cancellation import cancel_by
from serving.runtime.admission import CallCheck, check_wanted


def deadline(give_way: Callable[[], None]) -> Callable[[str, grpc.ServicerContext], AbstractContextManager[None]]:
    """Return a block that refuses expired and cancelled calls, and ends their work at its checkpoints.

    Args:
        give_way: is called at checkpoints, too; pauses the call while others are to work.
    """

    @contextmanager
    def around(method: str, context: grpc.ServicerContext) -> Iterator[None]:
        check_wanted(context)
        cancel_by(CallCheck(context, give_way))
        try:
            yield
        finally:
            # The call holds this Python context: without this, call and check hold each other until a collection.
            cancel_by(None)

    return around
