"""The Keras layers that towers are made of: from integer or float codes to one vector a feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from recsys.bag_sums import bag_sums
from recsys.forward import SHORTEST_SQUARED, SMALLEST_WEIGHT, Field, Length, PlainTower
from recsys.stack import tf
from recsys.types import Float32

if TYPE_CHECKING:
    from recsys.views import Views


class Tables:
    """The embedding tables of a model; a table asked for twice by one key is shared.

    Args:
        start: factor of the random vectors that the tables start from.
    """

    def __init__(self, start: float = 1.0) -> None:
        self._tables: dict[str, EmbeddingTable] = {}
        self._start = start

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
            self._tables[key] = EmbeddingTable(
                rows, width, reserved, name=f"table_{len(self._tables)}", start=self._start
            )
        table = self._tables[key]
        if table.rows != rows or table.width != width:
            raise ValueError(f"table {key}: asked for [{rows}, {width}], is [{table.rows}, {table.width}]")
        return table


class EmbeddingTable(tf.keras.layers.Layer):
    """Trained vectors, `[rows, width]`, float32, drawn from N(0, start^2 / width) at first."""

    def __init__(self, rows: int, width: int, reserved: int, name: str, start: float = 1.0) -> None:
        super().__init__(name=name)
        self.rows, self.width, self._reserved, self._deviation = rows, width, reserved, start * width**-0.5
        self.vectors = self.add_weight(
            name="vectors", shape=(rows, width), initializer=self._start, trainable=True, experimental_autocast=False
        )

    def _start(self, shape: tf.TensorShape, dtype: tf.DType = None, **_: object) -> tf.Tensor:
        drawn = tf.random.normal(shape, stddev=self._deviation, dtype=dtype)
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

    def at(self, codes: tf.Tensor, position: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return the vectors as they were at earlier times, `[queries, width]`, float32.

        Args:
            codes: as for `call`.
            position: `[queries, 2]`, int32: row of the batch, and position in its history of the newest item that may
                be known, 0 the newest of all. Only a history's vector depends on it.
            seed: as for `call`.
        """
        return tf.gather(self(codes, seed=seed), position[:, 0])

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return how the codes become the vector at inference.

        Args:
            table_name: gives the name of a table.
        """
        raise NotImplementedError

    def arrays(self) -> Mapping[str, Float32]:
        """Return the arrays that `plain` needs beside the table, two-dimensional, by name."""
        return {}


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

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return a look-up of one code."""
        return Field(table_name(self._table))


