"""Off-policy estimators, by hand, in simulation and on the Open Bandit sample."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import stats

from recsys.errors import ShapeError
from recsys.experiment.off_policy import (
    clipped,
    direct,
    doubly_robust,
    ips,
    item_position,
    on_policy,
    overlap,
    snips,
    weights,
)
from recsys.experiment.slates import EpsilonSwap, PlackettLuce

NEW, LOGGED = np.array([0.5, 0.2, 0.9, 0.0]), np.array([0.25, 0.4, 0.3, 0.5])
REWARD = np.array([1.0, 0.0, 2.0, 1.0])
WEIGHT = np.array([2.0, 0.5, 3.0, 0.0])
MODELLED, EXPECTED = np.array([0.5, 0.5, 1.0, 1.0]), np.array([0.6, 0.4, 1.0, 0.8])


def half_width(values):
    return stats.norm.ppf(0.975) * np.std(values, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize(
    ("estimate", "rows"),
    [
        # w r = 2, 0, 6, 0
        (ips(WEIGHT, REWARD), [2, 0, 6, 0]),
        # min(w, 2) r = 2, 0, 4, 0
        (clipped(WEIGHT, REWARD, 2.0), [2, 0, 4, 0]),
        (direct(EXPECTED), [0.6, 0.4, 1.0, 0.8]),
        # 0.6 + 2 (1 - .5), 0.4 + .5 (0 - .5), 1 + 3 (2 - 1), 0.8 + 0
        (doubly_robust(WEIGHT, REWARD, MODELLED, EXPECTED), [1.6, 0.15, 4.0, 0.8]),
        (on_policy(REWARD), [1, 0, 2, 1]),
    ],
    ids=lambda value: getattr(value, "estimator", ""),
)
def test_an_estimate_is_the_mean_of_its_rows_with_a_normal_interval(estimate, rows):
    assert estimate.value == pytest.approx(np.mean(rows), rel=1e-12)
    assert estimate.high - estimate.value == pytest.approx(half_width(rows), rel=1e-9)
    assert estimate.value - estimate.low == pytest.approx(half_width(rows), rel=1e-9)


def test_weights_are_ratios_of_probabilities():
    assert weights(NEW, LOGGED) == pytest.approx(WEIGHT, rel=1e-12)


def test_the_self_normalised_estimate_is_a_weighted_mean_and_its_error_that_of_weighted_least_squares():
    found = snips(WEIGHT, REWARD)
    # (2 + 0 + 6 + 0) / 5.5
    assert found.value == pytest.approx(8 / 5.5, rel=1e-12)
    fit = sm.WLS(REWARD, np.ones(4), weights=WEIGHT).fit(cov_type="HC0")
    # The sandwich has n where the delta method has n - 1.
    assert found.standard_error == pytest.approx(fit.bse[0] * np.sqrt(4 / 3), rel=1e-9)


def test_rows_of_one_cluster_are_added_up_as_statsmodels_does():
    draw = np.random.default_rng(2)
    owner, reward = draw.integers(0, 40, 300), draw.normal(1, 1, 300)
    found = on_policy(reward, clusters=owner)
    fit = sm.OLS(reward, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": owner, "use_correction": False})
    count = len(np.unique(owner))
    assert found.standard_error == pytest.approx(fit.bse[0] * np.sqrt(count / (count - 1)), rel=1e-9)


def test_item_position_adds_up_each_place_s_own_ratio():
    weight, reward = np.array([[2.0, 1.0], [0.5, 0.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    # (2 + 1 + .5 + 0) / 2 lists
    assert item_position(weight, reward).value == pytest.approx(1.75, rel=1e-12)


def test_the_effective_number_of_rows_by_hand():
    # (2 + .5 + 3 + 0)^2 / (4 + .25 + 9 + 0) = 30.25 / 13.25
    found = overlap(WEIGHT)
    assert found.effective_rows == pytest.approx(30.25 / 13.25, rel=1e-12)
    assert (found.rows, found.largest_weight, found.warnings) == (4, 3.0, ())
    assert overlap(np.ones(50)) == type(found)(50, 50.0, 1.0, 1.0, ())


def test_poor_overlap_is_told():
    few = np.zeros(1000)
    few[:5] = 200.0
    told = " ".join(overlap(few).warnings)
    assert "5 effective of 1,000 rows (0.5%)" in told
    assert "one row carries 20.0% of the weight" in told
    assert "the mean weight is 0.501, not 1" in " ".join(
        overlap(np.full(1000, 0.5) + np.arange(1000) % 2 * 1e-3).warnings
    )


def test_every_estimator_finds_the_truth_where_its_conditions_hold():
    draw = np.random.default_rng(0)
    rows, actions = 40_000, 5
    logging, new = np.array([0.3, 0.3, 0.2, 0.1, 0.1]), np.array([0.1, 0.1, 0.2, 0.3, 0.3])
    quality = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    shown = draw.choice(actions, rows, p=logging)
    reward = (draw.random(rows) < quality[shown]).astype(float)
    weight = weights(new[shown], logging[shown])
    truth = float(new @ quality)
    biased = quality + 0.3
    estimates = [
        ips(weight, reward),
        snips(weight, reward),
        doubly_robust(weight, reward, quality[shown], np.full(rows, truth)),
        doubly_robust(weight, reward, biased[shown], np.full(rows, new @ biased)),
    ]
    for estimate in estimates:
        assert abs(estimate.value - truth) < 4 * estimate.standard_error
    assert estimates[2].standard_error < estimates[0].standard_error
    assert direct(np.full(rows, new @ biased)).value == pytest.approx(truth + 0.3)
    assert clipped(weight, reward, 1.0).value < truth


def test_a_slate_policy_is_valued_by_item_and_place():
    draw, scores, k, lists = np.random.default_rng(4), np.array([0.6, 0.5, 0.4, 0.1]), 2, 20_000
    clicks, examined = np.array([0.1, 0.5, 0.3, 0.7]), np.array([1.0, 0.5])
    logging, new = PlackettLuce(temperature=0.5), EpsilonSwap(epsilon=0.5)
    slates = np.array([logging.draw(scores, k, draw) for _ in range(lists)])
    reward = (draw.random((lists, k)) < clicks[slates] * examined).astype(float)
    seen, wanted = logging.marginals(scores, k), new.marginals(scores, k)
    weight = weights(wanted[slates, [0, 1]], seen[slates, [0, 1]])
    truth = float((wanted * clicks[:, None] * examined).sum())
    found = item_position(weight, reward)
    assert abs(found.value - truth) < 4 * found.standard_error


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: weights([0.5], [0.0]), "logged probabilities: got 0.0, expected above 0"),
        (lambda: weights([1.5], [0.5]), "new probabilities: got 1.5"),
        (lambda: weights([np.nan], [0.5]), "new probabilities: got nan"),
        (lambda: weights([0.5, 0.5], [0.5]), "the same shape"),
        (lambda: ips([1.0], [1.0, 2.0]), "the same number in every column"),
        (lambda: ips([], []), "at least one"),
        (lambda: snips([0.0, 0.0], [1.0, 1.0]), "weight: got all 0"),
        (lambda: clipped([1.0], [1.0], 0.0), "largest: got 0.0"),
        (lambda: item_position(np.ones(3), np.ones(3)), r"the same shape [rows, k]"),
        (lambda: ips([1.0, 2.0], [1.0, 1.0], clusters=np.array([1])), "clusters: got 1, expected 2"),
    ],
)
def test_wrong_columns_are_the_caller_s_mistake(call, told):
    with pytest.raises(ShapeError) as error:
        call()
    assert told in str(error.value)


def test_the_uniform_policy_s_clicks_are_found_in_the_log_of_the_other_policy():
    folder = os.environ.get("RECSYS_DATA_DIR")
    if not folder or not (Path(folder) / "open_bandit").is_dir():
        pytest.skip("RECSYS_DATA_DIR has no open_bandit")
    uniform, thompson = (pl.read_csv(Path(folder) / "open_bandit" / name / "all.csv") for name in ("random", "bts"))
    weight = weights(np.full(len(thompson), 1 / 80), thompson["propensity_score"].to_numpy())
    truth = on_policy(uniform["click"].to_numpy())
    assert truth.value == pytest.approx(38 / 10_000)
    for estimate in (ips(weight, thompson["click"].to_numpy()), snips(weight, thompson["click"].to_numpy())):
        apart = abs(estimate.value - truth.value)
        assert apart < 1.96 * np.hypot(estimate.standard_error, truth.standard_error)
