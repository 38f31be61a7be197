"""The cost of a live catalogue, measured in a short form."""

from benchmarks.catalogue import add_costs
from benchmarks.report import Report


def test_the_short_form_measures_the_check_the_changes_and_the_answers_after_them(block_release):
    report = Report("catalogue-quick")

    add_costs(report, block_release, repeats=3, steps=(20, 30))

    measured = {(row.metric, row.case.get("source", row.case.get("changes"))): row.value for row in report.rows}
    assert measured.keys() == {
        ("check_ns", None),
        *(("nearest_us", changes) for changes in (0, 20, 30, "30 replaced, too")),
        *((metric, source) for metric in ("upsert_ms", "visible_ms") for source in ("vector", "features")),
        *(("upsert_items_per_s", changes) for changes in (20, 30)),
    }
    assert min(measured.values()) > 0
    for source in ("vector", "features"):
        assert measured["upsert_ms", source] < measured["visible_ms", source]
