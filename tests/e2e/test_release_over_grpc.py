"""A trained release behind a real server process: the same vectors as offline, and an orderly life."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import config, pipeline
from recsys.evaluation.index_quality import CERTIFICATE, Certificate
from recsys.export.release import Release
from tests.worlds import POOLED, copy_of
from twintower.client import Client
from twintower.types import Origin, Query

USERS = 1_200
SYNTHETIC = {
    "name": "synthetic",
    "source": {"kind": "synthetic", "users": USERS, "items": 6_000, "interactions": 30_000, "groups": 8},
    "query": {
        "features": {
            "segment": {"kind": "categorical"},
            "age": {"kind": "numeric", "transform": "quantile"},
            "country": {"kind": "categorical", "hashed": True, "oov_buckets": 3},
            "who": {"kind": "id", "width": 8},
            "recent": {"kind": "history", "length": 6, **POOLED},
        }
    },
    "item": {"features": {"id": {"kind": "id", "width": 8}, "category": {"kind": "categorical"}}},
    "tower": {"kind": "mlp", "hidden": [16], "dim": 16},
    "objective": {"kind": "sampled_softmax"},
    "training": {"epochs": 1, "batch_size": 512},
    "evaluation": {"exclude_seen": False, "resamples": 100, "baselines": ["popularity"]},
    "index": {"kind": "scann", "brute_force_below": 0, "target_recall": 0.9},
}


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder = tmp_path_factory.mktemp("synthetic")
    return pipeline.train(config.from_tables(SYNTHETIC), folder / "work", folder / "releases")


def start(folder: Path, port_file: Path, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serving", str(folder), "--port", "0", "--port-file", str(port_file), *words]
    with open(log_of(port_file), "wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)


def log_of(port_file: Path) -> Path:
    return port_file.with_name("server.log")


def wait_for(port_file: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 120
    while not port_file.exists():
        assert server.poll() is None, log_of(port_file).read_text()
        assert time.monotonic() < deadline, "the server was not ready within two minutes"
        time.sleep(0.05)
    return f"127.0.0.1:{port_file.read_text().strip()}"


@pytest.fixture(scope="module")
def client(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    port_file = tmp_path_factory.mktemp("server") / "port"
    server = start(release.folder, port_file)
    try:
        with Client(wait_for(port_file, server), timeout_s=10.0) as client:
            yield client
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0, log_of(port_file).read_text()


def test_the_vector_over_the_wire_is_the_offline_vector_on_a_thousand_rows(client, release):
    asked = pq.read_table(release.folder / "golden" / "queries.parquet")["query_id"].to_pylist()
    offline = np.load(release.folder / "golden" / "vectors.npy")
    assert len(asked) == 1_000
    served = np.stack([client.encode_query(Query(entity_id=query_id)).vector for query_id in asked])
    np.testing.assert_allclose(served, offline, atol=1e-5)


def test_features_sent_by_the_caller_give_the_vector_of_the_stored_ones(client, release):
    stored = pq.read_table(release.folder / "queries.parquet").slice(0, 50).to_pylist()
    for row in stored:
        features = {name: row[name] for name in ("segment", "age", "country")}
        history = [met["item_id"] for met in reversed(row["history"])]
        by_features = client.encode_query(Query(entity_id="stranger", features=features, history=history))
        again = client.encode_query(Query(entity_id="other stranger", features=features, history=history))
        assert by_features.origin is Origin.FEATURES
        np.testing.assert_array_equal(by_features.vector, again.vector)
        known = client.encode_query(Query(entity_id=row["query_id"]))
        # only the id differs between the stored entity and a stranger with the same features
        assert float(known.vector @ by_features.vector) > 0.5


def test_the_index_behind_the_wire_finds_what_its_certificate_says(client, release):
    vectors = np.load(release.folder / "item_embeddings.npy")
    asked = np.load(release.folder / "golden" / "vectors.npy")[:300]
    ids = np.array(pq.read_table(release.folder / "items.parquet")["item_id"].to_pylist())
    answers = client.batch_nearest_items([Query(vector=vector) for vector in asked], 10)
    exact = np.argsort(-(asked @ vectors.T), axis=1)[:, :10]
    found = [len(set(answer.item_ids) & set(ids[rows])) / 10 for answer, rows in zip(answers, exact, strict=True)]
    certificate = Certificate.read(release.folder / CERTIFICATE)
    error = np.std(found) / np.sqrt(len(found))  # other queries than those of the certificate
    assert np.mean(found) >= certificate.recall_low - 4 * error


def test_vectors_find_what_queries_with_the_same_vectors_find(client, release):
    asked = np.load(release.folder / "golden" / "vectors.npy")[:300]
    answers = client.batch_nearest_items([Query(vector=vector) for vector in asked], 10)
    matches = client.search_vectors(asked, 10)
    assert matches.item_ids == tuple(answer.item_ids for answer in answers)
    np.testing.assert_array_equal(matches.scores, [answer.scores for answer in answers])


def test_every_answer_names_the_release(client, release):
    answer = client.nearest_items(Query(entity_id="u1"), 3)
    assert (answer.release.name, answer.release.fingerprint) == (release.name, release.fingerprint)
    assert client.release().metrics == pytest.approx(dict(release.facts.metrics))


def test_a_damaged_release_is_not_served(release, tmp_path):
    folder = copy_of(release, tmp_path).folder
    with open(folder / "item_embeddings.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x42")
    server = start(folder, tmp_path / "port")
    assert server.wait(timeout=120) == 2
    log = log_of(tmp_path / "port").read_text()
    assert "item_embeddings.npy: damaged, or from another release" in log
    assert "Traceback" not in log
    assert not (tmp_path / "port").exists()


def test_the_server_process_loads_no_training_code(release):
    code = (
        "import sys\n"
        "import serving.bootstrap, twintower.client\n"
        "from recsys.retrieval import Retriever\n"
        f"Retriever.load({str(release.folder)!r}).warm()\n"
        "print([name for name in sys.modules if name.startswith(("
        "'recsys.training', 'recsys.objectives', 'recsys.sources', 'recsys.splits', 'recsys.towers', 'recsys.layers',"
        "'recsys.baselines', 'recsys.evaluation', 'recsys.pipeline', 'tensorflow_recommenders', 'implicit',"
        "'ir_measures'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
