"""The main task of a two-tower model, by what its objective reads: pairs, whole sets of items, or all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from recsys import registry
from recsys.config import Run
from recsys.data import encoders
from recsys.data.batches import Batch, SetBatch, met_in, reads_whole_catalog
from recsys.data.frequency import CountedFrequency, StreamingFrequency
from recsys.data.prepare import Prepared
from recsys.features._vocabulary import Ragged
from recsys.layers import EmbeddingTable
from recsys.objectives._sets import SetObjective, Sets
from recsys.objectives.all_items import item_gramian, query_gramian
from recsys.progress import track
from recsys.stack import tf
from recsys.training.solutions import item_tables
from recsys.types import ITEM_ID, Float32, Int64

if TYPE_CHECKING:
    from recsys.training.model import TwoTowerModel


BLOCK = 4096
"""Rows whose codes are counted at once."""


class PairTask(tf.keras.layers.Layer):
    """Each query of a batch must pick its own item among candidates.

    Args:
        run: gives the objective.
        prepared: gives item counts.
        expected_hard: how often each item is a hard negative of one batch on average, `[items]`, float32; None where
            there are none.
    """

    def __init__(self, run: Run, prepared: Prepared, expected_hard: Float32 | None) -> None:
        super().__init__(name="main_task")
        self._objective = run.objective
        self._item_count = prepared.item_count
        self._expected_hard = None if expected_hard is None else tf.constant(expected_hard)
        self._hard_negatives = 0 if expected_hard is None else round(float(expected_hard.sum()))
        self.frequency = self._frequency(prepared, run.batch_size)
        self.log_temperature = tf.Variable(
            math.log(run.objective.temperature), trainable=run.objective.learned_temperature, name="log_temperature"
        )

    @property
    def temperature(self) -> tf.Tensor:
        """The temperature in force, scalar, float32, > 0."""
        return tf.exp(self.log_temperature)

    @property
    def figures(self) -> Mapping[str, tf.Tensor]:
        """Scalars that TensorBoard shows beside the loss, by name."""
        return {"temperature": self.temperature}

    def vectors(self, model: TwoTowerModel, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors of a batch's queries and candidates, as they are in training."""
        seed = model.seed_of(batch["step"])
        queries = model.query_tower(batch["query"], seed=seed)
        return queries, model.items_in_training(batch["candidate_row"], seed)

    def loss(self, model: TwoTowerModel, batch: Batch, training: bool) -> tf.Tensor:
        """Return the weighted objective over one batch, scalar, float32."""
        queries, candidates = self.vectors(model, batch)
        if training:
            self.frequency.update(batch["candidate_row"][: tf.shape(queries)[0]], batch["step"])
        return self._objective.weight * self._objective.loss(
            queries,
            candidates,
            self._log_q(batch["candidate_row"], tf.shape(queries)[0]),
            batch["known_positive"],
            batch["weight"],
            self.temperature,
        )

    def _log_q(self, candidate_row: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
        """Return log of the mixture probability of each candidate, `[candidates]`, or zeros without correction.

        `log((batch * p_j + uniform / items + hard_j) / (batch + uniform + sum_j hard_j))`, in logarithms so that no p
        is too small; `hard_j` is the mean count of item j among the hard negatives of a batch.
        """
        if self._objective.logq == "none":
            return tf.zeros(tf.shape(candidate_row), tf.float32)
        log_p = self.frequency.log_probability(candidate_row)
        negatives = self._objective.uniform_negatives + self._hard_negatives
        if negatives == 0:
            return log_p
        from_batch = tf.math.log(tf.cast(batch_size, tf.float32)) + log_p
        from_others = self._log_others(candidate_row)
        highest = tf.maximum(from_batch, from_others)
        total = highest + tf.math.log(tf.exp(from_batch - highest) + tf.exp(from_others - highest))
        return total - tf.math.log(tf.cast(batch_size + negatives, tf.float32))

    def _log_others(self, candidate_row: tf.Tensor) -> tf.Tensor | float:
        """Return log of how often each candidate is drawn in addition to the batch, scalar or `[candidates]`."""
        uniform = self._objective.uniform_negatives
        if self._expected_hard is None:
            return math.log(uniform) - math.log(self._item_count)
        return tf.math.log(uniform / self._item_count + tf.gather(self._expected_hard, candidate_row))

    def _frequency(self, prepared: Prepared, batch_size: int) -> CountedFrequency | StreamingFrequency:
        counts = prepared.item_counts
        if self._objective.logq != "streaming":
            return CountedFrequency(counts)
        return StreamingFrequency(
            prepared.item_count,
            rate=self._objective.streaming_rate,
            hashes=self._objective.streaming_hashes,
            slots=self._objective.streaming_slots,
            start_gap=max(prepared.item_count / batch_size, 1.0),
        )


class SetTask(tf.keras.layers.Layer):
    """Each query of a batch, with all that it met, is compared with the catalog; arguments as for `PairTask`."""

    def __init__(self, run: Run, prepared: Prepared, expected_hard: None) -> None:
        super().__init__(name="main_task")
        del expected_hard
        self._objective = run.objective
        self.frequency = CountedFrequency(prepared.item_counts)
        self._penalties: list[tuple[tf.Variable, tf.Tensor]] = []
        self._seed = run.seed
        self._gramians = None
        self._teachers: list[tuple[tf.Tensor, tf.Tensor]] = []
        if hasattr(run.objective, "running_loss") and not reads_whole_catalog(run, prepared):
            self._gramians = RunningGramians(run.tower.dim, run.objective.gramian_rate)

    @property
    def figures(self) -> Mapping[str, tf.Tensor]:
        """See `PairTask.figures`."""
        return {}

    def start(self, model: TwoTowerModel, prepared: Prepared) -> None:
        """Let an item's vector in a history start as the one that it is found by, so that histories find themselves.

        Every variable is there from here on; which of them is regularized how is settled here. Teachers are solved.
        """
        tables = item_tables(model, prepared)
        if len(tables) == 2 and tables[0].table.width == tables[1].table.width:
            tables[0].assign(tables[1].read())
        self._penalties = penalties(model, prepared, self._objective)
        self._teachers = teachers_of(self._objective, prepared, self._seed)

    def vectors(self, model: TwoTowerModel, batch: SetBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors of a batch's queries and candidates, as they are in training; raw where lengths count.

        Where the batch has positions, each of them is a query.
        """
        seed = model.seed_of(batch["step"])
        is_raw = not self._objective.unit_length
        encode_queries = model.query_tower.raw if is_raw else model.query_tower
        queries = encode_queries(batch["query"], seed=seed, position=batch.get("position"))
        return queries, model.items_in_training(batch["candidate_row"], seed, raw=is_raw)

    def loss(self, model: TwoTowerModel, batch: SetBatch, training: bool) -> tf.Tensor:
        """Return the weighted objective over one batch, scalar, float32."""
        queries, items = self.vectors(model, batch)
        given = (queries, items, Sets(batch["owner"], batch["column"], batch["weight"], batch["stands_for"]))
        if self._gramians is None:
            loss = self._objective.loss(*given, *self._taught(batch, tf.shape(queries)[0]))
        else:
            if training:
                self._gramians.update(queries, items, batch["stands_for"], batch["step"])
            loss = self._objective.running_loss(*given, self._gramians.of_queries, self._gramians.of_items)
        lengths = [tf.reduce_sum(weight * tf.square(variable)) / 2 for variable, weight in self._penalties]
        return self._objective.weight * tf.add_n([loss, *lengths])

    def _taught(self, batch: SetBatch, queries: tf.Tensor) -> list[tf.Tensor]:
        """Return what teachers score the candidates, `[teachers, batch, candidates]`; nothing where there are none."""
        if not self._teachers:
            return []
        owner, item_row = batch["owner"], tf.gather(batch["candidate_row"], batch["column"])
        return [
            tf.stack(
                [
                    tf.matmul(
                        tf.math.unsorted_segment_sum(tf.gather(history, item_row), owner, queries),
                        tf.gather(found, batch["candidate_row"]),
                        transpose_b=True,
                    )
                    for history, found in self._teachers
                ]
            )
        ]


class RunningGramians(tf.Module):
    """The Gramians of all queries and all items, as moving averages of the estimates of single steps.

    `G <- (1 - rate_t) G + rate_t estimate`, `rate_t = max(rate, 1 / (t + 1))` at step t, from 0.

    Reference:
        Krichene et al. 2019, arXiv:1807.07187, Eq. 8.
    Differs:
        the first steps have equal shares, so that there is no start value.

    Args:
        dim: length of the raw vectors.
        rate: share (0..1] of the newest estimate.

    Attributes:
        of_queries: `mean_b u_b u_b^T`, `[dim, dim]`, float32.
        of_items: `sum_j v_j v_j^T` over the catalog, `[dim, dim]`, float32.
    """

    def __init__(self, dim: int, rate: float) -> None:
        super().__init__(name="running_gramians")
        self._rate = rate
        self.of_queries = tf.Variable(tf.zeros([dim, dim]), trainable=False, name="of_queries")
        self.of_items = tf.Variable(tf.zeros([dim, dim]), trainable=False, name="of_items")

    def update(self, queries: tf.Tensor, items: tf.Tensor, stands_for: tf.Tensor, step: tf.Tensor) -> None:
        """Take one batch into account; arguments as for `AllItems.loss`, `step` from 0."""
        rate = tf.maximum(self._rate, 1.0 / tf.cast(step + 1, tf.float32))
        for running, estimate in (
            (self.of_queries, query_gramian(queries)),
            (self.of_items, item_gramian(items, stands_for)),
        ):
            running.assign_add(rate * (estimate - running))


class SolvedTask(tf.keras.layers.Layer):
    """Nothing to train: `training.solutions` sets the tables; arguments as for `PairTask`."""

    def __init__(self, run: Run, prepared: Prepared, expected_hard: None) -> None:
        super().__init__(name="main_task")
        del run, expected_hard
        self.frequency = CountedFrequency(prepared.item_counts)


def teachers_of(objective: SetObjective, prepared: Prepared, seed: int) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the solutions that an objective learns from, each as the tables of histories and of items."""
    kinds = getattr(objective, "teachers", ())
    if not kinds:
        return []
    met = met_in(prepared.parts["train"], prepared.query_count, prepared.item_count)
    choices = [each for kind in kinds for each in registry.build("objectives", {"kind": kind}, kind).candidates()]
    solved = [
        each.solve(met, prepared.item_count, objective.teacher_dim, seed)
        for each in track(choices, "solve teachers", len(choices))
    ]
    return [(tf.constant(history), tf.constant(found)) for history, found in solved]


def penalties(model: TwoTowerModel, prepared: Prepared, objective: SetObjective) -> list[tuple[tf.Variable, tf.Tensor]]:
    """Return the variables that an objective on sets regularizes, each with the weight of its squares.

    The vectors of items in a history and of ids have `regularization_weight`; whatever else a tower has, a weight of
    its own, as a feature's vector is trained by the interactions of all items that have it. Rows of a table that are
    trained by n pairs of a query and an item have `(n / mean n)^regularization_exponent` times that.

    Reference:
        Rendle et al. 2022, arXiv:2110.14037, Eq. 2, for the scaling by frequency.

    Returns:
        Each matrix once, with a factor that broadcasts with it.
    """
    own = {each.table.vectors.ref() for each in item_tables(model, prepared)}
    exponent = objective.regularization_exponent
    counts = row_counts(model, prepared) if exponent else {}
    found = {}
    for variable in model.query_tower.trainable_variables + model.item_tower.trainable_variables:
        key = variable.ref()
        if len(variable.shape) < 2 or key in found:
            continue
        weight = objective.regularization_weight if key in own else objective.feature_regularization_weight
        if key in counts:
            rows = np.maximum(counts[key], 1)
            weight = weight * (rows / rows.mean())[:, None] ** exponent
        found[key] = (variable, tf.constant(weight, tf.float32))
    return list(found.values())


def row_counts(model: TwoTowerModel, prepared: Prepared) -> dict[object, Int64]:
    """Return how many training interactions train each row of the embedding tables, `[rows]`, by the table's `ref`."""
    train = prepared.parts["train"]
    of_queries = np.bincount(train.query_row, minlength=prepared.query_count)
    counts: dict[object, Int64] = {}
    for tower, fitted, codes, of_rows in (
        (model.item_tower, prepared.item_encoders, prepared.item_codes, prepared.item_counts),
        (model.query_tower, prepared.query_encoders, prepared.query_codes, of_queries),
    ):
        for name, encoder in fitted.items():
            for table in (each for each in tower.features[name].submodules if isinstance(each, EmbeddingTable)):
                if encoders.is_history(encoder):
                    of_items = encoder.vocabulary.codes(encoder.spelling.spell_column(prepared.items[ITEM_ID]))
                    found = trained_rows(of_items, prepared.item_counts, table.rows)
                else:
                    found = trained_rows(codes[name], of_rows, table.rows)
                counts[table.vectors.ref()] = counts.get(table.vectors.ref(), 0) + found
    return counts


def trained_rows(codes: np.ndarray | Ragged, of_rows: Int64, size: int) -> Int64:
    """Return how often each of `size` codes occurs, where row r of the codes occurs `of_rows[r]` times."""
    total = np.zeros(size, np.int64)
    for start in range(0, len(of_rows), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(of_rows)))
        block = codes[rows].reshape(len(rows), -1)
        row, column = np.nonzero(block >= 0)
        np.add.at(total, block[row, column], of_rows[start + row])
    return total
