"""Which column of the user's files is what: query, item, time; and how text cells are to be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa

from recsys.errors import DataError
from recsys.sources import Rejects
from recsys.sources._files import Encoding, Shards
from recsys.sources.parquet import Parquet
from twintower.errors import SettingError, describe, unknown, verbatim

SAMPLED_ROWS = 200_000
QUERY_WORDS = ("user", "customer", "member", "visitor", "household", "reader", "client", "account", "session", "query")
ITEM_WORDS = ("item", "product", "article", "movie", "book", "track", "song", "sku", "asin", "doc")
TIME_WORDS = ("timestamp", "time", "datetime", "date", "ts", "at", "when", "day", "created", "created_at", "event_time")
SEPARATORS = ("|", ";", ", ", ",")
FOUND_RATE = 0.5
LIST_RATE = 0.2
DISTINCT_PARTS_RATE = 0.3


@dataclass(frozen=True)
class Named:
    """What the user says of the files; an empty string means: find out.

    Attributes:
        interactions: path of the interactions.
        items: path of the items.
        users: path of the query entities.
        query_column: the interactions' column with the query entity.
        item_column: the interactions' column with the item id.
        timestamp_column: the interactions' column with the time.
    """

    interactions: str
    items: str = ""
    users: str = ""
    query_column: str = ""
    item_column: str = ""
    timestamp_column: str = ""


@dataclass
class Found:
    """A source that reads the files, and why it reads them so.

    Attributes:
        settings: of the source of kind `parquet`, by name; defaults are left out.
        reasons: a phrase for each setting that was found rather than given, and for columns that have no use.
    """

    settings: dict[str, str | list[str]]
    reasons: dict[str, str] = field(default_factory=dict)

    def set(self, setting: str, value: str | list[str], reason: str = "") -> None:
        """Choose a setting, with the reason where it was not given."""
        self.settings[setting] = value
        if reason:
            self.reasons[setting] = reason

    @property
    def source(self) -> Parquet:
        """The source."""
        return Parquet(**self.settings)


def find_roles(named: Named) -> Found:
    """Return how a source of kind `parquet` should read some files.

    Raises:
        DataError: a file cannot be read, or a named column is not there.
        SettingError: which column is what is not clear; the message lists the columns and the option to name one.
    """
    encoding = Encoding()
    met = _sample(named.interactions, "INTERACTIONS", encoding)
    items = _sample(named.items, "--items", encoding) if named.items else None
    users = _sample(named.users, "--users", encoding) if named.users else None
    for option, column in (
        ("--query-column", named.query_column),
        ("--item-column", named.item_column),
        ("--time-column", named.timestamp_column),
    ):
        if column and column not in met.columns:
            raise DataError(f"{option}: {unknown('column', column, met.columns)}")
    found = Found({"interactions": named.interactions})
    if named.items:
        found.set("items", named.items)
    if named.users:
        found.set("users", named.users)
    free = [name for name in met.columns if name not in (named.query_column, named.item_column, named.timestamp_column)]
    item, items_id = _entity(met, items, named.item_column, free, ITEM_WORDS, "item")
    free = [name for name in free if name != item[0]]
    time = (named.timestamp_column, "") if named.timestamp_column else _time(met, free)
    free = [name for name in free if name != time[0]]
    query, users_id = _entity(met, users, named.query_column, free, QUERY_WORDS, "query")
    found.set("query_column", *query)
    found.set("item_column", *item)
    if time[0]:
        found.set("timestamp_column", *time)
    if items_id and items_id != item[0]:
        found.set("items_id_column", items_id, f"its values are the {item[0]} of the interactions")
    if users_id and users_id != query[0]:
        found.set("users_id_column", users_id, f"its values are the {query[0]} of the interactions")
    if unused := [name for name in free if name != query[0]]:
        found.reasons["unused columns of the interactions"] = (
            f"{', '.join(unused)}; set `weight_column` to weigh each interaction by one of them"
        )
    ids = {item[0], query[0], items_id, users_id, time[0]}
    _shapes(found, [(named.items, items), (named.users, users)], ids)
    return found


def _sample(path: str, where: str, encoding: Encoding) -> pl.DataFrame:
    """Return the first rows of a file or folder."""
    shards = Shards.of(path, where, (), encoding)
    pieces, rows = [], 0
    for piece in shards.pieces(shards.names, Rejects()):
        pieces.append(pa.Table.from_batches([piece.rows]))
        rows += piece.rows.num_rows
        if rows >= SAMPLED_ROWS:
            break
    table = pa.concat_tables(pieces, promote_options="permissive").slice(0, SAMPLED_ROWS)
    plain = [name for name in table.column_names if _is_plain(table.schema.field(name).type)]
    return pl.from_arrow(table.select(plain))


def _is_plain(kind: pa.DataType) -> bool:
    return not (pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind))


def _entity(
    met: pl.DataFrame,
    table: pl.DataFrame | None,
    given: str,
    free: Sequence[str],
    words: Sequence[str],
    role: str,
) -> tuple[tuple[str, str], str]:
    """Return the interactions' column of an entity with the reason, and the column of its table that holds its ids."""
    columns = [given] if given else list(free)
    joins = {} if table is None else _joins(met, table, columns)
    if joins:
        (column, of_table), rate = max(joins.items(), key=lambda join: (join[1], _likeness(join[0][0], words)))
        reason = "" if given else f"{rate:.0%} of its values are in the column {of_table} of the {role} table"
        return (column, reason), of_table
    if given:
        return (given, ""), ""
    if table is not None:
        raise _unclear(role, met, f"no column of the interactions holds ids of the {role} table")
    named = sorted((name for name in columns if _likeness(name, words)), key=lambda name: -_likeness(name, words))
    if named:
        return (named[0], "by its name"), ""
    ids = [name for name in columns if not met[name].dtype.is_float() and not met[name].dtype.is_nested()]
    if len(ids) == 1:
        return (ids[0], "the only other column that can hold ids"), ""
    raise _unclear(role, met, f"{len(ids)} columns may be it")


