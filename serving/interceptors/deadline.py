"""A call whose deadline has passed while it waited for a thread is not worked on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from serving.errors import DeadlineError


def deadline() -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    """Return a wrapper that refuses expired calls."""

    def wrap(method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            left_s = context.time_remaining()
            if left_s is not None and left_s <= 0:
                raise DeadlineError(f"{method}: the deadline passed before the work began.")
            return behaviour(request, context)

        return call

    return wrap
