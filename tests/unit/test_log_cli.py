"""`recsys experiment log` and `compact`: what a log folder holds, before and after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recsys.experiment.log import EVENTS, EXPOSURES
from tests.unit.experiment.logs import event, exposure, write_segment
from tests.unit.test_experiment_cli import run
from twintower.errors import MissingError


@pytest.fixture
def folder(tmp_path) -> Path:
    """A log of four exposures and one event; one segment lost as much again, and five lists were dropped."""
    shown = tmp_path / "exposures"
    rows = [exposure("a", "u1", "new"), exposure("b", "u2", "new", hours=30), exposure("c", "u3", "old", release="r2")]
    path = write_segment(shown / "1.arrow", EXPOSURES, [rows, rows])
    path.write_bytes(path.read_bytes()[:-100])
    write_segment(shown / "2.arrow", EXPOSURES, [[exposure("d", "u4", None)]])
    write_segment(tmp_path / "events" / "1.arrow", EVENTS, [[event("e", "a")]])
    (tmp_path / "drops.jsonl").write_text('{"exposures": 2}\n{"exposures": 3, "pid": 7}\n{"expos')
    return tmp_path


def test_a_log_tells_what_it_holds_and_what_it_lacks(folder):
    told = run("log", folder)
    for words in (
        "4 exposures from 2026-03-01 01:00 to 2026-03-02 06:00 UTC, 1 events (click)",
        "0 Parquet files, 3 ended and 0 living segments",
        "lost: 5 exposures dropped by servers, 1 segments torn in their last batch",
        "towers",
    ):
        assert words in told
    found = json.loads(run("log", folder, "--json"))
    assert found["releases"] == {"r1": 3, "r2": 1}
    assert found["arms"] == [
        {"experiment": "towers", "arm": "new", "exposures": 2},
        {"experiment": "towers", "arm": "old", "exposures": 1},
    ]


def test_compaction_changes_nothing_but_the_files(folder):
    files = ("ended_segments", "parquet_files", "size_bytes")
    before = json.loads(run("log", folder, "--json"))
    assert "exposures: 4 rows of 2 segments (1 torn) in 1 new Parquet files" in run("compact", folder)
    after = json.loads(run("log", folder, "--json"))
    assert [after[name] for name in files[:2]] == [0, 2]
    assert {name: value for name, value in after.items() if name not in files} == {
        name: value for name, value in before.items() if name not in files
    }
    assert json.loads(run("compact", folder, "--json"))["events"]["segments"] == 0


def test_a_folder_without_a_log_is_named(tmp_path):
    for word in ("log", "compact"):
        with pytest.raises(MissingError, match="got no exposures"):
            run(word, tmp_path)
