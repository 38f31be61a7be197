"""Towers as SavedModels: written after training, read by the server without any training code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from recsys.features import Encoder
from recsys.forward import PlainTower
from recsys.stack import tf
from recsys.types import Float32

SIGNATURE = "encode"
CHUNK = 4096
PLAIN_QUERY_TOWER = "plain_query_tower"


def save_tower(tower: tf.keras.layers.Layer, encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write a tower with one signature `encode`: codes by feature name in, `vectors` out.

    Args:
        tower: the trained layer.
        encoders: give the shape and type of each feature's codes.
        folder: where the SavedModel goes.
    """
    specs = {name: tf.TensorSpec([None, *each.shape], each.dtype, name) for name, each in encoders.items()}

    @tf.function(input_signature=[specs])
    def encode(codes: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"vectors": tower(codes)}

    module = tf.Module()
    module.tower = tower
    module.encode = encode
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: encode})


def load_tower(folder: Path) -> Callable[[Mapping[str, np.ndarray]], Float32]:
    """Return the tower as a function from codes, `[batch, *shape]` each, to vectors, `[batch, dim]`, float32."""
    loaded = tf.saved_model.load(str(folder))
    encode = loaded.signatures[SIGNATURE]

    def tower(codes: Mapping[str, np.ndarray]) -> Float32:
        count = len(next(iter(codes.values())))
        parts = [
            encode(**{name: tf.constant(array[start : start + CHUNK]) for name, array in codes.items()})[
                "vectors"
            ].numpy()
            for start in range(0, count, CHUNK)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    tower.keeps_alive = loaded
    return tower


def load_query_tower(release: Path) -> Callable[[Mapping[str, np.ndarray]], Float32]:
    """Return the query tower of a release folder in the form that is quickest for few queries."""
    plain = release / PLAIN_QUERY_TOWER
    return PlainTower.load(plain) if plain.is_dir() else load_tower(release / "query_tower")
