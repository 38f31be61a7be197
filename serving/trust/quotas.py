"""How often each caller may ask: a token bucket for each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pydantic import Field

from recsys.registry import settings
from twintower.errors import QuotaError

MOST_BUCKETS = 10_000


@settings()
class Quota:
    """What one caller may use in one server process.

    Attributes:
        queries_per_s: queries, or items written, each second in the long run.
        burst: how many at once after a rest. A batch is let in while anything is left, and what it is worth beyond that
            is waited for afterwards, so that batches may be larger. A caller that must wait longer than a second loses
            its open sessions.
    """

    queries_per_s: float = Field(gt=0)
    burst: int = Field(ge=1)


class Quotas:
    """What is left to each caller. Safe for calls from several threads.

    Args:
        clock: returns seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float, Quota]] = {}
        self._most = MOST_BUCKETS

    def charge(self, name: str, quota: Quota, count: int) -> None:
        """Take from what is left to a caller.

        Args:
            name: the caller.
            quota: what it may use.
            count: queries or items.

        Raises:
            QuotaError: nothing is left.
        """
        with self._lock:
            now = self._clock()
            left = self._checked(name, quota, now, 0.0)
            self._buckets[name] = (left - count, now, quota)
            if len(self._buckets) > self._most:
                self._forget_full(now)

    def check(self, name: str, quota: Quota, max_debt_s: float = 0.0) -> None:
        """Check that something is left to a caller, or will be soon.

        Args:
            name: the caller.
            quota: what it may use.
            max_debt_s: how soon, seconds.

        Raises:
            QuotaError: nothing is left.
        """
        with self._lock:
            self._checked(name, quota, self._clock(), max_debt_s)

    def _checked(self, name: str, quota: Quota, now: float, max_debt_s: float) -> float:
        left = self._left(self._buckets.get(name, (quota.burst, now, quota)), quota, now)
        retry_after_s = (1 - left) / quota.queries_per_s
        if retry_after_s > max_debt_s:
            allowed = f"{quota.queries_per_s:g} queries a second, {quota.burst} at once"
            raise QuotaError(f"the quota of {allowed} is used up; call again in {retry_after_s:.3g} s.", retry_after_s)
        return left

    def _forget_full(self, now: float) -> None:
        """Drop buckets that are full again: they say what no bucket says."""
        kept = {
            name: bucket
            for name, bucket in self._buckets.items()
            if self._left(bucket, bucket[2], now) < bucket[2].burst
        }
        self._buckets, self._most = kept, max(MOST_BUCKETS, 2 * len(kept))

    @staticmethod
    def _left(bucket: tuple[float, float, Quota], quota: Quota, now: float) -> float:
        left, then, _ = bucket
        return min(float(quota.burst), left + (now - then) * quota.queries_per_s)
