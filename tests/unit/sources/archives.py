"""Small files in the forms of the public sets, written by the tests."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_movielens_1m(folder: Path) -> Path:
    """Write `ml-1m.zip` with 4 ratings of 2 films by 2 users; titles are latin-1, as in the original."""
    path = folder / "ml-1m.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ml-1m/movies.dat", "1::Amélie (2001)::Comedy|Romance\n2::No Year::Drama\n".encode("latin-1"))
        archive.writestr("ml-1m/users.dat", "7::F::25::12::55117\n8::M::56::16::70072\n")
        archive.writestr(
            "ml-1m/ratings.dat", "7::1::5::978300760\n7::2::3::978302109\n8::1::4::978301968\n8::2::1::978300275\n"
        )
    return path


def write_movielens_100k(folder: Path) -> Path:
    """Write the folder of an extracted ml-100k with one film that is Comedy and War."""
    root = folder / "ml-100k"
    root.mkdir()
    flags = ["0"] * 19
    flags[5], flags[17] = "1", "1"
    film = ["50", "Ärger (1996)", "01-Jan-1996", "", "http://example.org", *flags]
    (root / "u.item").write_text("|".join(film) + "\n", encoding="latin-1")
    (root / "u.user").write_text("196|49|M|writer|55105\n")
    (root / "u.data").write_text("196\t50\t3\t881250949\n")
    return root


def write_movielens_latest_small(folder: Path) -> Path:
    """Write the folder of an extracted ml-latest-small: CSV, a comma in a title, a film without genres."""
    root = folder / "ml-latest-small"
    root.mkdir()
    (root / "movies.csv").write_text(
        'movieId,title,genres\n11,"American President, The (1995)",Comedy|Drama\n12,Untold,(no genres listed)\n'
    )
    (root / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,11,4.5,964982703\n1,12,0.5,964981247\n")
    return root


def write_benchmark_folder(folder: Path) -> None:
    """Write a folder in the form of RECSYS_DATA_DIR: wikispeedia, ml-1m, scifact with vectors, vaswani without."""
    for name in ("wikispeedia", "ml-1m", "scifact/minilm", "vaswani"):
        (folder / name).mkdir(parents=True)
    pages = pa.table({"item": ["Zürich", "Rhine"], "title": ["Zürich", "Rhine"], "cat_l1": [["Geography"], []]})
    pq.write_table(pages, folder / "wikispeedia/items.parquet")
    links = pa.table({"user": ["Zürich"], "item": ["Rhine"]})
    pq.write_table(links, folder / "wikispeedia/interactions.parquet")
    pq.write_table(pa.table({"item": [1, 2], "title": ["A", "B"]}), folder / "ml-1m/items.parquet")
    pq.write_table(pa.table({"user": [7, 7], "item": [1, 2]}), folder / "ml-1m/interactions.parquet")
    (folder / "ml-1m/users.dat").write_text("7::F::25::12::55117\n")
    for name, vectors in (("scifact", True), ("vaswani", False)):
        _write_lines(folder / name / "docs.jsonl.gz", [("d1", "Title", "a text"), ("d2", "", "2001-01-01")])
        _write_lines(folder / name / "queries.jsonl.gz", [("q1", None, "a question")])
        if vectors:
            np.save(folder / name / "minilm/docs.npy", np.array([[0.6, 0.8], [1, 0]], np.float16))
            np.save(folder / name / "minilm/queries.npy", np.array([[0, 1]], np.float16))
    header = "query-id\tcorpus-id\tscore\n"
    (folder / "scifact/qrels.train.tsv").write_text(header + "q1\td1\t1\nq1\td2\t0\n")
    (folder / "scifact/qrels.test.tsv").write_text(header + "q1\td2\t2\n")
    (folder / "vaswani/qrels.all.tsv").write_text(header + "q1\td1\t1\n")


def _write_lines(path: Path, rows: list[tuple[str, str | None, str]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        for key, title, text in rows:
            stream.write(json.dumps({"_id": key, **({} if title is None else {"title": title}), "text": text}) + "\n")
