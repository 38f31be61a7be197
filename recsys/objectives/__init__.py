"""Objectives are numbers to minimise; one file is one `kind` of `objective` in the section that trains with it.

A choice has one verb, `loss`, a pure function of tensors, and says with `reads` what it compares:

* for the main task (`[objective]`): `pairs` of queries and items, or `sets`, all that a query entity has met with the
  whole catalog; `matrix`, all interactions at once, has `solve` instead of `loss`: it needs no training steps;
* for the second task (`[self_supervision.objective]`): `views` of the same rows;
* for reformulators (`[reformulation.objective]`): `revisions` of one query.

To add one, write `objectives/<kind>.py`; the contract tests check its gradient against finite differences and that
eager and graph agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scipy.sparse import csr_matrix

from recsys.types import Float32

MASKED = -1e9
"""Added to a logit, it takes a candidate out of a softmax."""


class Solvable(Protocol):
    """The contract of an objective that reads `matrix`."""

    def candidates(self) -> Sequence[Solvable]:
        """Return one objective for each combination of settings to try."""

    def solve(self, met: csr_matrix, dim: int, seed: int) -> tuple[Float32, Float32]:
        """Return the vector of each item in a history and the one that it is found by.

        Args:
            met: `[queries, items]`, float32, 1 where a query entity met an item.
            dim: length of the vectors, at most.
            seed: of every draw.

        Returns:
            Two arrays `[items, up to dim]`, float32; a query's vector is the sum of its history's.

        Raises:
            SettingError: the data are too large for a closed form, or the settings have no solution.
        """
