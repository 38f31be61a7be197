"""The cost of feedback, measured in a short form."""

from benchmarks.reformulation_serving import add_cost
from benchmarks.report import Report


def test_the_short_form_measures_both_calls_and_both_forms_of_attention():
    report = Report("reformulation-serving-quick")

    add_cost(report, items=500, rounds=2, calls=20)

    values = {(row.subject, row.metric): row.value for row in report.rows}
    for subject in ("nearest_items", "reformulate"):
        assert values[subject, "call_us"] > 0
        assert values[subject, "calls_per_s"] > 0
    assert 0.5 < values["reformulate", "cost_ratio"] < 20
    assert 0 < values["attention", "numpy_us"] < values["attention", "tensorflow_us"]
    assert {row.case["items"] for row in report.rows} == {500}
    assert report.notes[0].startswith("Bar ")
