"""The reader's own files: columns mapped, broken rows named by file and line, clear words for what is wrong."""

import gzip
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataError
from recsys.registry import build
from recsys.sources import Rejects, _rows
from recsys.sources._files import Piece
from recsys.sources.parquet import Parquet
from twintower.errors import SettingError

ITEMS = "item_id,colour\na,red\nb,blue\n"
MAY = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def files(tmp_path):
    """A function that writes text or tables and returns the source over them."""

    def write(interactions, items=ITEMS, users=None, suffix=".csv", **settings):
        tables = {"interactions": interactions, "items": items, "users": users}
        for name, content in tables.items():
            if content is None:
                continue
            path = tmp_path / f"{name}{suffix if name == 'interactions' else '.csv'}"
            if isinstance(content, pa.Table):
                path = path.with_suffix(".parquet")
                pq.write_table(content, path)
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content, encoding="utf-8")
            settings[name] = str(path)
        return Parquet(**settings)

    return write


def rows(raw):
    return pa.Table.from_batches(raw.interactions()).to_pylist()


def test_columns_are_mapped_by_the_settings(files):
    source = files(
        "who,what,when,much,else\nu1,a,2024-05-01,2.5,x\n",
        items="sku,colour\na,red\n",
        users="name,town\nu1,Köln\n",
        query_column="who",
        item_column="what",
        timestamp_column="when",
        weight_column="much",
        items_id_column="sku",
        users_id_column="name",
    )

    raw = source.read()

    assert rows(raw) == [{"query_id": "u1", "item_id": "a", "timestamp": MAY, "weight": 2.5}]
    assert raw.items.to_pylist() == [{"item_id": "a", "colour": "red"}]
    assert raw.queries.to_pylist() == [{"query_id": "u1", "town": "Köln"}]


def test_an_item_to_item_run_needs_no_users(files):
    raw = files("from,to\nb,a\n", query_column="from", item_column="to", items_id_column="item_id").read()

    assert raw.queries is None
    assert rows(raw) == [{"query_id": "b", "item_id": "a"}]


def test_without_a_query_column_every_other_column_is_a_query_feature(files):
    raw = files(
        "item_id,hour,words,device\na,7,x|y,phone\nb,,,\n",
        query_column="",
        list_columns=("words",),
        numeric_columns=("hour",),
    ).read()

    assert rows(raw) == [
        {"item_id": "a", "hour": 7.0, "words": ["x", "y"], "device": "phone"},
        {"item_id": "b", "hour": None, "words": None, "device": None},
    ]


def test_csv_ids_stay_text_even_where_most_look_like_numbers(files):
    raw = files("user_id,item_id\n007,1\n8,1.0\nx,ü\n", items="item_id\n1\n1.0\nü\n").read()

    assert [row["query_id"] for row in rows(raw)] == ["007", "8", "x"]
    assert raw.items["item_id"].to_pylist() == ["1", "1.0", "ü"]


def test_whole_numbers_that_pandas_left_as_floats_are_the_same_ids_as_integers(files):
    met = pa.table({"user_id": [1.0, None, float("nan")], "item_id": pa.array([12, 12, 12], pa.int64())})

    raw = files(met, items="item_id\n12\n").read()

    assert rows(raw) == [{"query_id": "1", "item_id": "12"}]
    assert raw.rejects.counts == {"query_id missing": 2}


def test_ids_with_fractions_are_refused(files):
    met = pa.table({"user_id": [1.5], "item_id": ["a"]})

    with pytest.raises(DataError, match=r"interactions\.parquet: user_id: got 1\.5 \(double\), expected whole numbers"):
        rows(files(met).read())


