"""Doubt about a reformulated query: where it is too great, the original query answers."""

from __future__ import annotations

import numpy as np
from pydantic import Field, field_validator

from recsys.reformulators import unit
from recsys.registry import settings
from recsys.types import Bool, Feedback, Float32

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
        return (1 / (1 + np.exp(-np.clip(logit, -60, 60)))).astype(np.float32)

    def accepts(self, of_moves: Float32) -> Bool:
        """Return which moves may be searched with, `[batch]`.

        Args:
            of_moves: `[batch, signals]`, as `signals` gives them.
        """
        return (of_moves[:, 0] <= self.max_drift) & (self.confidence(of_moves) >= self.min_confidence)


def signals(queries: Float32, feedback: Feedback, vectors: Float32) -> Float32:
    """Return what can be known of a move without knowing what is relevant, `[batch, signals]`, float32.

    `drift`: 1 - cosine of original and moved query. `best_score`, `score_spread`: the largest first score and its
    distance to the smallest. `coherence`: mean cosine between the items and their mean's direction. `log_count`:
    log(1 + items). `liked_rate`: share of the items that somebody chose or liked.

    Args:
        queries: `[batch, dim]`, before the move.
        feedback: what moved them.
        vectors: `[batch, dim]`, after the move.
    """
    present = feedback.present
    count = np.maximum(feedback.counts, 1)
    drift = 1 - (unit(queries) * unit(vectors)).sum(axis=1)
    largest = np.where(present, feedback.scores, -np.inf).max(axis=1, initial=-np.inf)
    smallest = np.where(present, feedback.scores, np.inf).min(axis=1, initial=np.inf)
    some = present.any(axis=1)
    middle = unit(feedback.vectors.sum(axis=1))
    coherence = np.einsum("bkd,bd->bk", feedback.vectors, middle).sum(axis=1) / count
    liked = (feedback.positive & (feedback.kinds > 0)).sum(axis=1) / count
    columns = (
        drift,
        np.where(some, largest, 0),
        np.where(some, largest - smallest, 0),
        coherence,
        np.log1p(feedback.counts),
        liked,
    )
    return np.stack(columns, axis=1).astype(np.float32)
