"""Judge recommenders offline: on the full catalogue, slice by slice, with intervals, against baselines and each other.

`evaluate` takes `EvaluationCases` and anything that can `recommend`, and returns an `EvaluationReport`; `compare` takes
the case values of two of them.
"""

from __future__ import annotations
