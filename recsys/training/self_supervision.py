"""The second task of one side: make two views of its rows and compare them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.config import SelfSupervision
from recsys.data.dependence import measure_dependence
from recsys.data.encoders import bags_of, ids_of
from recsys.data.prepare import Codes
from recsys.features import Encoder
from recsys.stack import tf
from recsys.types import Int64
from recsys.views import Fields, Views


class ViewTask:
    """Two views of a batch of rows through one tower, compared by the second task's objective.

    Args:
        second: objective and augmentations.
        fields: the side's features.
        codes: codes of all rows of the side, `[rows, *shape]` each; a feature that has none here, such as a history,
            never makes two rows alike.
    """

    def __init__(self, second: SelfSupervision, fields: Fields, codes: Codes) -> None:
        self._objective, self._augmentations, self._fields = second.objective, second.augmentations, fields
        removes = getattr(second.objective, "false_negatives", "keep") == "remove"
        self._content = tf.constant(_content(fields, codes)) if removes and codes else None

    def loss(
        self, tower: tf.keras.layers.Layer, codes: Mapping[str, tf.Tensor], row: tf.Tensor, seed: tf.Tensor
    ) -> tf.Tensor:
        """Return the objective over one batch without its weight, scalar, float32.

        Args:
            tower: a tower that can encode views.
            codes: `[batch, *shape]` each.
            row: `[batch]`, int32, the rows that the codes are of.
            seed: `[2]`, int32.
        """
        views = self.views(codes, seed)
        vectors = tower.encode_views(views, seed)
        not_negative = self._not_negative(views, row)
        return self._objective.loss(vectors[0], vectors[-1], not_negative)

    def views(self, codes: Mapping[str, tf.Tensor], seed: tf.Tensor) -> Views:
        """Return the augmented views of a batch: two, or one where nothing would make them differ."""
        return augmented(self._augmentations, self._fields, codes, 2 if self._augmentations else 1, seed)

    def _not_negative(self, views: Views, row: tf.Tensor) -> tf.Tensor:
        alike = row[:, None] == row[None, :]
        if self._content is not None:
            # A linear hash of all that a view shows: equal for equal content, and hardly ever for other.
            shown = tf.where(views.masked, tf.constant(0, tf.int64), tf.gather(self._content, row))
            for told in tf.unstack(tf.reduce_sum(shown, axis=2)):
                alike |= told[:, None] == told[None, :]
        return alike & ~tf.eye(tf.shape(row)[0], dtype=tf.bool)


def fields_of(encoders: Mapping[str, Encoder], codes: Codes, counts: Int64) -> Fields:
    """Return what augmentations know of a side's features.

    Args:
        encoders: the fitted features, in the order of the tower's inputs.
        codes: codes of all rows of the side, `[rows, *shape]` each.
        counts: `[rows]`, int64, training interactions of each row.
    """
    ids = ids_of(encoders)

    @functools.cache
    def dependence(measure: str, weighted_by: str) -> NDArray[np.float64]:
        known = {name: encoder for name, encoder in encoders.items() if name in codes}
        measured = measure_dependence(known, codes, counts if weighted_by == "interactions" else None)
        matrix = np.zeros((len(encoders), len(encoders)))
        places = np.flatnonzero(np.isin(list(encoders), measured.names))
        matrix[np.ix_(places, places)] = getattr(measured, measure)
        return matrix

    return Fields(tuple(encoders), ids, bags_of(encoders), dependence)


def augmented(
    augmentations: tuple[object, ...], fields: Fields, codes: Mapping[str, tf.Tensor], count: int, seed: tf.Tensor
) -> Views:
    """Return views of a batch after all augmentations, in order.

    Args:
        augmentations: choices from `recsys.augmentations`.
        fields: the features.
        codes: `[batch, *shape]` each.
        count: how many views.
        seed: `[2]`, int32.
    """
    views = Views.of({name: codes[name] for name in fields.names}, count)
    for place, augmentation in enumerate(augmentations):
        views = augmentation.augment(views, fields, seed + [1 + place, 0])
    return views


def _content(fields: Fields, codes: Codes) -> Int64:
    """Return a number for each row and feature, `[rows, features]`, int64, that depends on the feature's codes."""
    random = np.random.default_rng(0)
    rows = len(next(iter(codes.values())))
    content = np.empty((rows, len(fields.names)), np.int64)
    for place, name in enumerate(fields.names):
        if name not in codes:
            content[:, place] = random.integers(-(2**62), 2**62, rows)
            continue
        ordered = np.sort(codes[name], axis=1) if name in fields.bags else np.ascontiguousarray(codes[name])
        flat = ordered.view(np.int32).reshape(rows, -1).astype(np.int64)
        content[:, place] = (flat + 2) @ random.integers(-(2**62), 2**62, flat.shape[1])
    return content
