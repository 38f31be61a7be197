"""The one shape of benchmark results."""

import json

import pytest

from benchmarks.report import Report, median_interval


def test_the_interval_of_a_median_lies_between_order_statistics():
    # n = 10: 2 P(Bin(10, 1/2) < 2) = 2 x 11 / 1024 = 2.1 % <= 5 %, and with 3 instead of 2 it is 10.9 %: r = 2.
    assert median_interval([7, 3, 1, 2, 10, 9, 8, 4, 5, 6]) == (5.5, 2, 9)


@pytest.mark.parametrize(("samples", "expected"), [([4], (4, 4, 4)), ([3, 1], (2, 1, 3)), ([5, 1, 2], (2, 1, 5))])
def test_few_samples_give_their_whole_range(samples, expected):
    assert median_interval(samples) == expected


def test_a_report_is_one_json_shape_and_one_table_a_case(tmp_path):
    report = Report("speed", distributions=("numpy", "no-such-distribution"))
    report.add({"data": "small"}, "ours", "query_us", [3.0, 1.0, 2.0])
    report.add({"data": "small"}, "peer", "query_us", 12345.6)
    report.add_interval({"data": "large"}, "ours", "AP@10", 0.5, 0.4, 0.6, 5)
    report.note("The peer loses.")

    report.write(tmp_path)

    content = json.loads((tmp_path / "speed.json").read_text())
    assert content["benchmark"] == "speed"
    assert content["rows"][0] == {
        "case": {"data": "small"},
        "subject": "ours",
        "metric": "query_us",
        "value": 2.0,
        "low": 1.0,
        "high": 3.0,
        "runs": 3,
    }
    assert set(content) == {"benchmark", "command", "commit", "date", "machine", "versions", "rows", "notes"}
    assert set(content["versions"]) == {"python", "numpy"}
    table = (tmp_path / "speed.md").read_text()
    assert "## data = small" in table
    assert "| ours | 2 [1, 3] |" in table
    assert "| peer | 12,346 |" in table
    assert "| ours | 0.5 [0.4, 0.6] |" in table
    assert "- The peer loses." in table


def test_writing_again_replaces_the_files_and_leaves_nothing_else(tmp_path):
    for value in (1.0, 2.0):
        report = Report("speed")
        report.add({}, "ours", "query_us", value)
        report.write(tmp_path)

    assert json.loads((tmp_path / "speed.json").read_text())["rows"][0]["value"] == 2.0
    assert {file.name for file in tmp_path.iterdir()} == {"speed.json", "speed.md"}


def test_a_bound_that_does_not_exist_is_null_in_json_and_said_in_the_table(tmp_path):
    report = Report("gain")
    report.add_interval({}, "ours", "gain_rate", 1.0, 0.2, float("nan"), 5)
    report.write(tmp_path)
    assert json.loads((tmp_path / "gain.json").read_text())["rows"][0]["high"] is None
    assert "| ours | 1 [0.2, no bound] |" in (tmp_path / "gain.md").read_text()
