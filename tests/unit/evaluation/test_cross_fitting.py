"""Cross-fitting: queries that a training has not seen decide how it ends, and whether it is worth having."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys.evaluation.cross_fitting import SHARES, CrossFitted, cross_fit, depths_up_to
from recsys.evaluation.reformulation import curve
from recsys.reformulators.average import Average
from recsys.retrieval.reformulation import NamedReformulator, pseudo_feedback
from tests.mined import clustered
from tests.unit.training.test_reformulation_steps import settings
from twintower.types import FeedbackKind

MINED, ITEMS = clustered(300)
SMALL = settings(
    reformulator={"kind": "attention", "width": 16, "heads": 2}, objective={"kind": "comparative", "temperature": 0.1},
    feedback_k=5, revisions=1, batch_size=60, learning_rate=0.01, steps=20, folds=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> CrossFitted:
    return cross_fit(MINED, ITEMS, SMALL, name="any", seed=1, folder=tmp_path_factory.mktemp("cross"))


@pytest.mark.parametrize(
    ("largest", "depths"), [(1, (1,)), (4, (1, 3, 4)), (10, (1, 3, 5, 10)), (12, (1, 3, 5, 10, 12))]
)
def test_reformulators_are_judged_up_to_the_depth_that_they_learn(largest, depths):
    assert depths_up_to(largest) == depths


def test_every_query_is_judged_once_by_a_training_without_it(fitted):
    ids = [case for held_out in fitted.held_out for case in held_out.case_ids.to_pylist()]
    assert sorted(ids) == sorted(MINED.case_ids.to_pylist())
    assert fitted.curves["pseudo"].values["nDCG@10"].shape == (4, len(MINED))


def test_a_move_that_helps_is_found_significant_and_its_figures_are_kept(fitted):
    facts = fitted.named.facts
    assert facts["is_significant"]
    assert facts["reached"] > facts["original"] + 0.02
    assert 0 < facts["steps"] <= 20
    assert facts["share"] in SHARES
    assert (facts["queries"], facts["folds"]) == (300, 2)
    free = curve(fitted.named, MINED, ITEMS, ["nDCG@10"], [5]).mean("nDCG@10")
    assert free > facts["original"]


def test_the_default_is_one_of_those_that_gain_on_the_same_queries(fitted):
    others = [NamedReformulator("average", Average())]
    assert fitted.choose_default(others, ITEMS, seed=1).name in ("any", "average")


def test_a_handful_of_queries_shows_no_gain(tmp_path):
    few = MINED.take(np.arange(8))
    fitted = cross_fit(few, ITEMS, dataclasses.replace(SMALL, steps=2), name="any", seed=1, folder=tmp_path)
    assert not fitted.named.facts["is_significant"]
    assert fitted.choose_default([NamedReformulator("average", Average())], ITEMS, seed=1).name == "identity"


def test_a_kind_of_feedback_that_is_ignored_moves_nothing(fitted):
    deaf = dataclasses.replace(fitted.named, facts={**fitted.named.facts, "ignores": ["PSEUDO"]})
    feedback = pseudo_feedback(MINED.query_vectors, ITEMS, MINED.first, 3)
    assert deaf.ignores >= {FeedbackKind.PSEUDO}
    np.testing.assert_array_equal(deaf.move(MINED.query_vectors, feedback).vectors, MINED.query_vectors)
    assert (fitted.named.move(MINED.query_vectors, feedback, guarded=False).vectors != MINED.query_vectors).any()
