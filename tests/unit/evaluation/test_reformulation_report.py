"""Reformulators side by side: what is counted, what is printed on narrow and wide terminals, what is written."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from recsys.evaluation.reformulation import curve
from recsys.evaluation.reformulation_report import Point, ReformulationReport, draw, judge, render
from recsys.reformulators.average import Average
from recsys.reformulators.identity import Identity
from recsys.retrieval.guard import Guard
from recsys.retrieval.reformulation import NamedReformulator, feedback_of
from recsys.types import NO_ROW
from tests.mined import clustered
from twintower.errors import SettingError

MINED, ITEMS = clustered(60)
AVERAGE = NamedReformulator("average", Average())
SHY = NamedReformulator("shy", Average(), guard=Guard(max_drift=0.05))
JUDGED = (NamedReformulator("identity", Identity()), AVERAGE, SHY)


@pytest.fixture(scope="module")
def report() -> ReformulationReport:
    return judge(JUDGED, MINED, ITEMS, ["nDCG@10", "MAP@10"], [2, 5], seed=0)


def test_a_report_has_every_reformulator_guard_depth_and_metric_once(report):
    assert (report.cases, report.depths, report.metrics) == (60, (0, 2, 5), ("nDCG@10", "AP@10"))
    assert report.reformulators == ("identity", "average", "shy")
    found = [(point.reformulator, point.guarded, point.depth, point.metric) for point in report.points]
    assert len(found) == len(set(found)) == 3 * 2 * 3 * 2


def test_a_point_says_what_its_curve_measured(report):
    found = curve(AVERAGE, MINED, ITEMS, ["nDCG@10"], [2, 5])
    values = found.values["nDCG@10"]
    point = report.find("average", 5, "nDCG@10")
    assert point.value == pytest.approx(values[2].mean())
    assert point.gain == pytest.approx((values[2] - values[0]).mean())
    assert point.helped_rate == pytest.approx((values[2] > values[0]).mean(), abs=0.02)
    assert point.hurt_rate == pytest.approx((values[2] < values[0]).mean(), abs=0.02)
    assert point.robustness_index == pytest.approx(point.helped_rate - point.hurt_rate)
    # sixty cases: the six worst gains
    assert point.worst_decile == pytest.approx(np.sort(values[2] - values[0])[:6].mean())
    assert report.falling_rates["average"]["nDCG@10"] == pytest.approx(found.falling_rate("nDCG@10"))


def test_intervals_hold_their_means_and_that_of_the_gain_is_paired(report):
    for point in report.points:
        assert point.low <= point.value <= point.high
        assert point.gain_low <= point.gain <= point.gain_high
    point = report.find("average", 5, "nDCG@10")
    # paired differences vary less than the values whose difference they are
    assert 0 < point.gain_high - point.gain_low < 0.8 * (point.high - point.low)
    assert point.gain_low > 0


def test_without_feedback_and_with_the_identity_there_is_nothing_to_gain(report):
    still = [point for point in report.points if point.depth == 0 or point.reformulator == "identity"]
    assert {(point.gain, point.gain_low, point.gain_high) for point in still} == {(0, 0, 0)}
    assert {(point.helped_rate, point.hurt_rate, point.worst_decile) for point in still} == {(0, 0, 0)}


def test_the_guard_counts_in_its_own_points_only(report):
    free, guarded = (report.find("shy", 5, "nDCG@10", guarded=on) for on in (False, True))
    average = report.find("average", 5, "nDCG@10")
    assert free.fallback_rate == 0
    assert dataclasses.replace(free, reformulator="average") == average
    drift = curve(SHY, MINED, ITEMS, ["nDCG@10"], [2, 5]).of_moves[2, :, 0]
    assert guarded.fallback_rate == pytest.approx((drift > 0.05).mean())
    assert 0 < guarded.fallback_rate < 1
    assert guarded.helped_rate < free.helped_rate
    assert report.find("average", 5, "nDCG@10", guarded=True).fallback_rate == 0


def test_feedback_that_somebody_gave_takes_the_place_of_first_results():
    rows = np.array([MINED.relevant[case][:5] for case in range(60)])
    ranks = np.full_like(rows, NO_ROW)
    feedback = feedback_of(MINED.query_vectors, ITEMS, rows, ranks=ranks)
    told = judge([AVERAGE], MINED, ITEMS, ["nDCG@10"], [5], seed=0, feedback=feedback).find("average", 5, "nDCG@10")
    pseudo = judge([AVERAGE], MINED, ITEMS, ["nDCG@10"], [5], seed=0).find("average", 5, "nDCG@10")
    assert told.value > pseudo.value


def test_one_seed_gives_one_report_and_another_other_intervals(report):
    again, other = (judge(JUDGED, MINED, ITEMS, ["nDCG@10", "MAP@10"], [2, 5], seed=seed) for seed in (0, 1))
    assert again == report
    ours, theirs = (each.find("average", 5, "nDCG@10") for each in (report, other))
    assert ours.value == theirs.value
    assert ours.low != theirs.low


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(SettingError, match="got 'foo@3', expected one of nDCG@k"):
        judge([AVERAGE], MINED, ITEMS, ["foo@3"], [1], seed=0)


def wide_report(*names: str) -> ReformulationReport:
    """Return a report whose numbers are as long as they can be."""
    points = tuple(
        Point(name, guarded, depth, "nDCG@10", 0.98765, 0.1, 0.2, -0.12344, -0.23455, 0.34566, 1, 0.99, 0, 0, 0.98)
        for name in names
        for guarded in (False, True)
        for depth in (0, 1, 100)
    )
    return ReformulationReport(12345, (0, 1, 100), ("nDCG@10",), points, {name: {"nDCG@10": 0.321} for name in names})


def printed(report: ReformulationReport, width: int) -> str:
    text = io.StringIO()
    render(report, Console(file=text, width=width))
    return text.getvalue()


@pytest.mark.parametrize("width", [80, 160])
def test_no_number_and_no_heading_is_cut_at_the_width_of_a_terminal(width):
    text = printed(wide_report("attention_lol", "a" * 40), width)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines() if "feedback is worse" not in line) <= max(width, 100)
    rows = [line for line in text.splitlines() if "0.9877" in line and "original" not in line]
    assert len(rows) == 4
    for row, depth in zip(rows, ("1", "100", "1", "100"), strict=True):
        cells = row.split()[-9:]
        assert cells == [depth, "0.9877", "-0.1234", "[-0.2346", "+0.3457]", "100%", "99%", "0.9877", "98%"]
    headings = "reformulator depth value gain interval helped hurt guarded kept"
    assert [line.split() for line in text.splitlines() if line.startswith("reformulator")] == [headings.split()]
    # a long name is broken, not cut
    broken = [line.split(" ")[0] for line in text.split("feedback is worse")[0].splitlines() if line.startswith("aa")]
    assert "".join(broken) == "a" * 40


def test_the_table_says_what_was_measured(report):
    text = printed(report, 100)
    original = report.find("identity", 0, "nDCG@10").value
    assert f"nDCG@10, 60 cases; original query {original:.4f}; gain with its paired 95 % interval" in text
    point = report.find("average", 5, "nDCG@10")
    assert f"{point.value:.4f} {point.gain:+.4f}*" in text
    assert "average: pairs of a case and two depths where more feedback is worse: nDCG@10 " in text
    (row,) = {line for line in text.split("AP@10, 60 cases")[0].splitlines() if line.startswith("identity")}
    assert "+0.0000 " in row
    assert "*" not in row


def test_a_report_is_written_as_json_with_a_plot_for_each_metric(report, tmp_path):
    written = report.save(tmp_path)
    assert [path.name for path in written] == [
        "reformulation.json", "reformulation-nDCG@10.png", "reformulation-AP@10.png",
    ]  # fmt: skip
    content = json.loads(written[0].read_text())
    assert (content["cases"], content["depths"], content["metrics"]) == (60, [0, 2, 5], ["nDCG@10", "AP@10"])
    assert content["points"] == [dataclasses.asdict(point) for point in report.points]
    assert content["falling_rates"]["average"].keys() == {"nDCG@10", "AP@10"}
    for plot in written[1:]:
        assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_plot_of_another_metric_is_another_picture(report, tmp_path):
    pictures = [draw(report, metric, tmp_path / f"{place}.png").read_bytes() for place, metric in
                enumerate(("nDCG@10", "nDCG@10", "AP@10"))]  # fmt: skip
    assert pictures[0] == pictures[1] != pictures[2]
