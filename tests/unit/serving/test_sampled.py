"""Lines of the log that somebody outside could cause at will."""

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
    taken = [sampled.takes("call", "/s/A", "UNAUTHENTICATED") for _ in range(100)]
    assert taken == [True] * 10 + [False] * 90
    assert sampled.takes("call", "/s/B", "UNAUTHENTICATED")
    assert sampled.takes("audit", "/s/A", "UNAUTHENTICATED")
    until = time.monotonic() + 20
    while not log.getvalue() and time.monotonic() < until:
        time.sleep(0.02)
    # a kind of which all lines were written is not mentioned
    (line,) = map(json.loads, log.getvalue().splitlines())
    assert (line["event"], line["of"], line["method"], line["count"]) == ("lines left out", "call", "/s/A", 90)
    # and then lines are written again
    assert sampled.takes("call", "/s/A", "UNAUTHENTICATED")
    deadlines.close()
