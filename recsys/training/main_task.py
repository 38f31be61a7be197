"""The main task of a two-tower model, by what its objective reads: pairs, whole sets of items, or all at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from recsys.config import Run
from recsys.data.batches import Batch, SetBatch
from recsys.data.frequency import CountedFrequency, StreamingFrequency
from recsys.data.prepare import Prepared
from recsys.layers import EmbeddingTable
from recsys.stack import tf
from recsys.training.solutions import item_tables
from recsys.types import Float32

if TYPE_CHECKING:
    from recsys.training.model import TwoTowerModel


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
        self.frequency = self._frequency(prepared, run.training.batch_size)
        self.log_temperature = tf.Variable(
            math.log(run.objective.temperature), trainable=run.objective.learned_temperature, name="log_temperature"
        )

    @property
    def temperature(self) -> tf.Tensor:
        """The temperature in force, scalar, float32, > 0."""
        return tf.exp(self.log_temperature)

    @property
    def figures(self) -> Mapping[str, tf.Tensor]:
        """What TensorBoard shows of it besides the loss, scalars by name."""
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
        """Return log of how often each candidate is drawn besides the batch's own items, scalar or `[candidates]`."""
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
    """Each query of a batch, with all that it met, scores the whole catalog; arguments as for `PairTask`."""

    def __init__(self, run: Run, prepared: Prepared, expected_hard: None) -> None:
        super().__init__(name="main_task")
        del expected_hard
        self._objective = run.objective
        self.frequency = CountedFrequency(prepared.item_counts)

    @property
    def figures(self) -> Mapping[str, tf.Tensor]:
        """See `PairTask.figures`."""
        return {}

    def start(self, model: TwoTowerModel, prepared: Prepared) -> None:
        """Let an item's vector in a history start as the one that it is found by, so that histories find themselves."""
        tables = item_tables(model, prepared)
        if len(tables) == 2 and tables[0].table.width == tables[1].table.width:
            tables[0].assign(tables[1].read())

    def vectors(self, model: TwoTowerModel, batch: SetBatch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the raw vectors of a batch's queries and of the whole catalog, as they are in training."""
        seed = model.seed_of(batch["step"])
        queries = model.query_tower.raw(batch["query"], seed)
        return queries, model.item_tower.raw(model.all_item_codes(), seed + [0, 500])

    def loss(self, model: TwoTowerModel, batch: SetBatch, training: bool) -> tf.Tensor:
        """Return the weighted objective over one batch, scalar, float32."""
        del training
        queries, items = self.vectors(model, batch)
        loss = self._objective.loss(queries, items, batch["owner"], batch["item_row"], batch["weight"])
        lengths = tf.add_n([tf.nn.l2_loss(table.vectors) for table in tables_of(model)])
        return self._objective.weight * (loss + self._objective.regularization_weight * lengths)


class SolvedTask(tf.keras.layers.Layer):
    """Nothing to train: `training.solutions` sets the tables; arguments as for `PairTask`."""

    def __init__(self, run: Run, prepared: Prepared, expected_hard: None) -> None:
        super().__init__(name="main_task")
        del run, expected_hard
        self.frequency = CountedFrequency(prepared.item_counts)


def tables_of(model: TwoTowerModel) -> list[EmbeddingTable]:
    """Return the embedding tables of both towers, each once."""
    return [module for module in model.submodules if isinstance(module, EmbeddingTable)]
