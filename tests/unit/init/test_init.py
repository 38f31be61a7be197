"""A run file proposed from data: which column is what, which kind of feature suits it, and why."""

import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from recsys import config
from recsys.data.decisions import decide
from recsys.data.prepare import prepare
from recsys.init import Named, run_file_for_files
from recsys.init.features import propose_feature
from recsys.linear_models import MAX_INVERTED
from recsys.registry import kind_of
from twintower.errors import SettingError

USERS, ITEMS = 60, 40
START = datetime(2026, 1, 1, tzinfo=UTC)


def tables(seed: int = 0) -> tuple[pa.Table, pa.Table, pa.Table]:
    random = np.random.default_rng(seed)
    users = [f"u{number:03}" for number in range(USERS)]
    items = [f"{number:05}" for number in range(ITEMS)]
    users_met = random.choice(users, 900)
    met = pa.table(
        {
            "customer": users_met,
            "sku": random.choice(items, 900),
            "bought_at": [START + timedelta(hours=int(hours)) for hours in random.integers(0, 5_000, 900)],
            "price": random.random(900),
        }
    )
    catalog = pa.table(
        {
            "sku": items,
            "name": [f"A {random.choice(['red', 'blue'])} thing number {number}" for number in range(ITEMS)],
            "colors": random.choice(["red|blue", "red|green", "blue", "green|blue"], ITEMS),
            "weight_kg": random.random(ITEMS) * 10,
            "department": random.choice(["tools", "garden", "toys"], ITEMS),
            "label": [f"L-{number}" for number in range(ITEMS)],
        }
    )
    people = pa.table({"id": users, "city": random.choice(["Oslo", "Lima"], USERS)})
    return met, catalog, people


def write(folder: Path, table: pa.Table, name: str, suffix: str) -> str:
    file = folder / f"{name}{suffix}"
    pq.write_table(table, file) if suffix == ".parquet" else csv.write_csv(table, file)
    return str(file)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_proposed_run_file_reads_the_files_as_their_owner_would(tmp_path, suffix):
    met, catalog, people = tables()
    named = Named(
        write(tmp_path, met, "sales", suffix),
        write(tmp_path, catalog, "products", suffix),
        write(tmp_path, people, "people", suffix),
    )
    run = config.from_tables(tomllib.loads(run_file_for_files(named, "my sales")))
    source = run.source
    assert (source.query_column, source.item_column, source.timestamp_column) == ("customer", "sku", "bought_at")
    assert (source.items_id_column, source.users_id_column) == ("", "id")
    assert source.list_columns == ("colors",)
    kinds = {name: type(feature).__name__ for name, feature in run.item.features.items()}
    assert kinds == {
        "id": "Id", "name": "Text", "colors": "MultiCategorical", "weight_kg": "Numeric", "department": "Categorical",
    }  # fmt: skip
    assert set(run.query.features) == {"met", "city"}
    assert run.name == "my_sales"
    raw = source.read()
    assert raw.items.num_rows == ITEMS
    assert sum(batch.num_rows for batch in raw.interactions()) == 900


def test_queries_that_are_items_bring_the_features_of_items(tmp_path):
    _, catalog, _ = tables()
    random = np.random.default_rng(1)
    links = pa.table({"source": random.choice(catalog["sku"], 500), "sku": random.choice(catalog["sku"], 500)})
    named = Named(write(tmp_path, links, "links", ".parquet"), write(tmp_path, catalog, "pages", ".parquet"))
    run = config.from_tables(tomllib.loads(run_file_for_files(named, "links")))
    assert run.query.entity == "item"
    assert set(run.query.features) == {"met", "name", "colors", "weight_kg", "department"}


def test_interactions_alone_are_enough(tmp_path):
    met, _, _ = tables()
    run = config.from_tables(tomllib.loads(run_file_for_files(Named(write(tmp_path, met, "sales", ".csv")), "sales")))
    assert run.source.read().items.num_rows == ITEMS
    assert list(run.item.features) == ["id"]


def test_a_column_that_cannot_be_told_is_asked_for_by_its_option(tmp_path):
    table = pa.table({"one": ["a", "b"], "two": ["c", "d"], "three": ["e", "f"]})
    with pytest.raises(SettingError, match=r"--item-column.*one, two, three"):
        run_file_for_files(Named(write(tmp_path, table, "odd", ".csv")), "odd")


def test_a_number_made_of_the_interactions_is_left_out_as_a_leak():
    counts = np.arange(100)
    proposal = propose_feature("n", pa.chunked_array([counts * 2.5 + 1]), counts)
    assert proposal.settings is None
    assert "leak" in proposal.reason
    assert propose_feature("n", pa.chunked_array([np.random.default_rng(0).random(100)]), counts).settings is not None


