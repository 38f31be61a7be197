"""Reformulators move a query vector by feedback; one file is one `[reformulation.reformulator] kind`.

A choice has one verb, `reformulate`, in NumPy, because it answers single calls of a server. One that is trained is
`learned`: `initial` gives its weights before training, `ready` does with them what needs no query, and `direction` is
its arithmetic; both are written once for NumPy and for `tf.experimental.numpy`. `shortened` makes its moves shorter.

An item has two roles. A query moves *towards* an item along the vector that says what having met the item means for a
query (`Feedback.vectors`), in steps of what meeting it once adds (`Feedback.lengths`). It moves *away* from an item
along what the vector that the item is found by does not share with all items (`Feedback.away`): what all share says
nothing of the item, and moving away along it would rank popular items higher. `moved` is that rule, for every
reformulator. That a disliked item comes last is the retriever's rule, whatever a reformulator does.

To add one, write `reformulators/<kind>.py`; the contract tests check that nothing moves without feedback, that results
have unit length, and that both array libraries agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from recsys.types import Feedback, Float32, Reformulated
from twintower.types import FeedbackKind

Weights = Mapping[str, Any]
"""What training gives a learned reformulator, arrays by name; empty for the others."""

NO_WEIGHTS: Weights = {}


class Reformulator(Protocol):
    """The contract of the family.

    Attributes:
        learned: whether it has weights that training gives.
        reads_extended: whether it reads `Feedback.extended`, which costs a call of the query tower.
    """

    learned: ClassVar[bool]
    reads_extended: ClassVar[bool]

    @property
    def ignores(self) -> frozenset[FeedbackKind]:
        """Kinds of feedback that move no query with these settings."""

    def reformulate(self, queries: Float32, feedback: Feedback, weights: Weights = NO_WEIGHTS) -> Reformulated:
        """Return where the queries move.

        Args:
            queries: `[batch, dim]`, float32, finite, not all zero.
            feedback: of the same batch and dim; any number of items a query.
            weights: of a learned one, as `ready` gives them.
        """


class UntrainedReformulator(Reformulator, Protocol):
    """Additional methods of one without training."""

    def candidates(self) -> Sequence[UntrainedReformulator]:
        """Return one choice for each combination of settings to try on validation queries."""


class LearnedReformulator(Reformulator, Protocol):
    """What a trained one has besides."""

    def initial(self, dim: int, seed: int) -> Weights:
        """Return the weights before training, float32.

        Args:
            dim: length of the vectors.
            seed: of the random ones among them.
        """

    def ready(self, xp: Any, weights: Weights) -> Weights:
        """Return the weights as `direction` takes them, with all done that needs no query.

        Args:
            xp: `numpy` or `tf.experimental.numpy`; the weights are its arrays.
            weights: as `initial` names them.
        """

    def shortened(self, weights: Weights, share: float) -> Weights:
        """Return weights with which `direction` gives a share of what it gives with these.

        Args:
            weights: as `initial` names them.
            share: 0..1; 0 leaves every query as it is.
        """

    def direction(
        self, xp: Any, queries: Any, feedback: Feedback, weights: Weights, drop: Callable[[Any], Any] = lambda x: x
    ) -> tuple[Any, Any | None]:
        """Return by how much each item's vector is added to the query's, and what is added besides.

        Args:
            xp: `numpy` or `tf.experimental.numpy`; the other arguments hold its arrays.
            queries: `[batch, dim]`, float32, unit length.
            feedback: of the same batch and dim.
            weights: as `ready`.
            drop: what training does to hidden values, dropout; nothing at inference.

        Returns:
            `[batch, k]`, float32, where absent items may have anything, and `[batch, dim]` or None.
        """


def unit(vectors: Float32) -> Float32:
    """Return vectors scaled to unit length along the last axis; zeros stay zeros."""
    return vectors / np.maximum(lengths(vectors), np.float32(1e-12))


def lengths(vectors: Float32) -> Float32:
    """Return the lengths of vectors along the last axis, which stays with one place."""
    return np.sqrt(np.vecdot(vectors, vectors))[..., None]  # a third of the time of np.linalg.norm for few numbers


def moved(queries: Float32, feedback: Feedback, item_weights: Float32, further: Float32 | None = None) -> Reformulated:
    """Return `unit(unit(q) + sum_(w_i > 0) w_i l_i v_i + sum_(w_i < 0) w_i a_i + further)`.

    `v` are the feedback's `vectors`, `l` its `lengths`, `a` its `away`. A query without feedback comes back exactly as
    it came, and so does one whose sum cancels out, which points nowhere.

    Args:
        queries: `[batch, dim]`, float32.
        feedback: moves the queries.
        item_weights: w, `[batch, k]`, float32: 1 moves towards an item as far as having met it once, -1 moves away by
            the item's `away` once; not looked at where there is no item.
        further: `[batch, dim]`, float32, added, too; None for nothing.
    """
    towards, away = _apart(np, feedback, np.where(feedback.present, item_weights, np.float32(0)))
    total = unit(queries) + (towards[:, None, :] @ feedback.vectors)[:, 0] + (away[:, None, :] @ feedback.away)[:, 0]
    if further is not None:
        total = total + further
    length = lengths(total)
    still = ~feedback.present.any(axis=1, keepdims=True) | (length < 1e-6)
    vectors = np.where(still, queries, total / np.maximum(length, np.float32(1e-12)))
    return Reformulated(vectors.astype(np.float32, copy=False), (towards + away).astype(np.float32, copy=False))


def total_move(xp: Any, feedback: Feedback, item_weights: Any) -> Any:
    """Return what `moved` adds to queries of unit length for their items, `[batch, dim]`, for training.

    Args:
        xp: the array library of all arguments.
        feedback: moves the queries.
        item_weights: `[batch, k]`, float32, 0 where there is no item.
    """
    towards, away = _apart(xp, feedback, item_weights)
    return xp.einsum("bk,bkd->bd", towards, feedback.vectors) + xp.einsum("bk,bkd->bd", away, feedback.away)


def _apart(xp: Any, feedback: Feedback, item_weights: Any) -> tuple[Any, Any]:
    """Return the factors of `vectors` and those of `away`, `[batch, k]` each."""
    nothing = np.float32(0)
    return xp.maximum(item_weights, nothing) * feedback.lengths, xp.minimum(item_weights, nothing)
