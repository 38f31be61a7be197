"""The items that go with those of the history."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveInt
from scipy.sparse import csr_matrix, diags_array

from recsys.baselines import Histories, Scorer, popularity_background
from recsys.registry import combinations, settings
from recsys.types import Float32


@settings()
class ItemKnn:
    """Items that were met by the same query entities as the items of the history.

    `score(j) = sum_i( history(i) * cosine(i, j) )`, over i that have j among their nearest, or i = j

    `cosine(i, j) = |met i and j| / sqrt( (|met i| + shrinkage) * (|met j| + shrinkage) )`

    Items without a score follow, the most popular first.

    Reference:
        Deshpande and Karypis 2004, Item-Based Top-N Recommendation Algorithms, ACM TOIS 22(1), Sec. 4.
        Differs: an item counts as its own neighbor, because where seen items may be shown, people come back to them;
        rows of the similarity matrix are not normalized; the shrinkage, which keeps items that met once by chance from
        being each other's best neighbors, is ours.

    Attributes:
        neighbors: numbers of the nearest other items of each item that count, to try.
        shrinkage: query entities added to each item's count under the root, to try; 0 is the plain cosine.
    """

    reads_history: ClassVar[bool] = True

    neighbors: tuple[PositiveInt, ...] = Field(default=(20, 50, 200), min_length=1)
    shrinkage: tuple[NonNegativeFloat, ...] = Field(default=(5.0, 50.0), min_length=1)

    def candidates(self) -> tuple[ItemKnn, ...]:
        """Return one choice for each combination of settings to try."""
        return combinations(self, "neighbors", "shrinkage")

    def obstacle(self, queries: int, items: int) -> str:
        """Return nothing: only the nearest items are kept."""
        return ""

    def fit(self, training: Histories) -> Scorer:
        """Find the neighbors of every item; see `Baseline.fit`."""
        from implicit.nearest_neighbours import ItemItemRecommender  # not installed where a release is only served

        met = training.met
        counts = np.asarray(met.sum(axis=0, dtype=np.float64)).ravel()
        lengths = np.sqrt(np.maximum(counts + self.shrinkage[0], 1))
        model = ItemItemRecommender(K=self.neighbors[0] + 1)
        model.fit(csr_matrix(met @ diags_array(1 / lengths)), show_progress=False)
        background = popularity_background(training)

        def score(histories: Histories) -> Float32:
            scores = (histories.counts @ model.similarity).toarray().astype(np.float32)
            return np.where(scores > 0, scores, background)

        return score
