"""Text files are read where they are sound; the rest is named with encoding, file, line and the setting that helps."""

import bz2
import gzip
import re
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import DataError
from recsys.registry import build
from recsys.sources import Rejects
from recsys.sources._files import UTF_8, Encoding, Shards, separated
from twintower.errors import SettingError

TABLE = "user_id,item_id\nü,a\nv,b\n"


def read(file, content, encoding="utf-8"):
    """Return rows and broken rows of a CSV file with these bytes."""
    file.write_bytes(content)
    rejects = Rejects()
    shards = Shards.of(str(file), "source.interactions", ["user_id", "item_id"], Encoding(encoding, "source.encoding"))
    pieces = shards.pieces(["user_id", "item_id"], rejects)
    return [tuple(row.values()) for piece in pieces for row in piece.rows.to_pylist()], rejects


@pytest.fixture
def file(tmp_path):
    return tmp_path / "met.csv"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("setting", ["utf-8", "latin-1"])
def test_a_byte_order_mark_says_how_a_file_is_read(file, encoding, setting):
    if encoding == "utf-8" and setting == "latin-1":
        pytest.skip("without a mark the setting counts")

    assert read(file, TABLE.encode(encoding), setting)[0] == [("ü", "a"), ("v", "b")]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
def test_other_encodings_are_read_where_the_setting_says_so(file, encoding):
    assert read(file, TABLE.encode(encoding), encoding)[0] == [("ü", "a"), ("v", "b")]


def test_a_header_in_another_encoding_is_refused_with_line_and_setting(file):
    with pytest.raises(DataError, match=r"met\.csv:1: got b'user_id,stra\\xdfe'.*UTF-8\. Set source\.encoding"):
        read(file, "user_id,straße\nu,a\n".encode("latin-1"))


def test_utf_16_without_a_mark_is_recognized_by_its_header(file):
    with pytest.raises(DataError, match=r"met\.csv:1: .*Is it UTF-16 without a byte order mark\? Set source\.encoding"):
        read(file, TABLE.encode("utf-16-le"))


def test_a_row_in_another_encoding_is_counted_with_line_and_setting(file):
    rows, rejects = read(file, TABLE.encode("latin-1"))

    assert rows == [("v", "b")]
    assert rejects.examples == {"not UTF-8, see source.encoding": [f"{file}:2"]}


def test_text_that_ends_within_a_letter_is_refused_with_its_line(file):
    with pytest.raises(DataError, match=r"met\.csv:3: got .*utf-16.* expected a whole text file, in one encoding"):
        read(file, TABLE.encode("utf-16")[:-1])


def test_an_unknown_encoding_is_refused_when_the_run_file_is_read():
    table = {"kind": "parquet", "interactions": "a.csv", "items": "b.csv"}

    for encoding in ("utf-9", "base64", ""):
        with pytest.raises(SettingError, match=r"source\.encoding"):
            build("sources", {**table, "encoding": encoding}, "source")


def test_a_long_cell_is_read(file):
    long = "x" * 1_000_000

    assert read(file, f'user_id,item_id\n{long},a\n"{long}\n",b\n'.encode())[0] == [(long, "a"), (f"{long}\n", "b")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_usual_line_end_is_read(file, end):
    rows, rejects = read(file, 'user_id,item_id\nu,a\n"v\nw",b\n,c,\nx,d'.replace("\n", end).encode())

    assert rows == [("u", "a"), (f"v{end}w", "b"), ("x", "d")]
    assert rejects.examples == {"wrong number of fields": [f"{file}:5: 3 instead of 2"]}


def test_nul_letters_are_letters(file):
    assert read(file, b"user_id,item_id\nu\0,a\n")[0] == [("u\0", "a")]


def test_every_line_that_an_open_quote_takes_with_it_is_counted(file):
    # The quote of line 3 is never closed: lines 3 to 5 go with it.
    rows, rejects = read(file, b'user_id,item_id\nu,a\n"v,b\nw,c\nx,d\n')

    assert rows == [("u", "a")]
    assert rejects.counts == {"quotes that cannot be read": 3}
    assert rejects.examples["quotes that cannot be read"][0].startswith(f"{file}:3: ")


def test_rows_after_a_quote_in_the_wrong_place_are_read(file):
    # The quote of line 3 is closed by that of line 4, where more follows.
    rows, rejects = read(file, b'user_id,item_id\nu,a\n"v,b\nw,"c"\nx,d\n')

    assert rows == [("u", "a"), ("x", "d")]
    assert rejects.counts == {"quotes that cannot be read": 2}


@pytest.mark.parametrize(
    ("header", "words"),
    [("user_id,item_id,item_id", "item_id"), ("", "named columns"), ('"user_id,item_id', "names of the columns")],
)
def test_a_header_that_names_no_columns_is_refused(file, header, words):
    with pytest.raises(DataError, match=rf"met\.csv:1: .*{words}"):
        read(file, f"{header}\nu,a,b\n".encode())


def test_a_missing_column_of_a_separated_text_is_named(file):
    file.write_text("a\tb\n1\t2\n")

    with pytest.raises(DataError, match=r"met\.csv: no column named 'c'\..*Known: a, b\."):
        next(separated(lambda: UTF_8.opened(file), str(file), Rejects(), names=("a", "c"), separator="\t"))


@pytest.mark.parametrize("separator", ["\t", ";", "|"])
def test_a_file_with_another_separator_is_refused_with_the_separator(file, separator):
    with pytest.raises(DataError, match=rf"no column named.*by commas instead of {re.escape(repr(separator))}"):
        read(file, TABLE.replace(",", separator).encode())


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    whole = gzip.compress((TABLE * 10_000).encode())

    for size in (5, 200, len(whole) - 4):
        with pytest.raises(DataError, match=r"met\.csv\.gz"):
            read(tmp_path / "met.csv.gz", whole[:size])


def test_other_formats_under_the_name_of_a_text_file_are_refused_by_format(file, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("met.csv", TABLE)
    content = {
        "a zip archive": (tmp_path / "a.zip").read_bytes(),
        "gzip": gzip.compress(TABLE.encode()),
        "bzip2": bz2.compress(TABLE.encode()),
        "Parquet": b"PAR1....",
    }

    for kind, found in content.items():
        with pytest.raises(DataError, match=rf"met\.csv: got {kind}, expected CSV text"):
            read(file, found)


SOUND, BLANK = ["u,a", '"u","a"', "ü,\0", "u ,a"], [""]
BROKEN = ["u", "u,a,b", '"u,a', 'u,"a"b', '""u,a', "\udcff,a"]


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.sampled_from([*SOUND, *BLANK, *BROKEN]), max_size=12), end=st.sampled_from(["\n", "\r\n", "\r"])
)
def test_every_line_is_read_or_counted(tmp_path_factory, lines, end):
    text = end.join(["user_id,item_id", "first,row", *lines, ""])

    rows, rejects = read(tmp_path_factory.getbasetemp() / "met.csv", text.encode(errors="surrogateescape"))

    # A quote that is never closed takes blank lines with it, which then count as broken.
    assert len(rows) + rejects.total <= 1 + len(lines) <= len(rows) + rejects.total + lines.count("")
    assert len(rows) <= 1 + sum(line in SOUND for line in lines)
    if not any('"' in line for line in lines if line in BROKEN):
        assert len(rows) == 1 + sum(line in SOUND for line in lines)