def test_broken_csv_rows_are_counted_with_the_line_where_they_stand(files):
    # The quoted line break makes the row of line 6 end on line 7; line 8 is blank and no row.
    met = (
        "user_id,item_id,at,w\n"  # 1
        "u,a,2024-05-01,1\n"  # 2
        ",a,2024-05-01,1\n"  # 3
        "u,,2024-05-01,1\n"  # 4
        "u,a,2024-05-01\n"  # 5
        'u,"a\nb",2024-05-01,1\n'  # 6, 7
        "\n"  # 8
        "u,a,soon,1\n"  # 9
        "u,a,2024-05-01,0\n"  # 10
        "u,a,2024-05-01,nan\n"  # 11
        "u,\xff,2024-05-01,1\n"  # 12, not UTF-8
        "v,a,2024-05-01,1\n"  # 13
    ).encode("latin-1")
    source = files(met, timestamp_column="at", weight_column="w")

    raw = source.read()
    kept = rows(raw)

    assert [(row["query_id"], row["item_id"]) for row in kept] == [("u", "a"), ("u", "a\nb"), ("v", "a")]
    name = source.interactions
    assert raw.rejects.examples == {
        "query_id missing": [f"{name}:3: None"],
        "item_id missing": [f"{name}:4: None"],
        "wrong number of fields": [f"{name}:5: 3 instead of 4"],
        "timestamp missing or unreadable": [f"{name}:9: 'soon'"],
        "weight not a number from 1e-30 to 1e+30": [f"{name}:10: '0'", f"{name}:11: 'nan'"],
        "not UTF-8, see source.encoding": [f"{name}:12"],
    }


def test_a_row_broken_twice_counts_once(files):
    raw = files("user_id,item_id\n,\n").read()

    assert rows(raw) == []
    assert raw.rejects.total == 1


def test_broken_parquet_rows_are_counted_with_their_row(files):
    met = pa.table({"user_id": ["u", None, ""], "item_id": ["a", "a", "a"]})
    source = files(met)

    raw = source.read()

    assert len(rows(raw)) == 1
    assert raw.rejects.examples == {
        "query_id missing": [f"{source.interactions}:2: None", f"{source.interactions}:3: ''"]
    }


def test_of_items_with_one_id_the_first_stays_and_the_others_are_named(files):
    source = files("user_id,item_id\nu,a\n", items="item_id,colour\na,red\nb,blue\na,green\n,grey\n")

    raw = source.read()

    assert raw.items.to_pylist() == [{"item_id": "a", "colour": "red"}, {"item_id": "b", "colour": "blue"}]
    assert raw.rejects.examples == {
        "item_id given twice": [f"{source.items}:4: 'a'"],
        "item_id missing": [f"{source.items}:5: None"],
    }


def test_a_cell_of_a_numeric_column_that_is_no_number_breaks_its_row(files):
    raw = files(
        "user_id,item_id\nu,a\n", items="item_id,price\na,1.5\nb,cheap\nc,\n", numeric_columns=("price",)
    ).read()

    assert raw.items.to_pylist() == [{"item_id": "a", "price": 1.5}, {"item_id": "c", "price": None}]
    assert raw.rejects.counts == {"price not a number": 1}


@pytest.mark.parametrize("digits", ["9007199254740993", " -9007199254740993", "18446744073709551617", "9" * 400])
def test_digits_that_a_numeric_column_would_round_are_refused_with_the_way_out(files, digits):
    source = files(
        "user_id,item_id\nu,a\n",
        items=f"item_id,seller\na,9007199254740992\nb,{digits}\n",
        numeric_columns=("seller",),
    )
    with pytest.raises(DataError, match=rf"items\.csv: seller: got {digits.strip()[:90]}.* Leave the column out of"):
        source.read()


def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path, files):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, user in (("part-1.csv", "second"), ("part-0.csv", "first")):
        (folder / name).write_text(f"user_id,item_id\n{user},a\n")
    with gzip.open(folder / "part-2.csv.gz", "wt") as stream:
        stream.write("user_id,item_id\nthird,a\n,a\n")
    (folder / "_SUCCESS").write_text("")
    source = files("user_id,item_id\nu,a\n")

    raw = Parquet(interactions=str(folder), items=source.items).read()

    assert [row["query_id"] for row in rows(raw)] == ["first", "second", "third"]
    assert raw.rejects.examples["query_id missing"] == [f"{folder / 'part-2.csv.gz'}:3: None"]


