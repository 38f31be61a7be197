"""The list that a treatment shows: as it was found, drawn at random, or drafted from two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from recsys.experiment.interleaving import draft
from recsys.experiment.plan import Slate
from recsys.experiment.slates import policy_of
from recsys.retrieval import Answer
from serving.arms.treatment import Treatment, Way
from serving.exposures.exposure import Randomised
from serving.runtime.steps import Steps
from twintower.types import Diversity

MOST_DRAWN = 100
"""Places of a drawn list: 100 out of 200 candidates still have a probability of 1e-218 each, 200 would have none."""
CHANCE = np.random.default_rng()
"""Of every draw; its methods hold a lock."""


class Shown(NamedTuple):
    """A list as it is shown.

    Attributes:
        answer: with its items.
        teams: the arm that added each item; empty where it was not drafted.
        randomised: how it was drawn; None where it was not.
    """

    answer: Answer
    teams: Sequence[str] = ()
    randomised: Randomised | None = None

    @property
    def is_as_found(self) -> bool:
        """Whether its items are the best ones in their order."""
        return not self.teams and self.randomised is None


def shown(
    treatment: Treatment, k: int, diversity: Diversity, find: Callable[[Way, int], Steps[Answer]]
) -> Steps[Shown]:
    """Return what a treatment shows, in steps.

    Args:
        treatment: of the request.
        k: places.
        diversity: as asked for.
        find: returns the best items, so many, of one way; called once for each way.
    """
    if treatment.teams:
        control, other = treatment.ways
        return _drafted([(yield from find(control, k)), (yield from find(other, k))], k, treatment.teams)
    (way,), slate = treatment.ways, treatment.slate
    if slate is None or k > min(slate.candidates, MOST_DRAWN) or diversity.mmr_weight:
        return Shown((yield from find(way, k)))
    found = yield from find(way, slate.candidates)
    if found.plan is None or not found.item_ids:
        return Shown(_only(found, range(min(k, len(found.item_ids)))))
    return _drawn(found, min(k, len(found.item_ids)), slate)


def _drawn(found: Answer, k: int, slate: Slate) -> Shown:
    policy, scores = policy_of(slate.policy, slate.parameter), found.scores.astype(np.float64)
    places = policy.draw(scores, k, CHANCE)
    probability = policy.log_propensity(scores, places)
    randomised = Randomised(slate.policy, slate.parameter, probability, found.item_ids, found.scores)
    return Shown(_only(found, places.tolist()), randomised=randomised)


def _only(found: Answer, places: Sequence[int]) -> Answer:
    """Return an answer of some of the items of another, in the given order."""
    ids = tuple(found.item_ids[place] for place in places)
    exhausted = found.exhausted and len(ids) == len(found.item_ids)
    own_scores = None if found.own_scores is None else found.own_scores[list(places)]
    return replace(found, item_ids=ids, scores=found.scores[list(places)], exhausted=exhausted, own_scores=own_scores)


def _drafted(answers: Sequence[Answer], k: int, teams: Sequence[str]) -> Shown:
    control, other = answers
    chosen = draft(control.item_ids, other.item_ids, k, CHANCE)
    score_of = [dict(zip(answer.item_ids, answer.scores, strict=True)) for answer in answers]
    answer = replace(
        control,
        item_ids=tuple(item_id for item_id, _ in chosen),
        scores=np.array([score_of[team][item_id] for item_id, team in chosen], np.float32),
        candidate_count=control.candidate_count + other.candidate_count,
        exhausted=control.exhausted and other.exhausted and len(chosen) == len({*control.item_ids, *other.item_ids}),
        degraded=control.degraded or other.degraded,
        own_scores=None,
    )
    return Shown(answer, [teams[team] for _, team in chosen])
