"""How much the features of one side tell about each other: mutual information over the catalogue."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console
from rich.markup import escape
from rich.style import Style
from rich.table import Table
from rich.text import Text

from recsys import plots, registry
from recsys.errors import ShapeError
from recsys.features import Encoder
from recsys.files import storage
from recsys.progress import track
from recsys.types import Bool, Float32, Int64
from twintower.errors import describe

Float64 = NDArray[np.float64]

CHUNK_PAIRS = 2**22
"""Pairs of values that are counted at once; some 300 MB."""
DENSE_CELLS = 2**18
"""Counts of a pair of features up to this number are held in an array: 2 MB."""
QUANTILES = 10
HYPERPLANES = 5
SEED = 0
SHOWN_FROM_CHUNKS = 4
NOTHING = 1e-9
"""Normalised mutual information that is rounding."""
CELL_WIDTH = 7
FAINT, STRONG = (248, 248, 244), (8, 64, 129)


@dataclass(frozen=True, eq=False)
class Dependence:
    """What each feature tells about each other one.

    Attributes:
        names: the features.
        mutual_information: `[features, features]`, float64, nats, symmetric, not negative; entropies on the diagonal.
    """

    names: tuple[str, ...]
    mutual_information: Float64

    @property
    def normalised(self) -> Float64:
        """Return `2 MI_ij / (H_i + H_j)`, `[features, features]`, float64, unitless, 0..1.

        It is 1 on the diagonal of every feature that varies, and 0 where neither feature does.
        """
        entropy = np.diagonal(self.mutual_information)
        both = entropy[:, None] + entropy[None, :]
        return np.divide(2 * self.mutual_information, both, out=np.zeros_like(both), where=both > 0)

    def save(self, path: Path) -> None:
        """Write one Arrow file: the column `feature`, then one float64 column a feature, in the same order.

        Raises:
            StorageError: writing failed; the old file, if any, stands as it was.
        """
        columns = [pa.array(self.names, pa.string()), *(pa.array(column) for column in self.mutual_information.T)]
        table = pa.Table.from_arrays(columns, names=["feature", *self.names])
        with _replacing(path) as temporary:
            feather.write_feather(table, temporary, compression="zstd")

    @staticmethod
    def load(path: Path) -> Dependence:
        """Return what `save` wrote."""
        table = feather.read_table(path, memory_map=False)
        names = tuple(table.column(0).to_pylist())
        columns = [table.column(place).to_numpy() for place in range(1, table.num_columns)]
        return Dependence(names, np.array(columns, np.float64).reshape(len(names), len(names)).T)


def measure_dependence(
    encoders: Mapping[str, Encoder],
    codes: Mapping[str, np.ndarray],
    weight: Int64 | None = None,
    *,
    chunk_pairs: int = CHUNK_PAIRS,
) -> Dependence:
    """Return the mutual information of each pair of features over the items.

    `MI(V_i, V_j) = sum_{v_i, v_j} P(v_i, v_j) log[P(v_i, v_j) / (P(v_i) P(v_j))]`, natural logarithm, with the shares
    of the items as probabilities. 'Missing' and the out-of-vocabulary buckets are values like any other.

    A feature with several values a row makes P a choice in two steps: an item x, then from the values V_i(x) of each
    feature one, uniformly and, given the item, independently of the other features:
    `P(v_i, v_j) = 1/N sum_x 1[v_i in V_i(x)] 1[v_j in V_j(x)] / (|V_i(x)| |V_j(x)|)`. A value that stands twice in a
    row is drawn twice as often. For single values this is plain counting, and P(v_i) is the same whatever the other
    feature is. The entropy of such a feature is that of the drawn value.

    An item whose value of one feature no other item has (its id) shares no cell of the joint distribution with
    another item. Its cells are therefore not counted but summed up in closed form, `p_x log p_x - p_x (H(V_i | x) +
    H(V_j | x))`; for a feature that tells all items apart this gives `MI = H(V_j) - mean_x H(V_j | x)`. One pass over
    the items; one number is held for each pair of values that meet in the others.

    Reference: Yao et al. 2021, arXiv:2007.12865v4, Eq. 4.

    Differs: the equation is for features of one categorical value; the above is its reading for bags of values.
    Numbers count as their decile among the items that have one, and 'missing' as a value of its own. Ready-made
    vectors have no values to count: they are cut into cells by the signs of 5 random projections (fixed seed) around
    their mean, and what they tell is what their cell tells, a lower bound.

    Args:
        encoders: the fitted features, by name; those without codes (history) are left out.
        codes: `[items, *shape]` each, of one side, as `encoders.encode` gives them.
        weight: `[items]`, int64, >= 0, how often each item counts; None means once.
        chunk_pairs: pairs of values that are counted at once, >= 1; decides memory, not the result.

    Returns:
        The features in the order of `encoders`; zeros where no item counts.

    Raises:
        ShapeError: the arrays are not of one length, or a weight is negative.
    """
    names = tuple(name for name in encoders if name in codes)
    item_count = len(codes[names[0]]) if names else 0
    for name in names:
        if len(codes[name]) != item_count:
            raise ShapeError(describe(f"codes[{name!r}]", len(codes[name]), f"{item_count} rows, as {names[0]!r} has"))
    weight = np.ones(item_count, np.int64) if weight is None else np.asarray(weight)
    if weight.shape != (item_count,) or (weight < 0).any():
        raise ShapeError(describe("weight", list(weight.shape), f"[{item_count}] numbers >= 0"))
    information = np.zeros((len(names), len(names)))
    rows = np.flatnonzero(weight)
    if not names or not len(rows):
        return Dependence(names, information)

    variables = [_variable(encoders[name], codes[name], weight) for name in names]
    pairs = [(first, second) for second in range(len(names)) for first in range(second)]
    marginals = [_Cells(variable.size) for variable in variables]
    joints = {(i, j): _Cells(variables[i].size * variables[j].size) for i, j in pairs}
    total = weight.sum(dtype=np.float64)
    for chunk in _chunks(rows, [variable.places for variable in variables], chunk_pairs):
        cuts = [_cut(variable.codes[chunk]) for variable in variables]
        alone = [variable.alone[chunk] if len(variable.alone) else np.False_ for variable in variables]
        mass = weight[chunk].astype(np.float64)
        for cut, marginal in zip(cuts, marginals, strict=True):
            marginal.add(cut.value, mass[cut.row] * cut.share)
        for i, j in pairs:
            apart = np.broadcast_to(alone[i] | alone[j], len(chunk))
            share = mass[apart] / total
            within = cuts[i].entropy[apart] + cuts[j].entropy[apart]
            joints[i, j].add_entropy(float(np.sum(share * (within - np.log(share)))))
            if not apart.all():
                joints[i, j].add(*_meetings(cuts[i], cuts[j], mass, ~apart, variables[j].size))

    entropies = np.array([marginal.entropy(total) for marginal in marginals])
    np.fill_diagonal(information, entropies)
    for i, j in pairs:
        found = entropies[i] + entropies[j] - joints[i, j].entropy(total)
        information[i, j] = information[j, i] = np.clip(found, 0, min(entropies[i], entropies[j]))
    return Dependence(names, information)


def render(dependence: Dependence, console: Console, ids: Collection[str] = ()) -> None:
    """Print both matrices as heat maps, and for each feature the one that it depends on most.

    Args:
        dependence: what was measured.
        console: where to.
        ids: features that tell all of each other one, and are therefore nobody's partner.
    """
    information, normalised = dependence.mutual_information, dependence.normalised
    for title, values, most in (
        ("Mutual information in nats; entropies on the diagonal", information, information.max(initial=0.0)),
        ("Normalised: 2 MI / (H + H), 0..1", normalised, 1.0),
    ):
        _render_heat(title, dependence.names, values, most, console)
    for sentence in _sentences(dependence, ids):
        console.print(escape(sentence), highlight=False, soft_wrap=True)


def plot(dependence: Dependence, path: Path) -> None:
    """Draw both matrices as heat maps into a PNG file.

    Raises:
        InstallationError: matplotlib is not installed.
        StorageError: writing failed; the old file, if any, stands as it was.
    """
    count = len(dependence.names)
    side = 2.5 + 0.6 * count
    figure = plots.figure(2 * side, side)
    information = dependence.mutual_information
    for axes, title, values, most in zip(
        figure.subplots(1, 2),
        ("mutual information, nats (diagonal: entropy)", "normalised mutual information"),
        (information, dependence.normalised),
        (max(information.max(initial=0.0), NOTHING), 1.0),
        strict=True,
    ):
        image = axes.imshow(values, cmap="Blues", vmin=0, vmax=most)
        axes.set_title(title)
        axes.set_xticks(range(count), dependence.names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), dependence.names, parse_math=False)
        for row, column in np.ndindex(count, count):
            colour = "white" if values[row, column] > most / 2 else "black"
            axes.text(column, row, f"{values[row, column]:.2f}", ha="center", va="center", color=colour, fontsize=8)
        figure.colorbar(image, ax=axes, shrink=0.8)
    with _replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


@dataclass(frozen=True, eq=False)
class _Variable:
    """One feature as integers.

    Attributes:
        codes: `[items]`, or `[items, places]` padded with negative numbers.
        size: all codes are smaller.
        alone: `[items]`, no other item that counts has the value; empty for bags.
    """

    codes: np.ndarray
    size: int
    alone: Bool

    @property
    def places(self) -> int:
        return 1 if self.codes.ndim == 1 else self.codes.shape[1]


def _variable(encoder: Encoder, codes: np.ndarray, weight: Int64) -> _Variable:
    if encoder.dtype == np.float32:
        binned = _deciles if registry.kind_of(encoder.settings) == "numeric" else _cells_of_vectors
        codes = binned(codes, weight)
    elif codes.shape[1:] == (1,):
        codes = codes[:, 0]
    if codes.ndim == 1:
        values, codes = np.unique(codes, return_inverse=True)
        met = np.bincount(codes[weight > 0], minlength=len(values))
        return _Variable(codes, len(values), met[codes] == 1)
    return _Variable(codes, 1 + max(0, int(codes.max())), np.zeros(0, np.bool_))


def _deciles(codes: Float32, weight: Int64) -> Int64:
    """Return `[items]`: 0 where missing, else 1 + how many of the inner deciles are smaller; `codes` is (z, present).

    A decile is the smallest number that k tenths of the present items do not exceed, in exact integers.
    """
    numbers, present = codes[:, 0], codes[:, 1] > 0
    counting = np.flatnonzero(present & (weight > 0))
    ascending = counting[np.argsort(numbers[counting], kind="stable")]
    reached = np.cumsum(weight[ascending])
    if not len(reached):
        return np.zeros(len(codes), np.int64)
    wanted = -(-np.arange(1, QUANTILES) * reached[-1] // QUANTILES)
    inner = np.unique(numbers[ascending[np.searchsorted(reached, wanted)]])
    return np.where(present, 1 + np.searchsorted(inner, numbers), 0)


def _cells_of_vectors(codes: Float32, weight: Int64) -> Int64:
    """Return `[items]`: 0 where the vector is missing (zeros), else 1 + the signs of its projections as bits."""
    dim = codes[0].size
    planes = np.random.default_rng(SEED).standard_normal((dim, HYPERPLANES))
    slices = [slice(start, start + 2**14) for start in range(0, len(codes), 2**14)]
    total, mass = np.zeros(dim), 0
    for each in slices:
        vectors = codes[each].reshape(-1, dim).astype(np.float64)
        total += weight[each] @ vectors
        mass += weight[each][vectors.any(axis=1)].sum()
    cells = []
    for each in slices:
        vectors = codes[each].reshape(-1, dim).astype(np.float64)
        # A vector at the mean itself must not fall to either side by rounding.
        least = NOTHING * np.linalg.norm(vectors, axis=1, keepdims=True)
        above = (vectors - total / max(mass, 1)) @ planes > least
        cells.append(np.where(vectors.any(axis=1), 1 + above @ (1 << np.arange(HYPERPLANES)), 0))
    return np.concatenate(cells)


def _chunks(rows: Int64, places: list[int], chunk_pairs: int) -> Iterable[Int64]:
    """Return the item rows in pieces of which no pair of features has more than `chunk_pairs` pairs of values."""
    *_, second, widest = sorted([1, *places])
    height = max(1, chunk_pairs // max(second * widest, sum(places)))
    chunks = [rows[start : start + height] for start in range(0, len(rows), height)]
    return track(chunks, "measure dependence", len(chunks), "chunks") if len(chunks) >= SHOWN_FROM_CHUNKS else chunks


@dataclass(frozen=True, eq=False)
class _Cut:
    """The values of one feature in the rows of a chunk.

    Attributes:
        row: `[values]`, int64, ascending, places in the chunk; each row has at least one value.
        value: `[values]`, int64, distinct within a row.
        share: `[values]`, float64, the chance to be drawn from the row; sums to 1 in each.
        starts: `[rows]`, int64, where each row's values begin.
        sizes: `[rows]`, int64, how many they are.
        entropy: `[rows]`, float64, nats, of the value drawn from the row.
    """

    row: Int64
    value: Int64
    share: Float64
    starts: Int64
    sizes: Int64
    entropy: Float64


def _cut(codes: np.ndarray) -> _Cut:
    rows = np.arange(len(codes))
    if codes.ndim == 1:
        ones = np.ones(len(codes))
        return _Cut(rows, codes.astype(np.int64), ones, rows, ones.astype(np.int64), np.zeros(len(codes)))
    ordered = np.sort(codes, axis=1)
    ordered[ordered[:, -1] < 0, -1] = 0
    valid = ordered >= 0
    first = valid.copy()
    first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    row = np.nonzero(first)[0]
    # Padding stands in front of each row, so what lies between two first places are repetitions and padding.
    repeats = np.add.reduceat(valid.ravel(), np.flatnonzero(first), dtype=np.int64)
    share = repeats / valid.sum(axis=1)[row]
    sizes = first.sum(axis=1)
    entropy = np.bincount(row, -share * np.log(share), minlength=len(codes))
    return _Cut(row, ordered[first].astype(np.int64), share, np.cumsum(sizes) - sizes, sizes, entropy)


def _meetings(first: _Cut, second: _Cut, mass: Float64, counted: Bool, stride: int) -> tuple[Int64, Float64]:
    """Return the cell `v_i stride + v_j` and the mass of each pair of values that meet in a counted row."""
    entries = np.flatnonzero(counted[first.row])
    rows = first.row[entries]
    repeats = second.sizes[rows]
    ends = np.cumsum(repeats)
    partners = np.arange(ends[-1]) + np.repeat(second.starts[rows] - ends + repeats, repeats)
    cells = np.repeat(first.value[entries] * stride, repeats) + second.value[partners]
    return cells, np.repeat(mass[rows] * first.share[entries], repeats) * second.share[partners]


class _Cells:
    """Masses by cell number, added up piece by piece: in an array, or where that would be large, in sorted runs.

    Args:
        count: all cell numbers are smaller.
    """

    def __init__(self, count: int) -> None:
        self._entropy_apart = 0.0
        self._dense = np.zeros(count) if count <= DENSE_CELLS else None
        self._runs: list[tuple[Int64, Float64]] = []

    def add(self, cells: Int64, mass: Float64) -> None:
        """Add masses to cells, which may repeat."""
        if self._dense is not None:
            np.add.at(self._dense, cells, mass)
            return
        self._runs.append(_summed(cells, mass))
        # Runs at least halve in length, so each mass is merged a logarithmic number of times.
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            self._merge()

    def add_entropy(self, nats: float) -> None:
        """Add the `-sum p log p` of cells that are known without being added."""
        self._entropy_apart += nats

    def entropy(self, total: float) -> float:
        """Return `-sum p log p` over all cells, p = mass / total, in nats."""
        while len(self._runs) > 1:
            self._merge()
        mass = self._dense if self._dense is not None else self._runs[0][1] if self._runs else np.zeros(0)
        p = mass[mass > 0] / total
        return self._entropy_apart + max(0.0, -float(np.sum(p * np.log(p))))

    def _merge(self) -> None:
        cells, masses = zip(self._runs.pop(-2), self._runs.pop(), strict=True)
        self._runs.append(_summed(np.concatenate(cells), np.concatenate(masses)))


def _summed(cells: Int64, mass: Float64) -> tuple[Int64, Float64]:
    """Return the distinct cells, ascending, and the sum of each one's masses."""
    order = np.argsort(cells, kind="stable")  # linear for two sorted runs
    cells = cells[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    return cells[starts], np.add.reduceat(mass[order], starts)


def _sentences(dependence: Dependence, ids: Collection[str]) -> Iterator[str]:
    """Yield for each feature which other one it shares most with, a mutual choice once."""
    names, normalised = dependence.names, dependence.normalised
    told_of = [place for place, name in enumerate(names) if name not in ids]
    if len(told_of) < 2:
        return
    np.fill_diagonal(normalised, -1)
    normalised[:, [name in ids for name in names]] = -1
    partners = normalised.argmax(axis=1)
    for place in told_of:
        partner, name = partners[place], names[place]
        mutual = partners[partner] == place
        if normalised[place, partner] <= NOTHING:
            yield f"{name} depends on no other feature."
            continue
        if mutual and partner < place:
            continue
        told = f"{name} depends most on {names[partner]}"
        if mutual:
            told = f"{name} and {names[partner]} depend most on each other"
        nats, share = dependence.mutual_information[place, partner], normalised[place, partner]
        yield f"{told}: {nats:.3f} nats, {share:.3f} normalised."


def _render_heat(title: str, names: tuple[str, ...], values: Float64, most: float, console: Console) -> None:
    """Print a matrix in as many blocks of columns as the terminal needs; rows and columns carry the same numbers."""
    labels = [f"{place} {name}" for place, name in enumerate(names, 1)]
    label_width = min(max(map(len, labels), default=0), max(8, console.width // 3))
    fitting = max(1, (console.width - label_width - 4) // (CELL_WIDTH + 1))
    for start in range(0, len(names), fitting):
        shown = range(start, min(start + fitting, len(names)))
        table = Table(title=title if start == 0 else None, padding=0)
        table.add_column("feature", max_width=label_width, overflow="ellipsis", no_wrap=True)
        for place in shown:
            table.add_column(str(place + 1), min_width=CELL_WIDTH, justify="right", no_wrap=True)
        for row, label in enumerate(labels):
            cells = (_heat(values[row, column], most) for column in shown)
            table.add_row(Text(label), *cells)
        console.print(table)


def _heat(value: float, most: float) -> Text:
    heat = min(1.0, value / most) if most > 0 else 0.0
    ground = [round(faint + heat * (strong - faint)) for faint, strong in zip(FAINT, STRONG, strict=True)]
    ink = "white" if heat > 0.5 else "black"
    return Text(f"{value:.2f}".rjust(CELL_WIDTH), Style(color=ink, bgcolor=Color.from_rgb(*ground).name))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to, which becomes `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
