"""Lists that are drawn or drafted: what is shown, and what the log hears of it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from recsys.experiment.plan import Slate
from recsys.experiment.slates import policy_of
from recsys.retrieval import Answer
from serving.arms.lists import shown
from serving.arms.treatment import Treatment, Way
from serving.runtime.steps import Steps, alone
from twintower.types import NO_DIVERSITY, Diversity, Origin

SCORES = np.array([0.9, 0.8, 0.75, 0.3, 0.1], np.float32)
IDS = ("a", "b", "c", "d", "e")
NOWHERE = Way(None)


def answer(ids=IDS, scores=SCORES, **facts) -> Answer:
    return Answer(tuple(ids), np.asarray(scores, np.float32), Origin.VECTOR, (), **facts)


def without_work(found: Answer) -> Steps[Answer]:
    yield from ()
    return found


def drawn(slate: Slate, k: int, found: Answer, diversity: Diversity = NO_DIVERSITY):
    asked = []

    def find(way, depth):
        asked.append(depth)
        return without_work(found)

    return alone(shown(Treatment((NOWHERE,), slate=slate), k, diversity, find)), asked


@pytest.mark.parametrize(("policy", "parameter"), [("plackett_luce", 0.2), ("epsilon_swap", 0.7)])
def test_the_log_gets_the_probability_with_which_a_list_comes(policy, parameter):
    slate = Slate(policy=policy, parameter=parameter, candidates=5)
    lists = [drawn(slate, 2, answer())[0] for _ in range(4000)]
    counts = Counter(each.answer.item_ids for each in lists)
    told = {each.answer.item_ids: each.randomised for each in lists}
    # 4,000 draws: a share p is met within 4.5 * sqrt(p (1 - p) / 4,000)
    for ids, count in counts.items():
        probability = np.exp(told[ids].log_propensity)
        assert abs(count / 4000 - probability) < 4.5 * np.sqrt(probability * (1 - probability) / 4000) + 1e-9
    # What the log holds is all that the offline code needs, and gives the same number.
    for ids, randomised in told.items():
        places = np.array([randomised.candidate_ids.index(item_id) for item_id in ids])
        offline = policy_of(randomised.policy, randomised.parameter)
        scores = np.asarray(randomised.candidate_scores, np.float64)
        assert offline.log_propensity(scores, places) == randomised.log_propensity


def test_every_item_keeps_its_score_and_nothing_is_searched_twice():
    found, asked = drawn(Slate(policy="plackett_luce", parameter=1.0, candidates=5), 3, answer())
    assert asked == [5]
    assert found.answer.scores.tolist() == [SCORES[IDS.index(item_id)] for item_id in found.answer.item_ids]
    assert (found.randomised.candidate_ids, found.is_as_found) == (IDS, False)


def test_a_small_catalogue_is_drawn_whole():
    found, _ = drawn(Slate(policy="plackett_luce", parameter=1.0, candidates=9), 9, answer(exhausted=True))
    assert sorted(found.answer.item_ids) == list(IDS)
    assert found.answer.exhausted
    found, _ = drawn(Slate(policy="plackett_luce", parameter=1.0, candidates=9), 2, answer(exhausted=True))
    assert not found.answer.exhausted


@pytest.mark.parametrize(
    ("k", "diversity", "found"),
    [(6, NO_DIVERSITY, answer()), (5, Diversity(mmr_weight=0.5), answer()), (5, NO_DIVERSITY, answer(plan=None)),
     (5, NO_DIVERSITY, answer((), ()))],
)  # fmt: skip
def test_lists_that_are_long_or_not_in_the_order_of_scores_are_shown_as_they_are(k, diversity, found):
    made, _ = drawn(Slate(policy="plackett_luce", parameter=1.0, candidates=5), k, found, diversity)
    assert (made.answer.item_ids, made.randomised, made.is_as_found) == (found.item_ids, None, True)


def test_popular_items_are_cut_to_the_places_asked_for():
    popular = answer(plan=None, exhausted=True)
    made, _ = drawn(Slate(policy="plackett_luce", parameter=1.0, candidates=5), 2, popular)
    assert (made.answer.item_ids, len(made.answer.scores), made.answer.exhausted) == (IDS[:2], 2, False)


def test_a_drafted_list_names_the_arm_of_every_item_and_keeps_its_score():
    control, other = Way(None, "old"), Way(None, "new")
    lists = {"old": answer("abc", (3, 2, 1)), "new": answer("bxy", (9, 8, 7), degraded=True, candidate_count=4)}
    treatment = Treatment((control, other), teams=("old", "new"))
    for _ in range(20):
        made = alone(shown(treatment, 4, NO_DIVERSITY, lambda way, k: without_work(lists[way.reformulator])))
        for item_id, score, team in zip(made.answer.item_ids, made.answer.scores, made.teams, strict=True):
            assert lists[team].scores[lists[team].item_ids.index(item_id)] == score
        assert Counter(made.teams) == {"old": 2, "new": 2}
        assert (made.answer.degraded, made.answer.candidate_count, made.is_as_found) == (True, 4, False)


def test_a_drawn_list_has_a_probability_that_a_number_can_hold():
    # 100! / 200! is about 1e-217: all scores alike, the least likely longest list that is drawn
    slate = Slate(policy="plackett_luce", parameter=1.0, candidates=200)
    whole = answer([str(place) for place in range(200)], np.zeros(200))
    longest, _ = drawn(slate, 100, whole)
    assert -500 < longest.randomised.log_propensity < -498
    assert np.exp(longest.randomised.log_propensity) > 0
    assert drawn(slate, 101, whole)[0].is_as_found
