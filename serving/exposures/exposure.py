"""One list that was shown, on its way to the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from recsys.experiment.assignment import Assignment
from recsys.types import Float32


class Randomised(NamedTuple):
    """How a list was drawn.

    Attributes:
        policy: a name of `recsys.experiment.slates.POLICIES`.
        parameter: its temperature or epsilon.
        log_propensity: logarithm of the probability of exactly this list.
        candidate_ids: what the policy could have shown, best first.
        candidate_scores: `[len(candidate_ids)]`, float32.
    """

    policy: str
    parameter: float
    log_propensity: float
    candidate_ids: Sequence[str]
    candidate_scores: Float32


class Exposure(NamedTuple):
    """One list that was shown; the columns of `recsys.experiment.log.EXPOSURES` that the log cannot know by itself.

    Attributes:
        request_id: of the call.
        user_id: who asked; empty where unknown.
        session_id: in which session; empty where unknown.
        held_out: no experiment may take the unit.
        assignments: experiments that the request was in.
        release: fingerprint of the release that answered.
        reformulator: the one that was applied; empty for none.
        item_ids: what was shown, best first.
        scores: `[len(item_ids)]`, float32.
        teams: the arm that contributed each item of an interleaved list; empty elsewhere.
        randomised: how the list was drawn; None where it was not.
    """

    request_id: str
    user_id: str
    session_id: str
    held_out: bool
    assignments: tuple[Assignment, ...]
    release: str
    reformulator: str
    item_ids: Sequence[str]
    scores: Float32
    teams: Sequence[str] = ()
    randomised: Randomised | None = None
