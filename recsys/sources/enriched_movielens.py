"""MovieLens 1M without ratings and times, its films enriched with cast, crew, country and overview."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, RawData, Rejects, _benchmark_data, _files, _rows
from recsys.sources._files import Shards

NOTICE = "MovieLens 1M (GroupLens): for research only, not to be redistributed; here every rating counts as a positive."


@settings()
class EnrichedMovielens:
    """1,000,209 pairs of 6,040 users and 3,706 films as implicit feedback, without times.

    Films have title, genres, year, country, tmdb_genres, language, director, writer, actors and overview; users have
    gender, age, occupation and zip code. Read from the folder `ml-1m` in `RECSYS_DATA_DIR`. For the official archives,
    with ratings and times, see `movielens`.
    """

    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders that are read."""
        return (_benchmark_data.folder("ml-1m"),)

    def read(self) -> RawData:
        """Return the data.

        Raises:
            MissingError: `RECSYS_DATA_DIR` is not set.
            DataError: the folder or one of its files is missing.
        """
        folder = _benchmark_data.folder("ml-1m")
        rejects = Rejects()
        films = Shards.of(str(folder / "items.parquet"), "enriched_movielens", ["item"])
        pairs = Shards.of(str(folder / "interactions.parquet"), "enriched_movielens", ["user", "item"])
        items = _rows.entities(films.pieces(films.names, rejects), "item", ITEM_ID, rejects)
        header = ("user", "gender", "age", "occupation", "zip")
        people = _files.separated(
            lambda: _files.UTF_8.opened(folder / "users.dat"),
            "users.dat",
            rejects,
            names=header,
            header=header,
            separator="::",
        )
        queries = _rows.entities(people, "user", QUERY_ID, rejects)
        of_entities = rejects.copy()

        def interactions() -> Iterator[pa.RecordBatch]:
            rejects.restart(of_entities)
            return _rows.interactions(pairs.pieces(pairs.names, rejects), {QUERY_ID: "user", ITEM_ID: "item"}, rejects)

        return RawData(items, queries, interactions, rejects, NOTICE)