@pytest.mark.parametrize(("words", "objective"), [(3, "dlae"), (2 * MAX_INVERTED, "all_items")])
def test_a_closed_form_is_proposed_where_the_values_of_the_features_can_be_inverted(tmp_path, words, objective):
    rows = np.arange(MAX_INVERTED + 1)
    text = [f"{word} {word + 1} {word + 2} {word + 3}" for word in rows % words]
    catalog = pa.table({"sku": [f"i{row}" for row in rows], "one": text, "two": text[::-1]})
    met = pa.table({"user": [f"u{row % 30}" for row in rows], "sku": catalog["sku"]})
    named = Named(write(tmp_path, met, "met", ".parquet"), write(tmp_path, catalog, "items", ".parquet"))
    run = config.from_tables(tomllib.loads(run_file_for_files(named, "wide")))
    decided, _ = decide(replace(run, objective=None), prepare(run, tmp_path / "prepared"))
    assert kind_of(run.objective) == kind_of(decided.objective) == objective


def test_each_choice_has_its_reason_beside_it(tmp_path):
    met, catalog, people = tables()
    text = run_file_for_files(
        Named(
            write(tmp_path, met, "m", ".csv"),
            write(tmp_path, catalog, "c", ".csv"),
            write(tmp_path, people, "p", ".csv"),
        ),
        "x",
    )
    assert "label (a value of its own in nearly every row" in text.replace("\n# ", " ")
    blocks = text.split("\n\n")
    for block in blocks:
        assert block.startswith("#"), block
    comments = ["\n".join(line for line in block.splitlines() if line.startswith("#")) for block in blocks]
    (of_queries,) = (comment for comment, block in zip(comments, blocks, strict=True) if "[query]" in block)
    assert "query entities are users" in of_queries


def test_two_rows_of_a_pair_at_one_instant_are_no_repeat_as_in_training(tmp_path):
    users = [f"u{number}" for number in range(USERS)]
    met = {"customer": users * 2, "sku": ["a", "b", "c"] * (2 * USERS // 3)}
    times = {name: [START + timedelta(hours=hours)] * USERS for name, hours in (("first", 0), ("later", 24))}
    # Each user meets one item twice: at one instant, or a day later.
    one_instant = pa.table(met | {"bought_at": times["first"] * 2})
    a_day_later = pa.table(met | {"bought_at": times["first"] + times["later"]})
    found = [
        run_file_for_files(Named(write(tmp_path, table, name, ".parquet")), "x").replace("\n# ", " ")
        for name, table in (("one_instant", one_instant), ("a_day_later", a_day_later))
    ]
    assert "; 0% of them repeat an earlier pair" in found[0]
    assert "; 50% of them repeat an earlier pair" in found[1]


def test_equal_times_are_no_times_and_unused_columns_are_named(tmp_path):
    met, catalog, _ = tables()
    met = met.set_column(2, "bought_at", pa.array([START] * len(met)))
    named = Named(write(tmp_path, met, "met", ".parquet"), write(tmp_path, catalog, "catalog", ".parquet"))
    text = run_file_for_files(named, "shop")
    assert "timestamp_column" not in tomllib.loads(text)["source"]
    comments = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("#"))
    assert "timestamp_column: left out, because all times in bought_at are equal or missing." in comments
    assert "unused columns of the interactions: price; set `weight_column`" in comments
    file = tmp_path / "run.toml"
    file.write_text(text, encoding="utf-8")
    config.load(str(file))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{title}{number}" for number in range(20) for title in ("Heat ", "Toy Story ", "Jaws", "Fish")], "text"),
        (["a b", "c"] * 20, "categorical"),
    ],
)
def test_short_titles_are_texts_and_repeated_names_are_categories(values, kind):
    assert propose_feature("title", pa.chunked_array([values])).settings["kind"] == kind


def test_a_missing_folder_is_refused_before_the_data_are_read(tmp_path):
    command = [sys.executable, "-m", "recsys.cli", "init", "no.parquet", "--out", str(tmp_path / "no" / "run.toml")]
    told = subprocess.run(command, capture_output=True, text=True).stderr
    assert "--out: got" in told
    assert "a file in a folder that exists" in told


def test_the_command_writes_no_file_over_another(tmp_path):
    met, _, _ = tables()
    call = [sys.executable, "-m", "recsys.cli", "init", write(tmp_path, met, "sales", ".csv")]
    first = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert "recsys" in first.stdout or "train" in first.stdout
    written = (tmp_path / "run.toml").read_bytes()
    second = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 2
    assert "--force" in second.stderr
    assert (tmp_path / "run.toml").read_bytes() == written
