"""Broken rows are counted, named, and too many of them are an error."""

import pytest

from recsys.errors import DataError
from recsys.sources import Rejects


def test_every_row_counts_and_the_first_places_are_kept():
    rejects = Rejects(kept_examples=2)

    rejects.add("no id", "a.csv:2")
    rejects.add_all("no id", 3, (f"a.csv:{line}" for line in (5, 6, 7)))

    assert rejects.counts == {"no id": 4}
    assert rejects.examples == {"no id": ["a.csv:2", "a.csv:5"]}


def test_a_share_up_to_the_limit_passes():
    rejects = Rejects()
    rejects.add("no id", "a.csv:2")

    rejects.check(rows_read=100, max_rate=0.01)


def test_a_larger_share_names_reasons_places_and_the_setting():
    rejects = Rejects()
    rejects.add_all("no id", 2, ["a.csv:2", "a.csv:9"])

    # 2 of 199 is more than 1 of 100.
    with pytest.raises(DataError, match=r"(?s)data\.max_rejected_rate: got 2 broken rows of 199.*no id: 2.*a\.csv:9"):
        rejects.check(rows_read=199, max_rate=0.01)


def test_a_new_pass_forgets_only_the_rows_of_the_last_one():
    rejects = Rejects()
    rejects.add("item_id given twice", "items.csv:3")
    of_items = rejects.copy()
    rejects.add("query_id missing", "met.csv:4")

    rejects.restart(of_items)

    assert rejects.counts == {"item_id given twice": 1}
    assert rejects.examples == {"item_id given twice": ["items.csv:3"]}
