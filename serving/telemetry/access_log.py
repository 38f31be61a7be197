"""One log line a call: method, code, milliseconds, request id, release."""

from __future__ import annotations

import functools
import random
import time
from json.encoder import encode_basestring_ascii as quoted

from serving.logs import Logger
from serving.status import REFUSALS
from serving.telemetry.calls import Call, Observer
from serving.telemetry.sampled import Sampled

MAX_SHOWN = 512


def access_log(logger: Logger, rate: float, sampled: Sampled) -> Observer:
    """Return an observer that logs calls.

    Args:
        logger: gets the lines.
        rate: share of calls that ended well which are logged, 0..1; of the others every one is, but for refusals.
        sampled: limits the lines of calls that were refused, or that their callers have cancelled: anybody can make
            thousands of those in a second.
    """
    write = logger.bind().line

    def observe(call: Call) -> None:
        if call.code == "OK":
            is_written = rate == 1 or random.random() < rate
        elif call.reason in REFUSALS or call.code == "CANCELLED":
            is_written = sampled.takes("call", method=call.method, code=call.code)
        else:
            is_written = True
        if is_written:
            write(line_of(call, time.time()))

    return observe


def line_of(call: Call, ended_s: float) -> bytes:
    """Return the line of a call as JSON; written by hand, because this is done for every call.

    Args:
        call: it has ended.
        ended_s: when, in seconds since 1970.
    """
    # Only these and the request id are not of our own making: they may hold what JSON escapes.
    caller = f', "caller": {quoted(call.caller)}' if call.caller else ""
    reason = f', "reason": "{call.reason}"' if call.reason else ""
    refusal = f', "refusal": {quoted(call.refusal[:MAX_SHOWN])}' if call.refusal else ""
    release = f', "release": {quoted(call.release.name)}' if call.release is not None else ""
    trace = f', "trace_id": "{call.trace_id}"' if call.trace_id else ""
    ended = f"{_second(int(ended_s))}.{int(ended_s % 1 * 1e6):06d}Z"
    return (
        f'{{"timestamp": "{ended}", "level": "info", "event": "call", "method": "{call.method}", '
        f'"code": "{call.code}", "duration_ms": {call.duration_s * 1000:.3f}, "request_id": {quoted(call.request_id)}'
        f"{caller}{reason}{refusal}{release}{trace}}}"
    ).encode()


@functools.lru_cache(maxsize=2)
def _second(since_1970_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since_1970_s))
