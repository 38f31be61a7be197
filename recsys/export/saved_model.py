"""Towers of a release: as SavedModels, and in NumPy where that is possible, which the server prefers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from recsys.documents import read_json
from recsys.errors import describe
from recsys.export.graphs import check_graph
from recsys.features import Encoder
from recsys.forward import PlainTower
from recsys.stack import tf
from recsys.types import Float32

SIGNATURE = "encode"
CHUNK = 4096
FEATURES = "features.json"
QUERY_TOWER, ITEM_TOWER = "query_tower", "item_tower"
PLAIN = "plain_"


def save_tower(tower: tf.keras.layers.Layer, encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write a tower with one signature `encode`: codes of each feature in, `vectors` out.

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
        return {"vectors": tower(dict(zip(names, codes, strict=True)))}

    module = tf.Module()
    module.tower = tower
    module.encode = encode
    # What is served has no gradients, and TensorFlow cannot save those that come as slices of a large table.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: encode}, options=options)
    (folder / FEATURES).write_text(json.dumps(names, indent=1) + "\n", encoding="utf-8")


def load_graph(folder: Path) -> Callable[[Mapping[str, np.ndarray]], Float32]:
    """Return the tower of a SavedModel as a function from codes, `[batch, *shape]` each, to vectors, `[batch, dim]`.

    The function raises ValueError for codes of other features than the tower's.

    Raises:
        ReleaseError: the graph could do more than compute a vector (see `check_graph`).
    """
    check_graph(folder, beside=[FEATURES])
    loaded = tf.saved_model.load(str(folder))
    encode = loaded.signatures[SIGNATURE]
    names = read_json(folder / FEATURES, list[str])

    def tower(codes: Mapping[str, np.ndarray]) -> Float32:
        if codes.keys() != set(names):
            raise ValueError(describe("codes", sorted(codes), f"those of the features {sorted(names)}"))
        count = len(next(iter(codes.values())))
        parts = [
            encode(**{_input(n): tf.constant(codes[name][start : start + CHUNK]) for n, name in enumerate(names)})[
                "vectors"
            ].numpy()
            for start in range(0, count, CHUNK)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    tower.keeps_alive = loaded
    return tower


def load_tower(release: Path, name: str) -> Callable[[Mapping[str, np.ndarray]], Float32]:
    """Return a tower of a release folder without TensorFlow where the release holds it in NumPy.

    Args:
        release: the folder.
        name: `QUERY_TOWER` or `ITEM_TOWER`.

    Raises:
        ReleaseError: as `PlainTower.load` and `load_graph`.
    """
    plain = release / f"{PLAIN}{name}"
    return PlainTower.load(plain) if plain.is_dir() else load_graph(release / name)


def _input(position: int) -> str:
    return f"f{position:03}"
