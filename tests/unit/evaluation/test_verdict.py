"""The verdict says in words what the tables show, and warns where a baseline is ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys import registry
from recsys.evaluation.report import Fit, evaluate
from recsys.evaluation.verdict import CLOSED_FORMS, objections, verdict
from tests.unit.evaluation.test_report import Fixed, cases, sets

WANTED = [[row % 3] for row in range(40)]
RIGHT = [[row % 3, 9] for row in range(40)]
WRONG = [[9, 8] for _ in range(40)]


def judged(**lists):
    return verdict(evaluate({name: Fixed(*shown) for name, shown in lists.items()}, cases(WANTED), ["R@2", "RR@2"]))


def test_it_names_the_baselines_ahead_behind_and_those_it_cannot_tell_apart():
    half = [right if row % 2 else wrong for row, (right, wrong) in enumerate(zip(RIGHT, WRONG, strict=True))]
    # the other half: as many right answers, on other cases
    other = [wrong if row % 2 else right for row, (right, wrong) in enumerate(zip(RIGHT, WRONG, strict=True))]
    sentence, *_, warning = judged(two_tower=half, popularity=WRONG, dlae=RIGHT, ease=other)
    assert sentence == (
        "all, 40 cases: R@2 0.5000, ahead of popularity (+0.5000); behind dlae (-0.5000); "
        "no difference shown to ease (0.0000)."
    )
    assert warning.startswith("Warning: the model is behind dlae. Try ")


def test_a_model_behind_a_list_that_only_counts_is_not_to_be_served_and_the_way_out_is_named():
    *_, warning = judged(two_tower=WRONG, popularity=RIGHT)
    assert warning.startswith(
        "Warning: do not serve this model: its R@2 is significantly below popularity (-1.0000). Look for leaks"
    )
    assert "recsys data describe" in warning
    assert "--force" in warning


def test_a_model_that_leads_gets_no_warning():
    assert not any(sentence.startswith("Warning") for sentence in judged(two_tower=RIGHT, popularity=WRONG))


def test_a_few_lucky_cases_are_no_lead():
    lucky = [RIGHT[0], *WRONG[1:]]
    sentence, significance = judged(two_tower=lucky, popularity=WRONG)
    assert "no difference shown to popularity (+0.0250)" in sentence
    assert significance.startswith("Ahead and behind: significant at the 5%")


def test_tail_and_cold_items_have_sentences_of_their_own():
    # of the trained items 3 and 4 are the tail, 5 to 9 are cold; see test_report
    wanted = [[3, 7]] * 20
    ours, theirs = Fixed(*np.tile([3, 7], (20, 1))), Fixed(*np.tile([0, 1], (20, 1)))
    *found, _ = verdict(evaluate({"two_tower": ours, "popularity": theirs}, cases(wanted), ["R@2"]))
    assert [sentence.partition(",")[0] for sentence in found] == ["all", "tail", "cold"]
    assert all("ahead of popularity (+1.0000)" in sentence for sentence in found)


def test_without_baselines_it_says_so():
    assert judged(two_tower=RIGHT) == ("Compared with nothing: evaluation.baselines is empty.",)


def test_a_baseline_that_was_left_out_is_named_with_the_reason():
    lists = {"two_tower": Fixed(*RIGHT), "popularity": Fixed(*WRONG)}
    report = evaluate(lists, cases(WANTED), ["R@2"], left_out={"ease": "Too many items."})
    assert verdict(report)[-1] == "Not compared with ease: Too many items."


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"two_tower": WRONG, "popularity": RIGHT}, ["its R@2 is significantly below popularity (-1.0000)"]),
        (
            {"two_tower": WRONG, "repeat": RIGHT, "popularity": WRONG},
            ["its R@2 is significantly below repeat (-1.0000)"],
        ),
        (
            {"two_tower": WRONG, "popularity": WRONG, "item_knn": RIGHT},
            ["its R@2 is significantly below item_knn (-1.0000)"],
        ),
        # the simplest of the baselines that there are
        ({"two_tower": WRONG, "dlae": RIGHT}, ["its R@2 is significantly below dlae (-1.0000)"]),
        ({"two_tower": WRONG, "item_knn": WRONG, "ease": RIGHT}, []),
        ({"two_tower": WRONG, "ease": RIGHT, "popularity": WRONG}, []),
        ({"two_tower": RIGHT, "popularity": WRONG}, []),
        ({"two_tower": RIGHT}, []),
        # one case of forty
        (
            {"two_tower": WRONG, "popularity": [RIGHT[0], *WRONG[1:]]},
            ["its R@2 is below popularity (-0.0250) by more than 2%, though not significantly"],
        ),
    ],
)
def test_only_a_simple_baseline_that_is_ahead_speaks_against_serving_a_model(lists, expected):
    report = evaluate({name: Fixed(*shown) for name, shown in lists.items()}, cases(WANTED), ["R@2"])
    assert list(objections(report)) == expected


class WithNew(Fixed):
    """Shows each case one list, and another one where the items that it met are left out."""

    def __init__(self, lists, new):
        super().__init__(*lists)
        self.new = new

    def without(self, barred):
        return Fixed(*self.new)


def with_new_items(count, **recommenders):
    """Return the report of cases that all want item 0, which they met, and item 1, which is new to them."""
    known = replace(cases([[0, 1]] * count), known=sets(*[[0]] * count))
    return evaluate({name: WithNew(*lists) for name, lists in recommenders.items()}, known, ["R@2"])


def test_a_model_that_leads_by_repeats_alone_is_refused_for_its_new_items():
    own, right, wrong = [[0, 8]] * 40, [[1, 8]] * 40, [[8, 9]] * 40
    untrained, popularity, item_knn = (own, wrong), (wrong, wrong), (own, right)
    report = with_new_items(40, two_tower=untrained, popularity=popularity, item_knn=item_knn)
    assert objections(report) == ("its R@2 among new items is significantly below item_knn (-1.0000)",)
    sentences = verdict(report)
    assert any(sentence.startswith("Warning: do not serve this model: its R@2 among new") for sentence in sentences)
    (among_new,) = (sentence for sentence in sentences if sentence.startswith("new_items"))
    assert "behind item_knn (-1.0000)" in among_new
    assert among_new.endswith("Here the vectors rank alone, without the items that an entity has met.")
    assert objections(with_new_items(40, two_tower=item_knn, popularity=popularity, item_knn=item_knn)) == ()


def test_fewer_than_20_new_items_cases_speak_against_no_model():
    own, right, wrong = [[0, 8]] * 19, [[1, 8]] * 19, [[8, 9]] * 19
    report = with_new_items(19, two_tower=(own, wrong), popularity=(wrong, wrong), item_knn=(own, right))
    assert objections(report) == ()


def test_a_loss_within_two_percent_is_a_tie_and_a_larger_one_is_not_even_without_significance():
    for right, is_refused in ((99, False), (97, True)):
        lists = [[0, 8]] * right + [[8, 9]] * (100 - right)
        report = evaluate(
            {"two_tower": Fixed(*lists), "popularity": Fixed(*[[0, 8]] * 100)}, cases([[0]] * 100), ["R@2"]
        )
        assert bool(objections(report)) is is_refused
        assert "no difference shown to popularity" in verdict(report)[0]


def test_a_significant_loss_is_no_tie_however_small():
    lists = [[0, 1]] * 990 + [[0, 8]] * 10
    recommenders = {"two_tower": Fixed(*lists), "repeat": Fixed(*[[0, 1]] * 1000)}
    report = evaluate(recommenders, cases([[0, 1]] * 1000), ["R@2"])
    assert objections(report) == ("its R@2 is significantly below repeat (-0.0050)",)


def test_a_slice_with_few_cases_is_said_to_be_too_small_and_one_case_is_singular():
    wanted = [[0]] * 39 + [[7]]
    lists = {"two_tower": Fixed(*wanted), "popularity": Fixed(*[[8]] * 40)}
    sentences = verdict(evaluate(lists, cases(wanted), ["R@1"]))
    assert "cold, 1 case: R@1 1.0000; fewer than 20 cases are too few to judge." in sentences


def test_of_the_other_slices_those_in_which_a_baseline_is_ahead_are_named():
    # item 0 is the head, item 3 the tail; see test_report
    wanted = [[0]] * 30 + [[3]] * 30
    ours, theirs = [[8]] * 30 + [[3]] * 30, [[0]] * 30 + [[8]] * 30
    sentences = verdict(evaluate({"two_tower": Fixed(*ours), "dlae": Fixed(*theirs)}, cases(wanted), ["R@1"]))
    assert "head, 30 cases: R@1 0.0000, behind dlae (-1.0000)." in sentences
    assert not any(sentence.startswith(("torso", "light")) for sentence in sentences)


@pytest.mark.parametrize(("kind", "gets_it"), [("all_items", True), ("dlae", False)])
def test_a_closed_form_is_advised_only_to_models_that_are_none(kind, gets_it):
    lists = {"two_tower": Fixed(*WRONG), "popularity": Fixed(*RIGHT)}
    fits = {"two_tower": Fit(("train",), {"objective": kind})}
    warning = verdict(evaluate(lists, cases(WANTED), ["R@2"], fits=fits))[-1]
    assert ("Try a closed form" in warning) is gets_it


def test_the_closed_forms_are_the_objectives_that_are_solved_without_steps():
    kinds = registry.names("objectives")
    solved = {kind for kind in kinds if getattr(registry.choice("objectives", kind), "reads", "") == "matrix"}
    assert solved == set(CLOSED_FORMS)


def test_a_slice_that_holds_all_cases_is_not_named_again():
    # every query entity has the same activity: the slice `light` holds all cases
    sentences = judged(two_tower=WRONG, popularity=WRONG, dlae=RIGHT)
    assert not any(sentence.startswith("light") for sentence in sentences)
