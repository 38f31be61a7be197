"""Folders of shards are read whole: folders below, Hive partitions, links; what cannot be read is refused by name."""

import datetime
import gzip
import itertools
import os
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config
from recsys.data.prepare import version
from recsys.errors import DataError
from recsys.sources import Rejects
from recsys.sources._files import Shards
from recsys.sources.parquet import Parquet
from recsys.spelling import Spelling

HEADER = "user_id,item_id\n"


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, file)
    else:
        file.write_text(content)


def read(folder, *required):
    shards = Shards.of(str(folder), "source.interactions", required or ("user_id", "item_id"))
    pieces = shards.pieces(shards.names, Rejects())
    return [row for piece in pieces for row in piece.rows.to_pylist()]


def users(folder):
    return [row["user_id"] for row in read(folder)]


def test_folders_below_are_read_in_the_order_of_names(tmp_path):
    for name in ("a.csv", "b/2.csv", "b/c/1.csv", "d.csv"):
        write(tmp_path / name, f"{HEADER}{name},i\n")

    assert users(tmp_path) == ["a.csv", "b/2.csv", "b/c/1.csv", "d.csv"]


def test_a_partition_folder_gives_its_rows_a_column_of_text(tmp_path):
    write(tmp_path / "a.csv", f"{HEADER}u,i\n")
    write(tmp_path / "day=02" / "shop=a%2Fb" / "b.csv", f"{HEADER}v,i\n")
    write(tmp_path / "day=__HIVE_DEFAULT_PARTITION__" / "c.csv", f"{HEADER}w,i\n")

    assert [(row["user_id"], row["day"], row["shop"]) for row in read(tmp_path)] == [
        ("u", None, None),
        ("v", "02", "a/b"),
        ("w", None, None),
    ]


def test_a_partition_whose_column_begins_with_an_underscore_is_read(tmp_path):
    write(tmp_path / "_day=2" / "a.csv", f"{HEADER}u,i\n")
    write(tmp_path / "_temporary" / "b.csv", f"{HEADER}v,i\n")

    assert [(row["user_id"], row["_day"]) for row in read(tmp_path)] == [("u", "2")]


@pytest.mark.parametrize("folder", ["day=%E9", "d%E9y=1"])
def test_a_partition_that_is_not_percent_encoded_utf_8_is_refused(tmp_path, folder):
    write(tmp_path / folder / "a.csv", f"{HEADER}u,i\n")

    with pytest.raises(DataError, match=rf"{folder}', expected folder names in percent-encoded UTF-8"):
        read(tmp_path)


def test_partitions_can_be_ids_and_times(tmp_path):
    write(tmp_path / "met" / "user_id=007" / "day=2024-05-01" / "a.parquet", pa.table({"item_id": ["i"]}))
    write(tmp_path / "items.csv", "item_id\ni\n")
    paths = {"interactions": str(tmp_path / "met"), "items": str(tmp_path / "items.csv")}

    [batch] = Parquet(**paths, timestamp_column="day").read().interactions()

    moment = datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)
    assert batch.to_pylist() == [{"query_id": "007", "item_id": "i", "timestamp": moment}]


@pytest.mark.parametrize("day", [pa.array([2]), pa.array(["2"]), pa.array(["2"]).dictionary_encode(), pa.array([2.0])])
def test_a_column_that_agrees_with_its_folder_counts(tmp_path, day):
    write(tmp_path / "day=2" / "a.parquet", pa.table({"user_id": ["u"], "day": day}))

    assert [row["day"] for row in read(tmp_path, "user_id")] == day.to_pylist()


@pytest.mark.parametrize("day", [[3], [2, 3], ["3"], [None], [datetime.date(2024, 1, 1)]])
def test_a_column_that_disagrees_with_its_folder_is_refused(tmp_path, day):
    write(tmp_path / "day=2" / "a.parquet", pa.table({"user_id": ["u"] * len(day), "day": day}))

    with pytest.raises(DataError, match=r"a\.parquet: day: got .*, expected '2', as its folder is named"):
        read(tmp_path, "user_id")


