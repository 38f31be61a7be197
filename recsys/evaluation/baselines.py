"""Recommenders that a two-tower model must beat, judged on the same cases in the same table.

A baseline is a frozen dataclass of settings with one verb, `fit`. All of them rank the full catalogue, and all
fall back on popularity where they know nothing, as a service would.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import threadpoolctl
from implicit.cpu.als import AlternatingLeastSquares
from implicit.nearest_neighbours import ItemItemRecommender
from pydantic import Field
from scipy.linalg import lapack
from scipy.sparse import csr_matrix, diags_array

from recsys.errors import SettingError, describe, unknown, verbatim
from recsys.evaluation.recommenders import Recommender, ScoreRecommender, VectorRecommender
from recsys.registry import settings
from recsys.types import Float32, Int64, RowSets

EASE_ITEMS = 30_000
"""Items that `Ease` takes on: their dense matrix, 7 GB in float64, is inverted in minutes; time grows with the cube."""
EASE_BLOCK = 1024
"""Rows of that matrix that are counted at once."""


class Baseline(Protocol):
    """The contract of a baseline."""

    def fit(self, interactions: csr_matrix, histories: csr_matrix, excluded: RowSets | None = None) -> Recommender:
        """Learn from the training interactions and return a recommender for the cases.

        Args:
            interactions: `[queries, items]`, float32, how often each query entity met each item in training, >= 0.
            histories: `[cases, items]`, float32, the same for each case's query entity, which may be unknown to
                `interactions`; an empty row is a query entity without a history.
            excluded: items that may not be shown, one set a case; None where every item may.
        """


@settings()
class Popularity:
    """The same list for everyone: items by training count, equal counts by row."""

    def fit(self, interactions: csr_matrix, histories: csr_matrix, excluded: RowSets | None = None) -> Recommender:
        """Count; see `Baseline.fit`."""
        counts = _item_counts(interactions).astype(np.float32)

        def score(case_rows: Int64) -> Float32:
            return np.tile(counts, (len(case_rows), 1))

        return ScoreRecommender(score, len(counts), excluded)


@settings()
class ItemKnn:
    """Items that were met by the same query entities as the items of the history.

    `score(case, j) = sum_i( history(case, i) * cosine(i, j) )`, over i that have j among their nearest, or i = j

    `cosine(i, j) = |met i and j| / sqrt( (|met i| + shrinkage) * (|met j| + shrinkage) )`

    Items without a score follow, the most popular first.

    Reference:
        Deshpande and Karypis 2004, Item-Based Top-N Recommendation Algorithms, ACM TOIS 22(1), Sec. 4.
        Differs: an item counts as its own neighbour, because where seen items may be shown, people come back to them;
        rows of the similarity matrix are not normalised; the shrinkage, which keeps items that met once by chance from
        being each other's best neighbours, is ours.

    Attributes:
        neighbours: nearest other items of each item that count.
        shrinkage: query entities added to each item's count under the root; 0 is the plain cosine.
    """

    neighbours: int = Field(default=20, ge=1)
    shrinkage: float = Field(default=5.0, ge=0)

    def fit(self, interactions: csr_matrix, histories: csr_matrix, excluded: RowSets | None = None) -> Recommender:
        """Find the neighbours of every item; see `Baseline.fit`."""
        met = _met(interactions)
        lengths = np.sqrt(np.maximum(_item_counts(met) + self.shrinkage, 1))
        model = ItemItemRecommender(K=self.neighbours + 1)
        model.fit(csr_matrix(met @ diags_array(1 / lengths)), show_progress=False)
        background = _popularity_background(interactions)

        def score(case_rows: Int64) -> Float32:
            scores = (histories[case_rows] @ model.similarity).toarray().astype(np.float32)
            return np.where(scores > 0, scores, background)

        return ScoreRecommender(score, interactions.shape[1], excluded)


@settings()
class Als:
    """Matrix factorisation for implicit feedback by alternating least squares.

    Each case's query vector is solved from its history, so that query entities unknown to training have one, too; a
    case without a history gets the most popular items.

    Reference:
        Hu, Koren and Volinsky 2008, Collaborative Filtering for Implicit Feedback Datasets, Eq. 3 to 5; the library is
        `implicit`, whose confidence of an observed pair is `confidence_weight * count`, and 1 of any other pair.

    Attributes:
        dim: length of the factors.
        epochs: sweeps over queries and items.
        regularization_weight: weight of the factors' squared length.
        confidence_weight: weight of an interaction; that of a pair without one is 1.
        seed: of the first factors.
    """

    dim: int = Field(default=64, ge=1)
    epochs: int = Field(default=15, ge=1)
    regularization_weight: float = Field(default=1.0, ge=0)
    confidence_weight: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)

    def fit(self, interactions: csr_matrix, histories: csr_matrix, excluded: RowSets | None = None) -> Recommender:
        """Factorise; see `Baseline.fit`."""
        # implicit runs threads of its own and warns where those of the linear algebra library compete with them.
        with threadpoolctl.threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=self.dim,
                regularization=self.regularization_weight,
                alpha=self.confidence_weight,
                iterations=self.epochs,
                random_state=self.seed,
            )
            model.fit(interactions.astype(np.float32), show_progress=False)
            query_vectors = model.recalculate_user(np.arange(histories.shape[0]), histories.astype(np.float32))
        # One more dimension holds the popularity, which only cases without a history look at.
        without_history = (np.diff(histories.indptr) == 0)[:, None].astype(np.float32)
        background = _popularity_background(interactions)[:, None]
        return VectorRecommender(
            np.hstack([query_vectors, without_history]), np.hstack([model.item_factors, background]), excluded
        )


@settings()
class Ease:
    """A linear model that rebuilds each history from its other items, in closed form.

    `scores = history B`, `B(i, j) = -P(i, j) / P(j, j)`, `B(j, j) = 0`

    `P = (X^T X + regularization_weight * identity)^-1`, X and the history 0 or 1: met or not

    Items that the history says nothing about have the score 0; they stand by popularity, so that a case without a
    history gets the most popular items.

    Reference:
        Steck 2019, Embarrassingly Shallow Autoencoders for Sparse Data, arXiv:1905.03375, Eq. 8.

    Attributes:
        regularization_weight: weight of the squared length of B; it is added to each item's count of query entities,
            so that more data wants more of it: 200 to 1,000 in the paper.
    """

    regularization_weight: float = Field(default=250.0, gt=0)

    def fit(self, interactions: csr_matrix, histories: csr_matrix, excluded: RowSets | None = None) -> Recommender:
        """Invert the items' co-occurrences; see `Baseline.fit`.

        Raises:
            SettingError: the catalogue is too large for a dense matrix of items by items, or the regularisation so
                small that the matrix has no inverse.
        """
        items = interactions.shape[1]
        if items > EASE_ITEMS:
            advice = "Leave it out, or take 'als': ease inverts a dense matrix of items by items."
            got = verbatim(f"'ease' for {items:,} items")
            raise SettingError(describe("evaluation.baselines", got, f"at most {EASE_ITEMS:,} items", advice))
        weights = self._weights(_met(interactions))
        known = _met(histories)
        # Far below every score that is not 0, so that it only orders equals.
        background = np.float32(1e-30) * _popularity_background(interactions)

        def score(case_rows: Int64) -> Float32:
            scores = known[case_rows] @ weights
            return np.where(scores == 0, background, scores)

        return ScoreRecommender(score, items, excluded)

    def _weights(self, met: csr_matrix) -> Float32:
        """Return B, `[items, items]`; in place where possible, for it is the largest array of all."""
        matrix = _together(met)
        matrix.flat[:: len(matrix) + 1] += self.regularization_weight
        # Symmetric, so that its transpose, which LAPACK can overwrite, is the same matrix.
        factor, broken = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1)
        if broken:
            advice = "Some items were always met together; take a larger weight."
            got = self.regularization_weight
            raise SettingError(describe("regularization_weight", got, "enough for the matrix to be inverted", advice))
        inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
        weights = inverse.T.astype(np.float32)
        del matrix, factor, inverse
        weights += np.triu(weights, 1).T
        weights /= -weights.diagonal().copy()
        np.fill_diagonal(weights, 0)
        return weights


BASELINES: dict[str, type[Baseline]] = {"popularity": Popularity, "item_knn": ItemKnn, "als": Als, "ease": Ease}
"""The baselines by the name that a run file's `evaluation.baselines` gives them."""


