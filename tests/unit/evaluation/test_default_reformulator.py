"""The default reformulator is one whose gain on validation queries is significant and that does no harm."""

from __future__ import annotations

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from recsys.evaluation import report
from recsys.evaluation.default_reformulator import choose_default, choose_untrained
from recsys.evaluation.reformulation import Curve
from recsys.evaluation.verdict import verdict
from recsys.reformulators.history import History
from recsys.retrieval.reformulation import NamedReformulator, Reformulators, set_default

CASES = 200


def found(*gains, spread=0.05, seed=0):
    """Return the curve of a reformulator with these mean gains at the depths 1, 2, and so on."""
    noise = np.random.default_rng(seed).normal(0, spread, CASES)
    original = np.full(CASES, 0.4)
    values = np.stack([original, *(original + gain + noise - noise.mean() for gain in gains)])
    shape = values.shape
    return Curve(tuple(range(len(values))), {"nDCG@10": values}, np.zeros(shape, bool), np.zeros((*shape, 6)))


def name_of(**curves):
    return choose_default(curves, "nDCG@10").name


def test_the_largest_significant_gain_without_harm_is_the_default():
    small, large = {"explicit": found(0.02, 0.02)}, {"explicit": found(0.03, 0.04)}
    assert name_of(small=small, large=large) == "large"
    assert name_of(small=small, large=large | {"pseudo": found(0.01, -0.001)}) == "small"


def test_a_kind_of_feedback_that_is_not_read_counts_as_no_gain():
    both = {"explicit": found(0.03, 0.03), "pseudo": found(0.02, 0.02)}
    assert name_of(both=both, one={"explicit": found(0.04, 0.04)}) == "both"
    assert name_of(both=both, one={"explicit": found(0.06, 0.06)}) == "one"


@pytest.mark.parametrize(
    "curves",
    [
        {},
        {"noise": {"explicit": found(0.001, 0.001)}},
        {"loss": {"explicit": found(-0.02, -0.02)}},
        {"fall": {"explicit": found(-0.001, 0.05)}},
        {"elsewhere": {"explicit": found(0.05, 0.05), "pseudo": found(-0.02, -0.02)}},
    ],
    ids=lambda curves: "-".join(curves) or "none",
)
def test_without_a_significant_gain_or_with_harm_at_some_depth_the_query_stays_as_it_is(curves):
    choice = choose_default(curves, "nDCG@10")
    assert choice.name == "identity"
    assert choice.sentence.startswith("Feedback: identity answers by default")


def test_one_that_hurts_more_queries_than_it_helps_is_not_the_default():
    few = found(0.0)
    few.values["nDCG@10"][1] = 0.4 - 0.001
    few.values["nDCG@10"][1, : CASES // 4] = 0.6 + np.linspace(0, 0.1, CASES // 4)
    assert few.gains("nDCG@10")[1].mean() > 0.03
    assert name_of(few={"explicit": few}) == "identity"


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(gains=st.lists(st.floats(-0.05, 0.05), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_the_default_never_lies_below_the_original_query_on_the_queries_that_chose(gains, seed):
    curves = {"one": {"explicit": found(*gains, seed=seed)}, "other": {"explicit": found(*gains[::-1], seed=seed + 1)}}
    choice = choose_default(curves, "nDCG@10")
    own = [gain for gain in choice.gains if gain.reformulator == choice.name]
    assert all(gain.gain >= -1e-9 and gain.helped_rate >= gain.hurt_rate and gain.p_value < 0.01 for gain in own)


def test_too_few_queries_show_nothing():
    some = found(0.05, 0.05)
    few = Curve(some.depths, {"nDCG@10": some.values["nDCG@10"][:, :9]}, some.fell_back[:, :9], some.of_moves[:, :9])
    assert name_of(few={"explicit": few}) == "identity"


def test_without_validation_queries_the_weights_stay_and_identity_answers():
    named, choice = choose_untrained({}, None, "nDCG@10")
    assert {one.name: one.choice for one in named}["history"] == History()
    assert (choice.name, choice.gains) == ("identity", ())


def test_a_release_holds_the_choice_with_its_figures_until_another_default_is_set(tmp_path):
    NamedReformulator("history", History(disliked_weight=0.2)).save(tmp_path, default=False)
    choice = choose_default({"history": {"explicit": found(0.03, 0.04)}}, "nDCG@10")
    choice.save(tmp_path)
    read = Reformulators.load(tmp_path)
    assert (read.default, read.get().choice) == ("history", History(disliked_weight=0.2))
    stored = json.loads((tmp_path / "reformulators" / "choice.json").read_text())
    assert stored["sentence"] == choice.sentence
    assert [gain["gain"] for gain in stored["gains"]] == pytest.approx([0.03, 0.04])
    set_default(tmp_path, "identity")
    assert not (tmp_path / "reformulators" / "choice.json").exists()


def test_a_published_release_says_which_reformulator_answers_and_why(block_release):
    stored = json.loads((block_release.folder / "reformulators" / "choice.json").read_text())
    held, judged = Reformulators.load(block_release.folder), report.load(block_release.folder)
    assert stored["sentence"] == judged.feedback == verdict(judged)[-1]
    assert f"Feedback: {held.default} answers by default" in judged.feedback
    # The tower reads a history: something was liked, although each user has a single held-out item.
    assert {(gain["reformulator"], gain["feedback"]) for gain in stored["gains"]} >= {("history", "explicit")}
    assert all(gain["gain"] >= 0 for gain in stored["gains"] if gain["reformulator"] == held.default)
