"""The Keras layers that towers are made of: from integer or float codes to one vector a feature."""

from __future__ import annotations

from recsys.stack import tf


class Tables:
    """The embedding tables of a model; a table asked for twice by one key is shared."""

    def __init__(self) -> None:
        self._tables: dict[str, EmbeddingTable] = {}

    def get(self, key: str, rows: int, width: int, reserved: int) -> EmbeddingTable:
        """Return the table of a key, made on first use.

        Args:
            key: names the table; two features with one key share it and must agree on its size.
            rows: number of codes.
            width: length of a vector.
            reserved: the first codes ('missing' and the out-of-vocabulary buckets), which start as zeros so that a
                value never met in training says nothing instead of something random.
        """
        if key not in self._tables:
            self._tables[key] = EmbeddingTable(rows, width, reserved, name=key.replace("/", "_"))
        table = self._tables[key]
        if table.rows != rows or table.width != width:
            raise ValueError(f"table {key}: asked for [{rows}, {width}], is [{table.rows}, {table.width}]")
        return table


class EmbeddingTable(tf.keras.layers.Layer):
    """Trained vectors, `[rows, width]`, float32, drawn from N(0, 1 / width) at first."""

    def __init__(self, rows: int, width: int, reserved: int, name: str) -> None:
        super().__init__(name=name)
        self.rows, self.width, self._reserved = rows, width, reserved
        self.vectors = self.add_weight(
            name="vectors", shape=(rows, width), initializer=self._start, trainable=True, experimental_autocast=False
        )

    def _start(self, shape: tf.TensorShape, dtype: tf.DType = None, **_: object) -> tf.Tensor:
        drawn = tf.random.normal(shape, stddev=self.width**-0.5, dtype=dtype)
        kept = tf.cast(tf.range(self.rows) >= self._reserved, drawn.dtype)
        return drawn * kept[:, None]

    def call(self, codes: tf.Tensor) -> tf.Tensor:
        """Return the vectors of int32 codes of any shape."""
        return tf.gather(self.vectors, codes)


class FeatureLayer(tf.keras.layers.Layer):
    """The contract of a feature's layer.

    Attributes:
        width: length of the vector that it returns.
    """

    width: int

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]`, float32.

        Args:
            codes: `[batch, *shape]`, int32 or float32, as the feature's encoder made them.
            seed: `[2]`, int32, in training: every random draw is a function of it; None at inference.
        """
        raise NotImplementedError


class Lookup(FeatureLayer):
    """One code, one vector.

    Args:
        table: the vectors.
        unknown_rate: share of training examples whose code is replaced by 1, the first out-of-vocabulary bucket.
    """

    def __init__(self, table: EmbeddingTable, *, name: str, unknown_rate: float = 0.0) -> None:
        super().__init__(name=name)
        self._table, self._unknown_rate, self.width = table, unknown_rate, table.width

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from `[batch]`, int32."""
        if seed is not None and self._unknown_rate > 0:
            hidden = tf.random.stateless_uniform(tf.shape(codes), seed) < self._unknown_rate
            codes = tf.where(hidden, tf.ones_like(codes), codes)
        return self._table(codes)


class BagLookup(FeatureLayer):
    """Several codes, one vector: the mean, the sum, or the sum over the root of the count.

    Args:
        table: the vectors.
        pooling: `mean`, `sum` or `sqrt`.
    """

    def __init__(self, table: EmbeddingTable, pooling: str, *, name: str) -> None:
        super().__init__(name=name)
        self._table, self._pooling, self.width = table, pooling, table.width

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from `[batch, values]`, int32, -1 where there is no value."""
        del seed
        kept = tf.cast(codes >= 0, tf.float32)
        total = tf.einsum("bvw,bv->bw", self._table(tf.maximum(codes, 0)), kept)
        if self._pooling == "sum":
            return total
        count = tf.maximum(tf.reduce_sum(kept, axis=1, keepdims=True), 1.0)
        return total / (count if self._pooling == "mean" else tf.sqrt(count))


class Dense(FeatureLayer):
    """Numbers as they are.

    Args:
        width: how many numbers a row has.
    """

    def __init__(self, width: int, *, name: str) -> None:
        super().__init__(name=name)
        self.width = width

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]`, float32, unchanged."""
        del seed
        return tf.ensure_shape(codes, [None, self.width])


class Perceptron(tf.keras.layers.Layer):
    """All features side by side, hidden layers, a linear layer, unit length.

    Args:
        features: one layer for each feature, by name.
        hidden: widths of the hidden layers.
        dim: length of the output vector.
        activation: of the hidden layers.
        dropout_rate: share of each hidden layer's values that is dropped in training.
        policy: Keras dtype policy of the hidden layers; the output is float32 in any case.
    """

    def __init__(
        self,
        features: dict[str, FeatureLayer],
        hidden: tuple[int, ...],
        dim: int,
        activation: str,
        dropout_rate: float,
        *,
        policy: str,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.features = features
        self.dim = dim
        self._dropout_rate = dropout_rate
        self._hidden = [
            tf.keras.layers.Dense(width, activation, dtype=policy, name=f"hidden_{place}")
            for place, width in enumerate(hidden)
        ]
        self._output = tf.keras.layers.Dense(dim, dtype="float32", name="output")

    def call(self, codes: dict[str, tf.Tensor], seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, dim]`, float32, unit length.

        Args:
            codes: codes by feature name, `[batch, *shape]` each.
            seed: `[2]`, int32, in training; None at inference.
        """
        vectors = []
        for place, (name, feature) in enumerate(self.features.items()):
            vectors.append(feature(codes[name], seed=None if seed is None else seed + [0, place]))
        hidden = tf.concat(vectors, axis=1)
        for place, layer in enumerate(self._hidden):
            hidden = layer(hidden)
            if seed is not None and self._dropout_rate > 0:
                drawn = seed + [0, len(self.features) + place]
                hidden = tf.nn.experimental.stateless_dropout(hidden, self._dropout_rate, seed=drawn)
        return tf.math.l2_normalize(self._output(hidden), axis=1)
