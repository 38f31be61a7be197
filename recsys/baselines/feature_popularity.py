"""How popular items are that share features."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.baselines import Histories, Scorer
from recsys.registry import settings
from recsys.types import Float32


@settings()
class FeaturePopularity:
    """The same list for everyone: items by the training counts of the items that share their feature values.

    `score(j) = mean over features f of mean over values v of j in f of mean( count(i) : i has v, count(i) > 0 )`

    What an item without training interactions can be ranked by if nothing is learned. Values that no trained item has,
    What an item without training interactions can be ranked by if nothing is learned. Values that no trained item has,
    numbers and vectors do not count; an item without any other value is scored by its own count.

    Attributes:
        own_counts: score items with training interactions by their own counts, as `popularity` does, and only the
            others by their features.
    """

    own_counts: bool = False

    reads_history: ClassVar[bool] = False

    def candidates(self) -> tuple[FeaturePopularity, ...]:
        """Return itself: there is nothing to choose."""
        return (self,)

    def obstacle(self, queries: int, items: int) -> str:
        """Return nothing: counting is always possible."""
        return ""

    def fit(self, training: Histories) -> Scorer:
        """Count; see `Baseline.fit`."""
        counts = np.asarray(training.counts.sum(axis=0, dtype=np.float64)).ravel()
        total, features = np.zeros(training.items), np.zeros(training.items)
        for codes in training.item_values.values():
            bags = np.asarray(codes).reshape(training.items, -1)
            row, column = np.nonzero(bags >= 0)
            values = bags[row, column]
            trained_items = np.bincount(values, counts[row] > 0)
            means = np.bincount(values, counts[row]) / np.maximum(trained_items, 1)
            is_known = trained_items[values] > 0
            row, values = row[is_known], values[is_known]
            known = np.bincount(row, minlength=training.items)
            total += np.bincount(row, means[values], training.items) / np.maximum(known, 1)
            features += known > 0
        by_features = (features > 0) & ~(self.own_counts & (counts > 0))
        scores: Float32 = np.where(by_features, total / np.maximum(features, 1), counts).astype(np.float32)

        def score(histories: Histories) -> Float32:
            return np.tile(scores, (histories.owners, 1))

        return score
