"""When a client repeats a call."""

from __future__ import annotations

import json
import numbers
from dataclasses import dataclass

from twintower.errors import OverloadedError, QuotaError, SettingError, TwintowerError, describe

MAX_ATTEMPTS = 5
"""gRPC makes no more, whatever a policy says."""
MAX_S = 1e9
"""Beyond it gRPC's arithmetic ends, at some 30 years."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call is repeated that the server did not take; always within the call's deadline.

    A call is repeated where the status is UNAVAILABLE: the server cannot be reached, or is not ready.

    Attributes:
        max_attempts: attempts of one call, 1 to 5; 1 repeats nothing.
        initial_backoff_s: longest wait before the second attempt, seconds; gRPC draws the wait at random.
        max_backoff_s: longest wait before any attempt, seconds.
        backoff_multiplier: by how much the longest wait grows from attempt to attempt, >= 1.
        honor_retry_info: also repeat a call that the server refused with RESOURCE_EXHAUSTED, after the time that its
            `RetryInfo` names, where the deadline leaves room for it.
    """

    max_attempts: int = 5
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 0.4
    backoff_multiplier: float = 2.0
    honor_retry_info: bool = False

    def __post_init__(self) -> None:
        _check_attempts(self.max_attempts, 1)
        check_seconds("initial_backoff_s", self.initial_backoff_s, above=0.0)
        check_seconds("max_backoff_s", self.max_backoff_s, above=0.0)
        if self.backoff_multiplier < 1:
            raise SettingError(describe("backoff_multiplier", self.backoff_multiplier, "a number >= 1"))

    def service_config(self, services: tuple[str, ...]) -> str:
        """Return the policy as gRPC's service config, JSON.

        Args:
            services: full names of the services whose calls may be repeated.
        """
        method: dict[str, object] = {"name": [{"service": service} for service in services]}
        if self.max_attempts > 1:
            method["retryPolicy"] = {
                "maxAttempts": self.max_attempts,
                "initialBackoff": f"{self.initial_backoff_s}s",
                "maxBackoff": f"{self.max_backoff_s}s",
                "backoffMultiplier": self.backoff_multiplier,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
        return json.dumps({"methodConfig": [method]})

    def wait_s(self, error: TwintowerError, attempt: int, left_s: float) -> float | None:
        """Return the seconds to wait before a refused call is repeated; None where it is not.

        Args:
            error: of the attempt.
            attempt: its number, from 1.
            left_s: until the call's deadline.
        """
        if not self.honor_retry_info or attempt >= self.max_attempts:
            return None
        if not isinstance(error, (OverloadedError, QuotaError)) or not 0 < error.retry_after_s < left_s:
            return None
        return error.retry_after_s


@dataclass(frozen=True)
class HedgingPolicy:
    """Send a query again where its answer takes long; the first answer counts and the other calls are cancelled.

    For tail latency against several servers behind one address. Only calls of RecommendationService are hedged, which
    read and change nothing. A hedged query counts as several calls in quotas and exposure logs.

    Attributes:
        delay_s: seconds after which the next call starts, > 0; about the 95th percentile of the latency.
        max_attempts: calls of one query, 2 to 5.
    """

    delay_s: float
    max_attempts: int = 2

    def __post_init__(self) -> None:
        check_seconds("delay_s", self.delay_s, above=0.0)
        _check_attempts(self.max_attempts, 2)


def check_seconds(path: str, value: float, *, above: float | None = None) -> float:
    """Return a time limit as a float.

    Args:
        path: the argument, for errors.
        value: as given.
        above: must be exceeded; None allows 0, too.

    Raises:
        SettingError: it is no number of seconds.
    """
    if not isinstance(value, numbers.Real) or not 0 <= value <= MAX_S or (above is not None and value <= above):
        rule = f"a number of seconds, 0 to {MAX_S:g}" if above is None else f"a number of seconds above {above:g}"
        raise SettingError(describe(path, value, rule))
    return float(value)


def _check_attempts(value: int, least: int) -> None:
    if not isinstance(value, int) or not least <= value <= MAX_ATTEMPTS:
        raise SettingError(describe("max_attempts", value, f"an integer between {least} and {MAX_ATTEMPTS}"))
