"""From the solution of a linear model to the tables of two towers of kind `sum`, those of their features included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sparse

from recsys.data import encoders
from recsys.data.history import weighted
from recsys.data.prepare import Codes, Prepared
from recsys.features import Encoder
from recsys.layers import EmbeddingTable, FeatureSum
from recsys.linear_models import MAX_INVERTED, Array, ridge
from recsys.objectives._solved import ColdStart, Solved
from recsys.types import ITEM_ID, Float32, Int32
from twintower.errors import SettingError, describe, verbatim

if TYPE_CHECKING:
    from recsys.training.model import TwoTowerModel

FOLD_RATE = 0.2
"""Share of the trained items whose vectors are predicted by a regression that has not seen them."""
SMALLEST = 1e-30
"""Length that a vector of zeros is divided by."""


@dataclass(frozen=True)
class Solution:
    """The vectors of a linear model.

    Attributes:
        history: what having met an item adds to a query's vector, `[items, dim]`, float32.
        found: the vector that an item is found by, `[items, dim]`, float32.
        query_features: what a query feature adds to a query's vector: a row for each number of its codes, or for each
            code, `[width, dim]`, float32, by name.
    """

    history: Float32
    found: Float32
    query_features: Mapping[str, Float32]


def solve(objective: Solved, prepared: Prepared, dim: int, seed: int, *parts: str) -> Solution:
    """Return the solution of an objective on the interactions of some parts.

    Args:
        objective: the first value of each setting counts.
        prepared: the data.
        dim: length of the vectors, at most.
        seed: of every draw.
        parts: of the split.

    Raises:
        SettingError: the data are too large for a closed form, or the settings have no solution.
    """
    items = prepared.item_count
    history = next(each.settings for each in prepared.query_encoders.values() if encoders.is_history(each))
    met = weighted(prepared.until(*parts), prepared.query_count, items, history)
    weight = np.float32(objective.query_feature_weight[0])
    designs = design_of(prepared.query_encoders, prepared.query_codes)
    columns = sparse.hstack([met, *(weight * each for each in designs.values())], format="csr")
    scales, energies = np.ones(columns.shape[1], np.float32), _energies(columns)
    scales[items:] = _scales(energies[items:])
    used = np.flatnonzero((energies > 0) | (np.arange(len(energies)) < items))
    of_used, found = objective.solve(columns[:, used] @ sparse.diags_array(scales[used]), items, dim, seed)
    rows = np.zeros((columns.shape[1], of_used.shape[1]), np.float32)
    rows[used] = scales[used, None] * of_used
    history, *others = np.split(rows, np.cumsum([items, *(each.shape[1] for each in designs.values())])[:-1])
    return Solution(history, found, {name: weight * of for name, of in zip(designs, others, strict=True)})


@dataclass(frozen=True)
class ItemTable:
    """A table with a vector of its own for the items that were met often enough.

    Attributes:
        table: the trained vectors.
        codes: `[items]`, int32, the row of each item.
        reserved: the first rows, which stand for no particular item.
    """

    table: EmbeddingTable
    codes: Int32
    reserved: int

    def assign(self, vectors: Float32) -> None:
        """Set the vectors of the items, `[items, up to width]`; all else becomes zeros."""
        values, own = np.zeros(self.table.vectors.shape, np.float32), self.codes >= self.reserved
        values[self.codes[own], : vectors.shape[1]] = vectors[own]
        self.table.vectors.assign(values)

    def read(self) -> Float32:
        """Return the vectors of the items, `[items, width]`."""
        return self.table.vectors.numpy()[self.codes]


def item_tables(model: TwoTowerModel, prepared: Prepared) -> tuple[ItemTable, ...]:
    """Return the tables of the query tower's first history and of the item tower's id, as far as there are any."""
    item_ids = prepared.items[ITEM_ID]
    found = []
    for tower, fitted, wanted in (
        (model.query_tower, prepared.query_encoders, encoders.is_history),
        (model.item_tower, prepared.item_encoders, encoders.is_id),
    ):
        name = next((name for name, encoder in fitted.items() if wanted(encoder)), None)
        if name is not None:
            (table,) = (each for each in tower.features[name].submodules if isinstance(each, EmbeddingTable))
            encoder = fitted[name]
            codes = encoder.vocabulary.codes(encoder.spelling.spell_column(item_ids))
            found.append(ItemTable(table, codes, encoder.vocabulary.reserved))
    return tuple(found)


class SolvedTables:
    """The tables of two towers of kind `sum`, to be set to solutions of linear models.

    An item is the sum of what its features say and a residual of its own. What the features say is a ridge regression
    of the solved vectors, in which an item counts as often as it was met:

    `R = (Z^T N Z + regularization_weight * identity)^-1 Z^T N V`, N: interactions of each item over their mean

    So an item without interactions gets a vector that lies in the same space as those of all others, and one that was
    met rarely may be turned towards what its features say (see `_turned`). In a history, an item without interactions
    counts as what the same regression says, where the history's vocabulary has the item (`min_count = 0`). A
    regression's vectors are shorter than those of items that are liked as much: R is stretched by the ratio of the
    lengths of a fifth of the items to those predicted from the others, times `length`.

    Args:
        model: its towers are of kind `sum`; the query tower has a history, the item tower an id.
        prepared: what it trains on.
    """

    def __init__(self, model: TwoTowerModel, prepared: Prepared) -> None:
        self._model, self._counts = model, prepared.item_counts
        self._history, self._found = item_tables(model, prepared)
        designs = design_of(prepared.item_encoders, prepared.item_codes)
        self._ends = dict(zip(designs, np.cumsum([each.shape[1] for each in designs.values()]), strict=True))
        self._design = sparse.hstack(list(designs.values()), format="csr") if designs else None
        is_trained = self._counts > 0
        self._weight = self._counts / max(float(self._counts[is_trained].mean()), 1.0)
        drawn = np.random.default_rng(prepared.item_count).random(prepared.item_count) < FOLD_RATE
        self._fold = self._weight * drawn
        self._unseen = self._weight - self._fold
        self._solution: Solution | None = None
        self._regressions: dict[tuple[float, bool], tuple[Float32, Float32]] = {}

    @property
    def has_item_features(self) -> bool:
        """Whether items have more than their id."""
        return self._design is not None

    def predictability(self, solution: Solution, cold_start: ColdStart, dim: int) -> float:
        """Return the cosine between the vectors of a fifth of the items and those predicted from the others, -1..1.

        Args:
            solution: with vectors of any length.
            cold_start: the first of each setting counts.
            dim: how many of the solution's directions to compare.
        """
        solution = Solution(solution.history[:, :dim], solution.found[:, :dim], {})
        predicted = self._design @ self._regression(solution, cold_start.regularization_weight[0], self._unseen)
        given = np.hstack([solution.history, solution.found])
        together, energy, of_predicted = (
            self._fold @ (one * other).sum(axis=1)
            for one, other in ((given, predicted), (given, given), (predicted, predicted))
        )
        return float(together / max(np.sqrt(energy * of_predicted), 1e-30))

    def assign(self, solution: Solution, cold_start: ColdStart | None, dim: int) -> None:
        """Set all tables of both towers.

        Args:
            solution: with vectors of any length.
            cold_start: how items get vectors from their features, by the first value of each setting; None: not at all.
            dim: how many of the solution's directions to take.
        """
        _assign_rows(self._model.query_tower, {name: rows[:, :dim] for name, rows in solution.query_features.items()})
        history, found = solution.history[:, :dim], solution.found[:, :dim]
        if cold_start is None or self._design is None:
            self._history.assign(history)
            self._found.assign(found)
            _assign_rows(self._model.item_tower, dict.fromkeys(self._ends, np.zeros((0, dim), np.float32)))
            return
        rows, said = self._ridge(solution, cold_start, True)
        of_found = np.hsplit(rows, 2)[1][:, :dim]
        said_of_history, said_of_found = (each[:, :dim] for each in np.hsplit(said, 2))
        stretch = cold_start.length[0] * self._shortness(solution, cold_start, dim)
        own = (self._counts / np.maximum(self._counts + cold_start.residual_shrinkage[0], 1))[:, None]
        is_trained = self._counts[:, None] > 0
        history, found = _turned(history, said_of_history, own), _turned(found, said_of_found, own)
        tables = np.split(stretch * of_found, list(self._ends.values())[:-1])
        _assign_rows(self._model.item_tower, dict(zip(self._ends, tables, strict=True)))
        self._history.assign(np.where(is_trained, history, stretch * said_of_history))
        self._found.assign(np.where(is_trained, found - stretch * said_of_found, 0))

    def _shortness(self, solution: Solution, cold_start: ColdStart, dim: int) -> float:
        """Return the ratio of the lengths of a fifth of the items to those predicted from the others, >= 1."""
        predicted = np.hsplit(self._ridge(solution, cold_start, False)[1], 2)[1][:, :dim]
        given = solution.found[:, :dim]
        energy, of_predicted = (self._fold @ np.square(each).sum(axis=1) for each in (given, predicted))
        return float(np.sqrt(energy / of_predicted)) if energy > of_predicted > 0 else 1.0

    def _ridge(self, solution: Solution, cold_start: ColdStart, with_fold: bool) -> tuple[Float32, Float32]:
        """Return R for both vectors of an item side by side, and what it predicts of all items, and keep them.

        Returns:
            `[width, 2 * solution's dim]` and `[items, 2 * solution's dim]`.
        """
        if solution is not self._solution:
            self._solution, self._regressions = solution, {}
        key = (cold_start.regularization_weight[0], with_fold)
        if key not in self._regressions:
            weight = self._weight if with_fold else self._unseen
            rows = self._regression(solution, key[0], weight)
            self._regressions[key] = rows, self._design @ rows
        return self._regressions[key]

    def _regression(self, solution: Solution, regularization_weight: float, weight: Array) -> Float32:
        """Return R from items that count by a weight, `[items]`."""
        of_items, energies = np.flatnonzero(weight), _energies(self._design)
        used, scales = np.flatnonzero(energies > 0), sparse.diags_array(_scales(energies[energies > 0]))
        if min(len(of_items), len(used)) > MAX_INVERTED:
            got = verbatim(f"{len(used):,} values for {len(of_items):,} items")
            advice = "Raise min_count, lower buckets, or leave features out."
            raise SettingError(describe("item.features", got, f"at most {MAX_INVERTED:,} of either", advice))
        design = self._design[:, used][of_items] @ scales
        scaled = (sparse.diags_array(np.sqrt(weight[of_items])) @ design).tocsr()
        targets = np.sqrt(weight[of_items, None]) * np.hstack([solution.history, solution.found])[of_items]
        rows = np.zeros((self._design.shape[1], targets.shape[1]), np.float32)
        rows[used] = scales @ ridge(scaled, np.full(len(used), float(regularization_weight)), targets)
        return rows


def _turned(vectors: Float32, predicted: Array, own: Array) -> Array:
    """Return vectors with the direction of `predicted + own (vectors - predicted)`, and the lengths that they had.

    Lengths carry how much items are liked, of which features know little: a prediction is as long for an item that was
    met once as for the most popular one of its kind.

    Args:
        vectors: `[items, dim]`.
        predicted: `[items, dim]`.
        own: share (0..1) of what the prediction leaves open that each item keeps, `[items, 1]`; 1 changes nothing.
    """
    mixed = predicted + own * (vectors - predicted)
    lengths, mixed_lengths = (np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, mixed))
    return np.where(own < 1, mixed * (lengths / np.maximum(mixed_lengths, SMALLEST)), vectors)


def design_of(fitted: Mapping[str, Encoder], codes: Codes) -> dict[str, sparse.csr_array]:
    """Return the features of all rows of a side as matrices, `[rows, width]`, float32, by name; ids and histories not.

    The vector that a tower of kind `sum` adds for a feature is its matrix times the feature's table.
    """
    return {
        name: _design(encoder, np.asarray(codes[name]))
        for name, encoder in fitted.items()
        if not encoders.is_history(encoder) and not encoders.is_id(encoder)
    }


def _design(encoder: Encoder, codes: np.ndarray) -> sparse.csr_array:
    if codes.dtype == np.float32:
        return sparse.csr_array(codes)
    bags = codes.reshape(len(codes), -1)
    row, column = np.nonzero(bags >= 0)
    counts = np.maximum((bags >= 0).sum(axis=1), 1)
    pooling = getattr(encoder.settings, "pooling", "sum")
    share = {"sum": np.ones(len(bags)), "mean": 1 / counts, "sqrt": counts**-0.5}[pooling]
    entries = (share[row].astype(np.float32), (row, bags[row, column]))
    return sparse.coo_array(entries, shape=(len(bags), int(bags.max(initial=0)) + 1)).tocsr()


def _energies(design: sparse.csr_array) -> Float32:
    """Return the mean square of each column, `[columns]`."""
    return np.asarray(design.multiply(design).mean(axis=0)).ravel()


def _scales(energies: Float32) -> Float32:
    """Return factors that keep columns of large numbers from drowning all others: their root mean square becomes 1."""
    return 1 / np.sqrt(np.maximum(energies, 1))


def _assign_rows(tower: FeatureSum, rows: Mapping[str, Float32]) -> None:
    """Set what the features of a tower add for each number of their codes, `[width, up to dim]`; zeros beyond."""
    for name, values in rows.items():
        matrix = tower.matrix(name)
        padded = np.zeros(matrix.shape, np.float32)
        padded[: len(values), : values.shape[1]] = values
        matrix.assign(padded)