def test_lists_and_numbers_in_parquet_come_through_as_they_are(files):
    items = pa.table({"item_id": ["a"], "tags": pa.array([["x", "y"]], pa.large_list(pa.large_string())), "n": [3]})

    raw = files("user_id,item_id\nu,a\n", items=items).read()

    assert raw.items.schema.field("tags").type == pa.list_(pa.string())
    assert raw.items.to_pylist() == [{"item_id": "a", "tags": ["x", "y"], "n": 3}]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([MAY.replace(tzinfo=None)], pa.timestamp("ns")),
        pa.array([MAY], pa.timestamp("ms", "Europe/Berlin")),
        pa.array([date(2024, 5, 1)], pa.date32()),
        # 2024-05-01 is 19,844 days after 1970-01-01; 19,844 * 86,400 s = 1,714,521,600 s.
        pa.array([1_714_521_600]),
        pa.array([1_714_521_600_000]),
        pa.array([1_714_521_600_000_000]),
        pa.array([1_714_521_600_000_000_000]),
        pa.array([1_714_521_600.0]),
        pa.array(["1714521600"]),
        pa.array(["2024-05-01"]),
        pa.array(["2024-05-01 00:00:00"]),
        pa.array(["2024-05-01T02:00:00+02:00"]),
        pa.array(["2024-05-01T00:00:00Z"]),
        pa.array(["2024-05-01T00:00:00.000000"]).cast(pa.large_string()),
    ],
    ids=lambda values: f"{values.type} {values[0]}",
)
def test_a_time_is_understood_in_every_usual_form(values):
    assert _rows.timestamps(values, "at").to_pylist() == [MAY]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.string()], ids=str)
def test_nanoseconds_as_numbers_are_rounded_down_and_not_by_way_of_a_float(kind):
    # as floats the first two are 1,714,521,600,000,001,024 ns, which is 1 us after the true time
    numbers = pa.array([1_714_521_600_000_000_999, 1_714_521_600_000_001_000, 1_714_521_600_000_001_999]).cast(kind)
    found = [time - MAY for time in _rows.timestamps(numbers, "at").to_pylist()]
    assert [time.microseconds for time in found] == [0, 1, 1]


def test_times_of_several_forms_in_one_column_are_each_understood():
    mixed = pa.array(["2024-05-01", "2024-05-01T02:00:00+02:00", "1714521600", "never", None])

    assert _rows.timestamps(mixed, "at").to_pylist() == [MAY, MAY, MAY, None, None]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([2**62], pa.timestamp("s")),
        pa.array([-(2**62)], pa.timestamp("ms")),
        pa.array([2**31 - 1], pa.int32()).cast(pa.date32()),
        pa.array([2**62], pa.int64()).cast(pa.date64()),
        pa.array([1e300]),
        pa.array([float("inf")]),
        pa.array(["1e300"]),
        pa.array([-1e11]),
        pa.array(["0000-01-01"]),
        pa.array(["0001-01-01T00:00:00+02:00", "never"]).slice(0, 1),
    ],
    ids=lambda values: str(values.type),
)
def test_a_time_beyond_the_years_1_to_9999_is_unreadable_rather_than_another_time(values):
    assert _rows.timestamps(values, "at").to_pylist() == [None]


def test_a_missing_file_is_named_with_the_folder_that_paths_start_at(files):
    with pytest.raises(DataError, match=r"source\.interactions: got 'nowhere\.csv'.*Relative paths start at"):
        Parquet(interactions="nowhere.csv", items="nowhere.csv").read()


def test_an_empty_file_is_named(files):
    with pytest.raises(DataError, match=r"interactions\.csv: got an empty file"):
        files("").read()


@pytest.mark.parametrize("content", ["user_id,item_id\n", pa.table({"user_id": ["u"], "item_id": ["a"]}).slice(0, 0)])
def test_a_file_without_rows_is_named(files, content):
    with pytest.raises(DataError, match=r"source\.interactions: got no row in"):
        files(content).read()


def test_a_missing_column_is_named_with_the_nearest_one(files):
    with pytest.raises(DataError, match=r"no column named 'user_id'\. Did you mean 'userid'\?"):
        files("userid,item_id\nu,a\n").read()


def test_a_column_that_no_table_has_cannot_be_split(files):
    with pytest.raises(DataError, match=r"source\.list_columns: no column named 'color'\. Did you mean 'colour'\?"):
        files("user_id,item_id\nu,a\n", list_columns=("color",)).read()


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"expected a folder with \.parquet, \.csv, \.csv\.gz files"):
        Parquet(interactions=str(tmp_path), items=str(tmp_path)).read()


