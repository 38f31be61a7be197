"""What masking augmentations share: subsets of features drawn at random, and what becomes of the ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from recsys.stack import tf
from recsys.types import Bool
from recsys.views import Fields, Views

Per = Literal["batch", "item"]
"""Whether a mask is drawn for the batch as a whole or for each of its items."""


def among(fields: Fields, names: Iterable[str]) -> Bool:
    """Return which features are named, `[features]`, bool."""
    return np.isin(fields.names, list(names))


def rows_of(views: Views, per: Per) -> tf.Tensor:
    """Return how many masks are drawn: one, or one for each item of the batch; scalar, int32."""
    return tf.constant(1) if per == "batch" else tf.shape(next(iter(views.codes.values()))[0])[0]


def draw_subset(fields: Fields, names: Sequence[str], size: int, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a uniformly drawn subset of so many of the named features for each row, `[rows, features]`, bool."""
    drawn = tf.random.stateless_uniform(tf.stack([rows, len(fields.names)]), seed)
    among_names = tf.constant(among(fields, names))
    # Places in ascending order of the draws; what is not named comes last.
    order = tf.argsort(tf.where(among_names, drawn, 2.0), axis=1)
    return tf.argsort(order, axis=1) < size


def subset_size(mask_rate: float, names: Sequence[str]) -> int:
    """Return how many of the named features a view hides: the share, but at least one, and one stays."""
    return min(max(round(mask_rate * len(names)), 1), len(names) - 1)


def draw_coin(fields: Fields, names: Iterable[str], rate: float, rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return all of the named features with probability `rate`, else none of them, `[rows, features]`, bool."""
    heads = tf.random.stateless_uniform(tf.stack([rows, 1]), seed) < rate
    return heads & tf.constant(among(fields, names))


def hide_complements(
    views: Views, fields: Fields, first: tf.Tensor, item_id: str, rows: tf.Tensor, seed: tf.Tensor
) -> Views:
    """Return the views with a mask in the first and its complement in the second.

    Args:
        views: the views.
        fields: the features.
        first: `[rows, features]`, bool.
        item_id: `drawn` puts the ids on a side at random, `masked` hides them in both views; else the mask decides.
        rows: how many masks there are, scalar, int32.
        seed: `[2]`, int32, of the mask; the ids' side has one beside it.
    """
    second = ~first
    if item_id == "drawn":
        ids = draw_coin(fields, fields.ids, 0.5, rows, seed + [0, 1])
        first, second = first | ids, second & ~ids
    elif item_id == "masked":
        first = first | tf.constant(among(fields, fields.ids))
    return hide(views, tf.stack([first, second]), disjoint=True)


def hide(views: Views, masked: tf.Tensor, *, disjoint: bool) -> Views:
    """Return the views with more features masked.

    Args:
        views: the views.
        masked: `[views or more, rows, features]`, bool; the first `views.count` count.
        disjoint: the masks of the views leave no feature to two of them.
    """
    return replace(views, masked=views.masked | masked[: views.count], disjoint=views.disjoint or disjoint)
