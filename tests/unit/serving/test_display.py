"""Display columns in reading order, and as text."""

from __future__ import annotations

import pytest

from serving import display


def test_titles_come_first_and_the_project_s_own_columns_last():
    assert display.ordered(["training_count", "brand", "item_id", "title", "age"]) == [
        "title", "age", "brand", "item_id", "training_count",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (3.0, "3"),
        (0.25, "0.25"),
        (1234567.89, "1234567.89"),
        (["a", None], "a, -"),
        (True, "True"),
        ("x", "x"),
    ],
)
def test_a_value_is_told_in_as_few_letters_as_keep_it(value, text):
    assert display.text(value) == text


def test_an_item_without_a_title_is_called_by_its_id():
    assert display.title("7", {"title": "Seven", "name": "other"}) == "Seven"
    assert display.title("7", {"title": None, "brand": "b"}) == "7"


def test_details_leave_out_what_is_missing_or_told_already():
    columns = {"title": "t", "item_id": "7", "training_count": 3, "unit_price": 0.5, "tags": [], "brand": None}
    assert display.details(columns) == [("unit price", "0.5")]
