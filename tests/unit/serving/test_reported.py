"""What events report users to have met: by user, of all processes of a log, and no more than is allowed."""

from __future__ import annotations

import io
import time

import pytest

from recsys.experiment.log import EVENTS
from serving.exposures import columns
from serving.exposures.columns import Outcome
from serving.exposures.reported import ReportedItems
from serving.exposures.segments import Segments
from serving.exposures.tokens import Tokens
from serving.logs import make_logger
from serving.settings import LogSettings

TOKENS = Tokens(b"k" * 32)
NOW_US = time.time_ns() // 1000


@pytest.fixture
def reported(tmp_path):
    return ReportedItems(TOKENS, LogSettings(folder=tmp_path))


@pytest.fixture
def writer(tmp_path):
    """A function that appends events to the log, as another process does; and one that begins another segment."""
    made = []

    def write(*events: tuple[str, str], anew: bool = False):
        if anew or not made:
            made.append(Segments(tmp_path / "events", EVENTS, 10**9, 10**9, make_logger(io.BytesIO())))
        rows = [
            Outcome(f"{place}", TOKENS.new(NOW_US, user), "click", item, None, NOW_US)
            for place, (user, item) in enumerate(events)
        ]
        made[-1].write(columns.events(rows))

    yield write
    for segments in made:
        segments.close()


def event(user_id: str, item_id: str | None, kind: str = "click") -> tuple[str, str, str | None]:
    return TOKENS.new(NOW_US, user_id), kind, item_id


def test_each_user_has_met_what_events_of_his_lists_name(reported):
    reported.add([event("a", "x"), event("b", "y"), event("a", "z", "like"), event("a", "x")])
    assert (reported.of("a"), reported.of("b"), reported.of("c")) == (("x", "z"), ("y",), ())


def test_events_of_nobody_of_no_item_and_of_foreign_tokens_say_nothing(reported):
    reported.add([event("", "x"), event("a", ""), event("a", None), ("no token", "click", "x")])
    assert (reported.of(""), reported.of("a")) == ((), ())


def test_only_events_of_the_named_kinds_count(tmp_path):
    reported = ReportedItems(TOKENS, LogSettings(folder=tmp_path, reported_kinds=("purchase", "play")))
    reported.add([event("a", "x"), event("a", "y", "purchase"), event("a", "z", "play")])
    assert reported.of("a") == ("y", "z")


@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_oldest_items_are_forgotten_first(tmp_path, most):
    reported = ReportedItems(TOKENS, LogSettings(folder=tmp_path, max_reported_items=most))
    reported.add(event(f"{number % 2}", f"item {number}") for number in range(10))
    kept = {*reported.of("0"), *reported.of("1")}
    assert kept == {f"item {number}" for number in range(10 - most, 10)}


def test_what_other_processes_record_is_followed_each_batch_once(reported, writer):
    reported.follow()
    writer(("a", "x"), ("b", "y"))
    reported.follow()
    assert (reported.of("a"), reported.of("b")) == (("x",), ("y",))
    writer(("a", "z"))
    writer(("a", "w"), anew=True)
    reported.follow()
    assert set(reported.of("a")) == {"x", "z", "w"}


def test_half_of_a_batch_is_read_when_it_is_whole(reported, writer, tmp_path):
    writer(("a", "x"))
    writer(("a", "y"))
    (segment,) = (tmp_path / "events").iterdir()
    whole = segment.read_bytes()
    for cut in (3, 100, len(whole) - 1, len(whole)):
        segment.write_bytes(whole[:cut])
        reported.follow()
    assert reported.of("a") == ("x", "y")


def test_a_process_that_starts_knows_the_newest_events_of_the_log(tmp_path, writer):
    for number in range(6):
        writer(*((f"user {number}", f"item {number}.{place}") for place in range(10)), anew=True)
    started = ReportedItems(TOKENS, LogSettings(folder=tmp_path, max_reported_items=25))
    started.follow()
    assert [len(started.of(f"user {number}")) for number in range(6)] == [0, 0, 0, 5, 10, 10]


def test_damage_in_a_segment_ends_what_is_read_of_it_and_nothing_else(reported, writer, tmp_path):
    writer(("a", "x"))
    (segment,) = (tmp_path / "events").iterdir()
    segment.write_bytes(segment.read_bytes() + b"\xff" * 64)
    writer(("a", "y"), anew=True)
    reported.follow()
    reported.follow()
    assert reported.of("a") == ("x", "y")
