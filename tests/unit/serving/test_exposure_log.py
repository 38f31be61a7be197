"""Lists on their way to the log: columns, segments, a full disk."""

from __future__ import annotations

import io
import json
import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from recsys.errors import StorageError
from recsys.experiment.assignment import Assignment
from recsys.experiment.log import EVENTS, EXPOSURES, open_log
from serving.exposures import columns
from serving.exposures.columns import Outcome
from serving.exposures.exposure import Exposure, Randomised
from serving.exposures.exposure_log import ExposureLog
from serving.exposures.segments import Segments
from serving.exposures.tokens import Tokens
from serving.logs import make_logger

PLAIN = Exposure("r", "", "", False, (), "f" * 64, "", ("a", "b"), np.array([2, 1], np.float32))
FULL = Exposure(
    request_id="q",
    user_id="Zoë",
    session_id="s",
    held_out=True,
    assignments=(Assignment("towers", "new", "user", False), Assignment("tests", "x", "session", True)),
    release="e" * 64,
    reformulator="rocchio",
    item_ids=("a", "b", "c"),
    scores=np.array([3, 2, 1], np.float32),
    teams=("new", "control", "new"),
    randomised=Randomised(
        "epsilon_swap", 0.25, math.log(0.125), ("a", "c", "b", "d"), np.array([4, 3, 2, 1], np.float32)
    ),
)
CERTAIN = FULL._replace(teams=(), randomised=FULL.randomised._replace(log_propensity=0.0))
NOTHING = PLAIN._replace(item_ids=(), scores=np.zeros(0, np.float32))


def segments(folder: Path, log: io.BytesIO | None = None, size_bytes: int = 2**20, age_s: float = 60.0) -> Segments:
    return Segments(folder / "exposures", EXPOSURES, size_bytes, age_s, make_logger(log or io.BytesIO()))


def exposure_log(to: Segments, max_waiting: int = 100) -> ExposureLog:
    return ExposureLog(Tokens(b"k" * 32), to, max_waiting, make_logger(io.BytesIO()))


