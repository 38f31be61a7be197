"""The user's own data: Parquet or CSV, single files or folders of shards, columns mapped by the settings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from recsys.errors import DataError
from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, WEIGHT, RawData, Rejects, _rows
from recsys.sources._files import Encoding, Shards
from twintower.errors import unknown


@settings()
class Parquet:
    """Interactions, items and, optionally, users from the reader's own files.

    A path is a `.parquet`, `.csv` or `.csv.gz` file or a folder of such shards; relative paths start at the current
    directory. Folders are read with all folders below them, in the order of the names; names that begin with `.` or `_`
    are passed over. A folder named `day=2` gives its rows a column `day` of text (Hive partitions). Shards may differ
    in the order of columns, in nullability and in the width of numbers.

    Nothing is guessed about CSV: its cells are text unless `numeric_columns` or `list_columns` name the column, so ids
    keep their leading zeros. Empty cells are null. A byte order mark counts more than `encoding`.

    Attributes:
        interactions: one row an interaction.
        items: one row an item; all columns but the id are available as features and metadata. Empty when interactions
            alone name the items.
        users: one row a query entity; empty when interactions alone name them, or when queries are items.
        query_column: the interactions' column with the query entity; empty means that each interaction carries its own
            query features (`query.entity = "features"`): then every column without another role is one.
        item_column: the interactions' column with the item id.
        timestamp_column: the interactions' time: timestamps, dates, ISO 8601 text or numbers since 1970; empty means
            none.
        weight_column: the interactions' weight, 1e-30 to 1e30; empty means 1 each.
        items_id_column: the items' id column; empty means the same name as `item_column`.
        users_id_column: the users' id column; empty means the same name as `query_column`.
        list_columns: text columns, of any table, that hold several values a cell.
        list_separator: what stands between those values.
        numeric_columns: text columns, of any table, that hold numbers; a cell that is none makes its row a broken one.
        encoding: of CSV files, such as `utf-8`, `latin-1` or `cp1252`.
    """

    interactions: str
    items: str = ""
    users: str = ""
    query_column: str = "user_id"
    item_column: str = Field(default="item_id", min_length=1)
    timestamp_column: str = ""
    weight_column: str = ""
    items_id_column: str = ""
    users_id_column: str = ""
    list_columns: tuple[str, ...] = ()
    list_separator: str = Field(default="|", min_length=1)
    numeric_columns: tuple[str, ...] = ()
    encoding: str = "utf-8"

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, encoding: str) -> str:
        try:
            "a".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError("the name of a text encoding, such as 'utf-8', 'latin-1' or 'cp1252'") from None
        return encoding

    @model_validator(mode="after")
    def _ids_column_is_of_a_file(self) -> Parquet:
        if self.items_id_column and not self.items:
            raise ValueError("no items_id_column where items is empty")
        return self

    @model_validator(mode="after")
    def _users_are_asked_for(self) -> Parquet:
        if self.users and not self.query_column:
            raise ValueError("no users where query_column is empty: each interaction carries its own features")
        return self

    def paths(self) -> tuple[Path, ...]:
        """Return the files and folders that are read."""
        return tuple(Path(path) for path in (self.interactions, self.items, self.users) if path)

    def read(self) -> RawData:
        """Return the data; the interactions are read piece by piece in each pass.

        Raises:
            DataError: a file is missing, empty or not readable, a column is missing, or shards differ.
        """
        roles = {
            role: column
            for role, column in (
                (QUERY_ID, self.query_column),
                (ITEM_ID, self.item_column),
                (TIMESTAMP, self.timestamp_column),
                (WEIGHT, self.weight_column),
            )
            if column
        }
        encoding = Encoding(self.encoding, "source.encoding")
        met = Shards.of(self.interactions, "source.interactions", roles.values(), encoding)
        item_id = self.items_id_column or self.item_column
        items = Shards.of(self.items, "source.items", [item_id], encoding) if self.items else None
        user_id = self.users_id_column or self.query_column
        users = Shards.of(self.users, "source.users", [user_id], encoding) if self.users else None
        self._check_columns([name for shards in (met, items, users) if shards for name in shards.names])

        rejects = Rejects()
        shapes = _rows.Shapes(self.list_columns, self.list_separator, self.numeric_columns)
        if items:
            item_table = _rows.entities(items.pieces(items.names, rejects), item_id, ITEM_ID, rejects, shapes)
        else:
            item_table = self._named_items(met)
        user_table = users and _rows.entities(users.pieces(users.names, rejects), user_id, QUERY_ID, rejects, shapes)
        of_entities = rejects.copy()
        names = list(dict.fromkeys(roles.values())) if self.query_column else met.names

        def interactions() -> Iterator[pa.RecordBatch]:
            rejects.restart(of_entities)
            return _rows.interactions(met.pieces(names, rejects), roles, rejects, shapes)

        return RawData(item_table, user_table, interactions, rejects)

    def _named_items(self, met: Shards) -> pa.Table:
        """Return the items that interactions name, in the order of their ids."""
        pieces = met.pieces([self.item_column], Rejects())
        batches = _rows.interactions(pieces, {ITEM_ID: self.item_column}, Rejects())
        found = [batch[ITEM_ID].unique() for batch in batches]
        return pa.table({ITEM_ID: pc.unique(pa.chunked_array(found, pa.string())).sort()})

    def _check_columns(self, known: list[str]) -> None:
        for where, columns in (("list_columns", self.list_columns), ("numeric_columns", self.numeric_columns)):
            for column in columns:
                if column not in known:
                    raise DataError(f"source.{where}: {unknown('column', column, set(known))}")