def test_hidden_names_are_passed_over(tmp_path):
    for name in ("a.csv", "_SUCCESS", ".a.csv.crc", "_temporary/0/b.csv", ".hidden/c.csv"):
        write(tmp_path / name, f"{HEADER}{name},i\n")

    assert users(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("name", ["notes.txt", "day=2/b.json", "b/c.csv.zip", "b/part-0"])
def test_every_other_file_is_refused_by_name(tmp_path, name):
    write(tmp_path / "a.csv", f"{HEADER}u,i\n")
    write(tmp_path / name, f"{HEADER}u,i\n")

    with pytest.raises(DataError, match=rf"source\.interactions: got '.*{name}', expected only \.parquet, .* files"):
        read(tmp_path)


def test_links_are_followed_once(tmp_path):
    write(tmp_path / "elsewhere" / "b.csv", f"{HEADER}v,i\n")
    write(tmp_path / "met" / "a.csv", f"{HEADER}u,i\n")
    (tmp_path / "met" / "day=2").symlink_to(tmp_path / "elsewhere")

    assert users(tmp_path / "met") == ["u", "v"]


@pytest.mark.parametrize(
    ("link", "target"), [("up", "."), ("b.csv", "a.csv"), ("gone.csv", "nowhere"), ("x.csv", "x.csv")]
)
def test_a_link_to_what_is_read_already_or_to_nothing_is_refused(tmp_path, link, target):
    write(tmp_path / "a.csv", f"{HEADER}u,i\n")
    (tmp_path / link).symlink_to(target)

    with pytest.raises(DataError, match=rf"source\.interactions: got '.*{link}'"):
        read(tmp_path)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    write(tmp_path / "a.csv", f"{HEADER}u,i\n")
    os.mkfifo(tmp_path / "b.csv")

    for path in (tmp_path, tmp_path / "b.csv"):
        with pytest.raises(DataError, match=r"b\.csv"):
            read(path)


def test_a_table_whose_log_says_which_files_count_is_refused(tmp_path):
    write(tmp_path / "met" / "_delta_log" / "0.json", "{}")
    write(tmp_path / "met" / "a.parquet", pa.table({"user_id": ["u"], "item_id": ["i"]}))

    with pytest.raises(DataError, match=r"_delta_log', expected plain files"):
        read(tmp_path / "met")


def test_shards_may_differ_in_order_nullability_and_width(tmp_path):
    first = pa.schema([pa.field("user_id", pa.string(), nullable=False), ("n", pa.int32()), ("x", pa.float32())])
    write(tmp_path / "a.parquet", pa.table([["u"], [1], [0.5]], schema=first))
    write(tmp_path / "b.parquet", pa.table({"x": [1.5], "n": [2**40], "user_id": pa.array(["v"], pa.large_string())}))
    write(tmp_path / "c.parquet", pa.table({"x": [None], "n": pa.array([3], pa.uint8()), "user_id": ["w"]}))

    assert read(tmp_path, "user_id") == [
        {"user_id": "u", "n": 1, "x": 0.5},
        {"user_id": "v", "n": 2**40, "x": 1.5},
        {"user_id": "w", "n": 3, "x": None},
    ]


def test_a_number_is_spelled_alike_in_shards_of_several_types(tmp_path):
    numbers = {
        "a": pa.array([0.1, 16_777_216.0], pa.float32()),
        "b": pa.array([0.1, 4_006_381_333_931.0], pa.float64()),
        "c": pa.array([Decimal("0.10"), Decimal("4006381333931.00")], pa.decimal128(24, 2)),
        "d": pa.array([np.float16(0.1), np.float16(5)], pa.float16()),
        "e": pa.array([4_006_381_333_931, 5], pa.int64()),
    }
    for first, second in itertools.permutations(numbers, 2):
        folder = tmp_path / f"{first}{second}"
        for name in (first, second):
            write(
                folder / f"{name}.parquet",
                pa.table({"user_id": ["u", "v"], "item_id": ["i", "i"], "size": numbers[name]}),
            )
        shards = Shards.of(str(folder), "source.interactions", ("user_id", "item_id"))
        column = pa.chunked_array([piece.rows["size"] for piece in shards.pieces(shards.names, Rejects())])
        expected = [
            Spelling.of("size", each.type).spell_column(each).to_list()
            for each in map(numbers.get, sorted((first, second)))
        ]
        assert Spelling.of("size", column.type).spell_column(column).to_list() == [*itertools.chain(*expected)]


def test_a_decimal_that_no_double_spells_is_refused_beside_floats(tmp_path):
    for name, column in (("a", pa.array([0.5])), ("b", pa.array([Decimal("4006381333931234567.89")]))):
        write(tmp_path / f"{name}.parquet", pa.table({"user_id": ["u"], "item_id": ["i"], "size": column}))

    with pytest.raises(DataError, match=r"b\.parquet: size: got 4006381333931234567\.89 is no double"):
        read(tmp_path)


def test_ids_have_one_spelling_across_shards_of_several_types(tmp_path):
    kinds = ([7, None], [7.0, None], ["7", None], pa.array([7, None], pa.decimal128(9, 2)))
    for number, values in enumerate(kinds):
        write(tmp_path / "met" / f"{number}.parquet", pa.table({"user_id": values, "item_id": ["i", "i"]}))
    write(tmp_path / "items.csv", "item_id\ni\n")

    raw = Parquet(interactions=str(tmp_path / "met"), items=str(tmp_path / "items.csv")).read()

    assert [row["query_id"] for batch in raw.interactions() for row in batch.to_pylist()] == ["7"] * 4
    assert raw.rejects.counts == {"query_id missing": 4}


def test_shards_without_a_common_type_are_refused_by_column_and_type(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"user_id": ["u"], "n": [1]}))
    write(tmp_path / "b.parquet", pa.table({"user_id": ["u"], "n": ["1"]}))

    with pytest.raises(DataError, match=r"b\.parquet: got n \(string\), expected the types of .*a\.parquet \(int64\)"):
        read(tmp_path, "user_id")


