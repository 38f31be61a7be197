"""Chroma's server, asked by its own client, in an environment of its own: `python -m benchmarks.peers.chroma`."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cores import on_cores
from benchmarks.peers.vector_search import Found, K, Rows, Search, Task, serve, sweep

START_S = 120.0
BUILD = {"max_neighbors": 16, "ef_construction": 200}
EFFORTS = (10, 16, 24, 32, 48, 64, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)


def measure(task: Task, folder: Path, server_cores: Sequence[int]) -> list[Found]:
    """Start the server on its cores, fill a collection, and sweep `ef_search`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("chroma")
    command = [program, "run", "--path", folder / "chroma", "--host", "127.0.0.1", "--port", str(port)]
    with on_cores(server_cores), open(folder / "chroma.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        collection = _filled(_client(port), task.vectors)
        efforts = {str(ef): ({"ef_search": ef}, _search(collection, ef)) for ef in EFFORTS}
        return sweep(task, {"index": "HNSW", **BUILD}, efforts)
    finally:
        server.kill()
        server.wait()


def _client(port: int) -> Any:
    import chromadb

    deadline = time.monotonic() + START_S
    settings = chromadb.Settings(anonymized_telemetry=False)
    while True:
        try:
            return chromadb.HttpClient("127.0.0.1", port, settings=settings)
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _filled(client: Any, vectors: np.ndarray) -> Any:
    collection = client.create_collection(
        "items", embedding_function=None, configuration={"hnsw": {"space": "ip", **BUILD}}
    )
    size = min(5000, client.get_max_batch_size())
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        collection.add(ids=[str(row) for row in range(start, start + len(part))], embeddings=part)
    return collection


def _search(collection: Any, ef: int) -> Search:
    """Return a search that sets `ef_search` where another one was set last."""

    def search(queries: np.ndarray) -> Rows:
        if collection.configuration["hnsw"]["ef_search"] != ef:
            collection.modify(configuration={"hnsw": {"ef_search": ef}})
        found = collection.query(query_embeddings=queries, n_results=K, include=["distances"])
        return [[int(row) for row in rows] for rows in found["ids"]]

    return search


if __name__ == "__main__":
    serve(measure)
