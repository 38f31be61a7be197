"""Data files of any kind: random Arrow schemas and CSV dialects, through `describe` and training."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recsys import config, pipeline
from recsys.config import Run
from recsys.data.describe import describe_data
from recsys.data.prepare import prepare
from twintower.errors import TwintowerError

ITEMS, USERS, INTERACTIONS = 8, 6, 40
ODD_TEXTS = ("", "x", "a|b", "7", "7.0", "ü", "nan", "\0", "\n", '"', "x" * 300)
TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=6))
MOMENTS = st.one_of(
    st.datetimes(datetime.datetime(1960, 1, 1), datetime.datetime(2100, 1, 1)),
    st.just(datetime.datetime(9999, 12, 31)),
)


@dataclass(frozen=True)
class Files:
    """Data on disk, and what is known about it.

    Attributes:
        run: over the files.
        rows: of all tables, broken ones among them, blank lines not.
    """

    run: Run
    rows: int


@dataclass
class Table:
    """A table before it is written.

    Attributes:
        name: of the file, without suffix.
        columns: by name.
        shards: files that it is cut into.
        partitions: whether each shard lies in a folder `part=N`.
    """

    name: str
    columns: dict[str, pa.Array]
    shards: int = 1
    partitions: bool = False


def kinds_of_arrays() -> st.SearchStrategy[tuple[pa.DataType, st.SearchStrategy[Any]]]:
    """Return a strategy for Arrow types that Parquet holds, each with one for its values."""
    whole = [
        (kind, st.integers(*bounds))
        for kind, bounds in (
            (pa.int8(), (-(2**7), 2**7 - 1)),
            (pa.uint16(), (0, 2**16 - 1)),
            (pa.int32(), (-(2**31), 2**31 - 1)),
            (pa.int64(), (-(2**63), 2**63 - 1)),
            (pa.uint64(), (0, 2**64 - 1)),
        )
    ]
    floats = [(kind, st.floats(width=width)) for kind, width in ((pa.float32(), 32), (pa.float64(), 64))]
    decimals = [(kind, st.decimals(-(10**5), 10**5, places=2)) for kind in (pa.decimal128(9, 2), pa.decimal256(50, 2))]
    times = [
        *((pa.timestamp(unit, zone), MOMENTS) for unit in ("s", "ms", "us") for zone in (None, "UTC", "Europe/Berlin")),
        (pa.timestamp("ns"), st.datetimes(datetime.datetime(1960, 1, 1), datetime.datetime(2100, 1, 1))),
        (pa.date32(), st.dates()),
        (pa.date64(), st.dates(datetime.date(1800, 1, 1))),
        (pa.time32("ms"), st.times().map(lambda time: time.replace(microsecond=0))),
        (pa.time64("us"), st.times()),
        (pa.duration("us"), st.timedeltas(datetime.timedelta(-999), datetime.timedelta(999))),
    ]
    halves = (pa.float16(), st.floats(width=16).map(np.float16))
    texts = [(kind, TEXTS) for kind in (pa.string(), pa.large_string())]
    blobs = [(pa.binary(), st.binary(max_size=4)), (pa.binary(4), st.binary(min_size=4, max_size=4))]
    plain = st.sampled_from([*whole, *floats, halves, *decimals, *times, *texts, *blobs, (pa.bool_(), st.booleans())])
    usual = st.sampled_from([*texts, (pa.int64(), st.integers(0, 5)), (pa.float64(), st.floats(-9, 9))])

    def lists(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        kind, values = inner
        some = st.lists(st.one_of(st.none(), values), max_size=3)
        return st.sampled_from(
            [
                (pa.list_(kind), some),
                (pa.large_list(kind), some),
                (pa.list_(kind, 2), st.lists(values, min_size=2, max_size=2)),
                (pa.struct([("a", kind)]), st.fixed_dictionaries({"a": values})),
            ]
        )

    return st.one_of(usual, plain, plain.flatmap(lists), st.just((pa.null(), st.none())))


@st.composite
def arrays(draw: st.DrawFn, length: int) -> pa.Array:
    """Draw a column of any type, with gaps."""
    kind, values = draw(kinds_of_arrays())
    gaps = draw(st.booleans())
    drawn = draw(st.lists(st.one_of(st.none(), values) if gaps else values, min_size=length, max_size=length))
    array = pa.array(drawn, kind)
    encoded = pa.types.is_string(kind) or pa.types.is_int64(kind)
    return array.dictionary_encode() if encoded and draw(st.booleans()) else array


@st.composite
def id_columns(draw: st.DrawFn, numbers: list[int], base: int) -> pa.Array:
    """Draw a carrier of ids for whole numbers, with a gap at times; now and then one that does not hold them."""
    found: list[int | None] = [base + number for number in numbers]
    if draw(_seldom()):
        found[draw(st.integers(0, len(found) - 1))] = None
    texts = [None if number is None else str(number) for number in found]
    carriers: dict[str, Callable[[], pa.Array]] = {
        "int64": lambda: pa.array(found, pa.int64()),
        "text": lambda: pa.array(texts),
        "dictionary": lambda: pa.array(texts).dictionary_encode(),
        "decimal": lambda: pa.array([each and decimal.Decimal(each) for each in texts], pa.decimal128(30, 2)),
        "float64": lambda: pa.array([math.nan if number is None else float(number) for number in found]),
        "float32": lambda: pa.array(np.array([number or math.nan for number in found], np.float32)),
        "other": lambda: draw(arrays(len(found))),
    }
    safe = ["int64", "text", "dictionary", "decimal"]
    return carriers[draw(st.sampled_from([*safe * 2, "float64"] if not draw(_seldom()) else ["float32", "other"]))]()


def _seldom() -> st.SearchStrategy[bool]:
    return st.integers(0, 9).map(lambda number: number == 7)  # the ends are drawn more often


@st.composite
def time_columns(draw: st.DrawFn) -> pa.Array:
    """Draw times of the interactions, mostly sound ones."""
    steps = draw(st.permutations(range(INTERACTIONS)))
    start = draw(st.sampled_from([1_714_521_600, 0, 20_260_101, 250_000_000_000]))
    usual = ["seconds", "milliseconds", "text", "timestamp", "date"]
    kind = draw(st.sampled_from(["equal", "any"] if draw(_seldom()) else usual))
    if kind == "any":
        return draw(arrays(INTERACTIONS))
    seconds = [start + 0 if kind == "equal" else start + step * 3600 for step in steps]
    if kind in ("seconds", "equal"):
        return pa.array(seconds)
    if kind == "milliseconds":
        return pa.array([each * 1000 for each in seconds])
    moments = pa.array([1_714_521_600 + step * 90_000 for step in steps], pa.timestamp("s"))
    return moments.cast({"text": pa.string(), "timestamp": pa.timestamp("ms"), "date": pa.date32()}[kind])


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict[str, Any], list[Table]]:
    """Draw the tables of a run file, its paths left out, and the tables of its data: items first, interactions last."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    entity = draw(st.sampled_from(["user", "user", "item", "features"]))
    pairs = random.integers(0, [ITEMS if entity == "item" else USERS, ITEMS + 2], (INTERACTIONS, 2)).tolist()
    base = draw(st.sampled_from([1, 2**40, 10**17] if draw(_seldom()) else [1]))
    items = Table("items", {"item_id": draw(id_columns(list(range(ITEMS)), base))})
    users = Table("users", {"user_id": draw(id_columns(list(range(USERS)), base))})
    # Of ten items drawn the table has eight: now and then too many are unknown.
    unknown = draw(_seldom())
    met = Table(
        "interactions",
        {
            "user_id": draw(id_columns([user for user, _ in pairs], base)),
            "item_id": draw(id_columns([item if unknown else item % ITEMS for _, item in pairs], base)),
        },
    )
    source: dict[str, Any] = {"kind": "parquet", "query_column": "" if entity == "features" else "user_id"}
    if draw(st.booleans()):
        met.columns["at"], source["timestamp_column"] = draw(time_columns()), "at"
    if draw(st.booleans()):
        weights = st.sampled_from([0.5, 1.0, 2.0, 1e-30, 1e30, 1e300])
        sound = st.lists(weights, min_size=INTERACTIONS, max_size=INTERACTIONS).map(pa.array)
        met.columns["w"], source["weight_column"] = draw(arrays(INTERACTIONS) if draw(_seldom()) else sound), "w"
    item_side = {"key": {"kind": "id", "width": 4}, **draw(features_of(items, ITEMS))}
    query: dict[str, Any] = {"entity": entity}
    drawn = [items, met]
    if entity == "features":
        query["features"] = draw(features_of(met, INTERACTIONS, at_least=1))
    elif entity == "user":
        query["features"] = {"key": {"kind": "id", "width": 4}}
        if draw(st.booleans()):
            query["features"]["recent"] = {"kind": "history", "length": 3}
        if draw(st.booleans()):
            query["features"] |= draw(features_of(users, USERS))
            drawn = [items, users, met]
    for table in drawn:
        table.shards = draw(st.sampled_from([1, 1, 2, 3]))
        table.partitions = table.shards > 1 and draw(st.booleans())
    timed = ["by_time", "leave_last"] if "at" in met.columns and entity != "features" else []
    run = {
        "name": "drawn",
        "source": source,
        "data": {"max_rejected_rate": draw(st.sampled_from([0.1, 0.5, 1.0]))},
        "split": {"kind": draw(st.sampled_from(["random", "cold_items", *timed]))},
        "query": query,
        "item": {"features": item_side, "filters": list(items.columns)[1:2] if draw(_seldom()) else []},
        "tower": {"kind": "mlp", "hidden": [4], "dim": 4},
        "objective": {"kind": "sampled_softmax"},
        "training": {"epochs": 1, "batch_size": 8},
        "evaluation": {"resamples": 100, "exclude_seen": draw(_seldom())},
        "index": {"kind": "brute_force"},
    }
    return run, drawn


