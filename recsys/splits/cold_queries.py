"""Whole query entities are held out: what the model says of queries that it never met in training."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from recsys.registry import settings
from recsys.splits import TEST, TRAIN, VALIDATION, Parts, Shares
from recsys.types import Interactions


@settings()
class ColdQueries(Shares):
    """All interactions of a query entity fall into one part; for collections of texts, which have no times.

    Attributes:
        test_rate: share (0..1) of the query entities with interactions that is for testing.
        validation_rate: share of them that is for validation.
    """

    cuts_in_time: ClassVar[bool] = False

    def assign(self, interactions: Interactions, seed: int) -> Parts:
        """Return parts drawn for each query entity."""
        met, query_of = np.unique(interactions.query_row, return_inverse=True)
        drawn = np.random.default_rng([seed, 3]).permutation(len(met))
        of_query = np.full(len(met), TRAIN, np.int8)
        tests, validations = round(len(met) * self.test_rate), round(len(met) * self.validation_rate)
        of_query[drawn[:tests]] = TEST
        of_query[drawn[tests : tests + validations]] = VALIDATION
        return of_query[query_of]
