"""iALS as a baseline answers query entities that it has not seen in training."""

from __future__ import annotations

import numpy as np

from recsys.baselines.ials import Ials
from tests.worlds import block_histories


def test_a_query_entity_that_was_not_in_training_gets_its_vector_from_its_history():
    training, missing = block_histories()
    # Given that the last query entity of each block is unknown to training and only its history is given.
    unknown = np.array([29, 59, 89, 119])
    scorer = Ials(dim=(4,)).fit(training.take(np.setdiff1d(np.arange(120), unknown)))
    scores = scorer(training.take(unknown)) - 10 * training.take(unknown).met.toarray()
    best = np.argsort(-scores, axis=1)[:, :10]
    assert all(missing[owner] in best[row] for row, owner in enumerate(unknown))
