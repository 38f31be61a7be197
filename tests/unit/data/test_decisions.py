"""A run file leaves to the data what only the data can decide."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config
from recsys.data.decisions import decide
from recsys.data.prepare import prepare
from recsys.linear_models import MAX_INVERTED
from recsys.registry import kind_of

MANY = MAX_INVERTED + 1


def run_over(folder, users, items, words=0):
    """Return a run that names neither objective nor tower; each item has a word of its own out of so many."""
    rows = np.arange(max(users, items))
    met = {"user_id": [f"u{row % users}" for row in rows], "item_id": [f"i{row % items}" for row in rows]}
    catalog = {
        "item_id": [f"i{row}" for row in range(items)],
        "word": [f"w{row % (words or 1)}" for row in range(items)],
    }
    pq.write_table(pa.table(met), folder / "met.parquet")
    pq.write_table(pa.table(catalog), folder / "items.parquet")
    source = {"interactions": str(folder / "met.parquet"), "items": str(folder / "items.parquet")}
    features = {"word": {"kind": "categorical", "hashed": True, "oov_buckets": 3 * words}} if words else {}
    return config.from_tables(
        {
            "name": "sized",
            "source": {"kind": "parquet", **source},
            "query": {"features": {"met": {"kind": "history"}}},
            "item": {"features": {"id": {"kind": "id"}, **features}},
            "split": {"kind": "random"},
        }
    )


@pytest.mark.parametrize(
    ("sizes", "objective", "dim"),
    [
        ({"users": 50, "items": 30}, "dlae", "auto"),
        ({"users": MANY, "items": 30}, "dlae", "auto"),
        ({"users": 50, "items": MANY}, "dlae", "auto"),
        ({"users": MANY, "items": MANY}, "all_items", 256),
        ({"users": 50, "items": MANY, "words": MANY}, "all_items", 256),
    ],
    ids=str,
)
def test_the_objective_is_a_closed_form_where_no_matrix_is_too_large_to_invert(tmp_path, sizes, objective, dim):
    run = run_over(tmp_path, **sizes)
    assert run.objective is None
    decided, (sentence, _) = decide(run, prepare(run, tmp_path / "prepared"))
    assert (kind_of(decided.objective), decided.tower.dim) == (objective, dim)
    assert sentence.startswith(f"objective: '{objective}', ")
    assert decide(decided, prepare(run, tmp_path / "prepared")) == (decided, ())