def test_a_number_that_the_common_type_cannot_hold_is_refused(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"user_id": ["u"], "n": [2**53 + 1]}))
    write(tmp_path / "b.parquet", pa.table({"user_id": ["u"], "n": [0.5]}))

    with pytest.raises(DataError, match=r"a\.parquet: n: got .*9007199254740993"):
        read(tmp_path, "user_id")


def test_a_shard_that_lacks_a_column_is_refused(tmp_path):
    write(tmp_path / "a.parquet", pa.table({"user_id": ["u"], "n": [1]}))
    write(tmp_path / "b.parquet", pa.table({"user_id": ["u"]}))

    with pytest.raises(DataError, match=r"b\.parquet: got \['n'\], expected the columns of .*a\.parquet"):
        read(tmp_path, "user_id")


def test_a_suffix_may_be_written_in_capitals(tmp_path):
    with gzip.open(tmp_path / "A.CSV.GZ", "wt") as stream:
        stream.write(f"{HEADER}u,i\n")

    assert users(tmp_path) == ["u"]


def test_data_that_moves_to_another_folder_is_other_data(tmp_path):
    write(tmp_path / "met" / "day=1" / "a.csv", f"{HEADER}u,i\n")
    write(tmp_path / "items.csv", "item_id\ni\n")
    source = {"kind": "parquet", "interactions": str(tmp_path / "met"), "items": str(tmp_path / "items.csv")}
    features = {"features": {"id": {"kind": "id"}}}
    run = config.from_tables({"name": "moved", "source": source, "query": features, "item": features})
    before = version(run)

    (tmp_path / "met" / "day=1").rename(tmp_path / "met" / "day=2")

    assert version(run) != before
