"""How many calls may wait, when those that are worked on must hurry, and which calls nobody waits for any more."""

from __future__ import annotations

import time
from collections.abc import Callable

import grpc

from serving.errors import GoneError
from serving.settings import QueueSettings
from twintower.errors import DeadlineError, OverloadedError

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
        self._context, self._give_way = context, give_way
        self._next_s = time.monotonic() + CHECK_EVERY_S

    def __call__(self) -> None:
        """Give way to other calls, and raise as `check_wanted` does."""
        if time.monotonic() >= self._next_s:
            self._give_way()
            check_wanted(self._context)
            self._next_s = time.monotonic() + CHECK_EVERY_S


class Admission:
    """The bound of a queue, which may stand in several places. Safe for calls from several threads.

    Args:
        max_waiting: calls that may wait.
    """

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._places: list[Callable[[], int]] = []

    def count(self, waiting: Callable[[], int]) -> None:
        """Count a place where calls wait; `waiting` returns how many do."""
        self._places.append(waiting)

    def waiting(self) -> int:
        """Return how many calls wait."""
        return sum(waiting() for waiting in self._places)

    def check(self) -> None:
        """Refuse a call that finds the queue full.

        Raises:
            OverloadedError: no further call may wait.
        """
        if self.waiting() >= self._max_waiting:
            message = f"{self._max_waiting} calls wait already, as many as may. Call again a little later."
            raise OverloadedError(message, RETRY_AFTER_S)


class Effort:
    """What share of the settled effort a search may make.

    Args:
        settings: when calls must hurry.
        admission: knows how many calls wait.
    """

    def __init__(self, settings: QueueSettings, admission: Admission) -> None:
        self._settings, self._admission = settings, admission

    def of(self, context: grpc.ServicerContext) -> float:
        """Return the share (0..1] of the settled effort that a call may make.

        Less than 1 where its deadline is near, or so many wait that the time of each counts.
        """
        if self._admission.waiting() > self._settings.hurry_above_waiting:
            return HURRIED_EFFORT
        left_s = context.time_remaining()
        return HURRIED_EFFORT if left_s is not None and left_s < self._settings.hurry_below_s else 1.0
