"""Segments become Parquet files; killed at any moment, no row is lost or read twice."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.errors import DataError, RefusedError, StorageError
from recsys.experiment.compaction import Compacted, compact
from recsys.experiment.log import EVENTS, EXPOSURES, open_log
from recsys.files import exclusive
from tests.unit.experiment.logs import event, exposure, write_log, write_segment
from tests.unit.serving.test_exposure_log import disk_of
from twintower.errors import MissingError

KILLED = """
import os, signal, sys
import pyarrow
from recsys.experiment.compaction import compact

pyarrow.array([])  # imports what children would import one by one

def compact_until(step):
    def watch(event, arguments):
        # Whatever opens or changes a file is announced before it is done.
        nonlocal step
        if event in ("open", "os.rename", "os.remove") and str(arguments[0]).startswith(sys.argv[1]):
            step -= 1
            if step == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    compact(f"{sys.argv[1]}/{step}")

for step in range(1, int(sys.argv[2]) + 1):
    child = os.fork()
    if child == 0:
        compact_until(step)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def rows(prefix: str, count: int) -> list[dict]:
    return [exposure(f"{prefix}{row}", f"u{row}", "new") for row in range(count)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A log of 20 + 10 + 30 + 10 exposures in three segments, one of which lost as many again, and of 3 events."""
    shown = tmp_path / "exposures"
    write_segment(shown / "1.arrow", EXPOSURES, [rows("a", 20), rows("b", 10)])
    torn = write_segment(shown / "2.arrow", EXPOSURES, [rows("c", 30), rows("d", 30)])
    torn.write_bytes(torn.read_bytes()[:-300])
    write_segment(shown / "3.arrow", EXPOSURES, [rows("e", 10)])
    write_segment(tmp_path / "events" / "1.arrow", EVENTS, [[event("e1", "a1"), event("e2", "a2"), event("e3", "a3")]])
    return tmp_path


def read(folder: Path) -> tuple[list[str], list[str], int]:
    log = open_log(folder)
    tokens, ids = log.exposures.collect()["token"].to_list(), log.events.collect()["event_id"].to_list()
    assert (log.exposure_rows, log.event_rows) == (len(tokens), len(ids))
    return sorted(tokens), sorted(ids), log.torn_segments


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.name != ".lock")


def test_a_compacted_log_says_the_same_in_parquet_files(folder):
    before = read(folder)
    assert (len(before[0]), len(before[1]), before[2]) == (70, 3, 1)
    done = compact(folder)
    assert done == {
        "exposures": Compacted(rows=70, segments=3, torn_segments=1, files=1),
        "events": Compacted(rows=3, segments=1, files=1),
    }
    assert files(folder) == ["events/1.parquet", "exposures/1.parquet"]
    assert read(folder) == before
    assert pq.read_metadata(folder / "exposures/1.parquet").row_group(0).column(0).compression == "ZSTD"
    # again, with what came meanwhile
    write_segment(folder / "exposures" / "4.arrow", EXPOSURES, [rows("f", 5)])
    assert compact(folder)["exposures"] == Compacted(rows=5, segments=1, files=1)
    assert compact(folder)["exposures"] == Compacted()
    assert len(read(folder)[0]) == 75


def test_a_segment_whose_writer_lives_stays(folder):
    before = read(folder)
    with open(folder / "exposures" / "3.arrow", "rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        done = compact(folder)["exposures"]
        assert (done.segments, done.living_segments) == (2, 1)
        assert read(folder) == before
    compact(folder)
    assert files(folder) == ["events/1.parquet", "exposures/1.parquet", "exposures/3.parquet"]
    assert read(folder) == before


def test_half_a_batch_of_a_living_writer_is_not_torn_and_an_empty_segment_is_nothing(folder):
    (folder / "exposures" / "4.arrow").touch()
    with open(folder / "exposures" / "2.arrow", "rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert read(folder)[2] == 0
    assert read(folder)[2] == 1
    compact(folder)
    assert "exposures/4.arrow" in files(folder)


def test_killed_at_any_step_nothing_is_lost_and_nothing_is_read_twice(folder, tmp_path_factory):
    before, steps, copies = read(folder), 30, tmp_path_factory.mktemp("killed")
    for step in range(1, steps + 1):
        shutil.copytree(folder, copies / str(step))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, copies, str(steps)], capture_output=True, text=True, timeout=120, check=True
    )
    codes = [int(line) for line in done.stdout.split()]
    killed = codes.count(-signal.SIGKILL)
    assert codes == [-signal.SIGKILL] * killed + [0] * (steps - killed)
    assert 15 < killed < steps
    for step in range(1, steps + 1):
        copy = copies / str(step)
        assert read(copy) == before, step
        compact(copy)
        assert read(copy) == before, step
        assert not [name for name in files(copy) if name.endswith(".arrow") or "/." in name], step


def test_two_compactions_do_not_work_at_once(folder):
    with exclusive(folder), pytest.raises(RefusedError, match="another process compacts it"):
        compact(folder)


def test_what_is_no_log_or_no_segment_is_named(tmp_path, folder):
    with pytest.raises(MissingError, match="expected a log folder with exposures/"):
        compact(tmp_path / "nothing")
    write_segment(folder / "exposures" / "9.arrow", EVENTS, [[event("e", "t")]])
    with pytest.raises(DataError, match=r"9\.arrow: column request_id: got nothing"):
        compact(folder)
    assert (folder / "exposures" / "1.arrow").exists()


def test_a_full_disk_leaves_the_log_as_it_was(folder):
    before = read(folder), files(folder)
    with disk_of(1000), pytest.raises(StorageError):
        compact(folder)
    assert (read(folder), files(folder)) == before


def test_a_reader_that_meets_a_compaction_is_told_to_begin_again(folder):
    log = open_log(folder)
    compact(folder)
    with pytest.raises(Exception, match="compacted meanwhile"):
        log.exposures.collect()


def test_parquet_files_of_other_writers_are_left_alone(tmp_path):
    write_log(tmp_path, rows("a", 3), [])
    write_segment(tmp_path / "exposures" / "1.arrow", EXPOSURES, [rows("b", 2)])
    compact(tmp_path)
    assert files(tmp_path) == ["events/part-0.parquet", "exposures/1.parquet", "exposures/part-0.parquet"]
    assert open_log(tmp_path).exposure_rows == 5


def test_a_damaged_file_is_named_and_what_it_was_made_from_stays(folder):
    whole = (folder / "exposures" / "1.arrow").read_bytes()
    at = whole.index(b"a10a11a12")
    (folder / "exposures" / "1.arrow").write_bytes(whole[:at] + b"\xff" * 9 + whole[at + 9 :])
    for read in (compact, open_log):
        with pytest.raises(DataError, match=r"1\.arrow: damaged: .*UTF8"):
            read(folder)
    assert (folder / "exposures" / "1.arrow").exists()
    (folder / "exposures" / "0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"0\.parquet: not a Parquet file"):
        compact(folder)
