"""Paired comparisons: the test's p-values, Holm's correction, and refusing to compare what cannot be."""

import io

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console

from recsys.errors import RefusedError
from recsys.evaluation.comparison import compare, holm, randomisation_test, render_comparison

NAMES = ("old", "new")


def table(values, *, digest="abc", slice="all", ids=None, metric="nDCG@10"):
    count = len(values)
    return pa.table(
        {
            "recommender": ["x"] * count,
            "slice": [slice] * count,
            "case_id": ids or [f"case {place}" for place in range(count)],
            "relevant_count": [1] * count,
            metric: np.asarray(values, float),
        }
    ).replace_schema_metadata({b"cases_digest": digest})


def test_three_differences_of_one_sign_are_as_extreme_as_two_of_eight_sign_patterns():
    # All of +++ and --- give |sum| = 6; nothing else reaches it: 2 / 8.
    assert randomisation_test(np.array([[1.0], [2.0], [3.0]]), flips=1000, seed=0).tolist() == [0.25]


def test_equal_sums_count_as_equally_extreme():
    # 0.1 + 0.2 - 0.3 is 0 on paper: every one of the 8 patterns is at least as extreme.
    assert randomisation_test(np.array([[0.1], [0.2], [-0.3]]), flips=1000, seed=0).tolist() == [1.0]


def test_cases_without_a_difference_change_nothing():
    differences = np.zeros((500, 1))
    differences[[3, 77, 401], 0] = [1, 2, 3]
    assert randomisation_test(differences, flips=1000, seed=0).tolist() == [0.25]
    assert randomisation_test(np.zeros((5, 2)), flips=1000, seed=0).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("cases", [8, 60])
def test_p_values_agree_with_scipys_paired_permutation_test(cases):
    differences = np.random.default_rng(2).normal(0.2, 1, cases)
    theirs = scipy.stats.permutation_test(
        (differences, np.zeros(cases)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        rng=np.random.default_rng(0),
    ).pvalue
    ours = randomisation_test(differences[:, None], flips=9999, seed=1)[0]
    # Eight cases are enumerated by both; sixty are drawn, with a standard error of at most sqrt(0.25 / 9999) = 0.005.
    assert ours == pytest.approx(theirs, abs=1e-12 if cases == 8 else 0.02)


def test_on_worlds_without_a_difference_one_in_twenty_tests_raises_a_false_alarm():
    # 400 worlds x 5 % = 20 expected; the 99.9 % band of Binomial(400, 0.05) is 7 to 36.
    worlds = np.random.default_rng(0).normal(size=(40, 400)) ** 3
    p_values = randomisation_test(worlds, flips=2000, seed=5)
    low, high = scipy.stats.binom.interval(0.999, 400, 0.05)
    assert low <= (p_values <= 0.05).sum() <= high


def test_a_real_difference_is_found():
    differences = np.random.default_rng(0).normal(0.5, 1, (100, 1))
    assert randomisation_test(differences, flips=2000, seed=0)[0] < 0.01


def test_holm_multiplies_the_smallest_by_all_and_never_reverses_the_order():
    # Ascending 0.01, 0.03, 0.04: 3 * 0.01 = 0.03, 2 * 0.03 = 0.06, 1 * 0.04 = 0.04 → lifted to 0.06.
    assert holm(np.array([0.04, 0.01, 0.03])).tolist() == pytest.approx([0.06, 0.03, 0.06])


def test_a_corrected_p_value_stays_a_probability():
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


P_VALUES = arrays(np.float64, st.integers(0, 30), elements=st.floats(0, 1))


@given(P_VALUES)
def test_a_corrected_p_value_lies_between_its_own_and_that_of_bonferroni(p_values):
    corrected = holm(p_values)
    assert (corrected >= p_values).all()
    assert (corrected <= np.minimum(1, len(p_values) * p_values)).all()


@given(P_VALUES, st.randoms(use_true_random=False))
def test_correction_keeps_the_order_of_p_values_and_does_not_depend_on_that_of_comparisons(p_values, random):
    corrected = holm(p_values)
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()
    order = list(range(len(p_values)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm(p_values[order]), corrected[order])


@given(P_VALUES, st.floats(0, 1))
def test_one_more_comparison_makes_no_difference_more_significant(p_values, another):
    assert (holm(np.append(p_values, another))[:-1] >= holm(p_values)).all()


@given(P_VALUES, st.floats(0.001, 0.5))
def test_what_is_below_the_level_is_what_the_sequential_procedure_rejects(p_values, level):
    rejected, count = 0, len(p_values)
    for p_value in np.sort(p_values):
        if (count - rejected) * p_value >= level:
            break
        rejected += 1
    assert (holm(p_values) < level).sum() == rejected


def test_a_comparison_reports_both_means_and_their_difference():
    outcome = compare(table([0.1, 0.2, 0.3]), table([0.2, 0.4, 0.3]), NAMES)
    row = outcome.differences[0]
    # Means 0.6 / 3 and 0.9 / 3. Two cases differ, both upwards: 2 of 4 sign patterns are as extreme.
    assert (row.first, row.second, row.difference) == pytest.approx((0.2, 0.3, 0.1))
    assert (row.p_value, row.corrected_p_value) == (0.5, 0.5)
    assert row.low <= row.difference <= row.high
    assert outcome.cases == 3


def test_cases_are_paired_by_their_id_not_by_their_order():
    first = table([0.0, 0.5, 1.0], ids=["a", "b", "c"])
    second = table([1.0, 0.0, 0.5], ids=["c", "a", "b"])
    row = compare(first, second, NAMES).differences[0]
    assert (row.low, row.high, row.p_value) == (0.0, 0.0, 1.0)


def test_answers_to_different_test_cases_are_not_compared():
    with pytest.raises(RefusedError, match=r"abc \(old\) and xyz \(new\), expected the same digest"):
        compare(table([0.1]), table([0.1], digest="xyz"), NAMES)


def test_a_slice_that_holds_other_cases_is_not_compared():
    first, second = table([0.1, 0.2], slice="tail"), table([0.1, 0.2], slice="tail", ids=["case 0", "case 9"])
    with pytest.raises(RefusedError, match="slice tail of old and new"):
        compare(first, second, NAMES, slice="tail")


def test_a_slice_without_cases_is_not_compared():
    with pytest.raises(RefusedError, match="slice cold"):
        compare(table([0.1]), table([0.1]), NAMES, slice="cold")


@pytest.mark.parametrize("wanted", [(), ("nDCG@10",)])
def test_metrics_that_only_one_side_has_are_refused(wanted):
    with pytest.raises(RefusedError, match="metrics that both have: none"):
        compare(table([0.1]), table([0.1], metric="AP@10"), NAMES, metrics=wanted)


def test_the_printed_comparison_names_both_sides_and_the_number_of_cases():
    text = io.StringIO()
    render_comparison(compare(table([0.1, 0.2]), table([0.3, 0.2]), NAMES), Console(file=text, width=140))
    assert "new against old: 2 cases" in text.getvalue()
    assert "+0.1000" in text.getvalue()
