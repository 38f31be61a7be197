"""The run file `text_collection` on a folder of texts: ready-made vectors are never made worse, queries stay apart."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from recsys import config, pipeline, reformulation
from recsys.data.mined import Mined
from recsys.export.release import Release

DOCS, QUERIES, DIM = 120, 80, 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Texts whose vectors lie near those of the one document that answers them."""
    root, random = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    docs = random.normal(size=(DOCS, DIM))
    answers = random.integers(0, DOCS, QUERIES)
    queries = docs[answers] + 0.8 * random.normal(size=(QUERIES, DIM))
    for name, count, extra in (("docs", DOCS, {"title": "a title"}), ("queries", QUERIES, {})):
        lines = [json.dumps({"_id": f"{name}-{row}", **extra, "text": f"text {row}"}) for row in range(count)]
        with gzip.open(root / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    (root / "minilm").mkdir()
    for name, vectors in (("docs", docs), ("queries", queries)):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.save(root / "minilm" / f"{name}.npy", unit.astype(np.float16))
    judged = [f"queries-{query}\tdocs-{doc}\t1" for query, doc in enumerate(answers)]
    (root / "qrels.all.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    return root


def trained(folder: Path, home: Path, *overrides: str) -> Release:
    run = config.load(
        "text_collection",
        [f"source.collection={str(folder)!r}", f"tower.dim={DIM}", "index.kind='brute_force'", *overrides],
    )
    return pipeline.train(run, home / "work", home / "releases")


def test_a_training_that_makes_the_vectors_worse_gives_the_vectors_as_they_are(folder, tmp_path, capsys):
    release = trained(folder, tmp_path, "training.learning_rate=30.0", "training.batch_size=4")
    given = np.load(folder / "minilm" / "docs.npy").astype(np.float32)
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    np.testing.assert_allclose(np.load(release.folder / "item_embeddings.npy"), given, atol=1e-5)
    assert "The weights of the start, the ready-made vectors, are used" in capsys.readouterr().err


def test_queries_to_learn_from_and_to_judge_with_are_others(folder, tmp_path):
    release = trained(folder, tmp_path)
    run = config.load(release.folder / "run.toml")
    parts = [
        reformulation.mine(release, run, part=part, k=5, out=tmp_path / f"{part}.arrow", work=tmp_path / "work")
        for part in ("validation", "test")
    ]
    ids = [set(Mined.read(tmp_path / f"{part}.arrow").case_ids.to_pylist()) for part in ("validation", "test")]
    assert [len(part) for part in parts] == [round(0.7 * QUERIES), round(0.25 * QUERIES)]
    assert not ids[0] & ids[1]