def baseline(name: str) -> Baseline:
    """Return a baseline with its default settings.

    Raises:
        SettingError: there is none of that name.
    """
    if name not in BASELINES:
        raise SettingError(unknown("baseline", name, BASELINES))
    return BASELINES[name]()


def _item_counts(interactions: csr_matrix) -> np.ndarray:
    return np.asarray(interactions.sum(axis=0, dtype=np.float64)).ravel()


def _met(interactions: csr_matrix) -> csr_matrix:
    """Return 1, float32, where an item was met, however often."""
    met = interactions.astype(np.float32)
    met.data[:] = 1
    return met


def _together(met: csr_matrix) -> np.ndarray:
    """Return how many query entities met each pair of items, `[items, items]`, float64."""
    items = met.shape[1]
    by_item = met.T.tocsr()
    together = np.empty((items, items))
    for start in range(0, items, EASE_BLOCK):
        together[start : start + EASE_BLOCK] = (by_item[start : start + EASE_BLOCK] @ met).toarray()
    return together


def _popularity_background(interactions: csr_matrix) -> Float32:
    """Return a score for each item that is below every positive one and falls with its place by popularity."""
    counts = _item_counts(interactions)
    background = np.empty(len(counts), np.float32)
    background[np.argsort(-counts, kind="stable")] = -np.arange(len(counts)) / len(counts)
    return background
