"""Baselines are what a trained model must beat, judged on the same cases; one file is one `kind` of a baseline.

A choice has one verb, `fit`, which returns a function from histories to scores. Every baseline ranks the whole catalog
and falls back on popularity where it knows nothing, as a service would. Settings that matter are tuples of values to
try; the evaluation chooses among them on validation cases.

To add one, write `baselines/<kind>.py` with a class named after the file; the contract tests find it by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix

from recsys.linear_models import ItemWeights
from recsys.types import Float32, Interactions


@dataclass(frozen=True)
class Histories:
    """What some owners have met: the query entities of the training data, or the queries of evaluation cases.

    Attributes:
        interactions: sorted by owner, then time; their `query_row` is the owner.
        owners: how many there are.
        items: rows of the catalog.
        item_values: codes of the item features whose values items can share, `[items, *shape]` each, int32; -1 pads.
    """

    interactions: Interactions
    owners: int
    items: int
    item_values: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> csr_matrix:
        """How often each owner met each item, `[owners, items]`, float32."""
        met = self.interactions
        ones = np.ones(len(met), np.float32)
        return csr_matrix((ones, (np.asarray(met.query_row), np.asarray(met.item_row))), (self.owners, self.items))

    @cached_property
    def met(self) -> csr_matrix:
        """Return 1, float32, where an owner met an item, however often, `[owners, items]`."""
        met = self.counts.copy()
        met.data[:] = 1
        return met

    def take(self, owners: NDArray[np.integer]) -> Histories:
        """Return the histories of the given owners, in that order."""
        starts = np.searchsorted(np.asarray(self.interactions.query_row), np.arange(self.owners + 1))
        sizes = np.diff(starts)[owners]
        ends = np.cumsum(sizes)
        places = np.arange(sizes.sum()) + np.repeat(starts[:-1][owners] - ends + sizes, sizes)
        taken = self.interactions.take(places)
        moved = np.repeat(np.arange(len(owners), dtype=np.int32), sizes)
        return Histories(replace(taken, query_row=moved), len(owners), self.items, self.item_values)


Scorer = Callable[[Histories], Float32]
"""Histories to scores, `[owners, items]`, float32, no NaN; a fresh array at each call."""


class Baseline(Protocol):
    """The contract of a baseline.

    Attributes:
        reads_history: whether its scores depend on the history of a query; such a baseline has no use for queries of
            free features, which have none.
        needs_repeats: whether it ranks what an entity has met, so that it has no use where that may not be shown; a
            baseline without this attribute does not.
    """

    reads_history: ClassVar[bool]

    def candidates(self) -> Sequence[Baseline]:
        """Return one baseline for each combination of settings to try, the best guess first."""

    def obstacle(self, queries: int, items: int) -> str:
        """Return why the data are too large for the baseline; empty if they are not."""

    def fit(self, training: Histories) -> Scorer:
        """Learn from what the query entities met, with the first of the settings to try.

        Raises:
            SettingError: the settings have no solution for these data.
        """


def obstacle(baseline: Baseline, has_histories: bool, shows_met: bool, queries: int, items: int) -> str:
    """Return why a baseline cannot be compared on some data, a sentence; empty where it can.

    Args:
        baseline: with any settings.
        has_histories: whether queries have a history; those of free features have none.
        shows_met: whether rankings may hold what an entity has met.
        queries: query entities.
        items: rows of the catalog.
    """
    if baseline.reads_history and not has_histories:
        return "Queries of free features have no history."
    if getattr(baseline, "needs_repeats", False) and not shows_met:
        return "Rankings leave out what an entity has met."
    return baseline.obstacle(queries, items)


def popularity_background(training: Histories) -> Float32:
    """Return a score for each item, `[items]`, between -1 and 0, that falls with its rank by popularity."""
    counts = np.asarray(training.counts.sum(axis=0, dtype=np.float64)).ravel()
    background = np.empty(len(counts), np.float32)
    background[np.argsort(-counts, kind="stable")] = -np.arange(len(counts)) / len(counts)
    return background


def linear_scorer(weights: ItemWeights, training: Histories) -> Scorer:
    """Return the scores `history W` of item-to-item weights W; items with the score 0 are ordered by popularity."""
    # Far below every score that is not 0, so that it only orders equals.
    background = np.float32(1e-30) * popularity_background(training)

    def score(histories: Histories) -> Float32:
        scores = weights.rmatmat(csr_array(histories.met).T).T.astype(np.float32)
        return np.where(scores == 0, background, scores)

    return score
