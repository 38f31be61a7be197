"""The whole evaluation on a world small enough to check by hand."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from recsys.errors import ShapeError
from recsys.evaluation.cases import EvaluationCases
from recsys.evaluation.comparison import compare
from recsys.evaluation.report import Fit, evaluate, load, render
from recsys.types import Neighbours, RowSets
from twintower.errors import MissingError, SettingError

# Ten items: head is item 0; trained 0..4, so of 1..4 the tail is 3 and 4; torso 1 and 2; 5..9 are cold.
COUNTS = np.array([9, 7, 6, 2, 1, 0, 0, 0, 0, 0])


def sets(*members):
    owners = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    return RowSets.from_pairs(owners, np.array([row for rows in members for row in rows], np.int64), len(members))


class Fixed:
    """Shows each case its list, whatever is asked."""

    def __init__(self, *lists):
        self.lists = np.array(lists, np.int32)

    def recommend(self, case_rows, k):
        rows = np.full((len(case_rows), k), -1, np.int32)
        width = min(k, self.lists.shape[1])
        rows[:, :width] = self.lists[case_rows, :width]
        return Neighbours(rows, np.where(rows >= 0, 1.0, -np.inf).astype(np.float32))


def cases(relevant, *, activity=None, excluded=None, ids=None, item_ids="abcdefghij"):
    count = len(relevant)
    return EvaluationCases(
        case_ids=pa.array(ids or [f"q{place}" for place in range(count)]),
        relevant=sets(*relevant),
        item_ids=pa.array(list(item_ids)),
        item_counts=COUNTS,
        activity=np.array(activity or [1] * count),
        excluded=excluded,
    )


def value(report, slice, metric="R@2", recommender="fixed"):
    entry = report.find(recommender, metric, slice)
    return entry.cases, entry.value


def test_cases_of_new_items_ask_for_nothing_that_was_met_and_stay_where_all_was_met():
    asked = replace(cases([[0, 1], [3]], excluded=sets([5], [])), known=sets([1], [3]))
    new = asked.of_new_items
    assert [new.reachable[case].tolist() for case in range(2)] == [[0], []]
    assert [new.excluded[case].tolist() for case in range(2)] == [[1, 5], [3]]
    assert new.known is None
    repeats = replace(asked, known=sets([0, 1], [3]))
    assert repeats.of_new_items is repeats
    plain = cases([[0]])
    assert plain.of_new_items is plain


def test_a_slice_counts_only_its_own_relevant_items_and_leaves_out_cases_that_have_none():
    # Case 0 wants 0 (head) and 3 (tail) and is shown 0, 1; case 1 wants 4 (tail) and is shown 4, 0.
    report = evaluate({"fixed": Fixed([0, 1], [4, 0])}, cases([[0, 3], [4]]), ["R@2", "RR@2"])
    assert value(report, "all") == (2, pytest.approx((1 / 2 + 1) / 2))
    assert value(report, "head") == (1, 1.0)
    assert value(report, "tail") == (2, pytest.approx((0 + 1) / 2))
    assert value(report, "torso") == (0, None)
    # The ranking stays as it is: seen from the tail, case 1 is hit at place 1, and case 0 not at all.
    assert value(report, "tail", "RR@2") == (2, 0.5)


def test_activity_slices_hold_the_cases_of_new_and_known_query_entities():
    report = evaluate({"fixed": Fixed([0, 1], [1, 2], [2, 3])}, cases([[0], [0], [2]], activity=[0, 0, 5]), ["R@2"])
    assert value(report, "new") == (2, 0.5)
    assert value(report, "light") == (1, 1.0)
    assert value(report, "heavy") == (0, None)


def test_a_case_without_relevant_items_is_left_out_of_every_mean():
    report = evaluate({"fixed": Fixed([0, 1], [1, 2])}, cases([[0], []]), ["R@2"])
    assert report.cases == 1
    assert value(report, "all") == (1, 1.0)


def test_a_relevant_item_that_may_not_be_shown_is_not_asked_for():
    # Case 0 wants 0 and 1 but has seen 1: showing 0 is a full answer. Case 1 wants only what it has seen: left out.
    questions = cases([[0, 1], [3]], excluded=sets([1], [3]))
    report = evaluate({"fixed": Fixed([0, 2], [1, 2])}, questions, ["R@2"])
    assert value(report, "all") == (1, 1.0)
    assert report.with_exclusions


def test_the_interval_lies_around_the_mean():
    generator = np.random.default_rng(0)
    relevant = [[int(row)] for row in generator.integers(0, 4, 40)]
    report = evaluate({"fixed": Fixed(*[[0, 1]] * 40)}, cases(relevant), ["Success@2"], resamples=200)
    entry = report.find("fixed", "Success@2")
    assert 0 < entry.low < entry.value < entry.high < 1


def test_exposure_is_reported_for_each_cutoff_of_the_metrics():
    report = evaluate({"fixed": Fixed([0, 1], [0, 2])}, cases([[0], [0]]), ["R@2", "RR@1"])
    assert [(entry.cutoff, entry.coverage) for entry in report.exposure["fixed"]] == [(1, 0.1), (2, 0.3)]


def test_the_order_of_the_cases_changes_neither_the_values_nor_the_digest():
    relevant, lists = [[0, 3], [4], [5]], [[0, 1], [4, 0], [1, 2]]
    straight = evaluate({"fixed": Fixed(*lists)}, cases(relevant, activity=[1, 2, 3]), ["R@2", "nDCG@2"])
    turned = evaluate(
        {"fixed": Fixed(*lists[::-1])},
        cases(relevant[::-1], activity=[3, 2, 1], ids=["q2", "q1", "q0"]),
        ["R@2", "nDCG@2"],
    )
    assert turned.cases_digest == straight.cases_digest
    assert [(entry.slice, entry.cases) for entry in turned.accuracy] == [
        (entry.slice, entry.cases) for entry in straight.accuracy
    ]
    np.testing.assert_allclose(
        [entry.value or 0 for entry in turned.accuracy], [entry.value or 0 for entry in straight.accuracy], rtol=1e-12
    )


def test_other_relevant_items_other_askers_or_another_rule_on_seen_items_give_another_digest():
    base = cases([[0], [1]])
    others = [
        cases([[0], [2]]),
        cases([[0], [1]], ids=["q0", "someone else"]),
        cases([[0], [1]], excluded=sets([5], [5])),
        cases([[0], [1]], item_ids="bacdefghij"),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 5


def test_the_same_questions_over_another_order_of_the_catalogue_have_the_same_digest():
    assert cases([[0], [1]]).digest == cases([[1], [0]], item_ids="bacdefghij").digest


def test_a_saved_report_is_read_back_whole_and_can_be_compared(tmp_path):
    lists = {"a": Fixed([0, 1], [4, 0]), "b": Fixed([1, 2], [4, 0])}
    fits = {"a": Fit(("train",)), "b": Fit(("train", "validation"), {"weight": 2.5}, tried=2, candidates=3)}
    left_out = {"c": "Too many items."}
    report = evaluate(lists, cases([[0, 3], [4]]), ["R@2", "AP@2"], fits=fits, left_out=left_out)
    report.save(tmp_path)
    again = load(tmp_path)
    assert again == report
    assert again.case_values.equals(report.case_values)
    outcome = compare(report.case_values_of("a"), again.case_values_of("b"), ("a", "b"))
    # R@2: a finds 1/2 and 1, b finds 0 and 1.
    assert outcome.differences[0].difference == pytest.approx(-0.25)


def test_the_tables_say_which_rows_and_settings_each_recommender_was_fitted_with_and_which_were_left_out():
    fits = {"a": Fit(("train", "validation"), {"weight": 2.5}, tried=2, candidates=3)}
    report = evaluate({"a": Fixed([0, 1])}, cases([[0]]), ["R@2"], fits=fits, left_out={"c": "Too many items."})
    console = Console(record=True, width=200, file=io.StringIO())
    render(report, console)
    printed = " ".join(console.export_text().replace("│", " ").split())
    assert "a train + validation weight 2.5 2 of 3" in printed
    assert "c was left out: Too many items." in printed


def test_the_json_of_a_report_holds_no_number_that_json_does_not_know(tmp_path):
    report = evaluate({"fixed": Fixed([-1, -1])}, cases([[0]]), ["R@2"])
    text = json.dumps(report.to_dict(), allow_nan=False)
    assert json.loads(text)["accuracy"][0]["value"] == 0.0


def test_a_folder_without_a_report_is_named(tmp_path):
    with pytest.raises(MissingError, match="evaluation"):
        load(tmp_path)


def test_asking_a_report_for_an_unknown_recommender_names_the_known_ones():
    report = evaluate({"fixed": Fixed([0, 1])}, cases([[0]]), ["R@2"])
    with pytest.raises(MissingError, match="Known: fixed"):
        report.case_values_of("fixd")
    with pytest.raises(MissingError, match="R@3"):
        report.find("fixed", "R@3")


def test_the_printed_report_says_beside_each_slice_how_many_cases_it_has():
    text = io.StringIO()
    report = evaluate({"fixed": Fixed([0, 1], [4, 0])}, cases([[0, 3], [4]]), ["R@2", "AP@2"])
    render(report, Console(file=text, width=160))
    lines = [[cell.strip() for cell in line.split("│")] for line in text.getvalue().splitlines()]
    counts = {cells[1]: cells[2] for cells in lines if len(cells) > 3}
    assert {name: counts[name] for name in ("all", "head", "torso", "tail", "cold", "new")} == {
        "all": "2",
        "head": "1",
        "torso": "0",
        "tail": "2",
        "cold": "0",
        "new": "0",
    }
    assert text.getvalue().count("2 cases") == 3


def test_the_printed_report_says_which_history_the_queries_had():
    text, asked = io.StringIO(), replace(cases([[0, 3]]), history="all of it")
    report = evaluate({"fixed": Fixed([0, 1])}, asked, ["R@2"])
    render(report, Console(file=text, width=160))
    assert report.to_dict()["history"] == "all of it"
    assert "History of a query: all of it." in text.getvalue()


def test_a_recommender_that_shows_an_item_twice_is_refused_by_name():
    with pytest.raises(ShapeError, match="ranking of fixed: got an item twice"):
        evaluate({"fixed": Fixed([0, 0])}, cases([[0]]), ["R@2"])


def test_a_recommender_that_shows_an_excluded_item_is_refused_by_name():
    with pytest.raises(ShapeError, match="ranking of fixed: got an excluded item,"):
        evaluate({"fixed": Fixed([0, 1])}, cases([[0]], excluded=sets([1])), ["R@2"])


def test_an_evaluation_without_a_question_or_without_a_metric_is_refused():
    with pytest.raises(ShapeError, match="no case with a reachable item"):
        evaluate({"fixed": Fixed([0, 1])}, cases([[]]), ["R@2"])
    with pytest.raises(SettingError, match="at least one metric"):
        evaluate({"fixed": Fixed([0, 1])}, cases([[0]]), [])


def test_cases_whose_parts_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match="case_ids"):
        cases([[0], [1]], ids=["same", "same"])
    with pytest.raises(ShapeError, match="activity: got 3"):
        cases([[0], [1]], activity=[1, 2, 3])
    with pytest.raises(ShapeError, match="item_counts: got 10"):
        cases([[0]], item_ids="abc")
