"""How many calls may wait, and when those that are worked on must hurry."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from serving.errors import OverloadedError
from serving.settings import QueueSettings

RETRY_AFTER_S = 0.1
HURRIED_EFFORT = 0.25
"""Share of an index's settled effort that a hurried search makes."""


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
