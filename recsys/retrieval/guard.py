"""Doubt about a reformulated query: where it is too great, the original query answers."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from recsys.reformulators import lengths, unit
from recsys.registry import settings
from recsys.types import Bool, Feedback, Float32
from twintower.types import FeedbackKind

SIGNALS = ("drift", "best_score", "score_spread", "coherence", "log_count", "liked_rate")
"""What a guard's confidence is computed from, by name; see `signals`."""


@settings()
class Guard:
    """When to fall back to the original query; settled on validation data and stored with its reformulator.

    `confidence = 1 / (1 + exp(-(c_0 + sum_j c_j signal_j)))`: how probable it is that the move does not hurt.

    Attributes:
        max_drift: the largest accepted `1 - cosine` of original and moved query, 0..2; 2 accepts everything.
        min_confidence: the smallest accepted confidence, 0..1; 0 accepts everything.
        coefficients: constant and one factor for each signal; none means a confidence of 1.
    """

    max_drift: float = Field(default=2.0, ge=0, le=2)
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    coefficients: tuple[float, ...] = ()

    @field_validator("coefficients")
    @classmethod
    def _one_each(cls, coefficients: tuple[float, ...]) -> tuple[float, ...]:
        if coefficients and len(coefficients) != len(SIGNALS) + 1:
            raise ValueError(f"none, or a constant and {len(SIGNALS)} factors: {', '.join(SIGNALS)}")
        return coefficients

    def confidence(self, of_moves: Float32) -> Float32:
        """Return the confidence in each move, `[batch]`, 0..1.

        Args:
            of_moves: `[batch, signals]`, as `signals` gives them.
        """
        if not self.coefficients:
            return np.ones(len(of_moves), np.float32)
        constant, *factors = self.coefficients
        logit = constant + of_moves @ np.array(factors, np.float32)
        return 1 / (1 + np.exp(-np.minimum(np.maximum(logit, -60), 60)))

    def accepts(self, of_moves: Float32, confidence: Float32 | None = None) -> Bool:
        """Return which moves may be searched with, `[batch]`.

        Args:
            of_moves: `[batch, signals]`, as `signals` gives them.
            confidence: `[batch]`, where it is known already.
        """
        confidence = self.confidence(of_moves) if confidence is None else confidence
        return (of_moves[:, 0] <= self.max_drift) & (confidence >= self.min_confidence)


def signals(queries: Float32, feedback: Feedback, vectors: Float32) -> Float32:
    """Return what can be known of a move without knowing what is relevant, `[batch, signals]`, float32.

    `drift`: 1 - cosine of original and moved query, as half the squared distance of their directions, which is exactly
    0 where nothing moved. `best_score`, `score_spread`: the largest first score and its distance to the smallest.
    `coherence`: mean cosine between the items and their mean's direction. `log_count`: log(1 + items). `liked_rate`:
    share of the items that somebody chose or liked.

    Args:
        queries: `[batch, dim]`, before the move.
        feedback: what moved them.
        vectors: `[batch, dim]`, after the move.
    """
    present, counts = feedback.present, feedback.counts
    some, count = counts > 0, np.maximum(counts, 1)
    apart = unit(queries) - unit(vectors)
    largest = np.maximum.reduce(feedback.scores, axis=1, where=present, initial=-np.inf)
    smallest = np.minimum.reduce(feedback.scores, axis=1, where=present, initial=np.inf)
    of_moves = np.zeros((len(queries), len(SIGNALS)), np.float32)
    of_moves[:, 0] = np.minimum(np.vecdot(apart, apart) / 2, 2)
    of_moves[some, 1] = largest[some]
    of_moves[some, 2] = largest[some] - smallest[some]
    # sum_i <v_i, m> = <sum_i v_i, m> is the length of the sum, where m is its direction
    of_moves[:, 3] = lengths(feedback.vectors.sum(axis=1))[:, 0] / count
    of_moves[:, 4] = np.log1p(counts)
    of_moves[:, 5] = (feedback.positive & (feedback.kinds != FeedbackKind.PSEUDO)).sum(axis=1) / count
    return of_moves