def _joins(met: pl.DataFrame, table: pl.DataFrame, columns: Iterable[str]) -> dict[tuple[str, str], float]:
    """Return how many of the interactions' values (0..1) the table has, by pair of columns that may join them."""
    keys = {
        name: _text(table[name])
        for name in table.columns
        if not table[name].dtype.is_nested() and table[name].null_count() < len(table) / 2
    }
    keys = {name: values for name, values in keys.items() if values.n_unique() >= 0.9 * len(values)}
    found = {}
    for column in columns:
        if met[column].dtype.is_nested():
            continue
        values = _text(met[column]).drop_nulls().unique()
        for name, known in keys.items():
            rate = float(values.is_in(known.drop_nulls().implode()).mean() or 0.0)
            if rate >= FOUND_RATE:
                found[column, name] = rate
    return found


def _text(values: pl.Series) -> pl.Series:
    return values.cast(pl.String, strict=False)


def _likeness(name: str, words: Sequence[str]) -> int:
    """Return how much a column's name looks like one of a role: 2 for a word or its id, 1 where a word is a part."""
    plain = name.lower()
    stem = re.sub(r"[_ ]?(id|ids|key|code|number|no|nr)$", "", plain)
    if stem in words or plain in words:
        return 2
    return int(any(plain.startswith(word) or stem.endswith(word) for word in words))


def _time(met: pl.DataFrame, columns: Sequence[str]) -> tuple[str, str]:
    temporal = [name for name in columns if met[name].dtype.is_temporal() and met[name].dtype != pl.Duration]
    named = [name for name in columns if name.lower() in TIME_WORDS or name.lower().endswith(("_time", "_at", "_date"))]
    for name in [name for name in temporal if name in named] + temporal:
        return name, "it holds times"
    for name in named:
        if met[name].dtype.is_numeric() or _looks_like_times(met[name]):
            return name, "by its name, and its values can be times"
    return "", ""


def _looks_like_times(values: pl.Series) -> bool:
    text = values.drop_nulls()
    if text.dtype != pl.String or not len(text):
        return False
    numbers = text.cast(pl.Float64, strict=False).is_not_null().mean()
    dates = text.str.contains(r"^\d{4}-\d{2}-\d{2}").mean()
    return max(numbers, dates) > 0.99


def _unclear(role: str, met: pl.DataFrame, found: str) -> SettingError:
    option = f"--{role}-column"
    return SettingError(
        describe(option, verbatim(found), "one column", f"Name it: {option} with one of {', '.join(met.columns)}.")
    )


def _shapes(found: Found, tables: Sequence[tuple[str, pl.DataFrame | None]], ids: set[str]) -> None:
    """Choose which text columns hold numbers or lists."""
    numeric, lists = {}, {}
    for path, table in tables:
        for name in [] if table is None else table.columns:
            if name in ids or table[name].dtype != pl.String:
                continue
            values = table[name].drop_nulls()
            if len(values) and values.cast(pl.Float64, strict=False).null_count() == 0:
                if not values.str.contains(r"^[+-]?0\d").any():
                    numeric[name] = path
            elif separator := _separator(values):
                lists[name] = separator
    if numeric:
        found.set("numeric_columns", sorted(numeric), "every cell is a number")
    if lists:
        counts: Mapping[str, int] = {each: list(lists.values()).count(each) for each in lists.values()}
        separator = max(counts, key=lambda each: counts[each])
        chosen = sorted(name for name, each in lists.items() if each == separator)
        found.set("list_columns", chosen, "cells hold several values that other rows have, too")
        found.set("list_separator", separator)


def _separator(values: pl.Series) -> str:
    """Return what separates the values of a cell, or nothing where cells hold one value or a text."""
    sample = values.head(20_000)
    for separator in SEPARATORS:
        holding = sample.str.contains(separator, literal=True)
        if (holding.mean() or 0.0) < LIST_RATE:
            continue
        parts = sample.filter(holding).str.split(separator).explode().str.strip_chars()
        long_words = parts.str.count_matches(r"\s").mean() or 0.0
        if parts.n_unique() <= DISTINCT_PARTS_RATE * len(parts) and long_words < 2:
            return separator
    return ""
