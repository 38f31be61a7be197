"""Damaged files of a log end in one error that names the file, whatever is wrong with them, and nothing is lost."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from recsys.errors import DataError
from recsys.experiment.compaction import compact
from recsys.experiment.log import EVENTS, EXPOSURES, open_log
from recsys.experiment.plan import Metric
from recsys.experiment.summary import summarise
from recsys.experiment.units import read_units
from tests.unit.experiment.logs import event, exposure, write_segment

METRICS = {"clicks": Metric(event="click"), "money": Metric(event="click", count="value")}
FILES = ("exposures/1.parquet", "events/1.parquet", "exposures/2.arrow", "events/2.arrow")
CASES = 60


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A log of 80 exposures and as many events: half of each compacted, half in a segment of two batches."""
    folder = tmp_path_factory.mktemp("sound")
    for number in (1, 2):
        names = [f"{number}-{place}" for place in range(40)]
        shown = [exposure(f"t{name}", f"u{name}", ("control", "new")[int(name[-1]) % 2]) for name in names]
        events = [event(f"e{name}", f"t{name}", value=1.5) for name in names]
        write_segment(folder / "exposures" / f"{number}.arrow", EXPOSURES, [shown[:20], shown[20:]])
        write_segment(folder / "events" / f"{number}.arrow", EVENTS, [events[:20], events[20:]])
        if number == 1:
            compact(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path) -> Path:
    return shutil.copytree(sound, tmp_path / "log")


def damaged(content: bytes, draw: random.Random) -> bytes:
    changed, start = bytearray(content), draw.randrange(len(content))
    length = draw.choice([1, 4, 8, 64, 500])
    match draw.choice(["flip", "scatter", "fill", "zero", "cut", "drop", "insert"]):
        case "flip":
            changed[start] ^= 1 << draw.randrange(8)
        case "scatter":
            for _ in range(20):
                changed[draw.randrange(len(content))] = draw.randrange(256)
        case "fill":
            changed[start : start + length] = bytes([draw.choice([0x7F, 0x80, 0xFF])]) * length
        case "zero":
            changed[start : start + length] = bytes(length)
        case "cut":
            del changed[start:]
        case "drop":
            del changed[start : start + length]
        case "insert":
            changed[start:start] = draw.randbytes(length)
    return bytes(changed)


def read(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    log = open_log(folder)
    summarise(log)
    read_units(log, "towers", METRICS)
    return log.exposures.collect(), log.events.collect(), log.torn_segments


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_damaged_is_an_error_that_names_the_file_or_the_end_of_a_torn_segment(sound, folder, name, capfd):
    path, whole = folder / name, read(sound)
    content, errors, named, torn = path.read_bytes(), 0, 0, 0
    for seed in range(CASES):
        path.write_bytes(damaged(content, random.Random(seed)))
        try:
            found = read(folder)
        except DataError as error:
            named += str(path) in str(error)
            errors += 1
            continue
        torn += found[2]
        if name.endswith("parquet"):  # its pages have checksums
            assert all(now.equals(before) for now, before in zip(found[:2], whole[:2], strict=True)), seed
        else:
            lost = sum(len(before) - len(now) for now, before in zip(found[:2], whole[:2], strict=True))
            assert lost in ((20, 40) if found[2] else (0, 20)), seed
    assert named == errors > CASES // 2
    assert (torn > 0) == name.endswith("arrow")
    assert "panicked" not in capfd.readouterr().err


def test_a_segment_that_is_damaged_before_its_end_is_not_torn_and_stays_where_it_is(folder):
    path = folder / "exposures" / "2.arrow"
    content = path.read_bytes()
    # Each message begins with four bytes of ones and its length; the schema is the first, then come two batches.
    first = content.index(b"\xff\xff\xff\xff", 4)
    for what, damage in {
        "a length": b"\xff\xff\xff\xff\x01\x02\0\0",
        "the mark of the end": b"\xff\xff\xff\xff\0\0\0\0",
    }.items():
        path.write_bytes(content[:first] + damage + content[first + 8 :])
        with pytest.raises(DataError, match=r"exposures/2\.arrow: damaged: .* bring it back from a copy"):
            open_log(folder)
        with pytest.raises(DataError, match=r"exposures/2\.arrow: damaged"):
            compact(folder)
        assert path.exists(), what


def test_zeros_at_the_end_that_a_power_cut_leaves_are_a_torn_segment(folder):
    path = folder / "exposures" / "2.arrow"
    content = path.read_bytes()
    end = len(content) - 8
    last_batch = content.rindex(b"\xff\xff\xff\xff", 0, end)
    for kept, rows in ((end, 80), (last_batch, 60)):
        path.write_bytes(content[:kept] + bytes(8192))
        log = open_log(folder)
        assert (log.exposure_rows, log.torn_segments) == (rows, 1)
        assert log.exposures.collect().height == rows
    assert compact(folder)["exposures"].torn_segments == 1


def test_moments_beyond_the_years_of_python_are_damage(folder):
    row = exposure("t", "u", "new")
    batch = pa.RecordBatch.from_pylist([row], EXPOSURES)
    for moment_us in (-(2**63), 2**62, -(10**17)):
        moments = pa.array([moment_us]).cast(EXPOSURES.field("timestamp").type)
        with pa.OSFile(str(folder / "exposures" / "3.arrow"), "wb") as file, pa.ipc.new_stream(file, EXPOSURES) as to:
            to.write_batch(batch.set_column(0, EXPOSURES.field("timestamp"), moments))
        with pytest.raises(DataError, match=r"3\.arrow: damaged: timestamp out of the years 1900 to 9998"):
            open_log(folder)


def test_a_column_that_is_not_known_may_be_of_any_type(folder):
    kind = pa.month_day_nano_interval()
    schema = EVENTS.append(pa.field("gap", kind))
    with pa.OSFile(str(folder / "events" / "3.arrow"), "wb") as file, pa.ipc.new_stream(file, schema) as to:
        batch = pa.RecordBatch.from_pylist([event("e", "t")], EVENTS)
        to.write_batch(batch.append_column("gap", pa.array([(1, 2, 3)], kind)))
    assert open_log(folder).events.filter(event_id="e").collect().columns == EVENTS.names
