"""Finding ids by what a person types."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from recsys.errors import ReleaseError
from recsys.export.release import derive
from serving.explore.catalogue import Catalogue, Known
from tests.worlds import copy_of

FRUIT = Catalogue(
    pa.table(
        {
            "item_id": ["10", "1", "100", "7"],
            "name": ["Red apple", "Green pear", "Green apple", None],
            "tags": [["x"], [], None, ["y"]],
            "price": [1.5, None, 2.0, 10.0],
            "training_count": [5, 1, 9, 7],
        }
    ),
    "item_id",
)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("", ["100", "7", "10", "1"]),
        ("1", ["1", "100", "10", "7"]),
        (" APPLE  green ", ["100"]),
        ("green", ["100", "1"]),
        ("10", ["10", "100", "7"]),
        ("plum", []),
        ("%.*", []),
    ],
)
def test_every_word_must_fit_and_ids_come_before_columns_and_frequent_items_before_rare_ones(typed, found):
    assert FRUIT.find(typed, 10) == found


def test_no_more_are_found_than_asked_for():
    assert FRUIT.find("", 2) == ["100", "7"]


def test_words_do_not_fit_across_columns():
    # the id and the name stand beside each other
    assert FRUIT.find("10red", 5) == []


def test_an_unknown_id_has_no_columns_and_is_called_as_it_is():
    assert (FRUIT.row("absent"), FRUIT.title("absent")) == ({}, "absent")
    assert (FRUIT.row("1")["price"], FRUIT.title("1"), FRUIT.title("7")) == (None, "Green pear", "7")


def test_chance_meets_every_id():
    random = np.random.default_rng(0)
    assert {FRUIT.any(random) for _ in range(100)} == {"10", "1", "100", "7"}


def test_a_release_knows_its_users_and_its_items_with_what_is_shown_of_them(block_release):
    known = Known.read(block_release)
    assert known.items.find("thing number 12", 3) == ["item-ü12"]
    assert known.items.row("item-ü3").keys() == {"item_id", "title", "taste", "training_count"}
    assert known.entities is not None
    assert known.entities.find("USER 17", 3) == ["user 17"]
    # history length is 5; odd users meet odd items only
    history = known.history("user 17")
    assert len(history) == 5
    assert all(int(item_id.removeprefix("item-ü")) % 2 == 1 for item_id in history)
    assert known.history("nobody") == []


def test_a_release_whose_ids_cannot_be_read_is_named(block_release, tmp_path):
    def spoil(folder):
        (folder / "items.parquet").unlink()
        (folder / "items.parquet").write_bytes(b"no table")
        return {}

    with pytest.raises(ReleaseError, match="its ids cannot be read"):
        Known.read(derive(copy_of(block_release, tmp_path), spoil))
