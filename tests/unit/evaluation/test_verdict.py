"""The verdict says in words what the tables show, and warns where a baseline is ahead."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.report import evaluate
from recsys.evaluation.verdict import objections, verdict
from tests.unit.evaluation.test_report import Fixed, cases

WANTED = [[row % 3] for row in range(40)]
RIGHT = [[row % 3, 9] for row in range(40)]
WRONG = [[9, 8] for _ in range(40)]


def judged(**lists):
    return verdict(evaluate({name: Fixed(*shown) for name, shown in lists.items()}, cases(WANTED), ["R@2", "RR@2"]))


def test_it_names_the_baselines_ahead_behind_and_those_it_cannot_tell_apart():
    half = [right if row % 2 else wrong for row, (right, wrong) in enumerate(zip(RIGHT, WRONG, strict=True))]
    # the other half: as many right answers, on other cases
    other = [wrong if row % 2 else right for row, (right, wrong) in enumerate(zip(RIGHT, WRONG, strict=True))]
    sentence, warning = judged(two_tower=half, popularity=WRONG, item_knn=RIGHT, ease=other)
    assert sentence == (
        "all, 40 cases: R@2 0.5000, ahead of popularity (+0.5000); behind item_knn (-0.5000); "
        "not significantly different from ease (+0.0000)."
    )
    assert warning.startswith("Warning: the model is behind item_knn. Try ")


def test_a_model_behind_a_list_that_only_counts_is_not_to_be_served_and_the_way_out_is_named():
    *_, warning = judged(two_tower=WRONG, popularity=RIGHT)
    assert warning.startswith(
        "Warning: do not serve this model: its R@2 is below popularity (-1.0000). A list that only"
    )
    assert "recsys data describe" in warning
    assert "--force" in warning


def test_a_model_that_leads_gets_no_warning():
    assert not any(sentence.startswith("Warning") for sentence in judged(two_tower=RIGHT, popularity=WRONG))


def test_a_few_lucky_cases_are_no_lead():
    lucky = [RIGHT[0], *WRONG[1:]]
    (sentence,) = judged(two_tower=lucky, popularity=WRONG)
    assert "not significantly different from popularity (+0.0250)" in sentence


def test_tail_and_cold_items_have_sentences_of_their_own():
    # of the trained items 3 and 4 are the tail, 5 to 9 are cold; see test_report
    wanted = [[3, 7]] * 12
    ours, theirs = Fixed(*np.tile([3, 7], (12, 1))), Fixed(*np.tile([0, 1], (12, 1)))
    found = verdict(evaluate({"two_tower": ours, "popularity": theirs}, cases(wanted), ["R@2"]))
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
        ({"two_tower": WRONG, "popularity": RIGHT}, ["its R@2 is below popularity (-1.0000)"]),
        ({"two_tower": WRONG, "repeat": RIGHT, "popularity": WRONG}, ["its R@2 is below repeat (-1.0000)"]),
        # the simplest of the baselines that there are
        ({"two_tower": WRONG, "item_knn": RIGHT}, ["its R@2 is below item_knn (-1.0000)"]),
        ({"two_tower": WRONG, "item_knn": WRONG, "ease": RIGHT}, []),
        ({"two_tower": WRONG, "ease": RIGHT, "popularity": WRONG}, []),
        ({"two_tower": RIGHT, "popularity": WRONG}, []),
        ({"two_tower": RIGHT}, []),
        # one case of forty
        (
            {"two_tower": WRONG, "popularity": [RIGHT[0], *WRONG[1:]]},
            ["its R@2 is not significantly below popularity (-0.0250)"],
        ),
    ],
)
def test_only_a_simplest_baseline_with_a_higher_mean_speaks_against_serving_a_model(lists, expected):
    report = evaluate({name: Fixed(*shown) for name, shown in lists.items()}, cases(WANTED), ["R@2"])
    assert list(objections(report)) == expected
