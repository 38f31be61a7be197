"""A causal transformer over the items of a history, as a Keras layer; `recsys.numpy_transformer` serves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from recsys.forward import Field
from recsys.layers import EmbeddingTable, FeatureLayer
from recsys.numpy_transformer import (
    BLOCK_MATRICES,
    BLOCK_NORMS,
    FINAL_NORM,
    GAP_BUCKETS,
    GAP_THRESHOLDS_DAYS,
    MASKED,
    NORM_EPSILON,
    Sequence,
)
from recsys.stack import tf
from recsys.types import Float32

POSITION_DEVIATION = 0.02
"""Standard deviation of the vectors of positions at the start."""


class HistoryTransformer(FeatureLayer):
    """The items of a history, newest first, one vector: the output of a causal transformer at the newest item.

    `h = item + position + gap`; each block `q = norm(h)`, `a = q + attention(q, h, h)`, `f = norm(a)`,
    `h = f + feed_forward(f)`; a norm at the end. Positions are counted from the newest item backwards.

    Reference:
        Kang and McAuley 2018, Self-Attentive Sequential Recommendation, arXiv:1808.09781, Section III.
    Differs:
        padding is hidden from the attention; the time between an item and the one before it is an input; item vectors
        are added to positions without the factor `sqrt(width)`.

    Args:
        table: the vectors of items.
        blocks: how many stand one on the other.
        heads: of the attention; they divide the width.
        positions: items that it can read, at most.
        dropout_rate: share of the inputs, attention weights and outputs of layers that is dropped in training.
        time_gaps: whether the time between items is an input.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        *,
        blocks: int,
        heads: int,
        positions: int,
        dropout_rate: float,
        time_gaps: bool,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self._table, self.width = table, table.width
        self._dropout_rate = dropout_rate
        self._positions = self.add_weight(
            name="positions",
            shape=(positions, self.width),
            initializer=tf.keras.initializers.RandomNormal(stddev=POSITION_DEVIATION),
        )
        self._gaps = None
        if time_gaps:
            self._gaps = self.add_weight(name="gaps", shape=(GAP_BUCKETS, self.width), initializer="zeros")
        self._blocks = [Block(self.width, heads, dropout_rate, name=f"block_{place}") for place in range(blocks)]
        self._heads = heads
        self._final_norm = _norm(FINAL_NORM)

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from `[batch, values, 3]`, int32, as `recsys.forward.packed` makes them."""
        return self._outputs(codes, seed, newest_only=True)[:, 0]

    def at(self, codes: tf.Tensor, position: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the outputs at some positions; each one knows its item and the earlier ones alone.

        Args:
            codes: as for `call`.
            position: `[queries, 2]`, int32: row of the batch, and the item's position in its history, 0 the newest.
            seed: as for `call`.
        """
        return tf.gather_nd(self._outputs(codes, seed, newest_only=False), position)

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return the transformer without TensorFlow."""
        return Field(table_name(self._table), "transformer", sequence=self._sequence())

    def arrays(self) -> Mapping[str, Float32]:
        """Return all weights but the table's, two-dimensional, by the names that `Sequence` gives them."""
        name = self._sequence().name
        found = {name("positions"): self._positions.numpy(), name(FINAL_NORM): _norm_array(self._final_norm)}
        if self._gaps is not None:
            found[name("gaps")] = self._gaps.numpy()
        for place, block in enumerate(self._blocks):
            for each in BLOCK_MATRICES:
                layer = block.matrices[each]
                found[name(place, each)] = layer.kernel.numpy()
                found[name(place, each, "bias")] = layer.bias.numpy()[None]
            for each in BLOCK_NORMS:
                found[name(place, each)] = _norm_array(block.norms[each])
        return found

    def _sequence(self) -> Sequence:
        return Sequence(self.name, len(self._blocks), self._heads, self._gaps is not None)

    def _outputs(self, codes: tf.Tensor, seed: tf.Tensor | None, *, newest_only: bool) -> tf.Tensor:
        """Return the outputs at all positions or at the newest, `[batch, positions, width]`; zeros without an item."""
        longest = tf.reduce_max(tf.reduce_sum(tf.cast(codes[..., 0] > 0, tf.int32), axis=1))
        codes = codes[:, : tf.maximum(longest, 1)]
        rows = codes[..., 0]
        is_item = rows > 0
        length = tf.shape(rows)[1]
        hidden = self._table(tf.maximum(rows, 0)) + self._positions[:length]
        if self._gaps is not None:
            hidden += tf.gather(self._gaps, _gap_buckets(tf.bitcast(codes[..., 2], tf.float32), is_item))
        hidden = _dropped(hidden, self._dropout_rate, seed, 0) * tf.cast(is_item, tf.float32)[..., None]
        is_later = tf.range(length)[None, :] < tf.range(length)[:, None]
        hides = tf.logical_or(is_later[None], tf.logical_not(is_item)[:, None, :])
        mask = MASKED * tf.cast(hides, tf.float32)[:, None]
        for place, block in enumerate(self._blocks):
            is_last = newest_only and place == len(self._blocks) - 1
            hidden = block(hidden, mask, 1 if is_last else length, _folded(seed, place + 1))
        outputs = self._final_norm(hidden)
        return outputs * tf.cast(is_item, tf.float32)[:, : tf.shape(outputs)[1], None]


