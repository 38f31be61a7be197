"""Arms by salted hash."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy import stats

from recsys.experiment import plan
from recsys.experiment.assignment import ARM, OUTSIDE, Assigner, draw, draws
from recsys.experiment.plan import INTERLEAVED
from twintower.errors import SettingError

NOW = datetime(2026, 3, 5, tzinfo=UTC)
UNITS = [f"user-{number}" for number in range(20_000)] + ["Ünïcode", "x" * 300, "a\0b"]


def assigner(holdout=0.0, **experiments) -> Assigner:
    return Assigner(plan.from_tables({"experiments": experiments, "holdout": {"rate": holdout}}))


def experiment(**changes):
    return {"arms": {"control": {"share": 0.5}, "new": {"share": 0.5, "release": "candidate"}}, **changes}


def test_the_draw_is_the_published_hash_of_key_purpose_and_unit():
    # BLAKE2b of RFC 7693 with an 8-byte digest; its upper 53 bits as a fraction.
    digest = hashlib.blake2b(b"user-1", digest_size=8, key=b"towers", person=b"arm").digest()
    assert draw("towers", ARM, "user-1") == (int.from_bytes(digest, "little") // 2**11) / 2**53
    # Written down once: it must be the same on every machine and for ever.
    assert draw("towers", ARM, "user-1") == 0.9832789186131794


def test_one_unit_and_many_units_get_identical_arms():
    made = assigner(
        holdout=0.1,
        a=experiment(segment=[0.2, 0.9], traffic_rate=0.7, overrides={"user-3": "new", "user-4": "control"}),
    )
    units = [*UNITS, ""]
    many = made.arms_of("a", units, NOW)
    for unit, arm in zip(units, many, strict=True):
        single = made.assign({"user": unit}, NOW)
        assert (single[0].arm if single else OUTSIDE) == arm
    assert set(many) == {OUTSIDE, "control", "new"}


def test_draws_are_uniform_and_independent_between_salts_and_purposes():
    one, other = draws("one", ARM, UNITS), draws("other", ARM, UNITS)
    assert stats.kstest(one, "uniform").pvalue > 0.001
    assert stats.kstest(other, "uniform").pvalue > 0.001
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.03
    assert abs(np.corrcoef(one, draws("one", b"traffic", UNITS))[0, 1]) < 0.03


def test_a_ramp_lets_units_in_and_moves_none():
    arms = {rate: assigner(a=experiment(traffic_rate=rate)).arms_of("a", UNITS, NOW) for rate in (0.1, 0.5, 1.0)}
    for low, high in ((0.1, 0.5), (0.5, 1.0)):
        inside = arms[low] != OUTSIDE
        assert (arms[low][inside] == arms[high][inside]).all()
    assert 0.09 < (arms[0.1] != OUTSIDE).mean() < 0.11


def test_shares_are_kept_and_what_they_leave_stays_out():
    arms = {"control": {"share": 0.2}, "new": {"share": 0.3}}
    found = assigner(a=experiment(arms=arms)).arms_of("a", UNITS, NOW)
    # Standard error of a share of .3 over 20,000 units: sqrt(.3 * .7 / 20000) = .0032
    assert abs((found == "control").mean() - 0.2) < 0.015
    assert abs((found == "new").mean() - 0.3) < 0.015
    assert abs((found == OUTSIDE).mean() - 0.5) < 0.015


def test_shares_that_miss_100_percent_by_rounding_leave_nobody_out():
    arms = {"control": {"share": 1 / 3}, "b": {"share": 1 / 3}, "c": {"share": 1 / 3}}
    assert OUTSIDE not in assigner(a=experiment(arms=arms)).arms_of("a", UNITS, NOW)


def test_the_order_of_the_arms_in_the_file_moves_no_unit():
    arms = experiment()["arms"]
    turned = experiment(arms=dict(reversed(arms.items())))
    assert (assigner(a=experiment()).arms_of("a", UNITS, NOW) == assigner(a=turned).arms_of("a", UNITS, NOW)).all()


def test_experiments_of_one_namespace_exclude_each_other_and_layers_overlap_at_random():
    made = assigner(
        a=experiment(segment=[0, 0.5]),
        b=experiment(segment=[0.5, 1]),
        c=experiment(layer="other", arms={"control": {"share": 0.5}, "new": {"share": 0.5, "reformulator": "average"}}),
    )
    a, b, c = (made.arms_of(name, UNITS, NOW) for name in "abc")
    assert not ((a != OUTSIDE) & (b != OUTSIDE)).any()
    assert ((a != OUTSIDE) | (b != OUTSIDE)).all()
    inside = a != OUTSIDE
    assert stats.chi2_contingency(np.histogram2d(a[inside] == "new", c[inside] == "new", bins=2)[0]).pvalue > 0.001


def test_the_holdout_is_in_no_experiment_and_is_the_same_for_all():
    made = assigner(holdout=0.2, a=experiment(), b=experiment(layer="other", arms={
        "control": {"share": 0.5}, "new": {"share": 0.5, "reformulator": "average"}}))  # fmt: skip
    held = np.array([made.held_out(unit) for unit in UNITS])
    assert abs(held.mean() - 0.2) < 0.015
    assert (made.arms_of("a", UNITS, NOW) == OUTSIDE).tolist() == held.tolist()
    assert (made.arms_of("b", UNITS, NOW) == OUTSIDE).tolist() == held.tolist()


def test_a_user_who_is_held_out_is_so_in_every_session_and_the_others_in_none():
    made = assigner(holdout=0.3, a=experiment(unit="session"))
    for user, session in zip(UNITS[:200], UNITS[200:400], strict=True):
        assert bool(made.assign({"user": user, "session": session}, NOW)) != made.held_out(user)
        assert bool(made.assign({"user": "", "session": session}, NOW)) != made.held_out(session)


def test_an_experiment_runs_from_its_start_until_just_before_its_end():
    made = assigner(a=experiment(start="2026-03-01T00:00:00Z", end="2026-03-02T00:00:00+01:00"))
    for moment, runs in [
        (datetime(2026, 2, 28, 23, 59, tzinfo=UTC), False),
        (datetime(2026, 3, 1, tzinfo=UTC), True),
        (datetime(2026, 3, 1, 23, tzinfo=UTC), False),
    ]:
        assert bool(made.assign({"user": "u"}, moment)) == runs


def test_an_override_wins_over_everything_and_says_so():
    made = assigner(holdout=0.99, a=experiment(traffic_rate=0, end="2026-01-01T00:00:00Z", overrides={"tester": "new"}))
    (found,) = made.assign({"user": "tester"}, NOW)
    assert (found.arm, found.overridden) == ("new", True)
    assert made.assign({"user": "someone"}, NOW) == ()


def test_whom_an_interleaved_experiment_takes_gets_both_arms_and_a_tester_one_of_them():
    made = assigner(a={**experiment(interleave=True, traffic_rate=0.5, overrides={"tester": "new"})})
    arms = made.arms_of("a", UNITS, NOW)
    assert set(arms) == {OUTSIDE, INTERLEAVED}
    assert abs((arms == INTERLEAVED).mean() - 0.5) < 0.015
    for unit, arm in zip(UNITS[:200], arms, strict=False):
        assert [each.arm for each in made.assign({"user": unit}, NOW)] == ([] if arm == OUTSIDE else [INTERLEAVED])
    assert [each.arm for each in made.assign({"user": "tester"}, NOW)] == ["new"]


def test_a_request_without_the_unit_is_in_no_experiment():
    made = assigner(a=experiment(unit="session"))
    assert made.assign({"user": "u"}, NOW) == ()
    assert made.assign({"user": "u", "session": ""}, NOW) == ()
    assert made.assign({"user": "u", "session": "s"}, NOW)[0].unit_kind == "session"


def test_a_moment_without_time_zone_and_an_unknown_experiment_are_the_caller_s_mistake():
    made = assigner(a=experiment())
    with pytest.raises(SettingError, match="a moment with time zone"):
        made.assign({"user": "u"}, datetime(2026, 3, 5))
    with pytest.raises(SettingError, match="no experiment named 'b'"):
        made.arms_of("b", UNITS, NOW)
