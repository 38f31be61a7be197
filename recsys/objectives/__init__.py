"""Objectives are numbers to minimise; one file is one `kind` under `[objective]` or `[self_supervision.objective]`.

A choice has one verb, `loss`, a pure function of tensors, and says with `reads` what it compares: `pairs` of queries
and items (the main task) or `views` of the same rows (the second task). To add one, write `objectives/<kind>.py`; the
contract tests check its gradient against finite differences and that eager and graph agree.
"""

MASKED = -1e9
"""Added to a logit, it takes a candidate out of a softmax."""
