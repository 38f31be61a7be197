"""From a log to one row a unit."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from recsys.errors import DataError, StorageError
from recsys.experiment.log import open_log
from recsys.experiment.plan import Metric
from recsys.experiment.units import Window, event_kinds, experiments_of, read_units
from tests.unit.experiment.logs import START, assigned, event, exposure, write_log
from tests.unit.serving.test_exposure_log import disk_of
from twintower.errors import MissingError

CLICKS = {"clicks": Metric(event="click")}


def units_of(folder, exposures, events, metrics=CLICKS, **settings):
    return read_units(open_log(write_log(folder, exposures, events)), "towers", metrics, **settings)


def rows(units) -> list[tuple]:
    return sorted(units.frame.select("unit", "arm", "exposures", *units.metrics).rows())


def test_each_way_of_counting_adds_up_a_unit_s_events(tmp_path):
    shown = [exposure("t1", "u1", "control"), exposure("t2", "u1", "control"), exposure("t3", "u2", "new")]
    events = [
        event("e1", "t1"),
        event("e2", "t1", item_id="i1"),
        event("e3", "t2", kind="purchase", value=4.0),
        event("e4", "t1", kind="purchase", value=2.5),
    ]
    metrics = {
        "clicks": Metric(event="click"),
        "clicked_lists": Metric(event="click", count="exposures", per="exposure"),
        "clicked": Metric(event="click", count="any"),
        "money": Metric(event="purchase", count="value"),
    }
    units = units_of(tmp_path, shown, events, metrics)
    # u1: two lists, two clicks, both on t1, 4 + 2.5 of money; u2: one list and nothing else.
    assert rows(units) == [("u1", "control", 2, 2, 1, 1, 6.5), ("u2", "new", 1, 0, 0, 0, 0)]
    assert units.start == START + timedelta(hours=1)


def test_nothing_is_lost_without_a_count(tmp_path):
    shown = [
        exposure("t1", "u1", "control"),
        exposure("t1", "u1", "control"),
        exposure("t2", "u2", "new"),
        exposure("t3", "tester", "new", assignments=[assigned("towers", "new", overridden=True)]),
        exposure("t4", None, "new"),
        exposure(None, "u5", "new"),
        exposure("t6", "u6", "control"),
        exposure("t7", "u6", "new"),
        exposure("t8", "u8", None),
        exposure("t9", "u9", None, item_ids=None),
    ]
    events = [
        event("e1", "t1"),
        event("e1", "t1", hours=1.2),
        event("e1", "t2", hours=1.3),
        event("e2", "nowhere"),
        event("e3", "t1", hours=0.5),
        event("e4", "t1", hours=1 - 3 / 3600),
        event("e5", "t1", hours=200),
        event(None, "t1"),
        event("e6", "t1", value=float("inf")),
        event("e7", "t3"),
        event("e8", "t8"),
        event("e9", "t1", item_id="i9"),
        event("e10", "t9"),
    ]
    (tmp_path / "drops.jsonl").write_text('{"exposures": 5}\n')
    units = units_of(tmp_path, shown, events)
    assert rows(units) == [("u1", "control", 1, 2), ("u2", "new", 1, 0)]
    health = units.health
    assert (health.exposures, health.duplicate_exposures, health.broken_exposures) == (10, 1, 2)
    assert (health.overridden_exposures, health.crossed_units) == (1, 1)
    assert (health.events, health.duplicate_events, health.broken_events) == (13, 2, 2)
    assert (health.foreign_items, health.dropped_exposures) == (1, 5)
    assert (health.unknown_tokens, health.before_exposure, health.skewed, health.late) == (1, 1, 1, 1)


def test_the_past_counts_only_before_the_start_and_not_longer_ago_than_asked(tmp_path):
    shown = [
        exposure("old", "u1", None, hours=-50),
        exposure("past", "u1", None, hours=-10),
        exposure("now", "u1", "new", hours=0),
        exposure("elsewhere", "u1", None, hours=1),
    ]
    events = [event("e1", "past", hours=-9), event("e2", "now", hours=1), event("e3", "elsewhere", hours=2)]
    frame = units_of(tmp_path, shown, events, window=Window(before_days=1)).frame
    assert frame.select("exposures", "clicks", "exposures_before", "clicks_before").row(0) == (1, 1, 1, 1)
    assert "clicks_before" not in units_of(tmp_path, shown, events, window=Window(before_days=0)).frame.columns


def big_log(folder, users=400, lists=3000):
    draw = np.random.default_rng(5)
    shown, events = [], []
    for number in range(lists):
        user = int(draw.integers(users))
        shown.append(exposure(f"t{number}", f"u{user}", ("control", "new")[user % 2], hours=float(draw.uniform(0, 72))))
        if draw.random() < 0.3:
            later = float((shown[-1]["timestamp"] - START).total_seconds() / 3600 + 0.01)
            events.append(event(f"e{number}", f"t{number}", hours=later, item_id=f"i{draw.integers(3)}"))
    return write_log(folder, shown, events + events[:50])


def test_reading_in_many_parts_gives_what_reading_at_once_gives(tmp_path):
    log = open_log(big_log(tmp_path))
    slices = pl.DataFrame({"item_id": ["i0", "i1"], "slice": ["head", "cold"]})
    once = read_units(log, "towers", CLICKS, slices=slices)
    parts = read_units(log, "towers", CLICKS, slices=slices, rows_at_once=500)
    assert once.frame.sort("unit").equals(parts.frame.sort("unit"))
    assert once.health == parts.health
    assert once.health.duplicate_events == 50
    for one, other in ((once.daily, parts.daily), (once.sliced, parts.sliced)):
        assert one.keys() == other.keys()
        for key, found in one.items():
            assert found.count() == other[key].count()
            for column, mean in found.mean_.items():
                assert mean == pytest.approx(other[key].mean_[column], rel=1e-12)
                assert found.var_[column] == pytest.approx(other[key].var_[column], rel=1e-9, abs=1e-12)
    assert {group for _, group in once.sliced} == {"head", "cold", "other"}
    assert {group for _, group in once.daily} == {"0", "1", "2"}


def test_days_and_slices_add_up_to_the_whole(tmp_path):
    log = open_log(big_log(tmp_path))
    units = read_units(log, "towers", CLICKS, slices=pl.DataFrame({"item_id": ["i0"], "slice": ["head"]}))
    for moments, size, shown in ((units.daily, "exposures", 1), (units.sliced, "shown", 3)):
        sums = {
            column: sum(found.count() * found.mean(column) for found in moments.values())
            for column in (size, "clicks")
        }  # fmt: skip
        # Every list shows three items.
        assert sums[size] == pytest.approx(shown * units.frame["exposures"].sum())
        assert sums["clicks"] == pytest.approx(units.frame["clicks"].sum())


def test_an_experiment_that_the_log_does_not_tell_of_is_named_with_those_that_it_does(tmp_path):
    log = open_log(write_log(tmp_path, [exposure("t1", "u1", "control")], [event("e1", "t1", kind="like")]))
    assert experiments_of(log) == {"towers": 1}
    assert event_kinds(log) == ["like"]
    with pytest.raises(MissingError, match=r"no experiment named 'tower'\. Did you mean 'towers'"):
        read_units(log, "tower", CLICKS)


def test_a_log_of_overrides_only_has_no_units(tmp_path):
    shown = [exposure("t1", "u1", "new", assignments=[assigned("towers", "new", overridden=True)])]
    units = units_of(tmp_path, shown, [])
    assert units.frame.is_empty()
    assert units.frame.columns == ["unit", "arm", "exposures", "clicks", "exposures_before", "clicks_before"]


def test_rows_that_are_damaged_are_told_without_a_stack_trace_of_another_library(tmp_path):
    log = open_log(big_log(tmp_path))
    path = tmp_path / "exposures" / "part-0.parquet"
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = b"\xff" * (len(content) // 2 - 200)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"exposures/part-0\.parquet: damaged: Corrupt snappy"):
        read_units(log, "towers", CLICKS)


def test_a_full_disk_is_told_as_one_and_not_as_damage_of_the_log(tmp_path):
    log = open_log(big_log(tmp_path))
    with disk_of(3000), pytest.raises(StorageError, match=r"cannot keep temporary files: .* Make room"):
        read_units(log, "towers", CLICKS)


def test_a_log_without_events_or_metrics_still_counts_its_units(tmp_path):
    assert units_of(tmp_path, [exposure("t1", "u1", "control")], [], {}).frame["exposures"].to_list() == [1.0]
