"""Objectives are numbers to minimise; one file is one `kind` of `objective` in the section that trains with it.

A choice has one verb, `loss`, a pure function of tensors, and says with `reads` what it compares: `pairs` of queries
and items (`[objective]`, the main task), `views` of the same rows (`[self_supervision.objective]`, the second task) or
`revisions` of one query (`[reformulation.objective]`). To add one, write `objectives/<kind>.py`; the
contract tests check its gradient against finite differences and that eager and graph agree.
"""

MASKED = -1e9
"""Added to a logit, it takes a candidate out of a softmax."""
