"""A plain hand-written TensorFlow loop: `python -m benchmarks.peers.plain_loop FOLDER`.

The same tables, towers, temperature, softmax over the batch and Adagrad as the project's; batches are cut beforehand,
so that its pipeline only copies. It has no logQ correction and takes no known positive out of the candidates.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.peers.examples import Examples
from benchmarks.peers.protocol import BATCH_SIZE, DIM, HIDDEN, TEMPERATURE, WIDTH, Measured, Subject, measure, serve
from recsys.stack import tf

WARM_UP_STEPS = 5


class PlainLoop:
    """The loop and its variables."""

    def __init__(self, examples: Examples) -> None:
        self._query, self._item = list(examples.query), list(examples.item)
        self._tables = {
            name: tf.Variable(tf.random.normal([size, WIDTH], stddev=WIDTH**-0.5), name=name)
            for name, size in examples.sizes.items()
        }
        self._query_tower = _tower(len(self._query))
        self._item_tower = _tower(len(self._item))
        self._variables = [
            *self._tables.values(),
            *self._query_tower.trainable_variables,
            *self._item_tower.trainable_variables,
        ]
        self._optimizer = tf.keras.optimizers.Adagrad(0.1)
        self._optimizer.build(self._variables)
        used = examples.batches * BATCH_SIZE
        batches = {name: codes[:used].reshape(-1, BATCH_SIZE) for name, codes in examples.columns.items()}
        self._batches = iter(tf.data.Dataset.from_tensor_slices(batches).repeat().prefetch(tf.data.AUTOTUNE))
        self._step = tf.function(self._train_step)

    def run(self, steps: int) -> float:
        """Train; return the last loss."""
        for _ in range(steps):
            loss = self._step(next(self._batches))
        return float(loss)

    def _train_step(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            queries = self._vectors(self._query_tower, self._query, batch)
            items = self._vectors(self._item_tower, self._item, batch)
            logits = tf.matmul(queries / TEMPERATURE, items, transpose_b=True)
            labels = tf.range(BATCH_SIZE)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        self._optimizer.apply_gradients(zip(tape.gradient(loss, self._variables), self._variables, strict=True))
        return loss

    def _vectors(self, tower: tf.keras.Model, names: list[str], batch: dict[str, tf.Tensor]) -> tf.Tensor:
        wide = tf.concat([tf.gather(self._tables[name], batch[name]) for name in names], axis=1)
        return tf.math.l2_normalize(tower(wide), axis=1)


def _tower(features: int) -> tf.keras.Model:
    tower = tf.keras.Sequential([tf.keras.layers.Dense(HIDDEN, "relu"), tf.keras.layers.Dense(DIM)])
    tower.build([None, features * WIDTH])
    return tower


def subjects(folder: Path) -> dict[str, Subject]:
    """Return the loop over the benchmark's examples."""
    loop = PlainLoop(Examples.load(folder))
    loop.run(WARM_UP_STEPS)

    def subject(steps: int) -> Measured:
        return measure(lambda: loop.run(steps))

    return {"plain TensorFlow loop": subject}


if __name__ == "__main__":
    serve(lambda: subjects(Path(sys.argv[1])))
