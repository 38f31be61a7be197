"""Hard negatives: wrong first results of training queries, drawn beside each batch's own items."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recsys.data.mined import Mined
from recsys.data.prepare import Prepared
from recsys.errors import DataError
from recsys.types import NO_ROW, Float32, Int32
from twintower.errors import describe, verbatim


class HardNegatives:
    """What an earlier model found first for each training query, without the query's training items.

    A query draws from its first results uniformly and with replacement; one that has none, because it met the whole
    catalogue or has no interaction in the training part of the split, draws from the catalogue.

    Reference:
        Xiong et al. 2021, arXiv:2007.00808v2, Section 3: negatives from the first results of an index.
    Differs:
        the index is that of a finished training and does not follow the weights; all queries of a batch share the
        draws, as they share the batch's own items, so that the logQ correction covers them.

    Args:
        mined: the training queries in the order of their rows.
        prepared: the data that they are of.
        per_query: items drawn for each example of a batch, >= 1.
    """

    def __init__(self, mined: Mined, prepared: Prepared, per_query: int) -> None:
        self._query_row = np.unique(_mined_from(prepared).parts["train"].query_row)
        first = mined.first.item_rows
        self._first = np.vstack([first, np.full_like(first[:1], NO_ROW)])  # the last row: queries that were not mined
        self._found = (self._first != NO_ROW).sum(axis=1)
        self._item_count, self._per_query = prepared.item_count, per_query
        self._examples = np.bincount(self._places(prepared.parts["train"].query_row), minlength=len(self._first))

    @classmethod
    def read(cls, path: Path, prepared: Prepared, per_query: int) -> HardNegatives:
        """Read a file that `recsys mine --part train` wrote.

        Raises:
            DataError: there is no such file, it is damaged, or it is of other queries or other training data.
        """
        mined = Mined.read(path)
        advice = "Write it with `recsys mine --part train`, from a release of this data and split."
        if (part := mined.facts.get("part")) != "train":
            got = verbatim(f"first results of {part} queries")
            raise DataError(describe(str(path), got, "those of training queries", advice))
        asked = len(np.unique(_mined_from(prepared).parts["train"].query_row))
        if (mined.facts.get("training_data"), len(mined)) != (prepared.training_digest, asked):
            got = verbatim("first results for other training interactions or another catalog")
            raise DataError(describe(str(path), got, "those of this run's data", advice))
        if not mined.fits(prepared.item_count):
            got = verbatim("queries or rows that cannot have been mined")
            raise DataError(describe(str(path), got, "first results of this run's catalog", advice))
        return cls(mined, prepared, per_query)

    def draw(self, query_row: Int32, random: np.random.Generator) -> Int32:
        """Return the items drawn for the examples of a batch, `[batch * per_query]`, int32, one example's together."""
        places = self._places(query_row)
        shape = (len(places), self._per_query)
        ranks = random.integers(0, np.maximum(self._found[places], 1)[:, None], shape)
        drawn = self._first[places[:, None], ranks]
        anything = random.integers(0, self._item_count, shape, dtype=np.int32)
        return np.where(drawn == NO_ROW, anything, drawn).ravel()

    def expected(self, batch_size: int) -> Float32:
        """Return how often each item is drawn for one batch on average, `[items]`, float32; sums to all draws.

        `batch_size per_query mean_t( 1[j in M_t] / |M_t| )` over training interactions t; M_t: found for its query
        """
        share = self._examples / self._examples.sum()
        each = np.repeat(share / np.maximum(self._found, 1), self._found)
        counts = np.bincount(self._first[self._first != NO_ROW], each, minlength=self._item_count)
        counts += share[self._found == 0].sum() / self._item_count
        return (batch_size * self._per_query * counts).astype(np.float32)

    def _places(self, query_row: Int32) -> np.ndarray:
        places = np.searchsorted(self._query_row, query_row)
        is_mined = self._query_row[np.minimum(places, len(self._query_row) - 1)] == query_row
        return np.where(is_mined, places, len(self._query_row))


def _mined_from(prepared: Prepared) -> Prepared:
    """Return the data whose training queries were mined: a refit on more parts draws from the same first results."""
    return prepared.as_split or prepared
