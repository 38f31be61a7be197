"""Log lines reach their reader as JSON, and a reader that does not read keeps nobody waiting."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from pathlib import Path

import pytest

from serving.logs import BackgroundFile, make_logger
from serving.runtime.deadlines import Deadlines
from serving.telemetry import calls
from serving.telemetry.access_log import access_log, line_of
from serving.telemetry.calls import Call
from serving.telemetry.sampled import Sampled
from tests.e2e.exact_retriever import ExactRetriever


class Gate(io.RawIOBase):
    """A file that takes a few bytes at a time, and none until its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.gate, self.written = threading.Event(), threading.Event(), b""

    def write(self, block: bytes) -> int:
        self.entered.set()
        assert self.gate.wait(20)
        self.written += block[:7]
        return len(block[:7])


def test_what_a_slow_reader_leaves_no_room_for_is_dropped_and_told_later():
    gate = Gate()
    file = BackgroundFile(gate, max_lines=2)
    file.write(b"1\n")
    assert gate.entered.wait(20)  # the first line is being written
    for number in range(2, 6):
        file.write(b"%d\n" % number)
    # two of the four waited
    assert file.dropped == 2
    gate.gate.set()
    file.close(20)
    *lines, told = gate.written.splitlines()
    assert lines == [b"1", b"2", b"3"]
    assert (json.loads(told)["event"], json.loads(told)["dropped"]) == ("log lines dropped", 2)


def test_closing_gives_up_on_a_reader_that_does_not_read():
    gate = Gate()
    file = BackgroundFile(gate, max_lines=2)
    file.write(b"1\n")
    started = time.monotonic()
    file.close(0.1)
    assert time.monotonic() - started < 10
    gate.gate.set()


def test_a_full_pipe_that_does_not_block_is_waited_for_without_work():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with io.FileIO(writing, "w") as pipe, io.FileIO(reading) as reader:
        while pipe.write(b"x" * 4096) is not None:
            pass
        file = BackgroundFile(pipe, max_lines=2)
        file.write(b"line\n")
        before_s = time.process_time()
        time.sleep(0.5)
        # A thread that tries again and again takes all of it that the machine gives.
        assert time.process_time() - before_s < 0.1
        while not (read := reader.read(1 << 20)).endswith(b"line\n"):
            assert read
        file.close(20)


class Full(io.RawIOBase):
    """A file on a full disk, until there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.room, self.written = False, b""

    def write(self, block: bytes) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        self.written += block
        return len(block)


def test_a_full_disk_costs_lines_and_nothing_else():
    full = Full()
    file = BackgroundFile(full, max_lines=10)
    file.write(b"lost\n")
    deadline = time.monotonic() + 20
    while not file.dropped:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    full.room = True
    file.write(b"kept\n")
    file.close(20)
    assert full.written.startswith(b"kept\n")
    assert b'"dropped": 1' in full.written


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "ünïcode", "line\nbreak"])
def test_a_line_of_a_call_is_json_whatever_its_names_hold(name):
    release = ExactRetriever().release
    call = Call("/s/Rpc", name, type(release)(Path(f"/{name}"), release.manifest), code="OK", duration_s=0.0012)
    # 86,400.25 s after 1970 began
    assert json.loads(line_of(call, 86_400.25)) == {
        "timestamp": "1970-01-02T00:00:00.250000Z",
        "level": "info",
        "event": "call",
        "method": "/s/Rpc",
        "code": "OK",
        "duration_ms": 1.2,
        "request_id": name,
        "release": name,
    }


def test_a_line_of_a_traced_call_names_its_trace():
    assert json.loads(line_of(Call("/s/Rpc", "", trace_id="ab"), 0))["trace_id"] == "ab"


def test_a_share_of_good_calls_is_logged():
    log = io.BytesIO()
    observe = access_log(make_logger(log), 0.5, Sampled(make_logger(log), Deadlines()))
    for _ in range(1000):
        observe(Call("/s/Rpc", "", code="OK"))
    # 500 expected with a standard deviation of 16: six of those
    assert 400 < log.getvalue().count(b"\n") < 600


def test_every_line_within_a_call_has_its_request_id_and_release():
    log = io.BytesIO()
    calls.begin(Call("/s/Rpc", "one", ExactRetriever().release))
    make_logger(log).warning("something")
    calls.begin(Call("", ""))
    line = json.loads(log.getvalue())
    assert (line["event"], line["request_id"], line["release"]) == ("something", "one", "exact-0123456789ab")
