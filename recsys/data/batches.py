"""Training batches as a pure function of seed and step, so that a resumed run reads what the first would have read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NotRequired, TypedDict

import numpy as np
import scipy.sparse as sparse

from recsys.config import Run
from recsys.data import encoders
from recsys.data.hard_negatives import HardNegatives
from recsys.data.history import Met, Past
from recsys.data.prepare import Codes, Prepared
from recsys.errors import DataError
from recsys.features._history_encoder import HistoryEncoder
from recsys.stack import tf
from recsys.types import ITEM_ID, Bool, Float32, Int32, Int64, Interactions, RowSets
from twintower.errors import describe, verbatim


class Batch(TypedDict):
    """One training batch.

    Attributes:
        query: codes of the query side, `[batch, *shape]` each.
        candidate_row: item rows: first the batch's own positives, then the uniform negatives, then the hard ones,
            `[candidates]`, int32.
        known_positive: `[batch, candidates]`, bool: the candidate is a positive of the query, but not this example's.
        weight: `[batch]`, float32.
        step: scalar, int32, the number of the step, from 0.
    """

    query: dict[str, np.ndarray]
    candidate_row: Int32
    known_positive: Bool
    weight: Float32
    step: np.int32


class TrainingBatches:
    """The batches of a run.

    Args:
        prepared: the data.
        run: gives batch size, epochs and seed.
        uniform_negatives: items drawn uniformly, with replacement, beside each batch's own.
        mask_positives: mark the query's other training items among the candidates; repeats of the example's own item
            are marked in any case.
        hard_negatives: drawn for each example and shared by the batch; None adds none.

    Raises:
        DataError: fewer than two training interactions.
    """

    def __init__(
        self,
        prepared: Prepared,
        run: Run,
        *,
        uniform_negatives: int,
        mask_positives: bool,
        hard_negatives: HardNegatives | None = None,
    ) -> None:
        self._train = prepared.parts["train"]
        if len(self._train) < 2:
            raise DataError(describe("split", verbatim(f"{len(self._train)} training interactions"), "at least 2"))
        self.batch_size = min(run.batch_size, len(self._train))
        self.steps_per_epoch = len(self._train) // self.batch_size
        self.steps = self.steps_per_epoch * run.training.epochs_of(self.steps_per_epoch)
        self._seed = run.seed
        self._item_count = prepared.item_count
        self._uniform_negatives = uniform_negatives
        self._hard_negatives = hard_negatives
        self._positives = None
        if mask_positives and run.query.entity != "features":
            self._positives = membership(prepared.positives("train"), prepared.item_count)
        self._query = QueryCodes(prepared, Past(self._train, prepared.query_count))
        self._order: tuple[int, Int32] = (-1, np.zeros(0, np.int32))

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; each epoch is a new order of all interactions, an incomplete batch left out."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            drawn = np.random.default_rng([self._seed, 3, epoch])
            self._order = (epoch, drawn.permutation(np.arange(len(self._train), dtype=np.int32)))
        places = np.sort(self._order[1][place * self.batch_size : (place + 1) * self.batch_size])
        random = np.random.default_rng([self._seed, 4, step])
        query_row, item_row = self._train.query_row[places], self._train.item_row[places]
        negatives = random.integers(0, self._item_count, self._uniform_negatives, dtype=np.int32)
        candidate_row = np.concatenate([item_row, negatives, self._hard(query_row, step)])
        weight = self._train.weight
        return Batch(
            query=self._query.training(query_row, places, random),
            candidate_row=candidate_row,
            known_positive=self._known_positive(query_row, candidate_row),
            weight=np.ones(len(places), np.float32) if weight is None else np.asarray(weight[places]),
            step=np.int32(step),
        )

    @property
    def expected_hard(self) -> Float32 | None:
        """How often each item is a hard negative of one batch on average, `[items]`; None where there are none."""
        return None if self._hard_negatives is None else self._hard_negatives.expected(self.batch_size)

    def dataset(self, first_step: int = 0) -> tf.data.Dataset:
        """Return the batches from a step to the end of the run, made ahead on another thread."""
        return _dataset(self.batch, range(first_step, self.steps), lambda path: path[-1] in self._query.ragged)

    def _hard(self, query_row: Int32, step: int) -> Int32:
        """Return a batch's hard negatives; their draws are their own, so that the rest of the batch stays the same."""
        if self._hard_negatives is None:
            return np.zeros(0, np.int32)
        return self._hard_negatives.draw(query_row, np.random.default_rng([self._seed, 16, step]))

    def _known_positive(self, query_row: Int32, candidate_row: Int32) -> Bool:
        """Return which candidates are other positives of each query; the same item met again is one of them."""
        if self._positives is None:
            known = candidate_row[None, :] == candidate_row[: len(query_row), None]
        else:
            distinct, place = np.unique(query_row, return_inverse=True)
            known = self._positives[distinct][:, candidate_row].toarray()[place]
        np.fill_diagonal(known, False)
        return known


