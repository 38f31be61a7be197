"""How often an item appears in a batch, for the logQ correction: from counts, or estimated while training runs."""

from __future__ import annotations

import numpy as np

from recsys.stack import tf
from recsys.types import Int64

HASH_PRIME = 2_147_483_647


class CountedFrequency(tf.Module):
    """`p_j = count_j / sum(count)`, known before training starts.

    Args:
        counts: `[items]`, int64, training interactions of each item.
    """

    def __init__(self, counts: Int64) -> None:
        super().__init__(name="counted_frequency")
        total = max(int(counts.sum()), 1)
        # An item without interactions is never drawn from the data; half a count keeps its logarithm finite.
        self._log_p = tf.constant(np.log(np.maximum(counts, 0.5) / total), tf.float32)

    def update(self, item_rows: tf.Tensor, step: tf.Tensor) -> None:
        """Do nothing: counts are final."""

    def log_probability(self, item_rows: tf.Tensor) -> tf.Tensor:
        """Return log p of each item, `[n]`, float32, <= 0; correct however small p is."""
        return tf.gather(self._log_p, item_rows)


class StreamingFrequency(tf.Module):
    """`p_j = 1 / E[steps between two appearances of item j]`, estimated as training goes.

    For every distinct item of a batch at step t, and every hash h:
    `B[h(j)] <- (1 - rate) B[h(j)] + rate (t - A[h(j)])`, `A[h(j)] <- t`; the estimate is `1 / max_h B[h(j)]`, because a
    collision only shortens gaps.

    Differs: the first time a slot is met its gap is not known, so it sets A and leaves B at its start value.

    Reference:
        Yi et al. 2019, Sampling-bias-corrected neural modeling, RecSys'19, Algorithms 2 and 3.

    Args:
        items: rows of the catalogue.
        rate: weight of the newest gap, 0..1 (the paper's alpha).
        hashes: how many hash functions (the paper's m); 1 with `slots >= items` has no collisions at all.
        slots: length of the arrays of each hash; 0 means one for each item.
        start_gap: steps between appearances that are assumed before anything is known, >= 1; the mean gap of the
            catalogue, `items / batch size`, is the natural choice (the paper's simulation uses 100).
    """

    def __init__(self, items: int, *, rate: float, hashes: int, slots: int, start_gap: float) -> None:
        super().__init__(name="streaming_frequency")
        self._rate = rate
        slots = slots or items
        rows = np.arange(items, dtype=np.int64)
        if hashes == 1 and slots >= items:
            places = rows[None]
        else:
            drawn = np.random.default_rng(hashes).integers(1, HASH_PRIME, size=(hashes, 2))
            places = (drawn[:, :1] * rows + drawn[:, 1:]) % HASH_PRIME % slots
        self._places = tf.constant(places + slots * np.arange(hashes)[:, None], tf.int32)  # [hashes, items]
        self._last = tf.Variable(tf.fill([hashes * slots], -1), trainable=False, name="last_step")
        self._gap = tf.Variable(tf.fill([hashes * slots], float(start_gap)), trainable=False, name="gap")

    def update(self, item_rows: tf.Tensor, step: tf.Tensor) -> None:
        """Take one batch into account.

        Args:
            item_rows: `[batch]`, int32; an item that stands several times counts once.
            step: scalar, int32, >= 0, the number of the step.
        """
        places = tf.unique(tf.reshape(tf.gather(self._places, item_rows, axis=1), [-1])).y
        last, gap = tf.gather(self._last, places), tf.gather(self._gap, places)
        newest = tf.cast(step - last, tf.float32)
        moved = (1 - self._rate) * gap + self._rate * newest  # Alg. 2, line 5
        self._gap.scatter_update(tf.IndexedSlices(tf.where(last >= 0, moved, gap), places))
        self._last.scatter_update(tf.IndexedSlices(tf.fill(tf.shape(places), step), places))

    def log_probability(self, item_rows: tf.Tensor) -> tf.Tensor:
        """Return log p of each item, `[n]`, float32, <= 0."""
        gaps = tf.gather(self._gap, tf.gather(self._places, item_rows, axis=1))
        return -tf.math.log(tf.maximum(tf.reduce_max(gaps, axis=0), 1.0))  # Alg. 3
