"""A causal transformer over the items of a history in NumPy: `recsys.transformer` at inference, for servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field

from recsys.types import Float32, Int32

NORM_EPSILON = 1e-6
MASKED = -1e9
"""Added to a logit of the attention, it hides a key."""
GAP_THRESHOLDS_DAYS = ((2 ** (np.arange(22) + 0.5) - 1) / 1440).astype(np.float32)
"""Where the buckets of time gaps begin, one for each doubling: 25 seconds, 2 minutes, up to 2 years."""
GAP_BUCKETS = 2 + len(GAP_THRESHOLDS_DAYS)
"""Bucket 0 for a gap that is not known, 1 for one below the first threshold."""
MAX_LOGITS = 2**15
"""Logits of one head of the attention that are computed at once, so that a large batch takes little memory."""
BLOCK_MATRICES = ("query", "key", "value", "output", "inner", "outer")
BLOCK_NORMS = ("attention_norm", "feed_forward_norm")
FINAL_NORM = "final_norm"


@dataclass(frozen=True)
class Sequence:
    """How a tower finds its transformer among its arrays.

    Attributes:
        arrays: what the names of the arrays begin with.
        blocks: how many blocks stand one on the other.
        heads: of the attention; they divide the width.
        time_gaps: whether the time between an item and the one before it is an input.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    arrays: str
    blocks: Annotated[int, Field(ge=1, le=1000)]
    heads: Annotated[int, Field(ge=1, le=1000)]
    time_gaps: bool

    def name(self, *path: str | int) -> str:
        """Return the name of an array."""
        return " ".join(map(str, (self.arrays, *path)))

    def newest(self, table: Float32, codes: Int32, age_days: Float32, arrays: Mapping[str, Float32]) -> Float32:
        """Return the output at the newest item of each history, `[batch, width]`, float32; zeros where there is none.

        Args:
            table: `[rows, width]`, float32, the vectors of items.
            codes: `[batch, values]`, int32, rows of the table, newest first; those above 0 are items.
            age_days: `[batch, values]`, float32, see `gap_buckets`.
            arrays: by name, see `recsys.transformer.HistoryTransformer.arrays`.
        """
        size = max(1, MAX_LOGITS // codes.shape[1] ** 2)
        found = np.empty((len(codes), table.shape[1]), np.float32)
        for start in range(0, len(codes), size):
            rows = slice(start, start + size)
            found[rows] = self._newest(table, codes[rows], age_days[rows], arrays)
        return found

    def _newest(self, table: Float32, codes: Int32, age_days: Float32, arrays: Mapping[str, Float32]) -> Float32:
        is_item = codes > 0
        length = max(1, int(is_item.sum(axis=1).max(initial=0)))
        codes, is_item = codes[:, :length], is_item[:, :length]
        hidden = table.take(codes, axis=0, mode="clip") + arrays[self.name("positions")][:length]
        if self.time_gaps:
            hidden += arrays[self.name("gaps")][gap_buckets(age_days[:, :length], is_item)]
        hidden *= is_item[:, :, None]
        causal = np.tril(np.full((length, length), MASKED, np.float32), -1)
        mask = causal + np.where(is_item, np.float32(0), np.float32(MASKED))[:, None, :]
        for place in range(self.blocks):
            wanted = 1 if place == self.blocks - 1 else length
            hidden = self._block(place, hidden, wanted, mask[:, None, :wanted], arrays)
        newest = self._norm(hidden[:, 0], arrays, FINAL_NORM)
        return newest * is_item[:, :1]

    def _block(self, place: int, hidden: Float32, wanted: int, mask: Float32, arrays: Mapping[str, Float32]) -> Float32:
        """Return the outputs at the first positions, `[batch, wanted, width]`."""

        def dense(inputs: Float32, name: str) -> Float32:
            return inputs @ arrays[self.name(place, name)] + arrays[self.name(place, name, "bias")]

        batch, _, width = hidden.shape

        def heads(vectors: Float32) -> Float32:
            return vectors.reshape(batch, -1, self.heads, width // self.heads).transpose(0, 2, 1, 3)

        asking = self._norm(hidden[:, :wanted], arrays, place, BLOCK_NORMS[0])
        queries, keys, values = dense(asking, "query"), dense(hidden, "key"), dense(hidden, "value")
        logits = heads(queries) @ heads(keys).transpose(0, 1, 3, 2)
        logits *= np.float32((width // self.heads) ** -0.5)
        logits += mask
        logits -= logits.max(axis=-1, keepdims=True)
        weights = np.exp(logits, out=logits)
        weights /= weights.sum(axis=-1, keepdims=True)
        attended = (weights @ heads(values)).transpose(0, 2, 1, 3).reshape(batch, wanted, width)
        inputs = self._norm(asking + dense(attended, "output"), arrays, place, BLOCK_NORMS[1])
        return inputs + dense(np.maximum(dense(inputs, "inner"), 0), "outer")

    def _norm(self, vectors: Float32, arrays: Mapping[str, Float32], *path: str | int) -> Float32:
        scale, offset = arrays[self.name(*path)]
        centered = vectors - vectors.mean(axis=-1, keepdims=True)
        variance = np.einsum("...i,...i->...", centered, centered)[..., None] / np.float32(vectors.shape[-1])
        return centered / np.sqrt(variance + np.float32(NORM_EPSILON)) * scale + offset


def gap_buckets(age_days: Float32, is_item: np.ndarray) -> Int32:
    """Return the bucket of the time between each item and the one before it, `[batch, values]`, int32.

    1 and the number of `GAP_THRESHOLDS_DAYS` that it reaches; 0 where there is no item before, or an age is not known.
    A gap is a difference of ages, so that it does not depend on when the query is made.

    Args:
        age_days: `[batch, values]`, float32, newest first; -1 where it is not known.
        is_item: `[batch, values]`, bool.
    """
    is_known = is_item & (age_days >= 0)
    both = is_known[:, 1:] & is_known[:, :-1]
    gaps = np.where(both, age_days[:, 1:] - age_days[:, :-1], np.float32(0))
    buckets = np.zeros(age_days.shape, np.int32)
    buckets[:, :-1] = np.where(both, 1 + np.searchsorted(GAP_THRESHOLDS_DAYS, gaps, side="right"), 0)
    return buckets