class SetBatch(TypedDict):
    """Some query entities, each with all that it met in training.

    Attributes:
        query: codes of the query side after all of training, `[batch, *shape]` each.
        owner: the place in the batch of the query of each pair of a query and an item, `[pairs]`, int32, ascending.
        column: the place of the item of each pair among the candidates, `[pairs]`, int32; distinct for one query.
        weight: `[pairs]`, float32: the mean weight of the interactions of the pair.
        candidate_row: item rows that the queries are compared with, `[candidates]`, int32, ascending: all items that
            were met in training, or a uniform sample of them and all items of the batch's own pairs.
        stands_for: `[candidates]`, float32, >= 0: how many items of the catalog each candidate stands for; 0 for one
            that is here as an own item only.
        step: scalar, int32, the number of the step, from 0.
        position: of `PositionBatches`, `[queries, 2]`, int32, ascending: the queries that `owner` counts, each by the
            place of its entity in the batch and the position in the history of the newest item that it knows, 0 the
            newest of all.
    """

    query: dict[str, np.ndarray]
    owner: Int32
    column: Int32
    weight: Float32
    candidate_row: Int32
    stands_for: Float32
    step: np.int32
    position: NotRequired[Int32]


class Pairs(TypedDict):
    """The queries of a step and the pairs of these and their items; see `SetBatch`.

    Attributes:
        item_row: `[pairs]`, int32.
    """

    query: dict[str, np.ndarray]
    owner: Int32
    item_row: Int32
    weight: Float32
    position: NotRequired[Int32]


