"""Towers without TensorFlow: the forward pass of a trained tower in NumPy, for servers that answer query by query.

TensorFlow takes some 250 microseconds to call a tower and a few to compute it; NumPy takes some 25 for both. The layers
of `recsys.layers` describe themselves in these terms (`Perceptron.plain`); a release holds both forms, and its golden
queries hold them to the same vectors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic
from pydantic import ConfigDict

from recsys.documents import read_json
from recsys.errors import ReleaseError
from recsys.files import save_array, write_atomically
from recsys.numpy_transformer import Sequence
from recsys.types import Float32, Int32
from twintower.errors import describe, verbatim

Length = Literal["none", "query", "item"]
"""Whether the lengths of a tower's raw vectors count, and if so, of which side the tower is."""

SMALLEST_WEIGHT = 1e-12
"""What the weights of a bag are divided by at least, so that an empty bag stays zeros."""
MAX_ENTRIES = 4096
"""Entries of bags whose vectors are in memory at the same time: 4 MB at 256 dimensions."""


def packed(codes: Int32, weights: Float32, age_days: Float32) -> Int32:
    """Return the codes of a history's entries with their weights and ages in one array, `[*shape, 3]`, int32.

    Both are kept bit by bit, so that histories travel as other codes do, through batches, signatures and releases.

    Args:
        codes: `[*shape]`, int32.
        weights: `[*shape]`, float32, unitless, > 0: how much each entry counts.
        age_days: `[*shape]`, float32: days since the entry was met last, >= 0, or `UNKNOWN_AGE`.
    """
    return np.stack([codes, weights.astype(np.float32).view(np.int32), age_days.astype(np.float32).view(np.int32)], -1)


def unpacked(codes: Int32) -> tuple[Int32, Float32, Float32]:
    """Return what `packed` put together; weights and ages of padding, whose code is negative, have no meaning."""
    return codes[..., 0], codes[..., 1].view(np.float32), codes[..., 2].view(np.float32)


