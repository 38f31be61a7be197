"""Milvus Lite, asked by pymilvus, in an environment of its own: `python -m benchmarks.peers.milvus_lite`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cores import on_cores
from benchmarks.peers.vector_search import Found, K, Rows, Search, Task, serve, sweep

LADDER = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PART = 5000


def measure(task: Task, folder: Path, server_cores: Sequence[int]) -> list[Found]:
    """Sweep every kind of index that it builds; of those that reach a recall, the best for one caller counts."""
    from pymilvus import MilvusClient

    best: dict[float, Found] = {}
    with on_cores(server_cores):
        client = MilvusClient(str(folder / "milvus.db"))
        _fill(client, task.vectors)
    for kind, build, name, ladder in _kinds(len(task.vectors)):
        with on_cores(server_cores):
            _index(client, kind, build)
        efforts = {str(effort): ({name: effort}, _search(client, {name: effort})) for effort in ladder}
        for found in sweep(task, {"index": kind, **build}, efforts):
            kept = best.setdefault(found.target, found)
            if max(found.queries_per_s["one_caller"]) > max(kept.queries_per_s["one_caller"]):
                best[found.target] = found
    return list(best.values())


def _kinds(items: int) -> Iterator[tuple[str, Mapping[str, int], str, Sequence[int]]]:
    """Yield kind, build parameters, and the search parameter with what to try for it."""
    yield "FLAT", {}, "nprobe", (1,)
    lists = round(items**0.5)
    yield "IVF_FLAT", {"nlist": lists}, "nprobe", [probes for probes in LADDER if probes <= lists]
    yield "HNSW", {"M": 16, "efConstruction": 200}, "ef", [ef for ef in LADDER if ef >= K]


def _fill(client: Any, vectors: np.ndarray) -> None:
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
    client.create_collection("items", schema=schema)
    for start in range(0, len(vectors), PART):
        rows = enumerate(vectors[start : start + PART].tolist(), start)
        client.insert("items", [{"id": row, "vector": vector} for row, vector in rows])
    client.flush("items")


def _index(client: Any, kind: str, build: Mapping[str, int]) -> None:
    if client.list_indexes("items"):
        client.release_collection("items")
        client.drop_index("items", "vector")
    parameters = client.prepare_index_params()
    parameters.add_index("vector", index_type=kind, metric_type="IP", params=dict(build))
    client.create_index("items", parameters)
    client.load_collection("items")


def _search(client: Any, effort: Mapping[str, int]) -> Search:
    def search(queries: np.ndarray) -> Rows:
        found = client.search("items", data=queries.tolist(), limit=K, search_params={"params": dict(effort)})
        return [[hit["id"] for hit in hits] for hits in found]

    return search


if __name__ == "__main__":
    serve(measure)
