"""Compare ranked lists up to the rounding of float32, which differs from processor to processor."""

from __future__ import annotations

import numpy as np


def score_tolerance(queries: np.ndarray, items: np.ndarray) -> float:
    """Return by how much two float32 inner products of the same vectors can differ, whatever the order of the sums.

    Each is off by at most `dim * eps / 2 * |q| |v|` (Higham 2002, Section 3.1), and two of them by twice that.
    """
    lengths = np.linalg.norm(queries, axis=-1).max() * np.linalg.norm(items, axis=-1).max()
    return float(items.shape[-1] * np.finfo(np.float32).eps * lengths)


def assert_best_first(rows: np.ndarray, scores: np.ndarray, tolerance: float) -> None:
    """Fail unless the rows are the best ones by falling score; rows whose scores tie may stand in any order.

    Args:
        rows: `[k]`, row indices without padding.
        scores: `[items]`, the score of every row; -inf where a row may not stand in the list.
        tolerance: the largest difference of two scores that counts as a tie.
    """
    rows = np.asarray(rows)
    assert len(set(rows.tolist())) == len(rows), "a row stands in the list twice"
    best = -np.sort(-scores)[: len(rows)]
    assert np.isfinite(scores[rows]).all(), "a row that may not stand in the list does"
    np.testing.assert_allclose(scores[rows], best, rtol=0, atol=tolerance)