class Block(tf.keras.layers.Layer):
    """One block of the transformer: attention to earlier items, then two layers at each position.

    Args:
        width: of inputs, hidden layer and outputs.
        heads: of the attention.
        dropout_rate: see `HistoryTransformer`.

    Attributes:
        matrices: the linear layers by the names of `BLOCK_MATRICES`.
        norms: the normalizations by the names of `BLOCK_NORMS`.
    """

    def __init__(self, width: int, heads: int, dropout_rate: float, *, name: str) -> None:
        super().__init__(name=name)
        self._width, self._heads, self._dropout_rate = width, heads, dropout_rate
        self.matrices = {
            each: tf.keras.layers.Dense(width, "relu" if each == "inner" else None, dtype="float32", name=each)
            for each in BLOCK_MATRICES
        }
        self.norms = {each: _norm(each) for each in BLOCK_NORMS}

    def call(self, hidden: tf.Tensor, mask: tf.Tensor, wanted: tf.Tensor, seed: tf.Tensor | None) -> tf.Tensor:
        """Return the outputs at the first positions, `[batch, wanted, width]`.

        Args:
            hidden: `[batch, length, width]`, float32.
            mask: `[batch, 1, length, length]`, float32, added to the logits of the attention.
            wanted: how many positions, scalar, int32.
            seed: of dropout in training, `[2]`, int32; None at inference.
        """
        asking = self.norms["attention_norm"](hidden[:, :wanted])
        queries = self._by_head(self.matrices["query"](asking) * (self._width // self._heads) ** -0.5)
        keys, values = (self._by_head(self.matrices[name](hidden)) for name in ("key", "value"))
        weights = tf.nn.softmax(tf.matmul(queries, keys, transpose_b=True) + mask[:, :, :wanted])
        weights = _dropped(weights, self._dropout_rate, seed, 0)
        attended = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        attended = tf.reshape(attended, [tf.shape(hidden)[0], -1, self._width])
        inputs = self.norms["feed_forward_norm"](asking + self.matrices["output"](attended))
        inner = _dropped(self.matrices["inner"](inputs), self._dropout_rate, seed, 1)
        return inputs + _dropped(self.matrices["outer"](inner), self._dropout_rate, seed, 2)

    def _by_head(self, vectors: tf.Tensor) -> tf.Tensor:
        shape = [tf.shape(vectors)[0], -1, self._heads, self._width // self._heads]
        return tf.transpose(tf.reshape(vectors, shape), [0, 2, 1, 3])


def _norm(name: str) -> tf.keras.layers.Layer:
    return tf.keras.layers.LayerNormalization(epsilon=NORM_EPSILON, dtype="float32", name=name)


def _norm_array(norm: tf.keras.layers.Layer) -> Float32:
    return np.stack([norm.gamma.numpy(), norm.beta.numpy()])


def _folded(seed: tf.Tensor | None, place: int) -> tf.Tensor | None:
    return None if seed is None else tf.random.experimental.stateless_fold_in(seed, place)


def _dropped(values: tf.Tensor, rate: float, seed: tf.Tensor | None, place: int) -> tf.Tensor:
    if seed is None or rate == 0:
        return values
    return tf.nn.experimental.stateless_dropout(values, rate, seed=_folded(seed, 100 + place))


def _gap_buckets(age_days: tf.Tensor, is_item: tf.Tensor) -> tf.Tensor:
    """Return `recsys.numpy_transformer.gap_buckets` as a tensor."""
    is_known = tf.logical_and(is_item, age_days >= 0)
    both = tf.logical_and(is_known[:, 1:], is_known[:, :-1])
    gaps = tf.where(both, age_days[:, 1:] - age_days[:, :-1], 0.0)
    reached = tf.reduce_sum(tf.cast(gaps[..., None] >= GAP_THRESHOLDS_DAYS, tf.int32), axis=-1)
    return tf.pad(tf.where(both, 1 + reached, 0), [[0, 0], [0, 1]])
