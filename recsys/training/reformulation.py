"""Train a reformulator on mined feedback: revisions of each query with more and with less of it."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.config import Reformulation
from recsys.data.batches import membership
from recsys.data.mined import Mined
from recsys.errors import DataError, InterruptedRun
from recsys.files import storage, write_atomically
from recsys.progress import task
from recsys.reformulators import Weights, lengths, total_move, unit
from recsys.stack import tf
from recsys.training.loop import stop_request
from recsys.types import NO_ROW, Bool, Feedback, Float32, Int32, Int64, ItemRoles, RowSets
from twintower.errors import SettingError, describe, verbatim
from twintower.types import FeedbackKind

DISLIKED_RATE = 0.25
"""Share of simulated explicit feedback that says no."""
LOOKS = 20
"""How often a training keeps its weights, at most, for the choice of the best number of steps."""


@dataclass(frozen=True)
class Step:
    """What one training step takes, as NumPy arrays.

    Attributes:
        places: `[batch]`, int32, the queries.
        item_rows: `[batch, revisions, k]`, int32, feedback, `NO_ROW` after the last of each revision.
        kinds: `[batch, revisions, k]`, int32, values of `FeedbackKind`.
        ranks: `[batch, revisions, k]`, int32, first ranks, `NO_ROW` where unknown.
        counts: `[batch, revisions]`, int32, how many items a revision was meant to have.
        candidates: `[candidates]`, int32, item rows to rank.
        relevant: `[batch, candidates]`, bool.
        left_out: `[batch, candidates]`, bool, neither relevant nor wrong.
        log_q: `[candidates]`, float32, log of how often each is expected among the candidates.
    """

    places: Int32
    item_rows: Int32
    kinds: Int32
    ranks: Int32
    counts: Int32
    candidates: Int32
    relevant: Bool
    left_out: Bool
    log_q: Float32


class Steps:
    """The steps of a training, each a pure function of seed and step.

    Args:
        mined: the queries to learn from.
        settings: how.
        items: rows of the catalogue.
        seed: of every draw.
    """

    def __init__(self, mined: Mined, settings: Reformulation, items: int, seed: int) -> None:
        self._mined, self._settings, self._items, self._seed = mined, settings, items, seed
        self._relevant = membership(mined.relevant, items)
        self._excluded = membership(mined.excluded, items)
        self.batch_size = min(settings.batch_size, len(mined))
        self.steps_per_epoch = len(mined) // self.batch_size

    def step(self, number: int) -> Step:
        """Return a step; each epoch is a new order of all queries, an incomplete batch left out."""
        epoch, place = divmod(number, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, 12, epoch]).permutation(len(self._mined))
        places = np.sort(order[place * self.batch_size : (place + 1) * self.batch_size]).astype(np.int32)
        random = np.random.default_rng([self._seed, 13, number])
        settings, k = self._settings, self._settings.feedback_k
        shape = (len(places), settings.revisions, k)
        item_rows, ranks = np.full(shape, NO_ROW, np.int32), np.full(shape, NO_ROW, np.int32)
        kinds = np.full(shape, FeedbackKind.PSEUDO, np.int32)
        counts = random.random((len(places), k + 1)).argsort(axis=1)[:, : settings.revisions].astype(np.int32)
        told = np.full(len(places), settings.answers == "mask")
        for row, query in enumerate(places):
            # A query with a single relevant item cannot be given it and still have one to find.
            explicit = random.random() < settings.explicit_rate and self._mined.relevant.sizes[query] >= 2
            told[row] |= explicit
            # Revisions share what may be liked, so that together they leave something to find.
            likeable = self._mined.likeable(query, random) if explicit else None
            for revision in range(settings.revisions):
                if revision == 0 or not settings.nested:
                    drawn = self._explicit(query, likeable, random) if explicit else self._pseudo(query, random)
                count = min(counts[row, revision], len(drawn[0]))
                for target, values in zip((item_rows, kinds, ranks), drawn, strict=True):
                    target[row, revision, :count] = values[:count]
        candidates, log_q = self._candidates(places, random)
        relevant = self._relevant[places][:, candidates].toarray()
        told = membership(_used(item_rows, told), self._items)[:, candidates].toarray() & relevant
        left_out = (self._excluded[places][:, candidates].toarray() & ~relevant) | told
        return Step(places, item_rows, kinds, ranks, counts, candidates, relevant & ~told, left_out, log_q)

    def _pseudo(self, query: int, random: np.random.Generator) -> tuple[Int32, Int64, Int64]:
        """Return rows, kinds and ranks of one query's first results, in the order in which they are used up."""
        settings = self._settings
        found = self._mined.first.item_rows[query]
        ranks = np.flatnonzero(found != NO_ROW)
        if settings.answers == "drop":
            ranks = ranks[~np.isin(found[ranks], self._mined.relevant[query])]
        ranks = ranks[: settings.feedback_k]
        if settings.order == "shuffled":
            ranks = random.permutation(ranks)
        rows = found[ranks].copy()
        noisy = random.random(len(rows)) < settings.noise_rate
        rows[noisy] = random.integers(0, self._items, noisy.sum())
        return rows, np.full(len(rows), FeedbackKind.PSEUDO), ranks

    def _explicit(self, query: int, likeable: Int32, random: np.random.Generator) -> tuple[Int32, Int64, Int64]:
        """Return rows, kinds and ranks of what may be liked, and of some wrong first results as disliked."""
        rows, kinds = self._mined.explicit(query, likeable, self._settings.feedback_k, DISLIKED_RATE, random)
        return rows, kinds, np.full(len(rows), NO_ROW)

    def _candidates(self, places: Int32, random: np.random.Generator) -> tuple[Int32, Float32]:
        if self._items <= self._settings.exact_items:
            return np.arange(self._items, dtype=np.int32), np.zeros(self._items, np.float32)
        first = self._mined.first.item_rows[places].ravel()
        forced = np.unique(np.concatenate([first[first != NO_ROW], self._mined.relevant.take(places).rows]))
        others = np.setdiff1d(np.unique(random.integers(0, self._items, self._settings.sampled_items)), forced)
        # The sample stands for all items that are not forced: each for as many as there are to one drawn.
        log_q = np.log(max(len(others), 1) / max(self._items - len(forced), 1))
        return (
            np.concatenate([forced, others]).astype(np.int32),
            np.concatenate([np.zeros(len(forced)), np.full(len(others), log_q)]).astype(np.float32),
        )


