"""The stock model of the TFRS tutorials: `python -m benchmarks.peers.tfrs_tutorial FOLDER`.

String columns through `StringLookup` and `Embedding` inside the model, dense layers as in the "deep retrieval models"
tutorial, `tfrs.tasks.Retrieval` as it comes, Adagrad, `Model.fit`. Batches are cut beforehand, which stands for the
tutorial's cached data set. It has no temperature, no unit length, no logQ correction, and masks nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.peers.examples import Examples
from benchmarks.peers.protocol import BATCH_SIZE, DIM, HIDDEN, WIDTH, Measured, Subject, measure, serve
from recsys.stack import tf, tfrs

WARM_UP_STEPS = 5


def subjects(folder: Path) -> dict[str, Subject]:
    """Return the model over the benchmark's examples."""
    examples = Examples.load(folder)
    query_tower = _tower(examples, list(examples.query))
    item_tower = _tower(examples, list(examples.item))

    class TutorialModel(tfrs.Model):
        """The two towers under the stock task."""

        def __init__(self) -> None:
            super().__init__()
            self.query_tower, self.item_tower, self.task = query_tower, item_tower, tfrs.tasks.Retrieval()

        def compute_loss(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
            """Return the task's loss, summed over the batch."""
            queries = self.query_tower({name: features[name] for name in examples.query})
            return self.task(queries, self.item_tower({name: features[name] for name in examples.item}))

    model = TutorialModel()
    model.compile(optimizer=tf.keras.optimizers.Adagrad(0.1))
    done = 0

    def subject(steps: int) -> Measured:
        nonlocal done
        places = np.arange(done, done + steps) % examples.batches
        done += steps
        columns = {name: _strings(_batches(codes)[places]) for name, codes in examples.columns.items()}
        data = tf.data.Dataset.from_tensor_slices(columns).prefetch(tf.data.AUTOTUNE)
        return measure(lambda: model.fit(data, verbose=0).history["loss"][-1] / BATCH_SIZE)

    subject(WARM_UP_STEPS)
    return {"TFRS tutorial model": subject}


def _tower(examples: Examples, names: list[str]) -> tf.keras.Model:
    inputs, vectors = {}, []
    for name in names:
        lookup = tf.keras.layers.StringLookup(vocabulary=_strings(np.arange(examples.sizes[name])), mask_token=None)
        inputs[name] = tf.keras.Input((), dtype=tf.string, name=name)
        vectors.append(tf.keras.layers.Embedding(lookup.vocabulary_size(), WIDTH)(lookup(inputs[name])))
    hidden = tf.keras.layers.Dense(HIDDEN, "relu")(tf.keras.layers.concatenate(vectors))
    return tf.keras.Model(inputs, tf.keras.layers.Dense(DIM)(hidden))


def _batches(codes: np.ndarray) -> np.ndarray:
    return codes[: len(codes) // BATCH_SIZE * BATCH_SIZE].reshape(-1, BATCH_SIZE)


def _strings(codes: np.ndarray) -> np.ndarray:
    return codes.astype(str).astype(object)


if __name__ == "__main__":
    serve(lambda: subjects(Path(sys.argv[1])))