class SetBatches:
    """The batches of an objective that reads whole sets of items: each query entity once an epoch.

    Items that nobody met in training are no candidates: as nobody was seen to choose them, they would be trained to be
    found by no query, and the vectors that their features give them with it.

    Args:
        prepared: the data.
        run: gives the objective, batch size, epochs and seed; its query entities are no free features.

    Attributes:
        sampled_items: items drawn for each step; 0 where each step reads all.
    """

    expected_hard: None = None

    def __init__(self, prepared: Prepared, run: Run) -> None:
        self._train, self._item_count = prepared.parts["train"], prepared.item_count
        self._past = Past(self._train, prepared.query_count)
        met = met_in(self._train, prepared.query_count, prepared.item_count)
        self._weights = met if self._train.weight is None else weights_in(self._train, met)
        self._rows = self._entities()
        self.batch_size = min(run.batch_size, len(self._rows))
        self.steps_per_epoch = len(self._rows) // self.batch_size
        self.steps = self.steps_per_epoch * run.training.epochs_of(self.steps_per_epoch)
        self._seed = run.seed
        self._query = QueryCodes(prepared, self._past)
        self._catalog = np.flatnonzero(prepared.item_counts).astype(np.int32)
        self.sampled_items = 0 if reads_whole_catalog(run, prepared) else run.objective.sampled_items

    def batch(self, step: int) -> SetBatch:
        """Return the batch of a step; each epoch is a new order of all query entities, an incomplete batch left out."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self._seed, 3, epoch]).permutation(self._rows)
        pairs = self._pairs(np.sort(order[place * self.batch_size : (place + 1) * self.batch_size]), step)
        item_row = pairs.pop("item_row")
        candidate_row, stands_for = self._candidates(item_row, step)
        return SetBatch(
            **pairs,
            column=np.searchsorted(candidate_row, item_row).astype(np.int32),
            candidate_row=candidate_row,
            stands_for=stands_for,
            step=np.int32(step),
        )

    def _entities(self) -> Int32:
        """Return the query entities that training reads, ascending."""
        return np.flatnonzero(np.diff(self._weights.indptr)).astype(np.int32)

    def _pairs(self, rows: Int32, step: int) -> Pairs:
        """Return the queries and items of a step, of the query entities that it reads."""
        del step
        weights = self._weights[rows]
        return Pairs(
            query=self._query.now(rows),
            owner=np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(weights.indptr)),
            item_row=weights.indices.astype(np.int32),
            weight=weights.data.astype(np.float32),
        )

    def _candidates(self, own: Int32, step: int) -> tuple[Int32, Float32]:
        """Return the rows that a batch is compared with, ascending, and how many items each stands for."""
        if not self.sampled_items:
            return self._catalog, np.ones(len(self._catalog), np.float32)
        random = np.random.default_rng([self._seed, 18, step])
        size = min(self.sampled_items, len(self._catalog))
        drawn = random.choice(self._catalog, size, replace=False, shuffle=False)
        rows = np.union1d(drawn, own)
        stands_for = np.zeros(len(rows), np.float32)
        stands_for[np.searchsorted(rows, drawn)] = len(self._catalog) / size
        return rows, stands_for

    def dataset(self, first_step: int = 0) -> tf.data.Dataset:
        """Return the batches from a step to the end of the run, made ahead on another thread."""
        return _dataset(self.batch, range(first_step, self.steps), lambda path: path != ("step",))


class PositionBatches(SetBatches):
    """Batches in which each position of a history is a query; its items are those that the entity met next.

    What is met at one instant, a basket, is found from what was met before that instant. Of a history that is longer
    than what the transformer reads, each epoch takes another part.

    Reference:
        Kang and McAuley 2018, arXiv:1808.09781, Section III.E, for training at all positions.

    Args:
        prepared: the data, with times.
        run: as for `SetBatches`; has a history whose order counts.

    Raises:
        DataError: no query entity has interactions at two instants.
    """

    def __init__(self, prepared: Prepared, run: Run) -> None:
        self._length = max(feature.places for feature in run.query_features.values() if encoders.reads_order(feature))
        super().__init__(prepared, run)

    def _entities(self) -> Int32:
        """Return the query entities that met something after their first instant."""
        has_past = self._past.instant_starts > self._past.starts[self._train.query_row]
        if not has_past.any():
            got = verbatim("no query entity with interactions at two instants")
            raise DataError(describe("pooling 'transformer'", got, "at least one to learn the order from"))
        return np.unique(self._train.query_row[has_past])

    def _pairs(self, rows: Int32, step: int) -> Pairs:
        """Return the positions of a step's histories, and what was met next at each."""
        random = np.random.default_rng([self._seed, 19, step])
        last = self._last_interactions(rows, random)
        row, position, item_row, weight = self._next_items(rows, last)
        keys = (row * np.int64(self._length) + position) * np.int64(self._item_count) + item_row
        pairs, place = np.unique(keys, return_inverse=True)
        queries, owner = np.unique(pairs // self._item_count, return_inverse=True)
        return Pairs(
            query=self._query.training(rows, last, random),
            position=np.stack(np.divmod(queries, self._length), axis=1).astype(np.int32),
            owner=owner.astype(np.int32),
            item_row=(pairs % self._item_count).astype(np.int32),
            weight=(np.bincount(place, weight) / np.bincount(place)).astype(np.float32),
        )

    def _last_interactions(self, rows: Int32, random: np.random.Generator) -> Int64:
        """Return the interaction of each entity that the newest position must find, `[entities]`."""
        starts, ends = self._past.starts[rows], self._past.starts[rows + 1]
        last = ends - 1
        is_long = self._past.instant_starts[last] - starts > self._length
        drawn = random.integers(np.minimum(starts + self._length, last), ends)
        return np.where(is_long, drawn, last)

    def _next_items(self, rows: Int32, last: Int64) -> tuple[Int64, Int64, Int32, Float32]:
        """Return place in the batch, position, item and weight of all that is to be found, `[interactions]` each."""
        instants = self._past.instant_starts
        newest = instants[last]  # the first interaction that the newest position does not know
        starts = np.maximum(self._past.starts[rows], newest - self._length)
        ends = np.searchsorted(instants, newest, side="right")
        lengths = ends - starts
        row = np.repeat(np.arange(len(rows)), lengths)
        places = starts[row] + np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
        position = newest[row] - instants[places]
        kept = (position < self._length) & (instants[places] > self._past.starts[rows][row])
        row, places, position = row[kept], places[kept], position[kept]
        weight = self._train.weight
        found = np.ones(len(places), np.float32) if weight is None else np.asarray(weight[places])
        return row, position, self._train.item_row[places], found


def reads_whole_catalog(run: Run, prepared: Prepared) -> bool:
    """Tell whether each step of an objective that reads sets reads all items that were met in training."""
    return np.count_nonzero(prepared.item_counts) <= run.objective.exact_items


def met_in(interactions: Interactions, queries: int, items: int) -> sparse.csr_array:
    """Return which items each query entity met, `[queries, items]`, 1 where it did, float32."""
    pairs = (np.asarray(interactions.query_row), np.asarray(interactions.item_row))
    met = sparse.coo_array((np.ones(len(interactions), np.float32), pairs), shape=(queries, items)).tocsr()
    met.data[:] = 1
    return met


def weights_in(interactions: Interactions, met: sparse.csr_array) -> sparse.csr_array:
    """Return the mean weight of the interactions of each pair that was met, of the same shape."""
    pairs = (np.asarray(interactions.query_row), np.asarray(interactions.item_row))
    counts = sparse.coo_array((np.ones(len(interactions)), pairs), shape=met.shape).tocsr()
    totals = sparse.coo_array((np.asarray(interactions.weight, np.float64), pairs), shape=met.shape).tocsr()
    totals.data /= counts.data
    return totals


class ViewBatch(TypedDict):
    """What the second task takes in one step.

    Attributes:
        row: by side, `item` or `query`: distinct rows, drawn uniformly, `[rows]`, int32.
        query: codes of the query side's rows, `[rows, *shape]` each; empty where that side has no second task.
    """

    row: dict[str, Int32]
    query: dict[str, np.ndarray]


class ViewBatches:
    """The batches of the second task, drawn from the catalogue beside those of the main task.

    Reference:
        Yao et al. 2021, arXiv:2007.12865v4, Section 3.3: items uniform over the corpus.

    Args:
        prepared: the data.
        run: gives sides, batch size and seed; it has a second task whose rows come from the catalogue.
    """

    def __init__(self, prepared: Prepared, run: Run) -> None:
        self._size = run.self_supervision.batch_size or run.batch_size
        of_side = {"item": np.arange(prepared.item_count, dtype=np.int32), "query": _query_rows(run, prepared)}
        self._rows = {side: of_side[side] for side in run.self_supervision.sides}
        self._seed = run.seed
        self._query = QueryCodes(prepared, Past(prepared.parts["train"], prepared.query_count))

    def batch(self, step: int) -> ViewBatch:
        """Return the batch of a step: rows without replacement, anew in each step."""
        random = np.random.default_rng([self._seed, 5, step])
        row = {}
        for side, rows in self._rows.items():
            places = random.choice(len(rows), min(self._size, len(rows)), replace=False, shuffle=False)
            row[side] = rows[np.sort(places)]
        return ViewBatch(row=row, query=self._query.now(row["query"]) if "query" in row else {})

    def beside(self, batches: TrainingBatches, first_step: int = 0) -> tf.data.Dataset:
        """Return the batches of both tasks from a step to the end of the run; these stand under `views`."""
        views = _dataset(self.batch, range(first_step, batches.steps), lambda path: path[-1] in self._query.ragged)
        both = tf.data.Dataset.zip(batches.dataset(first_step), views)
        return both.map(lambda batch, views: {**batch, "views": views})


def _query_rows(run: Run, prepared: Prepared) -> Int32:
    """Return the query rows that the second task may draw: where each interaction is one, those of training only."""
    if run.query.entity == "features":
        return np.asarray(prepared.parts["train"].query_row)
    return np.arange(prepared.query_count, dtype=np.int32)


class QueryCodes:
    """The codes of the query side, history included.

    Args:
        prepared: the data.
        past: the interactions that histories are drawn from.

    Attributes:
        ragged: the features whose codes are as wide as the longest history of a batch.
    """

    def __init__(self, prepared: Prepared, past: Past) -> None:
        self._codes: Codes = prepared.query_codes
        self._past = past
        self._histories = {
            name: (encoder, encoder.vocabulary.codes(encoder.spelling.spell_column(prepared.items[ITEM_ID])))
            for name, encoder in prepared.query_encoders.items()
            if encoders.is_history(encoder)
        }
        self.ragged = frozenset(name for name, (encoder, _) in self._histories.items() if not encoder.places)

    def training(self, query_row: Int32, places: Int32, random: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the codes of training examples; their histories end before each of them.

        Args:
            query_row: `[batch]`, the examples' query rows.
            places: `[batch]`, the examples' places among the past's interactions.
            random: draws histories where the source has no times.
        """
        histories = {
            name: _codes(encoder, self._past.before(places, encoder.places, random), of_row)
            for name, (encoder, of_row) in self._histories.items()
        }
        return self._columns(query_row) | histories

    def now(self, query_row: Int32) -> dict[str, np.ndarray]:
        """Return the codes of query entities, `[batch]`, as they stand after all of the past."""
        histories = {
            name: _codes(encoder, self._past.until_end(query_row, encoder.places), of_row)
            for name, (encoder, of_row) in self._histories.items()
        }
        return self._columns(query_row) | histories

    def _columns(self, query_row: Int32) -> dict[str, np.ndarray]:
        return {name: codes[query_row] for name, codes in self._codes.items()}


def _dataset(
    make: Callable[[int], Mapping[str, Any]], steps: range, free: Callable[[tuple[str, ...]], bool] = lambda path: False
) -> tf.data.Dataset:
    """Return the batches of some steps, made ahead on another thread.

    Args:
        make: returns the batch of a step, a nested dictionary of arrays.
        steps: their numbers.
        free: whether the axes of the array at a path have other lengths in other batches.
    """

    def generate() -> Iterator[Mapping[str, Any]]:
        for step in steps:
            yield make(step)

    def specs(made: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
        return {
            name: specs(each, (*path, name))
            if isinstance(each, Mapping)
            else tf.TensorSpec([None] * each.ndim if free((*path, name)) else each.shape, each.dtype)
            for name, each in made.items()
        }

    signature = specs(make(0))
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4)


def membership(sets: RowSets, items: int) -> sparse.csr_array:
    """Return which items are in the set of each owner, `[owners, items]`, bool, sparse.

    Args:
        sets: distinct item rows of each owner.
        items: rows of the catalogue.
    """
    return sparse.csr_array((np.ones(len(sets.rows), bool), sets.rows, sets.offsets), shape=(len(sets), items))


def _codes(encoder: HistoryEncoder, met: Met, code_of_row: Int32) -> Int32:
    """Return the codes of histories, `[batch, entries, 3]`, int32."""
    return encoder.padded(met.lengths, code_of_row[met.item_row], met.age_days)