@contextmanager
def disk_of(size_bytes: int) -> Iterator[None]:
    """No file of this process may be longer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_rows_come_back_as_they_were_shown(tmp_path):
    to = segments(tmp_path)
    log = exposure_log(to)
    tokens = [log.record(exposure) for exposure in (PLAIN, FULL, CERTAIN, NOTHING)]
    log.flush()
    plain, full, certain, nothing = open_log(tmp_path).exposures.collect().to_dicts()
    assert [row["token"] for row in (plain, full, certain, nothing)] == tokens
    assert [name for name, value in plain.items() if value is None] == [
        "user_id", "session_id", "reformulator", "propensities", "teams", "slate_policy", "slate_parameter",
        "slate_propensity", "candidate_ids", "candidate_scores",
    ]  # fmt: skip
    assert (plain["item_ids"], plain["positions"], plain["scores"]) == (["a", "b"], [0, 1], [2.0, 1.0])
    assert (plain["assignments"], plain["held_out"], plain["release"]) == ([], False, "f" * 64)
    assert full["assignments"] == [
        {"experiment": "towers", "arm": "new", "unit_kind": "user", "overridden": False},
        {"experiment": "tests", "arm": "x", "unit_kind": "session", "overridden": True},
    ]
    assert (full["user_id"], full["session_id"], full["held_out"], full["reformulator"]) == (
        "Zoë",
        "s",
        True,
        "rocchio",
    )
    assert (full["positions"], full["teams"]) == ([0, 1, 2], ["new", "control", "new"])
    assert (full["slate_policy"], full["slate_parameter"]) == ("epsilon_swap", 0.25)
    assert full["slate_propensity"] == pytest.approx(0.125, rel=1e-15)
    assert (full["candidate_ids"], full["candidate_scores"]) == (["a", "c", "b", "d"], [4.0, 3.0, 2.0, 1.0])
    assert (certain["slate_propensity"], certain["teams"]) == (1.0, None)
    assert (nothing["item_ids"], nothing["positions"], nothing["scores"]) == ([], [], [])
    assert Tokens(b"k" * 32).read(tokens[0]).time_us == plain["timestamp"].timestamp() * 1e6


def test_what_does_not_fit_in_the_queue_is_counted_and_gets_no_token(tmp_path):
    log = exposure_log(segments(tmp_path), max_waiting=3)
    tokens = [log.record(PLAIN) for _ in range(5)]
    assert [bool(token) for token in tokens] == [True, True, True, False, False]
    log.flush()
    assert (log.written, log.dropped) == (3, 2)
    assert log.record(PLAIN)


def test_rows_that_are_no_rows_cost_only_themselves(tmp_path):
    to = segments(tmp_path)
    log = exposure_log(to)
    log.record(PLAIN._replace(scores=None))
    log.flush()
    log.record(PLAIN)
    log.flush()
    assert (log.written, log.dropped, open_log(tmp_path).exposure_rows) == (1, 1, 1)


def test_a_segment_that_is_long_or_old_is_followed_by_another(tmp_path):
    for size_bytes, age_s in ((1, 60.0), (2**20, 1e-9)):
        to = segments(tmp_path / str(size_bytes), size_bytes=size_bytes, age_s=age_s)
        log = exposure_log(to)
        for _ in range(3):
            log.record(PLAIN)
            log.flush()
        to.rest()
        assert len(list((tmp_path / str(size_bytes) / "exposures").iterdir())) == 3
        assert open_log(tmp_path / str(size_bytes)).exposure_rows == 3


def test_a_full_disk_keeps_rows_waiting_and_leaves_no_half_batch(tmp_path):
    said = io.BytesIO()
    to = segments(tmp_path, said)
    log = exposure_log(to, max_waiting=5)
    log.record(PLAIN)
    log.flush()
    (path,) = (tmp_path / "exposures").iterdir()
    room = path.stat().st_size + 100
    with disk_of(room):  # less than a batch
        for _ in range(7):
            log.record(FULL)
            log.flush()
        assert (log.written, path.stat().st_size) == (1, room - 100)
        assert open_log(tmp_path).torn_segments == 0
    log.flush()
    # The one that was on its way, five that waited.
    assert (log.written, log.dropped) == (7, 1)
    assert open_log(tmp_path).exposures.collect()["request_id"].to_list() == ["r", *"qqqqqq"]
    told = [json.loads(line) for line in said.getvalue().splitlines()]
    assert [line["event"] for line in told] == ["log not written", "log written again"]
    assert "File too large" in told[0]["reason"]


def test_a_disk_without_room_for_a_segment_leaves_no_file(tmp_path):
    log = exposure_log(segments(tmp_path))
    log.record(PLAIN)
    with disk_of(10):
        log.flush()
        log.close()
    assert list((tmp_path / "exposures").iterdir()) == []
    assert (log.written, log.dropped) == (0, 1)


def test_a_segment_that_somebody_removed_is_replaced(tmp_path):
    log = exposure_log(segments(tmp_path))
    for _ in range(2):
        log.record(PLAIN)
        log.flush()
        (path,) = (tmp_path / "exposures").iterdir()
        path.unlink()
        path.parent.rmdir()
    log.record(PLAIN)
    log.flush()
    assert open_log(tmp_path).exposure_rows == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied"):
        segments(tmp_path).write(columns.exposures([columns.Shown(0, "t", PLAIN)]))


def test_events_keep_their_columns(tmp_path):
    to = Segments(tmp_path / "events", EVENTS, 2**20, 60.0, make_logger(io.BytesIO()))
    to.write(columns.events([Outcome("e", "t", "click", "", 2.5, 1), Outcome("f", "t", "like", "a", None, 2)]))
    segments(tmp_path).write(columns.exposures([columns.Shown(0, "t", PLAIN)]))
    rows = open_log(tmp_path).events.collect().to_dicts()
    assert [(row["event_id"], row["kind"], row["item_id"], row["value"]) for row in rows] == [
        ("e", "click", None, 2.5), ("f", "like", "a", None),
    ]  # fmt: skip
    assert [row["timestamp"].microsecond for row in rows] == [1, 2]