def weighted_sums(table: Float32, codes: Int32, weights: Float32) -> Float32:
    """Return the weighted sum of each bag's vectors, `[batch, width]`, float32.

    `sum_e( weights[i, e] * table[codes[i, e]] )`

    Rows of the table are read for `MAX_ENTRIES` entries at a time, and only from bags that are that long, so that one
    long bag makes the others of its batch cost nothing more.

    Args:
        table: `[rows, width]`, float32.
        codes: `[batch, entries]`, int32; negative ones are padding, which stands at the end of a bag.
        weights: `[batch, entries]`, float32, unitless; 0 where there is padding.
    """
    if codes.size <= MAX_ENTRIES:
        return _sums(table, codes, weights)
    total = np.zeros((len(codes), table.shape[1]), np.float32)
    sizes, start = (codes >= 0).sum(axis=1), 0
    while len(longer := np.flatnonzero(sizes > start)):
        stop = start + max(1, MAX_ENTRIES // len(longer))
        total[longer] += _sums(table, codes[longer, start:stop], weights[longer, start:stop])
        start = stop
    return total


def _sums(table: Float32, codes: Int32, weights: Float32) -> Float32:
    return (weights[:, None, :] @ table.take(codes, axis=0, mode="clip"))[:, 0]


_erf = np.frompyfunc(math.erf, 1, 1)


def _gelu(numbers: Float32) -> Float32:
    return numbers * (0.5 + 0.5 * _erf(numbers / math.sqrt(2)).astype(np.float32))


def _selu(numbers: Float32) -> Float32:
    # Klambauer et al. 2017, arXiv:1706.02515, Eq. 2 and 14.
    scale, alpha = 1.05070098, 1.67326324
    return scale * np.where(numbers > 0, numbers, alpha * np.expm1(np.minimum(numbers, 0))).astype(np.float32)


ACTIVATIONS: Mapping[str, Callable[[Float32], Float32]] = {
    "relu": lambda numbers: np.maximum(numbers, 0),
    "tanh": np.tanh,
    "gelu": _gelu,
    "selu": _selu,
}
DESCRIPTION = "tower.json"
MAX_LAYERS = 1000
SHORTEST_SQUARED = np.float32(1e-12)
"""The bound of tf.math.l2_normalize: a shorter vector, such as one of zeros, is divided by its root."""


@dataclass(frozen=True)
class Field:
    """How the codes of one feature become its vector.

    Attributes:
        table: the name of its embedding table; empty where the codes are the vector.
        pooling: `mean`, `sum` or `sqrt` of a bag's vectors, `transformer` for those of a history; empty for one code.
        is_history: whether the values of the bag have weights and ages; see `packed`.
        sequence: the transformer.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    table: str = ""
    pooling: Literal["", "mean", "sum", "sqrt", "transformer"] = ""
    is_history: bool = False
    sequence: Sequence | None = None

    def vectors(self, codes: np.ndarray, tables: Mapping[str, Float32]) -> Float32:
        """Return `[batch, width]`, float32.

        Args:
            codes: `[batch]`, `[batch, values]`, `[batch, entries, 3]` (a history), int32, or `[batch, width]`, float32.
            tables: `[rows, width]`, float32, by name.
        """
        if not self.table:
            return codes
        if not self.pooling:
            return tables[self.table].take(codes, axis=0)
        if self.sequence is not None:
            codes, _, age_days = unpacked(codes)
            return self.sequence.newest(tables[self.table], codes, age_days, tables)
        if self.is_history:
            codes, weights, _ = unpacked(codes)
            weights = np.where(codes >= 0, weights, np.float32(0))
        else:
            weights = (codes >= 0).astype(np.float32)
        total = weighted_sums(tables[self.table], codes, weights)
        if self.pooling == "sum":
            return total
        if self.pooling == "mean":
            return total / np.maximum(weights.sum(axis=1, keepdims=True), SMALLEST_WEIGHT)
        return total / np.sqrt(np.maximum(np.square(weights).sum(axis=1, keepdims=True), SMALLEST_WEIGHT))


@dataclass(frozen=True)
class PlainTower:
    """All features side by side, hidden layers, a linear layer, unit length: `recsys.layers.Perceptron` at inference.

    Attributes:
        fields: of each feature, in the order in which they stand side by side.
        activation: of the hidden layers, one of `ACTIVATIONS`.
        tables: `[rows, width]`, float32, by name.
        layers: kernel `[inputs, outputs]` and bias `[outputs]`, float32, of each layer, the linear one last.
        length: whether the lengths of the last layer's outputs count, and of which side they are; see
            `recsys.layers.TowerLayer`.
        longest: the largest such length, for items whose lengths count.
    """

    fields: Mapping[str, Field]
    activation: str
    tables: Mapping[str, Float32]
    layers: tuple[tuple[Float32, Float32], ...]
    length: Length = "none"
    longest: float = 1.0

    def __call__(self, codes: Mapping[str, np.ndarray]) -> Float32:
        """Return `[batch, dim]`, float32, unit length, from codes `[batch, *shape]` by feature name."""
        return self.encode(codes)[0]

    def encode(self, codes: Mapping[str, np.ndarray]) -> tuple[Float32, Float32]:
        """Return the vectors, and the lengths that they had before they were brought to unit length, `[batch]`."""
        hidden = np.concatenate(
            [field.vectors(codes[name], self.tables) for name, field in self.fields.items()], axis=1
        )
        activate = ACTIVATIONS[self.activation]
        for place, (kernel, bias) in enumerate(self.layers):
            hidden = hidden @ kernel
            hidden += bias
            if place < len(self.layers) - 1:
                hidden = activate(hidden)
        if self.length != "none":
            hidden = self._with_length(hidden)
        length = np.sqrt(np.maximum(np.einsum("ij,ij->i", hidden, hidden), SHORTEST_SQUARED))
        return hidden / length[:, None], length

    def _with_length(self, raw: Float32) -> Float32:
        extended = np.zeros((len(raw), raw.shape[1] + 1), np.float32)
        extended[:, :-1] = raw
        if self.length == "item":
            extended /= self.longest
            extended[:, -1] = np.sqrt(np.maximum(1 - np.einsum("ij,ij->i", extended, extended), 0))
        return extended

    def save(self, folder: Path) -> None:
        """Write `tower.json` and one array a file.

        Args:
            folder: does not exist yet.
        """
        folder.mkdir(parents=True)
        names = list(self.tables)
        for place, name in enumerate(names):
            save_array(folder / f"table_{place}.npy", self.tables[name])
        for place, (kernel, bias) in enumerate(self.layers):
            save_array(folder / f"kernel_{place}.npy", kernel)
            save_array(folder / f"bias_{place}.npy", bias)
        described = _Description(
            dict(self.fields), self.activation, tuple(names), len(self.layers), self.length, self.longest
        )
        write_atomically(folder / DESCRIPTION, json.dumps(asdict(described), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> PlainTower:
        """Return the tower that `save` wrote; its tables stay on disk, mapped.

        Raises:
            ReleaseError: it is not what this version writes.
        """
        described = read_json(folder / DESCRIPTION, _Description, "Use the version that wrote it.")
        # Slices of an `np.memmap` take ten times the time of those of an array over it.
        mapped = [np.asarray(_array(folder / f"table_{n}.npy", 2, "r")) for n in range(len(described.tables))]
        return cls(
            described.fields,
            described.activation,
            dict(zip(described.tables, mapped, strict=True)),
            tuple(
                (_array(folder / f"kernel_{n}.npy", 2), _array(folder / f"bias_{n}.npy", 1))
                for n in range(described.layers)
            ),
            described.length,
            described.longest,
        )


@dataclass(frozen=True)
class _Description:
    """The content of `tower.json`: a tower but for its numbers, which stand in as many files."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    fields: dict[str, Field]
    activation: Literal["relu", "tanh", "gelu", "selu"]
    tables: tuple[str, ...]
    layers: Annotated[int, pydantic.Field(ge=1, le=MAX_LAYERS)]
    length: Length
    longest: Annotated[float, pydantic.Field(gt=0)]


def _array(path: Path, dimensions: int, mmap_mode: Literal["r"] | None = None) -> Float32:
    """Return the array of a file.

    Raises:
        ReleaseError: it is not float32, or has another number of dimensions.
    """
    array = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    if array.dtype != np.float32 or array.ndim != dimensions:
        got = verbatim(f"{array.dtype} of {array.ndim} dimensions")
        raise ReleaseError(describe(str(path), got, f"float32 of {dimensions} dimensions"))
    return array
