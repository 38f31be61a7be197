"""The public sets of RECSYS_DATA_DIR: their form on small files, their size on the real ones."""

import os

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import DataError
from recsys.sources.enriched_movielens import EnrichedMovielens
from recsys.sources.text_collection import TextCollection
from recsys.sources.wikispeedia import Wikispeedia
from tests.unit.sources.archives import write_benchmark_folder
from twintower.errors import MissingError

real_data = pytest.mark.skipif(not os.environ.get("RECSYS_DATA_DIR"), reason="RECSYS_DATA_DIR is not set")


@pytest.fixture
def small_sets(tmp_path, monkeypatch):
    write_benchmark_folder(tmp_path)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))


def rows(raw):
    return pa.Table.from_batches(raw.interactions()).to_pylist()


@pytest.mark.parametrize("source", [Wikispeedia(), EnrichedMovielens(), TextCollection(collection="scifact")])
def test_without_the_variable_the_line_to_run_is_given(source, monkeypatch):
    monkeypatch.delenv("RECSYS_DATA_DIR", raising=False)

    with pytest.raises(MissingError, match="Run: export RECSYS_DATA_DIR="):
        source.read()


def test_a_folder_without_the_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))

    with pytest.raises(DataError, match="expected a folder that holds wikispeedia/"):
        Wikispeedia().read()


@pytest.mark.usefixtures("small_sets")
def test_a_link_leads_from_page_to_page():
    raw = Wikispeedia().read()

    assert raw.queries is None
    assert raw.items.to_pylist()[0] == {"item_id": "Zürich", "title": "Zürich", "cat_l1": ["Geography"]}
    assert rows(raw) == [{"query_id": "Zürich", "item_id": "Rhine"}]


@pytest.mark.usefixtures("small_sets")
def test_enriched_films_are_met_by_users_without_times():
    raw = EnrichedMovielens().read()

    assert raw.queries.to_pylist() == [
        {"query_id": "7", "gender": "F", "age": "25", "occupation": "12", "zip": "55117"}
    ]
    assert rows(raw) == [{"query_id": "7", "item_id": "1"}, {"query_id": "7", "item_id": "2"}]


@pytest.mark.usefixtures("small_sets")
def test_a_judgement_above_zero_is_an_interaction():
    raw = TextCollection(collection="scifact", split="train").read()

    assert rows(raw) == [{"query_id": "q1", "item_id": "d1"}]
    assert raw.rejects.total == 0


@pytest.mark.usefixtures("small_sets")
def test_all_splits_together_are_the_default():
    met = rows(TextCollection(collection="scifact").read())

    assert sorted(row["item_id"] for row in met) == ["d1", "d2"]


@pytest.mark.usefixtures("small_sets")
def test_an_unknown_split_is_named_with_those_that_exist():
    with pytest.raises(DataError, match=r"no split named 'dev'.*Known: all, test, train"):
        TextCollection(collection="scifact", split="dev").read()


@pytest.mark.usefixtures("small_sets")
def test_texts_have_embeddings_where_the_collection_brings_them():
    with_vectors, without = (TextCollection(collection=name).read() for name in ("scifact", "vaswani"))

    embedding = with_vectors.items["embedding"]
    assert embedding.type == pa.list_(pa.float32(), 2)
    np.testing.assert_allclose(embedding.to_pylist(), [[0.6, 0.8], [1, 0]], atol=1e-3)
    assert with_vectors.queries["embedding"].to_pylist() == [[0, 1]]
    assert without.items.column_names == ["item_id", "title", "text"]


@pytest.mark.usefixtures("small_sets")
def test_a_text_that_looks_like_a_date_stays_text():
    assert TextCollection(collection="scifact").read().items["text"].to_pylist() == ["a text", "2001-01-01"]


@real_data
@pytest.mark.parametrize(
    ("source", "items", "interactions"),
    [
        (Wikispeedia(), 4_604, 119_882),
        (EnrichedMovielens(), 3_883, 1_000_209),
        (TextCollection(collection="scifact", split="test"), 5_183, 339),
        (TextCollection(collection="vaswani"), 11_429, 2_083),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_real_sets_have_their_known_size(source, items, interactions):
    raw = source.read()

    assert raw.items.num_rows == items
    assert sum(batch.num_rows for batch in raw.interactions()) == interactions
    assert raw.rejects.total == 0
