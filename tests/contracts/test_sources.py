"""The contract of the family `sources`: tables and batches of one form, whatever is read."""

import pyarrow as pa
import pytest

from recsys import registry
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, WEIGHT
from tests.unit.sources.archives import write_benchmark_folder, write_movielens_1m

# One working table of settings for each kind; a new source needs one here.
SETTINGS = {
    "complete_journey": lambda folder: {"min_item_count": 2000},
    "enriched_movielens": lambda folder: {},
    "movielens": lambda folder: {"path": str(write_movielens_1m(folder))},
    "parquet": lambda folder: write_own_files(folder),
    "synthetic": lambda folder: {"users": 50, "items": 20, "interactions": 200},
    "text_collection": lambda folder: {"collection": "scifact"},
    "wikispeedia": lambda folder: {},
}


def write_own_files(folder):
    (folder / "met.csv").write_text("user_id,item_id,at,w\nu,a,2024-05-01,1\nv,b,nonsense,2\nv,b,2024-05-02,2\n")
    (folder / "items.csv").write_text("item_id,colour\na,red\nb,\n")
    (folder / "users.csv").write_text("user_id,town\nu,Köln\nu,Bonn\n")
    names = {"interactions": "met.csv", "items": "items.csv", "users": "users.csv"}
    return {key: str(folder / name) for key, name in names.items()} | {"timestamp_column": "at", "weight_column": "w"}


@pytest.fixture(params=registry.names("sources"))
def source(request, tmp_path, monkeypatch):
    write_benchmark_folder(tmp_path)
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path))
    return registry.build("sources", {"kind": request.param, **SETTINGS[request.param](tmp_path)}, "source")


def test_item_ids_are_unique_strings(source):
    ids = source.read().items[ITEM_ID]

    assert ids.type == pa.string()
    assert ids.null_count == 0
    assert len(ids.unique()) == len(ids) > 0


def test_query_ids_are_unique_strings_where_there_is_a_query_table(source):
    queries = source.read().queries

    if queries is not None:
        assert queries[QUERY_ID].type == pa.string()
        assert queries[QUERY_ID].null_count == 0
        assert len(queries[QUERY_ID].unique()) == queries.num_rows > 0


def test_all_batches_share_one_schema_of_the_contract_s_types(source):
    batches = list(source.read().interactions())

    schema = batches[0].schema
    assert all(batch.schema.equals(schema) for batch in batches)
    assert schema.field(ITEM_ID).type == schema.field(QUERY_ID).type == pa.string()
    if TIMESTAMP in schema.names:
        assert schema.field(TIMESTAMP).type == pa.timestamp("us", "UTC")
    if WEIGHT in schema.names:
        assert schema.field(WEIGHT).type == pa.float32()
    table = pa.Table.from_batches(batches)
    assert table.num_rows > 0
    assert all(table[name].null_count == 0 for name in schema.names)


def test_each_pass_starts_anew_and_counts_its_broken_rows_once(source):
    raw = source.read()

    first = pa.Table.from_batches(raw.interactions())
    after_first = dict(raw.rejects.counts)
    second = pa.Table.from_batches(raw.interactions())

    assert first.equals(second)
    assert raw.rejects.counts == after_first


def test_most_interactions_name_items_of_the_table(source):
    raw = source.read()
    known = set(raw.items[ITEM_ID].to_pylist())

    met = pa.Table.from_batches(raw.interactions())[ITEM_ID].to_pylist()

    assert sum(value in known for value in met) > 0.9 * len(met)


def test_its_settings_survive_a_run_file(source):
    assert registry.build("sources", registry.table_of(source), "source") == source
