"""Text collections with relevance judgements: a query is a text, an item a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from pydantic import Field

from recsys.errors import DataError
from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, RawData, Rejects, _benchmark_data, _files, _rows
from recsys.sources._files import Piece
from twintower.errors import describe, unknown, verbatim

JUDGEMENT = ("query-id", "corpus-id", "score")
ROLES = {QUERY_ID: "query-id", ITEM_ID: "corpus-id"}
NOTICES = {
    "nfcorpus": "NFCorpus in its original release's form (lower case, stop words removed): not comparable with BEIR's.",
}


@settings()
class TextCollection:
    """Queries with `text`; documents with `title` and `text`; a judgement above 0 is an interaction, without time.

    A collection is a folder with `docs.jsonl.gz`, `queries.jsonl.gz` and `qrels.<split>.tsv`. Both have an `embedding`
    where the folder has sentence vectors of all texts in the order of their lines, `minilm/docs.npy` and
    `minilm/queries.npy`.

    Attributes:
        collection: a folder, or the name of one in the folder that the environment variable `RECSYS_DATA_DIR` names,
            such as `scifact`, `nfcorpus`, `vaswani` or `cranfield`.
        split: whose judgements: `train`, `dev` or `test` where the collection is split, or `all` of them.
    """

    collection: str = Field(min_length=1)
    split: str = Field(default="all", min_length=1)

    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders that are read."""
        return (self._folder(),)

    def read(self) -> RawData:
        """Return the data.

        Raises:
            MissingError: `RECSYS_DATA_DIR` is not set.
            DataError: the folder or one of its files is missing, or the collection has no such split.
        """
        folder = self._folder()
        judged = {file.name.split(".")[1]: file for file in sorted(folder.glob("qrels.*.tsv"))}
        if self.split != "all" and self.split not in judged:
            raise DataError(f"source.split: {unknown('split', self.split, {'all', *judged})}")
        files = [file for split, file in judged.items() if self.split in ("all", split)]
        rejects = Rejects()
        items = _texts(folder, "docs", {"title": pa.string(), "text": pa.string()}, ITEM_ID, rejects)
        queries = _texts(folder, "queries", {"text": pa.string()}, QUERY_ID, rejects)
        of_texts = rejects.copy()

        def interactions() -> Iterator[pa.RecordBatch]:
            rejects.restart(of_texts)
            for file in files:
                judgements = _files.separated(
                    lambda file=file: _files.UTF_8.opened(file), str(file), rejects, names=JUDGEMENT, separator="\t"
                )
                for batch in _rows.interactions(judgements, ROLES, rejects, _rows.Shapes(numeric_columns=("score",))):
                    yield batch.filter(pc.greater(batch["score"], 0)).select(list(ROLES))

        return RawData(items, queries, interactions, rejects, NOTICES.get(folder.name, ""))

    def _folder(self) -> Path:
        given = Path(self.collection)
        return given if given.is_dir() else _benchmark_data.folder(self.collection)


def _texts(folder: Path, name: str, columns: dict[str, pa.DataType], id_name: str, rejects: Rejects) -> pa.Table:
    path = folder / f"{name}.jsonl.gz"
    schema = pa.schema({"_id": pa.string(), **columns})
    options = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        with pa.input_stream(str(path), compression="gzip") as stream:
            table = pyarrow.json.read_json(stream, parse_options=options)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(describe(str(path), verbatim(str(error)), "lines of JSON, compressed by gzip")) from None
    vectors = folder / "minilm" / f"{name}.npy"
    if vectors.exists():
        table = table.append_column("embedding", _vectors(vectors, table.num_rows))
    numbers = np.arange(1, table.num_rows + 1)
    batch = table.combine_chunks().to_batches()[0]
    return _rows.entities([Piece(batch, str(path), numbers)], "_id", id_name, rejects)


def _vectors(file: Path, rows: int) -> pa.Array:
    vectors = np.load(file).astype(np.float32)
    if len(vectors) != rows:
        raise DataError(describe(str(file), verbatim(f"{len(vectors)} vectors"), f"one for each of {rows} texts"))
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