@st.composite
def features_of(draw: st.DrawFn, table: Table, rows: int, at_least: int = 0) -> dict[str, Any]:
    """Draw features over new columns of a table, which gets them."""
    names = ["a", "b", "a.b", "ü", "class", "x y", "Ü", "self"]
    features = {}
    for number, name in enumerate(draw(st.lists(st.sampled_from(names), min_size=at_least, max_size=2, unique=True))):
        table.columns[name] = draw(arrays(rows))
        features[f"f{number}"] = {"kind": draw(st.sampled_from(_fitting(table.columns[name].type))), "column": name}
    if draw(_seldom()):
        table.columns[""] = draw(arrays(rows))  # as pandas writes an index
    return features


def _fitting(kind: pa.DataType) -> list[str]:
    """Return kinds of features that can read a type, and at the end one that cannot."""
    if pa.types.is_nested(kind):
        return ["multi_categorical"] * 5 + ["embedding", "numeric"]
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return ["numeric", "categorical"] * 3 + ["embedding"]
    return ["categorical", "text", "multi_categorical"] * 3 + ["numeric"]


@st.composite
def data_files(draw: st.DrawFn, folder: Path) -> Files:
    """Draw data and write it below a folder, as Parquet or CSV."""
    number = next(_numbers)
    run, drawn = draw(tables())
    as_csv = draw(st.booleans())
    rows, home = 0, folder / str(number)
    for table in drawn:
        root = home / table.name
        size = len(next(iter(table.columns.values())))
        cuts = [size * place // table.shards for place in range(table.shards + 1)]
        for shard, (start, end) in enumerate(itertools.pairwise(cuts)):
            below = root / f"part={shard}" if table.partitions else root
            below.mkdir(parents=True, exist_ok=True)
            part = pa.table({name: column.slice(start, end - start) for name, column in table.columns.items()})
            if as_csv:
                rows += draw(csv_shards(part, below / f"{shard}.csv"))
            else:
                pq.write_table(part, below / f"{shard}.parquet", store_schema=draw(st.booleans()))
                rows += part.num_rows
        run["source"][table.name] = str(root)
    if as_csv:
        run["source"]["numeric_columns"] = ["w"] if "w" in drawn[-1].columns else []
    return Files(config.from_tables(run), rows)


@st.composite
def csv_shards(draw: st.DrawFn, table: pa.Table, file: Path) -> int:
    """Write a table as CSV in a drawn dialect, with broken lines at times; return its rows, blank lines left out."""
    text = io.StringIO()
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    lines = list(zip(*(_cells(column) for column in table.columns), strict=True))
    # The writer of Python 3.11 leaves line ends that are not its own without quotes.
    must_quote = any(letter in cell for line in [table.column_names, *lines] for cell in line for letter in "\r\n")
    quoting = csv.QUOTE_ALL if must_quote else draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(table.column_names)
    rows, is_odd = table.num_rows, draw(_seldom())
    for row in lines:
        writer.writerow(row)
        odd = draw(st.sampled_from(["short", "long", "blank", "quote", "bytes"])) if is_odd and draw(_seldom()) else ""
        if odd == "blank":
            text.write(end)
        elif odd:
            rows += 1
            line = {"short": "x", "long": ",".join("x" * (len(row) + 1)), "quote": '"x"x', "bytes": "\udcff"}[odd]
            if odd in ("quote", "bytes"):
                line = ",".join([line, *"x" * (len(row) - 1)])
            elif odd == "short" and len(row) == 1:
                line = "x,x"
            text.write(line + end)
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig"]))
    file.write_bytes(text.getvalue().encode(encoding, "surrogateescape"))
    return rows


def _cells(column: pa.ChunkedArray) -> list[str]:
    kind = column.type
    texts = column.to_pylist() if not pa.types.is_timestamp(kind) else column.cast(pa.string()).to_pylist()
    cells = ["" if value is None else str(value) for value in texts]
    return [cell.encode("utf-8", "replace").decode() for cell in cells]


_numbers = itertools.count()


def check(files: Files, folder: Path) -> str:
    """Describe the data and train on it; return how that ended, `trained` or `refused`.

    Raises:
        AssertionError: rows were lost in silence, or training stopped for what the report did not say.
    """
    report = refused = stopped = None
    try:
        report = describe_data(files.run)
    except TwintowerError as error:
        refused = str(error)
    try:
        pipeline.train(files.run, folder / "work", folder / "releases")
    except TwintowerError as error:
        stopped = str(error)
    if report is None:
        assert stopped is not None, refused
        return "refused"
    users = files.run.source.read().queries
    found = [report.item_count, 0 if users is None else users.num_rows, report.interaction_count]
    found += [rejected.count for rejected in report.rejected]
    assert sum(found) == files.rows, (files.rows, report)
    if stopped is not None:
        assert stopped in report.problems, (stopped, report)
        return "refused"
    assert report.problems == (), report
    prepared = prepare(files.run, folder / "work" / files.run.name / "prepared")
    used = sum(len(part) for part in prepared.parts.values())
    # An interaction of two items may have two unknown ids.
    unknown = [each.interaction_count for each in report.unknown_ids if each.side == "item" or report.entity == "item"]
    assert used + max(unknown, default=0) <= report.interaction_count <= used + sum(unknown), (used, report)
    return "trained"


def round_of_files(number: int, examples: int) -> Counter[str]:
    """Draw data files, describe them and train on them.

    Args:
        number: the seed: the same one draws the same files.
        examples: how many.

    Returns:
        How many were trained on, and how many refused.

    Raises:
        AssertionError: see `check`; the data that shows it is a note of it.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(data_files(Path(scratch)))
        def see(files: Files) -> None:
            with tempfile.TemporaryDirectory() as home:
                counts[check(files, Path(home))] += 1

        see()
    return counts
