"""The two towers with their objective as one `tfrs.Model`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from recsys import registry
from recsys.config import Run, Schedule
from recsys.data import encoders
from recsys.data.prepare import Prepared
from recsys.features import Encoder
from recsys.layers import FeatureLayer, Tables
from recsys.stack import tf, tfrs
from recsys.training.main_task import PairTask, SetTask, SolvedTask
from recsys.training.self_supervision import ViewTask, augmented, fields_of
from recsys.types import Float32
from recsys.views import Fields

ENCODE_BATCH = 4096
SMALL_START = 0.05
"""Factor of the tables' first vectors where lengths count, so that scores start near 0."""


class TwoTowerModel(tfrs.Model):
    """A query tower and an item tower, trained so that a query's inner product with its own item is large.

    Where the run has a second task, the sum of both is minimised, over the same towers.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Eq. 5, for the sum of the two tasks.

    Args:
        prepared: the data; gives encoders, catalogue codes and item counts.
        run: gives towers, objectives and sharing of tables.
        steps: of the whole run, for the schedule of the second task's weight.
        expected_hard: how often each item is a hard negative of one batch on average, `[items]`, float32; None where
            there are none.
    """

    def __init__(self, prepared: Prepared, run: Run, steps: int, expected_hard: Float32 | None = None) -> None:
        super().__init__(name="two_tower_model")
        self._objective = run.objective
        self._second = run.self_supervision
        self._item_augmentations = run.item.augmentations
        self._seed = run.seed
        tables = Tables(1.0 if run.objective.unit_length else SMALL_START)
        self.query_tower = _tower(run, "query", prepared.query_encoders, tables)
        self.item_tower = _tower(run, "item", prepared.item_encoders, tables)
        self._item_codes = {name: tf.constant(np.asarray(codes)) for name, codes in prepared.item_codes.items()}
        self._item_count = prepared.item_count
        fields = _fields(prepared)
        self._item_fields = fields["item"]
        self._view_tasks: dict[str, ViewTask] = {}
        if self._second is not None:
            codes = {"item": prepared.item_codes, "query": prepared.query_codes}
            self._view_tasks = {side: ViewTask(self._second, fields[side], codes[side]) for side in self._second.sides}
            self._view_weight = scheduled(self._second.objective.weight, self._second.schedule, steps)
            self.view_loss = tf.Variable(0.0, trainable=False, name="view_loss")
        tasks = {"pairs": PairTask, "sets": SetTask, "matrix": SolvedTask}
        self.main_task = tasks[run.objective.reads](run, prepared, expected_hard)

    def call(self, batch: Mapping[str, Any]) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors of a batch's queries and of the items that the main task compares them with."""
        return self.main_task.vectors(self, batch)

    def compute_loss(self, batch: Mapping[str, Any], training: bool = False) -> tf.Tensor:
        """Return the objective over one batch, scalar, float32."""
        loss = self.main_task.loss(self, batch, training)
        if self._second is None:
            return loss
        view_loss = tf.add_n([self._view_loss(side, batch) for side in self._second.sides])
        if training:
            self.view_loss.assign(view_loss)
        return loss + self.view_weight(batch["step"]) * view_loss  # Yao et al. 2021, Eq. 5

    def seed_of(self, step: tf.Tensor) -> tf.Tensor:
        """Return the seed of a step's draws in the main task, `[2]`, int32."""
        return tf.stack([tf.cast(self._seed, tf.int32), tf.cast(step, tf.int32) * 1000])

    def items_in_training(self, item_row: tf.Tensor, seed: tf.Tensor, *, raw: bool = False) -> tf.Tensor:
        """Return the vectors of catalog rows as they are in training, augmented where the run says so.

        Args:
            item_row: `[n]`, int32.
            seed: `[2]`, int32, of the step.
            raw: keep their lengths.

        Returns:
            `[n, dim]`, float32, of unit length, or `[n, width]` where `raw`.
        """
        codes, seed = self.codes_of(item_row), seed + [0, 500]
        if not self._item_augmentations:
            return self.item_tower.raw(codes, seed=seed) if raw else self.item_tower(codes, seed=seed)
        views = augmented(self._item_augmentations, self._item_fields, codes, 1, seed)
        return (self.item_tower.raw_views if raw else self.item_tower.encode_views)(views, seed)[0]

    def view_weight(self, step: tf.Tensor) -> tf.Tensor:
        """Return the weight of the second task at a step, scalar, float32, >= 0."""
        scheduled_weight = self._view_weight
        return scheduled_weight(step) if callable(scheduled_weight) else tf.constant(scheduled_weight)

    def _view_loss(self, side: str, batch: Mapping[str, Any]) -> tf.Tensor:
        """Return the second task of one side, scalar, float32, without its weight."""
        if self._second.rows == "training_batch":
            row = batch["candidate_row"][: tf.shape(batch["weight"])[0]]
        else:
            row = batch["views"]["row"][side]
        seed = tf.stack([tf.cast(self._seed, tf.int32) + 1, tf.cast(batch["step"], tf.int32) * 10_000])
        if side == "item":
            return self._view_tasks[side].loss(self.item_tower, self.codes_of(row), row, seed)
        return self._view_tasks[side].loss(self.query_tower, batch["views"]["query"], row, seed + [0, 5000])

    def codes_of(self, item_row: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the codes of catalogue rows, `[n, *shape]` each."""
        return {name: tf.gather(codes, item_row) for name, codes in self._item_codes.items()}

    def encode_items(self) -> Float32:
        """Return the vectors of the whole catalogue, `[items, dim]`, float32, unit length."""
        rows = np.arange(self._item_count, dtype=np.int32)
        blocks = [tf.constant(rows[start : start + ENCODE_BATCH]) for start in range(0, len(rows), ENCODE_BATCH)]
        if self.item_tower.longest is not None:
            self.item_tower.settle(max(float(self._longest(block)) for block in blocks))
        return np.concatenate([self._item_vectors(block).numpy() for block in blocks])

    def encode_queries(self, codes: Mapping[str, np.ndarray]) -> Float32:
        """Return the vectors of queries, `[queries, dim]`, float32, unit length.

        Args:
            codes: codes of the query side, `[queries, *shape]` each.
        """
        count = len(next(iter(codes.values())))
        parts = [
            self._encode_queries(
                {name: np.asarray(array[start : start + ENCODE_BATCH]) for name, array in codes.items()}
            )
            for start in range(0, count, ENCODE_BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.query_tower.dim), np.float32)

    def _encode_queries(self, codes: Mapping[str, np.ndarray]) -> Float32:
        return self._query_vectors({name: tf.constant(array) for name, array in codes.items()}).numpy()

    @tf.function(reduce_retracing=True)
    def _item_vectors(self, rows: tf.Tensor) -> tf.Tensor:
        return self.item_tower(self.codes_of(rows))

    @tf.function(reduce_retracing=True)
    def _longest(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.reduce_max(tf.norm(self.item_tower.raw(self.codes_of(rows)), axis=1))

    @tf.function(reduce_retracing=True)
    def _query_vectors(self, codes: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return self.query_tower(codes)


def scheduled(value: float, schedule: Schedule, steps: int) -> Any:
    """Return a setting over a run of so many steps: the value itself, or a function of the step.

    Args:
        value: the setting at its highest.
        schedule: how it rises and falls.
        steps: of the whole run.
    """
    warmup = schedule.warmup_steps
    if schedule.kind == "cosine":
        return tf.keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else value,
            decay_steps=max(steps - warmup, 1),
            alpha=schedule.final_rate,
            warmup_target=value if warmup else None,
            warmup_steps=warmup,
        )
    if warmup:
        return tf.keras.optimizers.schedules.PolynomialDecay(0.0, warmup, value, power=1.0)
    return value


def _fields(prepared: Prepared) -> dict[str, Fields]:
    """Return what augmentations know of the features of each side."""
    train = prepared.parts["train"]
    query_counts = np.bincount(train.query_row, minlength=prepared.query_count).astype(np.int64)
    return {
        "item": fields_of(prepared.item_encoders, prepared.item_codes, prepared.item_counts),
        "query": fields_of(prepared.query_encoders, prepared.query_codes, query_counts),
    }


def _as_wide_as(tower: Any, encoder: Encoder) -> Encoder:
    """Return the encoder of a feature whose table, where it has one, is as wide as a tower of kind `sum`."""
    if registry.kind_of(tower) != "sum" or not hasattr(encoder.settings, "width"):
        return encoder
    return replace(encoder, settings=replace(encoder.settings, width=tower.dim))


def _tower(run: Run, side: str, fitted: Mapping[str, Encoder], tables: Tables) -> tf.keras.layers.Layer:
    layers: dict[str, FeatureLayer] = {
        name: _as_wide_as(run.tower, encoder).build(
            f"{side}_feature_{place}", encoders.table_key(run, side, name), tables
        )
        for place, (name, encoder) in enumerate(fitted.items())
    }
    second = run.self_supervision
    augmented = (side == "item" and bool(run.item.augmentations)) or (second is not None and side in second.sides)
    precision = run.training.mixed_precision
    length = "none" if run.objective.unit_length else side
    return run.tower.build(layers, name=f"{side}_tower", mixed_precision=precision, augmented=augmented, length=length)
