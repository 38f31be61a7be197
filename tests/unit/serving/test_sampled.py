"""Lines of the log that callers could cause at will."""

from __future__ import annotations

import io
import json
import time

from serving.logs import make_logger
from serving.runtime.deadlines import Deadlines
from serving.telemetry.sampled import Sampled


def test_of_each_kind_the_first_lines_are_written_and_the_others_counted():
    log, deadlines = io.BytesIO(), Deadlines()
    sampled = Sampled(make_logger(log), deadlines)
    of_a = {"method": "/s/A", "code": "UNAUTHENTICATED"}
    taken = [sampled.takes("call", **of_a) for _ in range(100)]
    assert taken == [True] * 10 + [False] * 90
    assert sampled.takes("call", **of_a | {"method": "/s/B"})
    assert sampled.takes("audit", **of_a)
    assert sampled.takes("catalogue not compacted")
    until = time.monotonic() + 20
    while not log.getvalue() and time.monotonic() < until:
        time.sleep(0.02)
    # a kind of which all lines were written is not mentioned
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["event"], line["of"], line["method"], line["count"]) == ("lines left out", "call", "/s/A", 90)
    # and then lines are written again
    assert sampled.takes("call", **of_a)
    deadlines.close()


def test_lines_and_window_can_be_chosen():
    log, deadlines = io.BytesIO(), Deadlines()
    sampled = Sampled(make_logger(log), deadlines, lines=1, window_s=3600.0)
    assert [sampled.takes("write refused", method="/s/A") for _ in range(3)] == [True, False, False]
    assert sampled.takes("catalogue not compacted")
    deadlines.close()