def test_a_folder_of_two_formats_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("user_id,item_id\nu,a\n")
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"]}), tmp_path / "b.parquet")

    with pytest.raises(DataError, match=r"got b\.parquet beside a\.csv, expected shards of one format"):
        Parquet(interactions=str(tmp_path), items=str(tmp_path)).read()


def test_a_damaged_parquet_file_is_named(files):
    source = files("user_id,item_id\nu,a\n")
    damaged = source.interactions.replace(".csv", ".parquet")
    with open(damaged, "wb") as stream:
        stream.write(b"PAR1 but nothing else")

    with pytest.raises(DataError, match=r"interactions\.parquet: got .*expected a Parquet file"):
        Parquet(interactions=damaged, items=source.items).read()


def test_an_unknown_suffix_is_refused(tmp_path):
    path = tmp_path / "met.xlsx"
    path.write_text("x")

    with pytest.raises(DataError, match="a file that ends in one of"):
        Parquet(interactions=str(path), items=str(path)).read()


def test_a_column_of_a_wrong_type_is_named(files):
    met = pa.table({"user_id": ["u"], "item_id": ["a"], "at": [True]})

    with pytest.raises(DataError, match=r"at: got bool, expected timestamps, dates, numbers or ISO 8601 strings"):
        rows(files(met, timestamp_column="at").read())


def test_a_second_column_with_a_name_of_the_contract_is_refused(files):
    with pytest.raises(DataError, match="a column named 'item_id' beside 'sku'"):
        files("user_id,sku\nu,a\n", items="sku,item_id\na,b\n", item_column="sku").read()


def test_users_without_a_query_column_are_a_mistake_in_the_run_file():
    table = {"kind": "parquet", "interactions": "a.csv", "items": "b.csv", "users": "c.csv", "query_column": ""}

    with pytest.raises(SettingError, match="no users where query_column is empty"):
        build("sources", table, "source")


def test_a_weight_that_a_sum_over_a_batch_cannot_hold_is_broken():
    found = _rows.weights(pa.array([1e38, 1.1e30, 1e30, 1e-30, 0.9e-30, 1e-44]), "w")
    assert found.is_valid().to_pylist() == [False, False, True, True, False, False]


def test_decimals_are_read_as_weights_and_times():
    assert _rows.weights(pa.array([Decimal("1.50"), None]), "w").to_pylist() == [1.5, None]
    seconds = _rows.timestamps(pa.array([Decimal("1767323045.678"), None]), "at")
    microseconds = _rows.timestamps(pa.array([Decimal(1767323045678901)], pa.decimal128(38, 0)), "at")
    assert seconds.cast(pa.int64()).to_pylist() == [1767323045678000, None]
    assert microseconds.cast(pa.int64()).to_pylist() == [1767323045678901]


def test_a_weight_beyond_float32_is_broken_rather_than_infinite():
    assert _rows.weights(pa.array([1e300, 2.0, -1.0, float("inf")]), "w").to_pylist() == [None, 2.0, None, None]


def test_rows_beyond_one_piece_keep_their_line(tmp_path):
    # 40,000 rows are read in several pieces; the only broken one stands on line 1 + 40,000.
    path = tmp_path / "met.csv"
    path.write_text("user_id,item_id\n" + "u,a\n" * 39_999 + ",a\n")
    (tmp_path / "items.csv").write_text(ITEMS)

    raw = Parquet(interactions=str(path), items=str(tmp_path / "items.csv")).read()

    assert len(rows(raw)) == 39_999
    assert raw.rejects.examples == {"query_id missing": [f"{path}:40001: None"]}


def test_entities_of_several_pieces_are_one_table():
    pieces = [
        Piece(pa.record_batch({"id": ["a", "b"]}), "x", pa.array([1, 2]).to_numpy()),
        Piece(pa.record_batch({"id": ["b", "c"]}), "x", pa.array([3, 4]).to_numpy()),
    ]
    rejects = Rejects()

    table = _rows.entities(pieces, "id", "item_id", rejects)

    assert table["item_id"].to_pylist() == ["a", "b", "c"]
    assert rejects.examples == {"item_id given twice": ["x:3: 'b'"]}