def _used(item_rows: Int32, told: Bool) -> RowSets:
    """Return the items in any revision of a query, `[batch]` sets; none of queries that `told` leaves out."""
    row, _, _ = places = np.nonzero((item_rows != NO_ROW) & told[:, None, None])
    return RowSets.from_pairs(row, item_rows[places], len(item_rows))


@dataclass(frozen=True)
class Trained:
    """A training of a reformulator as it went on.

    Attributes:
        weights: at each look: before training, then after each of the steps that `looks_after` names.
        losses: mean training loss between two looks, in nats; one less than `weights`.
    """

    weights: tuple[Weights, ...]
    losses: tuple[float, ...]


def looks_after(steps: int) -> Int64:
    """Return the numbers of steps after which a training keeps its weights, ascending from 0."""
    return np.unique(np.linspace(0, steps, min(LOOKS, steps) + 1).round().astype(np.int64))


def train_reformulator(
    mined: Mined,
    roles: ItemRoles,
    settings: Reformulation,
    *,
    steps: int,
    seed: int,
    folder: Path,
    looks: int | None = None,
    label: str = "train",
) -> Trained:
    """Train, or go on with a training that was interrupted; the outcome is the same.

    Args:
        mined: the queries to learn from.
        roles: the vectors of the items; constants.
        settings: the `reformulation` section of a run.
        steps: over which the learning rate decays to 0.
        seed: of the weights and of every draw.
        folder: holds checkpoints and TensorBoard events; made if needed.
        looks: end after as many of the looks that `looks_after` names; None ends after the last step.
        label: names the training where its progress is shown.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; everything up to the last look was written.
        SettingError: training diverged.
        DataError: the checkpoint is damaged.
        StorageError: the disk is full, or the folder may not be written.
    """
    ends = looks_after(steps)
    return _Loop(mined, roles, settings, steps, seed, folder).run(ends if looks is None else ends[: looks + 1], label)