class BagLookup(FeatureLayer):
    """Several codes, one vector: the mean, the sum, or the sum over the root of the count.

    Args:
        table: the vectors.
        pooling: `mean`, `sum` or `sqrt`.
        dropout_rate: share of the values that is left out in training; a sum is made up for them.
    """

    def __init__(self, table: EmbeddingTable, pooling: str, *, name: str, dropout_rate: float = 0.0) -> None:
        super().__init__(name=name)
        self._table, self._pooling, self.width = table, pooling, table.width
        self._dropout_rate = dropout_rate

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from `[batch, values]`, int32, -1 where there is no value."""
        return self._pooled(codes, seed)

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return a pooled look-up."""
        return Field(table_name(self._table), self._pooling)

    def _pooled(self, codes: tf.Tensor, seed: tf.Tensor | None, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from codes and weights of values, `[batch, values]` each; None weighs all alike."""
        scale = 1.0
        if seed is not None and self._dropout_rate > 0:
            kept = tf.random.stateless_uniform(tf.shape(codes), seed) >= self._dropout_rate
            codes = tf.where(kept, codes, -1)
            scale = 1 / (1 - self._dropout_rate)
        present = codes >= 0
        places = tf.where(present)
        owners = tf.cast(places[:, 0], tf.int32)
        of_values = None if weights is None else tf.gather_nd(weights, places)
        total = bag_sums(self._table.vectors, tf.gather_nd(codes, places), owners, tf.shape(codes)[0], of_values)
        total = tf.ensure_shape(total, [None, self.width])
        if self._pooling == "sum":
            return total * scale
        counted = tf.cast(present, tf.float32) if weights is None else tf.where(present, weights, 0.0)
        if self._pooling == "mean":
            return total / tf.maximum(tf.reduce_sum(counted, axis=1, keepdims=True), SMALLEST_WEIGHT)
        return total / tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(counted), axis=1, keepdims=True), SMALLEST_WEIGHT))


class HistoryLookup(BagLookup):
    """The entries of a history, one vector: `BagLookup` with a weight for each entry.

    `sum_j w_j v_j`; `mean` divides it by `sum_j w_j`, `sqrt` by `sqrt( sum_j w_j^2 )`.
    """

    def call(self, codes: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """Return `[batch, width]` from `[batch, entries, 3]`, int32, as `recsys.forward.packed` makes them."""
        return self._pooled(codes[..., 0], seed, tf.bitcast(codes[..., 1], tf.float32))

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return a pooled look-up with weights."""
        return Field(table_name(self._table), self._pooling, is_history=True)


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

    def plain(self, table_name: Callable[[EmbeddingTable], str]) -> Field:
        """Return the codes as they are."""
        del table_name
        return Field()


class TowerLayer(tf.keras.layers.Layer):
    """What every tower does around its own arithmetic: features in, vectors of unit length out.

    Where the lengths of `raw` vectors carry meaning, as popularity does, one more coordinate keeps it: with
    `[v / longest, sqrt(1 - |v|^2 / longest^2)]` for items and `[q / |q|, 0]` for queries, unit vectors have the inner
    product `<q, v> / (|q| longest)`, which ranks the items of each query as `<q, v>` does.

    Reference:
        Neyshabur and Srebro 2015, On Symmetric and Asymmetric LSHs for Inner Product Search, Section 4.1.

    Args:
        features: one layer for each feature, by name.
        width: length of the raw vectors.
        length: whether the lengths of raw vectors count, and of which side they are.
        augmented: whether views will be asked for; each field then gets a trained vector that stands for 'masked'.

    Attributes:
        dim: length of the output vectors.
        longest: the largest length of a raw vector, for items whose lengths count; see `settle`.
    """

    def __init__(
        self, features: dict[str, FeatureLayer], width: int, *, length: Length, augmented: bool, name: str
    ) -> None:
        super().__init__(name=name)
        self.features = features
        self.width = width
        self.dim = width if length == "none" else width + 1
        self._length = length
        self.longest = tf.Variable(1.0, trainable=False, name="longest") if length == "item" else None
        self._defaults = [
            self.add_weight(name=f"masked_{place}", shape=(layer.width,), initializer="zeros")
            for place, layer in enumerate(features.values() if augmented else ())
        ]

    def call(
        self, codes: dict[str, tf.Tensor], seed: tf.Tensor | None = None, position: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return `[batch, dim]`, float32, unit length.

        Args:
            codes: codes by feature name, `[batch, *shape]` each.
            seed: `[2]`, int32, in training; None at inference.
            position: `[queries, 2]`, int32, for the vectors of earlier times, `[queries, dim]`; see `FeatureLayer.at`.
        """
        return self.encode(codes, seed, position)[0]

    def encode(
        self, codes: dict[str, tf.Tensor], seed: tf.Tensor | None = None, position: tf.Tensor | None = None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the vectors, and the lengths that they had before they were brought to unit length, `[batch]`.

        Arguments as for `call`.
        """
        return _unit(self._whole(self.raw(codes, seed, position)))

    def raw(
        self, codes: dict[str, tf.Tensor], seed: tf.Tensor | None = None, position: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Return `[batch, width]`, float32, of any length; arguments as for `call`."""
        vectors = []
        for place, (name, feature) in enumerate(self.features.items()):
            own_seed = None if seed is None else seed + [0, place]
            if position is None:
                vectors.append(feature(codes[name], seed=own_seed))
            else:
                vectors.append(feature.at(codes[name], position, own_seed))
        return self._combined(vectors, seed)

    def settle(self, longest: float) -> None:
        """Take the largest length of the catalog's raw vectors; without effect where lengths do not count."""
        if self.longest is not None:
            self.longest.assign(max(longest, 1e-6))

    def encode_views(self, views: Views, seed: tf.Tensor) -> tf.Tensor:
        """Return every view of a batch in training, `[views, batch, width]`, float32, unit length; see `raw_views`."""
        raw = self.raw_views(views, seed)
        unit, _ = _unit(tf.reshape(raw, [-1, self.width]))
        return tf.reshape(unit, tf.shape(raw))

    def raw_views(self, views: Views, seed: tf.Tensor) -> tf.Tensor:
        """Return every view of a batch in training, `[views, batch, width]`, float32, of any length.

        A feature whose codes the views share is looked up once. No value of a masked feature reaches the output.

        Args:
            views: what is masked and dropped; features in the order of this tower's.
            seed: `[2]`, int32.
        """
        inputs: list[list[tf.Tensor]] = [[] for _ in range(views.count)]
        for place, (name, feature) in enumerate(self.features.items()):
            found = [
                feature(codes, seed=seed + [0, place + 1000 * view]) for view, codes in enumerate(views.codes[name])
            ]
            for view, columns in enumerate(inputs):
                vectors = found[view if len(found) > 1 else 0]
                if views.dropout_rate > 0:
                    drawn = seed + [0, 500 + place + 1000 * view]
                    vectors = tf.nn.experimental.stateless_dropout(vectors, views.dropout_rate, seed=drawn)
                columns.append(tf.where(views.masked[view, :, place, None], self._defaults[place], vectors))
        stacked = [tf.concat(of_views, axis=0) for of_views in zip(*inputs, strict=True)]
        return tf.reshape(self._combined(stacked, seed), [views.count, -1, self.width])

    def _combined(self, vectors: list[tf.Tensor], seed: tf.Tensor | None) -> tf.Tensor:
        """Return raw vectors, `[batch, width]`, from one vector for each feature, `[batch, feature's width]`."""
        raise NotImplementedError

    def _whole(self, raw: tf.Tensor) -> tf.Tensor:
        """Return raw vectors with the coordinate that keeps their lengths, `[batch, dim]`."""
        if self._length == "item":
            shortened = raw / self.longest
            rest = tf.sqrt(tf.maximum(1.0 - tf.reduce_sum(tf.square(shortened), axis=1, keepdims=True), 0.0))
            raw = tf.concat([shortened, rest], axis=1)
        elif self._length == "query":
            raw = tf.pad(raw, [[0, 0], [0, 1]])
        return raw

    def _plain(self, activation: str, layers: Sequence[tuple[Float32, Float32]]) -> PlainTower:
        """Return this tower without TensorFlow, its features side by side through some layers."""
        tables: list[EmbeddingTable] = []

        def table_name(table: EmbeddingTable) -> str:
            if not any(table is each for each in tables):
                tables.append(table)
            return f"{table.name} {next(place for place, each in enumerate(tables) if each is table)}"

        fields = {name: feature.plain(table_name) for name, feature in self.features.items()}
        arrays = {table_name(table): table.vectors.numpy() for table in tables}
        for feature in self.features.values():
            arrays |= feature.arrays()
        return PlainTower(
            fields,
            activation,
            arrays,
            tuple(layers),
            self._length,
            1.0 if self.longest is None else float(self.longest.numpy()),
        )


def _unit(vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return vectors brought to unit length, `[batch, width]`, and the lengths they had, `[batch]`."""
    length = tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(vectors), axis=1), SHORTEST_SQUARED))
    return vectors / length[:, None], length


class Perceptron(TowerLayer):
    """All features side by side, hidden layers, a linear layer.

    Args:
        features: one layer for each feature, by name.
        hidden: widths of the hidden layers.
        width: length of the raw vectors.
        activation: of the hidden layers.
        dropout_rate: share of each hidden layer's values that is dropped in training.
        policy: Keras dtype policy of the hidden layers; the output is float32 in any case.
        augmented: see `TowerLayer`.
        length: see `TowerLayer`.
    """

    def __init__(
        self,
        features: dict[str, FeatureLayer],
        hidden: tuple[int, ...],
        width: int,
        activation: str,
        dropout_rate: float,
        *,
        policy: str,
        augmented: bool,
        name: str,
        length: Length = "none",
    ) -> None:
        super().__init__(features, width, length=length, augmented=augmented, name=name)
        self._dropout_rate = dropout_rate
        self._activation = activation
        self._hidden = [
            tf.keras.layers.Dense(units, activation, dtype=policy, name=f"hidden_{place}")
            for place, units in enumerate(hidden)
        ]
        self._output = tf.keras.layers.Dense(width, dtype="float32", name="output")

    def plain(self) -> PlainTower | None:
        """Return the trained tower without TensorFlow; None where its hidden layers do not compute in float32."""
        layers = [*self._hidden, self._output]
        if any(layer.compute_dtype != "float32" for layer in layers):
            return None
        return self._plain(self._activation, [(layer.kernel.numpy(), layer.bias.numpy()) for layer in layers])

    def _combined(self, vectors: list[tf.Tensor], seed: tf.Tensor | None) -> tf.Tensor:
        hidden = tf.concat(vectors, axis=1)
        for place, layer in enumerate(self._hidden):
            hidden = layer(hidden)
            if seed is not None and self._dropout_rate > 0:
                drawn = seed + [0, len(self.features) + place]
                hidden = tf.nn.experimental.stateless_dropout(hidden, self._dropout_rate, seed=drawn)
        return self._output(hidden)


class FeatureSum(TowerLayer):
    """The sum of all features' vectors; ready-made numbers, which have no table, through a matrix.

    Args:
        features: one layer for each feature, by name.
        width: length of the raw vectors.
        dropout_rate: share of the sum's numbers that is dropped in training.
        augmented: see `TowerLayer`.
        length: see `TowerLayer`.
    """

    def __init__(
        self,
        features: dict[str, FeatureLayer],
        width: int,
        dropout_rate: float,
        *,
        augmented: bool,
        length: Length,
        name: str,
    ) -> None:
        super().__init__(features, width, length=length, augmented=augmented, name=name)
        self._dropout_rate = dropout_rate
        self._projections = [
            tf.keras.layers.Dense(
                width,
                use_bias=False,
                # Vectors that are as long as the sum start as they are: both sides may share one space.
                kernel_initializer="identity" if layer.width == width else "glorot_uniform",
                name=f"projection_{place}",
            )
            if layer.width != width or isinstance(layer, Dense)
            else None
            for place, layer in enumerate(features.values())
        ]
        self.starts_from_vectors = any(isinstance(layer, Dense) and layer.width == width for layer in features.values())
        for layer, projection in zip(features.values(), self._projections, strict=True):
            if projection is not None:
                projection.build([None, layer.width])

    def matrix(self, name: str) -> tf.Variable:
        """Return what a feature adds for each of its codes, or for each number where it has no table, `[rows, width]`.

        Args:
            name: of a feature whose table is as wide as the sum, or of ready-made numbers.
        """
        projection = self._projections[list(self.features).index(name)]
        if projection is not None:
            return projection.kernel
        (table,) = (each for each in self.features[name].submodules if isinstance(each, EmbeddingTable))
        return table.vectors

    def plain(self) -> PlainTower:
        """Return the trained tower without TensorFlow."""
        identity = np.eye(self.width, dtype=np.float32)
        kernels = [identity if each is None else each.kernel.numpy() for each in self._projections]
        return self._plain("relu", [(np.concatenate(kernels), np.zeros(self.width, np.float32))])

    def _combined(self, vectors: list[tf.Tensor], seed: tf.Tensor | None) -> tf.Tensor:
        projected = [
            each if layer is None else layer(each) for layer, each in zip(self._projections, vectors, strict=True)
        ]
        total = tf.add_n(projected)
        if seed is not None and self._dropout_rate > 0:
            total = tf.nn.experimental.stateless_dropout(total, self._dropout_rate, seed=seed + [0, len(self.features)])
        return total
