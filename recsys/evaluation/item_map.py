"""A map of item vectors in the plane, on which neighbors stay neighbors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.types import Float32

PERPLEXITY = 20.0
STEPS = 250
EXAGGERATED_STEPS = 75
EXAGGERATION = 8.0
NEIGHBORS = 10


def layout(vectors: Float32, seed: int = 0) -> Float32:
    """Return a position for each vector such that vectors close to each other stay close (t-SNE, all pairs).

    Reference:
        van der Maaten and Hinton 2008, Visualizing Data using t-SNE, JMLR 9, Eq. 3 to 5.

    Args:
        vectors: `[n, dim]`, float32, unit length. Time and memory grow with n^2: 1,000 take some seconds.
        seed: of the noise that keeps equal vectors apart.

    Returns:
        `[n, 2]`, float32, each axis within 0..1.
    """
    count = len(vectors)
    centered = vectors - vectors.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centered, full_matrices=False)
    flat = np.zeros((count, 2), np.float32)
    flat[:, : min(2, len(lengths))] = centered @ axes[:2].T
    random = np.random.default_rng(seed)
    place = 1e-2 * flat / max(float(flat.std()), 1e-9) + 1e-4 * random.standard_normal((count, 2))
    place = place.astype(np.float32)
    if count > 3:
        place = _moved(place, _affinities(vectors))
    low, high = np.quantile(place, [0.005, 0.995], axis=0) if count > 1 else (place.min(0), place.max(0))
    return np.clip((place - low) / np.maximum(high - low, 1e-9), 0, 1).astype(np.float32)


def _affinities(vectors: Float32) -> Float32:
    """Return how near each pair is, `[n, n]`, summing to 1: Gaussians of equal perplexity, made symmetric."""
    count = len(vectors)
    squares = np.maximum(2 - 2 * (vectors @ vectors.T), 0).astype(np.float32)
    np.fill_diagonal(squares, np.inf)
    squares -= squares.min(axis=1, keepdims=True)
    wanted = np.log(min(PERPLEXITY, (count - 1) / 3))
    low, high = np.full((count, 1), 1e-3, np.float32), np.full((count, 1), 1e6, np.float32)
    for _ in range(40):
        precision = np.sqrt(low * high)
        weight = np.exp(-precision * squares)
        total = weight.sum(axis=1, keepdims=True)
        finite = np.where(np.isfinite(squares), squares, 0)
        entropy = np.log(total) + precision * (weight * finite).sum(axis=1, keepdims=True) / total
        wide = entropy > wanted
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
    weight /= total
    return (weight + weight.T) / (2 * count)


def _moved(place: Float32, near: Float32) -> Float32:
    """Return the places after gradient descent with momentum."""
    count = len(place)
    step, gains = np.zeros_like(place), np.ones_like(place)
    rate = max(count / EXAGGERATION / 4, 10.0)
    close, scaled, pull = (np.empty_like(near) for _ in range(3))
    for number in range(STEPS):
        squares = (place**2).sum(axis=1)
        np.matmul(place, -2 * place.T, out=close)
        close += squares[:, None] + 1
        close += squares
        np.reciprocal(np.maximum(close, 1, out=close), out=close)
        np.fill_diagonal(close, 0)
        np.multiply(near, EXAGGERATION if number < EXAGGERATED_STEPS else 1, out=pull)
        pull -= np.multiply(close, 1 / close.sum(), out=scaled)
        pull *= close
        slope = 4 * (pull.sum(axis=1, keepdims=True) * place - pull @ place)
        same = np.sign(slope) == np.sign(step)
        gains = np.maximum(np.where(same, gains * 0.8, gains + 0.2), 0.01)
        step = (0.5 if number < EXAGGERATED_STEPS else 0.8) * step - rate * gains * slope
        place = place + step
    return place - place.mean(axis=0)


@dataclass(frozen=True)
class Agreement:
    """How often an item's nearest neighbors share its value of a column.

    Attributes:
        neighbors: share (0..1) of the nearest neighbors that do.
        chance: share of pairs of items drawn at random that do.
    """

    neighbors: float
    chance: float


def agreement(vectors: Float32, values: NDArray[np.integer]) -> Agreement:
    """Return how often the 10 nearest neighbors of an item share its value.

    Args:
        vectors: `[n, dim]`, float32, unit length, n >= 2.
        values: `[n]`, codes of the column; below 0 is no value, which agrees with nothing.
    """
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    k = min(NEIGHBORS, len(vectors) - 1)
    nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    known = values >= 0
    same = (values[nearest] == values[:, None])[known]
    counts = np.bincount(values[known])
    pairs = max(int(known.sum()) * (len(values) - 1), 1)
    return Agreement(float(same.mean()) if known.any() else 0.0, float((counts * (counts - 1)).sum() / pairs))