class _Loop:
    def __init__(
        self, mined: Mined, roles: ItemRoles, settings: Reformulation, steps: int, seed: int, folder: Path
    ) -> None:
        self._settings, self._folder, self._seed = settings, folder, seed
        items, dim = roles.found.shape
        self._steps = Steps(mined, settings, items, seed)
        self._items, self._center = tf.constant(roles.found), tf.constant(roles.center)
        self._directions, self._item_lengths = tf.constant(unit(roles.query_side)), lengths(roles.query_side)[:, 0]
        self._query_lengths = tf.constant(mined.query_lengths)
        self._queries = tf.constant(unit(mined.query_vectors))
        initial = settings.reformulator.initial(dim, seed)
        self._weights = {name: tf.Variable(value, name=name.replace("/", "_")) for name, value in initial.items()}
        decay = tf.keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
        self._optimizer = tf.keras.optimizers.Adam(decay, global_clipnorm=1.0)
        self._optimizer.build(list(self._weights.values()))
        self._look = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._losses = tf.Variable(np.full(LOOKS, np.nan), dtype=tf.float64, trainable=False)
        everything = tf.train.Checkpoint(
            weights=self._weights, optimizer=self._optimizer, look=self._look, losses=self._losses
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._latest = tf.train.CheckpointManager(everything, str(folder / "checkpoints"), max_to_keep=1)
        self._events = tf.summary.create_file_writer(str(folder / "tensorboard"))
        self._train_step = tf.function(self._step, reduce_retracing=True)

    def run(self, ends: Int64, label: str) -> Trained:
        try:
            self._latest.restore_or_initialize()
            done = int(self._look.numpy())
            kept = [self._read(look) for look in range(1, min(done, len(ends) - 1) + 1)]
        except (tf.errors.OpError, ValueError, IndexError, KeyError, TypeError, OSError) as error:
            reason = str(error).partition("\n")[0]
            got = verbatim(reason)
            raise DataError(describe(str(self._folder), got, "a checkpoint of this training", "Remove it.")) from None
        dim = self._items.shape[1]
        kept.insert(0, self._settings.reformulator.initial(dim, self._seed))
        total = int(ends[-1])
        with stop_request() as stop, task(label, total, "steps") as running, self._events.as_default():
            running.start_at(int(ends[min(done, len(ends) - 1)]))
            for look in range(done + 1, len(ends)):
                losses = []
                for number in range(ends[look - 1], ends[look]):
                    losses.append(self._train_step(tf.constant(number), **self._tensors(self._steps.step(number))))
                    running.advance()
                    if stop.is_set():
                        raise InterruptedRun(
                            f"interrupted at step {number + 1} of {total}; the first {ends[look - 1]} are kept in "
                            f"{self._folder}. Run the same command to continue."
                        )
                kept.append(self._keep(look, int(ends[look]), float(np.mean([float(loss) for loss in losses]))))
        return Trained(tuple(kept), tuple(self._losses.numpy()[: len(ends) - 1].tolist()))

    def _step(self, number: tf.Tensor, **step: tf.Tensor) -> tf.Tensor:
        batch, revisions, k = step["item_rows"].shape
        with tf.GradientTape() as tape:
            queries = tf.repeat(tf.gather(self._queries, step["places"]), revisions, axis=0)
            rows = tf.reshape(step["item_rows"], [batch * revisions, k])
            present = rows != NO_ROW
            there, of = tf.cast(present, tf.float32)[..., None], tf.maximum(rows, 0)
            found = tf.gather(self._items, of) * there
            away = (tf.gather(self._items, of) - self._center) * there
            query_lengths = tf.repeat(tf.gather(self._query_lengths, step["places"]), revisions)
            feedback = Feedback(
                tf.gather(self._directions, of) * there,
                tf.gather(self._item_lengths, of) / query_lengths[:, None],
                away,
                tf.reshape(step["kinds"], rows.shape),
                tf.reshape(step["ranks"], rows.shape),
                tf.einsum("bd,bkd->bk", queries, found),
                present,
            )
            moved = self._moved(queries, feedback, number)
            candidates = tf.gather(self._items, step["candidates"])
            scores = tf.reshape(tf.matmul(moved, candidates, transpose_b=True), [batch, revisions, -1])
            loss = self._settings.objective.loss(
                scores, step["relevant"], step["left_out"], step["log_q"], step["counts"]
            )
        variables = list(self._weights.values())
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _moved(self, queries: tf.Tensor, feedback: Feedback, number: tf.Tensor) -> tf.Tensor:
        rate, calls = getattr(self._settings.reformulator, "dropout_rate", 0.0), itertools.count()

        def drop(hidden: tf.Tensor) -> tf.Tensor:
            # A function of seed, step and place, so that a training that goes on drops what it would have dropped.
            seed = tf.random.fold_in([self._seed, next(calls)], number)
            return tf.nn.experimental.stateless_dropout(hidden, rate, seed)

        reformulator, tnp = self._settings.reformulator, tf.experimental.numpy
        weights = reformulator.ready(tnp, self._weights)
        item_weights, further = reformulator.direction(tnp, queries, feedback, weights, drop)
        item_weights = tf.where(feedback.present, item_weights, 0.0)
        total = queries + total_move(tnp, feedback, item_weights)
        if further is not None:
            total += further
        # As at serving time: without feedback a query stays where it is.
        some = tf.reduce_any(feedback.present, axis=1, keepdims=True)
        return tf.where(some, tf.math.l2_normalize(total, axis=1, epsilon=1e-12), queries)

    def _tensors(self, step: Step) -> dict[str, tf.Tensor]:
        return {name: tf.constant(getattr(step, name)) for name in Step.__dataclass_fields__}

    def _keep(self, look: int, steps: int, loss: float) -> Weights:
        """Write everything, and return the weights."""
        if not np.isfinite(loss):
            raise SettingError(
                f"reformulation.learning_rate: got {self._settings.learning_rate:g}, with which training diverged "
                f"within {steps} steps. Lower it, or raise reformulation.objective.temperature."
            )
        weights = {name: variable.numpy() for name, variable in self._weights.items()}
        self._losses[look - 1].assign(loss)
        self._look.assign(look)
        with storage(self._folder):
            content = io.BytesIO()
            np.savez(content, **weights)
            write_atomically(self._kept(look), content.getvalue())
            tf.summary.scalar("training/loss", loss, steps)
            self._events.flush()
            self._latest.save(look)
        return weights

    def _read(self, look: int) -> Weights:
        with np.load(self._kept(look), allow_pickle=False) as stored:
            return {name: stored[name] for name in self._weights}

    def _kept(self, look: int) -> Path:
        return self._folder / f"look-{look}.npz"
