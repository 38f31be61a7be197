"""Team-draft interleaving."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from recsys.errors import DataError, RefusedError
from recsys.experiment.interleaving import credit, draft, preference, preferences
from recsys.experiment.log import open_log
from tests.unit.experiment.logs import assigned, at, event, exposure, write_log

TEAMS = {"teams": ["old", "new", "new"]}
FIRST, SECOND = ["a", "b", "c", "d"], ["b", "e", "a", "f"]


def drafts(count=2000, k=4):
    generator = np.random.default_rng(3)
    return [draft(FIRST, SECOND, k, generator) for _ in range(count)]


def test_teams_are_of_equal_size_after_every_round_and_no_item_stands_twice():
    for made in drafts():
        assert len({item for item, _ in made}) == len(made) == 4
        for end in (2, 4):
            assert sum(team for _, team in made[:end]) == end // 2


def test_each_team_s_items_come_in_its_own_order_and_the_coin_is_fair():
    made = drafts()
    for items in made:
        for team, own in enumerate((FIRST, SECOND)):
            places = [own.index(item) for item, of in items if of == team]
            assert places == sorted(places)
    begun = sum(items[0][1] for items in made)
    # 2,000 tosses: 1,000 +- 4.5 * sqrt(500) = 101
    assert abs(begun - 1000) < 101


def test_a_list_ends_where_both_arms_run_out():
    made = draft(["a"], ["a", "b"], 5, np.random.default_rng(0))
    assert sorted(item for item, _ in made) == ["a", "b"]
    assert draft([], [], 3, np.random.default_rng(0)) == []
    assert [team for _, team in draft([], ["a", "b"], 3, np.random.default_rng(0))] == [1, 1]


def test_credit_is_counted_once_a_list_and_item_and_tested_by_unit(tmp_path):
    shown = [exposure(f"t{number}", f"u{number}", "interleaved", **TEAMS) for number in range(6)]
    shown += [exposure("t9", "u0", "interleaved", **TEAMS), exposure("plain", "u9", None)]
    events = [
        event("e0", "t0", item_id="i1"), event("e1", "t0", item_id="i1"), event("e2", "t9", item_id="i0"),
        event("e3", "t1", item_id="i1"), event("e4", "t2", item_id="i2"), event("e5", "t3", item_id="i0"),
        event("e6", "plain", item_id="i0"), event("e7", "t4", item_id="elsewhere"), event("e8", "t5", kind="like"),
    ]  # fmt: skip
    log = open_log(write_log(tmp_path, shown, events))
    found = preference(credit(log.exposures, log.events, "click", experiment="towers"), "old", "new")
    # u0: one each; u1, u2: new; u3: old; u4, u5: nothing.
    assert (found.first_wins, found.second_wins, found.ties) == (1, 2, 3)
    reference = stats.binomtest(2, 3)
    assert found.win_rate == pytest.approx(2 / 3)
    assert found.p_value == pytest.approx(reference.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(reference.proportion_ci()), rel=1e-9)
    # At every look: 2! 1! / 4! over (1/2)^3 is 2/3 for one rate of all, which speaks against no rate near a half.
    assert (found.always_p_value, found.preferred) == (1, "")
    assert found.always_low < found.low < found.high < found.always_high


def votes(first_wins: int, second_wins: int, ties: int = 0) -> pl.DataFrame:
    arms = ["old"] * first_wins + ["new"] * second_wins + [None] * ties
    return pl.DataFrame({"unit": range(len(arms)), "arm": arms, "credit": [arm and 1 for arm in arms]})


def test_looks_at_any_time_need_more_than_one_that_was_settled_before_and_ties_count_for_nothing():
    # 0 of 6: sign test 2 / 2^6 = 0.03; at every look 7 / 2^6 = 0.11. 0 of 8: 9 / 2^8 = 0.035.
    six, final = (preference(votes(0, 6, ties=50), "old", "new", min_units=2, final=final) for final in (False, True))
    assert (six.p_value, six.always_p_value) == pytest.approx((2 / 64, 7 / 64))
    assert (six.preferred, final.preferred) == ("", "new")
    eight = preference(votes(8, 0), "old", "new", min_units=2)
    assert eight.always_p_value == pytest.approx(9 / 256)
    assert (eight.preferred, eight.always_high < 0.5) == ("old", True)


def test_several_kinds_of_events_are_compared_more_carefully_and_a_plan_finds_less():
    one = preference(votes(0, 8), "old", "new", min_units=2)
    three = preference(votes(0, 8), "old", "new", min_units=2, comparisons=3)
    assert three.always_p_value == pytest.approx(3 * one.always_p_value)
    assert (one.preferred, three.preferred, three.always_low < 0.5) == ("new", "", True)
    loose, planned = (preference(votes(451, 549), "old", "new", planned_units=units) for units in (None, 1000))
    assert planned.always_p_value < 0.05 < loose.always_p_value
    assert (loose.preferred, planned.preferred) == ("", "new")


def test_interleaving_without_credit_prefers_nobody_and_without_lists_is_refused(tmp_path):
    log = open_log(write_log(tmp_path, [exposure("t", "u", "interleaved", **TEAMS)], []))
    credits = credit(log.exposures, log.events, "click", experiment="towers")
    assert preference(credits, "old", "new").p_value == 1
    with pytest.raises(RefusedError, match="interleaved lists: got 0"):
        preference(credits.clear(), "old", "new")


def test_lists_of_testers_and_of_other_experiments_and_late_events_are_no_credit(tmp_path):
    shown = [
        exposure("mine", "u0", "interleaved", **TEAMS),
        exposure("test", "u1", None, assignments=[assigned("towers", "interleaved", overridden=True)], **TEAMS),
        exposure("other", "u2", None, assignments=[assigned("order", "interleaved")], **TEAMS),
        exposure("late", "u3", "interleaved", **TEAMS),
        exposure("early", "u4", "interleaved", **TEAMS),
        exposure("unknown", None, "interleaved", **TEAMS),
    ]
    events = [event(f"e{row['token']}", row["token"], item_id="i1") for row in shown]
    events[3]["timestamp"] = at(1 + 169)
    events[4]["timestamp"] = at(0.9)
    log = open_log(write_log(tmp_path, shown, events))
    (found,) = preferences(log, "towers", ["click"], control="old").values()
    assert (found.first, found.second, found.first_wins, found.second_wins, found.ties) == ("old", "new", 0, 1, 2)


def test_arms_that_are_not_those_of_the_experiment_are_told(tmp_path):
    log = open_log(write_log(tmp_path, [exposure("t", "u", "interleaved", **TEAMS)], []))
    with pytest.raises(DataError, match=r"teams in the log of towers: got \['new', 'old'\], expected 'control' and"):
        preferences(log, "towers", ["click"])
    with pytest.raises(RefusedError, match="interleaved lists: got 0"):
        preferences(log, "order", ["click"])
    with pytest.raises(RefusedError, match="events: got 0, expected at least one kind"):
        preferences(log, "towers", [])
