"""Reading a log folder."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataError
from recsys.experiment.log import EVENTS, EXPOSURES, VERSION_KEY, open_log
from tests.unit.experiment.logs import event, exposure, write_log, write_segment
from twintower.errors import MissingError

SHOWN = [exposure("t1", "u1", "control"), exposure("t2", "u2", "new")]


def test_parquet_files_and_segments_are_one_log(tmp_path):
    write_log(tmp_path, SHOWN, [event("e1", "t1")])
    write_segment(tmp_path / "exposures" / "s.arrow", EXPOSURES, [[exposure("t3", "u3", "new")], SHOWN])
    log = open_log(tmp_path)
    assert (log.exposure_rows, log.event_rows, log.torn_segments) == (5, 1, 0)
    assert sorted(log.exposures.collect(engine="streaming")["token"]) == ["t1", "t1", "t2", "t2", "t3"]
    assert log.exposures.select("token").head(3).collect().height == 3
    assert log.exposures.filter(token="t3").select("user_id").collect().item() == "u3"


@pytest.mark.parametrize("cut", [1, 200, 700])
def test_a_segment_whose_writer_was_killed_loses_only_its_last_batch(tmp_path, cut):
    rows = [[exposure(f"t{batch}-{row}", "u", "new") for row in range(20)] for batch in range(3)]
    path = write_segment(tmp_path / "exposures" / "s.arrow", EXPOSURES, rows)
    content = path.read_bytes()
    end_marker = 8
    path.write_bytes(content[: len(content) - end_marker - cut])
    log = open_log(tmp_path)
    assert (log.exposure_rows, log.torn_segments) == (40, 1)
    assert log.exposures.collect()["token"].to_list() == [row["token"] for batch in rows[:2] for row in batch]


def test_a_segment_that_was_killed_between_two_batches_is_whole(tmp_path):
    path = write_segment(tmp_path / "exposures" / "s.arrow", EXPOSURES, [SHOWN])
    path.write_bytes(path.read_bytes()[:-8])
    assert open_log(tmp_path).exposure_rows == 2


def test_a_segment_without_even_a_schema_is_counted(tmp_path):
    write_log(tmp_path, SHOWN, [])
    (tmp_path / "events" / "s.arrow").write_bytes(b"\xff\xff")
    log = open_log(tmp_path)
    assert (log.event_rows, log.torn_segments) == (0, 1)
    assert log.events.collect().is_empty()


def test_files_under_temporary_names_are_passed_over(tmp_path):
    write_log(tmp_path, SHOWN, [])
    (tmp_path / "exposures" / ".part-1.parquet.17").write_bytes(b"half")
    (tmp_path / "exposures" / "README").write_bytes(b"words")
    assert open_log(tmp_path).exposure_rows == 2


def test_a_log_without_events_is_a_log(tmp_path):
    write_log(tmp_path, SHOWN, [])
    (tmp_path / "events" / "part-0.parquet").unlink()
    assert open_log(tmp_path).event_rows == 0


@pytest.mark.parametrize("folder", ["nothing", "."])
def test_a_folder_without_exposures_is_missing(tmp_path, folder):
    with pytest.raises(MissingError, match=r"got no exposures, expected a log folder with exposures/\*\.parquet"):
        open_log(tmp_path / folder)


def test_a_newer_version_is_refused_and_an_older_reader_ignores_new_columns(tmp_path):
    write_log(tmp_path, SHOWN, [])
    table = pa.Table.from_pylist([event("e", "t")], EVENTS).append_column("colour", pa.array(["red"]))
    pq.write_table(table, tmp_path / "events" / "part-0.parquet")
    assert open_log(tmp_path).events.collect().columns == EVENTS.names
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: b"2"}), tmp_path / "events" / "part-0.parquet")
    with pytest.raises(DataError, match="log version: got 2, expected at most 1"):
        open_log(tmp_path)


def test_a_missing_column_a_wrong_type_and_a_damaged_file_are_named(tmp_path):
    write_log(tmp_path, SHOWN, [])
    path = tmp_path / "events" / "part-0.parquet"
    table = pa.Table.from_pylist([event("e", "t")], EVENTS)
    pq.write_table(table.drop_columns("token"), path)
    with pytest.raises(DataError, match=r"part-0.parquet: column token: got nothing, expected string"):
        open_log(tmp_path)
    pq.write_table(table.set_column(1, "token", pa.array([17])), path)
    with pytest.raises(DataError, match=r"column token: got int64, expected string"):
        open_log(tmp_path)
    path.write_bytes(b"PAR1 or not")
    with pytest.raises(DataError, match=r"part-0.parquet: not a Parquet file"):
        open_log(tmp_path)


def test_what_is_written_after_a_log_was_opened_is_not_in_it(tmp_path):
    path = write_segment(tmp_path / "exposures" / "s.arrow", EXPOSURES, [SHOWN, [exposure("t3", "u3", "new")]])
    whole = path.read_bytes()
    first = write_segment(tmp_path / "one.arrow", EXPOSURES, [SHOWN]).read_bytes()
    end_marker = 8
    path.write_bytes(first[:-end_marker])
    log = open_log(tmp_path)
    path.write_bytes(whole)
    assert (log.exposure_rows, log.exposures.collect().height) == (2, 2)
    assert open_log(tmp_path).exposures.collect().height == 3
