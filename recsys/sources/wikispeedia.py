"""Wikispeedia: 119,882 links among 4,604 Wikipedia articles; link prediction from article to article."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, RawData, Rejects, _benchmark_data, _rows
from recsys.sources._files import Shards

NOTICE = "Wikispeedia (SNAP): articles of the 2007 Wikipedia Selection for Schools, without times."


@settings()
class Wikispeedia:
    """Items are articles (title, cat_l1, cat_l2, cat_l3, lead, n_chars); a query is the article that links.

    Read from the folder `wikispeedia` in `RECSYS_DATA_DIR`. For `query.entity = "item"`; there are no times.
    """

    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders that are read."""
        return (_benchmark_data.folder("wikispeedia"),)

    def read(self) -> RawData:
        """Return the data.

        Raises:
            MissingError: `RECSYS_DATA_DIR` is not set.
            DataError: the folder or one of its files is missing.
        """
        folder = _benchmark_data.folder("wikispeedia")
        rejects = Rejects()
        articles = Shards.of(str(folder / "items.parquet"), "wikispeedia", ["item"])
        links = Shards.of(str(folder / "interactions.parquet"), "wikispeedia", ["user", "item"])
        items = _rows.entities(articles.pieces(articles.names, rejects), "item", ITEM_ID, rejects)
        of_items = rejects.copy()

        def interactions() -> Iterator[pa.RecordBatch]:
            rejects.restart(of_items)
            return _rows.interactions(links.pieces(links.names, rejects), {QUERY_ID: "user", ITEM_ID: "item"}, rejects)

        return RawData(items, None, interactions, rejects, NOTICE)
