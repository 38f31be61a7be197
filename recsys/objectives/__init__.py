"""Objectives are numbers to minimize; one file is one `kind` of `objective` in the section that trains with it.

A choice has one verb, `loss`, a pure function of tensors, and says with `reads` what it compares:

* for the main task (`[objective]`): `pairs` of queries and items, or `sets`, all that a query entity has met with the
  whole catalog or a sample of it (base class `_sets.SetObjective`); `matrix`, all interactions at once, has `solve`
  instead of `loss`: it needs no training steps (base class `_solved.Solved`). Its `unit_length` says whether the
  towers' vectors are compared at unit length, or raw;
* for the second task (`[self_supervision.objective]`): `views` of the same rows;
* for reformulators (`[reformulation.objective]`): `revisions` of one query.

To add one, write `objectives/<kind>.py`; the contract tests check its gradient against finite differences and that
eager and graph agree.
"""

from __future__ import annotations

MASKED = -1e9
"""Added to a logit, it takes a candidate out of a softmax."""
