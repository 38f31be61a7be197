"""What simulated users do, and what an arm truly did to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from recsys.experiment import plan as plans
from recsys.experiment.assignment import Assigner
from recsys.experiment.log import open_log
from recsys.experiment.simulation import (
    BEFORE,
    DURING,
    Habits,
    Happening,
    Outcomes,
    People,
    Visit,
    alternatives,
    answering,
    cell_of,
    stretch,
    timeless,
    unit_of,
)
from recsys.sources.synthetic import Synthetic
from tests.unit.experiment.logs import START, at, event, exposure, write_log
from twintower.errors import SettingError

SOURCE = Synthetic(users=400, items=50, interactions=10, groups=3, seed=2)
TABLES = {
    "metrics": {
        "clicks": {"event": "click"},
        "clickers": {"event": "click", "count": "any"},
        "click_rate": {"event": "click", "count": "exposures", "per": "exposure"},
        "revenue": {"event": "purchase", "count": "value"},
    },
    "experiments": {
        "towers": {"layer": "release", "arms": {"control": {"share": 0.5}, "ssl": {"share": 0.5, "release": "b"}}},
        "feedback": {
            "layer": "feedback",
            "arms": {"control": {"share": 0.4}, "lol": {"share": 0.4, "reformulator": "attention"}},
        },
    },
}
PLAN = plans.from_tables(TABLES)


def click(place: int, delay_s: float = 0.0) -> Happening:
    return Happening("click", place, None, 1, delay_s)


def bought(place: int, value: float) -> Happening:
    return Happening("purchase", place, value, 1, 0.0)


def test_clicks_follow_the_formula():
    people = People(SOURCE, Habits(k=3, wishes=5, impatience=1.0), 400)
    item_ids, rows = ("i7", "i8", "i9"), [7, 8, 9]
    visits = [Visit(user, DURING, number) for user in range(400) for number in range(15)]
    clicked = np.zeros((len(visits), 3))
    for row, visit in enumerate(visits):
        for one in people.happenings(visit, 0, item_ids):
            clicked[row, one.place] += one.kind == "click"
    world = SOURCE.world()
    chosen = np.exp(world.log_probabilities[world.group_of_user[[visit.user for visit in visits]]][:, rows])
    # wished for, times a mean eagerness of 4 / (4 + 2), times 1, 1/2, 1/3 by place
    expected = (1 - (1 - chosen) ** 5) * 4 / 6 / np.array([1, 2, 3])
    error = np.sqrt(expected.mean(axis=0) / len(visits))
    assert np.abs(clicked.mean(axis=0) - expected.mean(axis=0)).max() < 5 * error.max()


def test_what_a_user_wishes_for_does_not_depend_on_what_is_shown():
    people, visit = People(SOURCE, Habits(k=50, wishes=20, impatience=0.0), 400), Visit(3, DURING, 0)
    item_ids = [f"i{row}" for row in range(50)]
    first = {one.place for one in people.happenings(visit, 0, item_ids) if one.kind == "click"}
    assert first
    assert first == {one.place for one in people.happenings(visit, 0, item_ids) if one.kind == "click"}
    # the same items at the same places, without the others
    fewer = [item_ids[place] if place in first else "i50" for place in range(50)]
    assert first == {one.place for one in people.happenings(visit, 0, fewer) if one.kind == "click"}


def test_active_users_come_in_both_phases():
    people = People(SOURCE, Habits(visits=4.0), 400)
    counts = np.zeros((2, 400))
    for phase in (BEFORE, DURING):
        for visit in people.visits(phase):
            counts[phase, visit.user] += 1
    assert 3.5 < counts.mean() < 4.5
    assert np.abs(counts[BEFORE] - counts[DURING]).max() == 1
    assert len(set(people.visits(DURING))) == counts[DURING].sum()


def test_a_stranger_tells_features_alone():
    people, known = (People(SOURCE, Habits(stranger_rate=rate), 400, ["age", "country"]) for rate in (1.0, 0.0))
    row = SOURCE.read().queries.slice(7, 1).to_pylist()[0]
    asked = people.query(Visit(7, DURING, 0))
    assert (asked.entity_id, asked.features) == (None, {"age": row["age"], "country": row["country"]})
    assert known.query(Visit(7, DURING, 0)).entity_id == row["query_id"]


def test_more_users_than_the_source_has_are_refused():
    with pytest.raises(SettingError, match="users: got 401, expected 1 to 400"):
        People(SOURCE, Habits(), 401)


def test_a_bot_clicks_on_everything_and_buys_nothing():
    people = People(SOURCE, Habits(k=4, bot_rate=1.0), 10)
    assert [(one.kind, one.place) for one in people.happenings(Visit(0, DURING, 0), 1, ["i1", "i2"])] == [
        ("click", 0),
        ("click", 1),
    ]


def test_trouble_comes_at_its_rates():
    people = People(SOURCE, Habits(k=50, bot_rate=1.0, duplicate_rate=0.3, late_rate=0.2, early_rate=0.1), 100)
    item_ids = [f"i{row}" for row in range(50)]
    told = [one for user in range(100) for one in people.happenings(Visit(user, DURING, 0), 0, item_ids)]
    assert len(told) == 5000
    assert np.mean([one.sent_count == 2 for one in told]) == pytest.approx(0.3, abs=0.03)
    assert np.mean([one.delay_s > 0 for one in told]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([one.delay_s < 0 for one in told]) == pytest.approx(0.1, abs=0.03)


def test_alternatives_change_one_experiment_at_a_time():
    found = alternatives({"towers": "ssl", "feedback": "control"}, PLAN)
    assert found == {
        (("feedback", "control"), ("towers", "ssl")): [("towers", "ssl"), ("feedback", "control")],
        (("feedback", "control"), ("towers", "control")): [("towers", "control")],
        (("feedback", "lol"), ("towers", "ssl")): [("feedback", "lol")],
    }
    assert alternatives({}, PLAN) == {}


def test_the_file_that_tells_the_truth_puts_one_unit_into_each_cell_and_nobody_else_into_any():
    cells = [cell_of({"towers": "ssl", "feedback": "control"}), cell_of({"towers": "control"})]
    tables = TABLES | {"holdout": {"rate": 0.5}}
    assigner = Assigner(plans.from_tables(answering(timeless(tables), cells)))
    now = datetime.now(UTC)
    for cell in cells:
        assert {one.experiment: one.arm for one in assigner.assign({"user": unit_of(cell)}, now)} == dict(cell)
    assert not any(assigner.assign({"user": f"u{row}"}, now) for row in range(50))
    assert "overrides" not in TABLES["experiments"]["towers"]


def test_a_file_without_times_keeps_all_else():
    start = datetime(2030, 1, 1, tzinfo=UTC)
    timed = {
        "experiments": {"a": {"layer": "x", "start": start, "end": start + timedelta(days=1), "overrides": {}}},
        "holdout": {},
    }
    assert timeless(timed) == {"experiments": {"a": {"layer": "x"}}, "holdout": {}}
    assert timeless(timed, START)["experiments"]["a"] == {"layer": "x", "start": START}


def test_the_truth_is_what_all_units_did_under_each_arm():
    outcomes = Outcomes(PLAN)
    outcomes.add("towers", "control", "u1", [[click(0)], []])
    outcomes.add("towers", "control", "u2", [[click(0, delay_s=10.0)]])
    outcomes.add("towers", "ssl", "u1", [[click(0), click(2), bought(2, 9.0)], [click(1)]])
    outcomes.add("towers", "ssl", "u2", [[]])
    truths = {truth.metric: truth for truth in outcomes.truths()}
    assert {(truth.experiment, truth.arm, truth.units) for truth in truths.values()} == {("towers", "ssl", 2)}
    # 1 and 3 clicks of two users; one of them clicked; on 1 of 3 lists and on 2 of 3; nothing and 9 a user
    expected = {"clicks": (0.5, 1.5), "clickers": (0.5, 0.5), "click_rate": (1 / 3, 2 / 3), "revenue": (0.0, 4.5)}
    assert {name: (truth.control, truth.value) for name, truth in truths.items()} == expected
    assert truths["clicks"].difference == 1.0


def test_seconds_become_days_around_the_start(tmp_path):
    second = 1 / 3600
    shown = [exposure("t1", "u1", None, -2 * second), exposure("t2", "u1", "ssl", 3 * second)]
    log = open_log(write_log(tmp_path / "served", shown, [event("e1", "t2", 4 * second)]))
    stretch(log, tmp_path / "log", START, timedelta(seconds=2))
    found = open_log(tmp_path / "log")
    # 2 seconds are a day: 2 s before the start is a day before it, 3 s after it are 36 h
    assert found.exposures.collect()["timestamp"].to_list() == [at(-24), at(36)]
    assert found.events.collect()["timestamp"].to_list() == [at(48)]
    assert found.exposures.drop("timestamp").collect().equals(log.exposures.drop("timestamp").collect())
