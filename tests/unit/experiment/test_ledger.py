"""The calibration ledger."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from recsys.errors import DataError, RefusedError
from recsys.experiment.ledger import Entry, Outcome, append, calibrate, read


def entry(number, offline=0.01, online=0.002):
    return Entry(
        f"e{number}", "new", "control", "2026-03-15", {"nDCG@10": offline}, {"ctr": Outcome(online, -1.0, 1.0)}
    )


def test_what_was_appended_is_read_again_in_order(tmp_path):
    path = tmp_path / "some" / "ledger.jsonl"
    assert read(path) == []
    for number in range(3):
        append(path, entry(number))
    assert read(path) == [entry(number) for number in range(3)]
    assert [file.name for file in path.parent.iterdir() if file.name.endswith("jsonl")] == ["ledger.jsonl"]


def test_an_arm_is_entered_once(tmp_path):
    append(tmp_path / "l", entry(1))
    with pytest.raises(RefusedError, match="e1/new: got 'a second entry', expected one"):
        append(tmp_path / "l", entry(1, offline=9))
    assert read(tmp_path / "l") == [entry(1)]


def test_writers_at_the_same_time_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(tmp_path / "l", entry(number)), range(40)))
    assert {one.experiment for one in read(tmp_path / "l")} == {f"e{number}" for number in range(40)}


@pytest.mark.parametrize("line", ["half a li", '{"version": 2}', '{"version": 1}', "[]", '{"version": 1, "online": 3}'])
def test_a_line_that_is_no_entry_is_named_and_nothing_is_written_over_it(tmp_path, line):
    append(tmp_path / "l", entry(1))
    content = (tmp_path / "l").read_text() + line + "\n"
    (tmp_path / "l").write_text(content)
    with pytest.raises(DataError, match="l, line 2"):
        append(tmp_path / "l", entry(2))
    assert (tmp_path / "l").read_text() == content


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(DataError, match="e1/new: got"):
        append(tmp_path / "l", entry(1, online=math.nan))


def test_prediction_is_agreement_of_signs_and_rank_correlation_with_intervals():
    offline = [0.01, 0.02, -0.01, 0.03, -0.02, 0.005]
    online = [0.001, 0.003, -0.002, 0.002, 0.001, 0.0]
    entries = [entry(number, *pair) for number, pair in enumerate(zip(offline, online, strict=True))]
    entries.append(Entry("other", "new", "control", "2026-03-15", {"nDCG@10": 1.0}, {"money": Outcome(1, 0, 2)}))
    (found,) = calibrate(entries, "ctr")
    # Same sign: the first four; the fifth differs, the sixth has no sign.
    assert (found.comparisons, found.agreed) == (6, 4)
    assert (found.agreement_low, found.agreement_high) == pytest.approx(
        proportion_confint(4, 6, method="wilson"), rel=1e-9
    )
    r = stats.spearmanr(offline, online).statistic
    assert found.rank_correlation == pytest.approx(r, rel=1e-9)
    half = stats.norm.ppf(0.975) * np.sqrt((1 + r**2 / 2) / 3)
    assert found.correlation_low == pytest.approx(np.tanh(np.arctanh(r) - half), rel=1e-9)
    assert found.correlation_high == pytest.approx(np.tanh(np.arctanh(r) + half), rel=1e-9)


def test_few_comparisons_have_no_correlation_and_none_have_no_line():
    (found,) = calibrate([entry(1), entry(2)], "ctr")
    assert found.rank_correlation is None
    assert found.agreement_rate == 1
    (perfect,) = calibrate([entry(n, n, n) for n in range(1, 6)], "ctr")
    assert perfect.rank_correlation == pytest.approx(1)
    assert calibrate([entry(1)], "money") == []
