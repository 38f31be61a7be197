"""How many calls may wait, when those that are worked on must hurry, and which are not wanted any more."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from serving.errors import DeadlineError, GoneError, OverloadedError
from serving.settings import QueueSettings

RETRY_AFTER_S = 0.1
CHECK_EVERY_S = 0.001
HURRIED_EFFORT = 0.25
"""Share of an index's settled effort that a hurried search makes."""


def check_wanted(context: grpc.ServicerContext) -> None:
    """Refuse a call that nobody waits for any more.

    Raises:
        GoneError: its caller has cancelled it or is gone.
        DeadlineError: its deadline has passed.
    """
    if not context.is_active():
        raise GoneError("the call was cancelled before its work was done.")
    left_s = context.time_remaining()
    if left_s is not None and left_s <= 0:
        raise DeadlineError("the deadline passed before the work was done.")


class CallCheck:
    """What a call does at its checkpoints (`recsys.cancellation`), at most once in `CHECK_EVERY_S`.

    Args:
        context: of the call.
        give_way: pauses the call while others are to work.
    """

    def __init__(self, context: grpc.ServicerContext, give_way: Callable[[], None]) -> None:
        self._context, self._give_way, self._next_s = context, give_way, 0.0

    def __call__(self) -> None:
        """Give way to other calls, and raise as `check_wanted` does."""
        if time.monotonic() >= self._next_s:
            self._give_way()
            check_wanted(self._context)
            self._next_s = time.monotonic() + CHECK_EVERY_S


class Admission:
    """The queue of calls before the threads that work on them. Safe for calls from several threads.

    Args:
        settings: its bounds.
        waiting: returns how many calls wait for a thread.
    """

    def __init__(self, settings: QueueSettings, waiting: Callable[[], int]) -> None:
        self._settings, self._waiting = settings, waiting

    @property
    def is_full(self) -> bool:
        """Whether no further call may wait."""
        return self._waiting() >= self._settings.max_waiting

    def refusal(self) -> OverloadedError:
        """Return what a call is told that finds the queue full."""
        most = self._settings.max_waiting
        return OverloadedError(f"{most} calls wait already, as many as may. Call again a little later.", RETRY_AFTER_S)

    def effort(self, context: grpc.ServicerContext) -> float:
        """Return the share (0..1] of the settled effort that a call may make.

        Less than 1 where its deadline is near, or so many wait that the time of each counts.
        """
        if self._waiting() > self._settings.hurry_above_waiting:
            return HURRIED_EFFORT
        left_s = context.time_remaining()
        return HURRIED_EFFORT if left_s is not None and left_s < self._settings.hurry_below_s else 1.0
