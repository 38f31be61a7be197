"""Towers of a release: as SavedModels, and in NumPy where that is possible, which the server prefers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recsys.documents import read_json
from recsys.export.graphs import check_graph
from recsys.features import Encoder
from recsys.forward import PlainTower
from recsys.stack import tf
from recsys.types import Float32
from twintower.errors import describe

SIGNATURE = "encode"
CHUNK = 4096
FEATURES = "features.json"
QUERY_TOWER, ITEM_TOWER = "query_tower", "item_tower"
PLAIN = "plain_"


def save_tower(tower: tf.keras.layers.Layer, encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write a tower with one signature `encode`: codes of each feature in, `vectors` and their former `lengths` out.

    Inputs are called `f000`, `f001` and so on, because TensorFlow takes Python names only; `features.json` in the same
    folder lists the features in that order.

    Args:
        tower: the trained layer.
        encoders: give the shape and type of each feature's codes.
        folder: where the SavedModel goes.
    """
    names = list(encoders)
    specs = [
        tf.TensorSpec([None, *each.shape], each.dtype, _input(position))
        for position, each in enumerate(encoders.values())
    ]

    @tf.function(input_signature=specs)
    def encode(*codes: tf.Tensor) -> dict[str, tf.Tensor]:
        vectors, lengths = tower.encode(dict(zip(names, codes, strict=True)))
        return {"vectors": vectors, "lengths": lengths}

    module = tf.Module()
    module.tower = tower
    module.encode = encode
    # What is served has no gradients; those of large tables have operations that `check_graph` refuses.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: encode}, options=options)
    (folder / FEATURES).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


class GraphTower:
    """A tower as the function of a SavedModel's signature, from codes, `[batch, *shape]` each, to vectors.

    Args:
        folder: of the SavedModel.

    Raises:
        ReleaseError: the graph could do more than compute a vector (see `check_graph`).
    """

    def __init__(self, folder: Path) -> None:
        check_graph(folder, beside=[FEATURES])
        self._loaded = tf.saved_model.load(str(folder))  # kept alive: its variables end with it
        self._names = read_json(folder / FEATURES, list[str])

    def __call__(self, codes: Mapping[str, np.ndarray]) -> Float32:
        """Return `[batch, dim]`, float32, unit length.

        Raises:
            ValueError: codes of other features than the tower's.
        """
        return self.encode(codes)[0]

    def encode(self, codes: Mapping[str, np.ndarray]) -> tuple[Float32, Float32]:
        """Return the vectors, and the lengths that they had before they were brought to unit length, `[batch]`.

        Raises:
            ValueError: codes of other features than the tower's.
        """
        if codes.keys() != set(self._names):
            raise ValueError(describe("codes", sorted(codes), f"those of the features {sorted(self._names)}"))
        signature, count = self._loaded.signatures[SIGNATURE], len(next(iter(codes.values())))
        parts = []
        for start in range(0, count, CHUNK):
            part = {name: tf.constant(values[start : start + CHUNK]) for name, values in codes.items()}
            out = signature(**{_input(position): part[name] for position, name in enumerate(self._names)})
            parts.append((out["vectors"].numpy(), out["lengths"].numpy()))
        return parts[0] if len(parts) == 1 else tuple(map(np.concatenate, zip(*parts, strict=True)))


Tower = PlainTower | GraphTower


def load_tower(release: Path, name: str) -> Tower:
    """Return a tower of a release folder without TensorFlow where the release holds it in NumPy.

    Args:
        release: the folder.
        name: `QUERY_TOWER` or `ITEM_TOWER`.

    Raises:
        ReleaseError: as `PlainTower.load` and `GraphTower`.
    """
    plain = release / f"{PLAIN}{name}"
    return PlainTower.load(plain) if plain.is_dir() else GraphTower(release / name)


def _input(position: int) -> str:
    return f"f{position:03}"
