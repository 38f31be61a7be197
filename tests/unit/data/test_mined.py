"""Mined feedback: written and read back, taken apart and put together, and files that are something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.mined import COLUMNS, Mined, joined
from recsys.errors import DataError, ShapeError, StorageError
from recsys.types import NO_ROW, Neighbours, RowSets
from tests.mined import mined_of, sets

FACTS = {"search": "abc", "part": "validation", "town": "Köln"}


@pytest.fixture
def mined() -> Mined:
    """Five queries; the second has fewer first results than places, the third excludes nothing."""
    first = [[3, 1, 2], [7, NO_ROW, NO_ROW], [0, 1, 2], [4, 5, 6], [9, 8, 7]]
    excluded = [[5], [1, 2], [], [0], [3, 4, 5]]
    return mined_of(first, [[1], [2, 3], [4, 5, 6], [0, 9], [8]], excluded=excluded, facts=FACTS)


def assert_same(one: Mined, other: Mined) -> None:
    assert one.case_ids.to_pylist() == other.case_ids.to_pylist()
    assert dict(one.facts) == dict(other.facts)
    for name in ("relevant", "excluded"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert [ours[place].tolist() for place in range(len(ours))] == [
            theirs[place].tolist() for place in range(len(theirs))
        ]
    for ours, theirs in (
        (one.query_vectors, other.query_vectors),
        (one.first.item_rows, other.first.item_rows),
        (one.first.scores, other.first.scores),
    ):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_written_is_read_back(mined, tmp_path):
    mined.write(tmp_path / "mined.arrow")
    assert_same(Mined.read(tmp_path / "mined.arrow"), mined)
    assert [path.name for path in tmp_path.iterdir()] == ["mined.arrow"]


def test_what_was_read_outlives_its_file(mined, tmp_path):
    path = tmp_path / "mined.arrow"
    mined.write(path)
    read = Mined.read(path)
    mined.take(np.array([0])).write(path)
    path.unlink()
    assert_same(read, mined)


def test_a_part_can_be_written_and_read_too(mined, tmp_path):
    mined.take(np.array([3, 1])).write(tmp_path / "mined.arrow")
    assert_same(Mined.read(tmp_path / "mined.arrow"), mined.take(np.array([3, 1])))


def test_taking_gives_the_asked_queries_in_the_asked_order(mined):
    taken = mined.take(np.array([4, 0]))
    assert taken.case_ids.to_pylist() == ["query-ü4", "query-ü0"]
    assert taken.first.item_rows.tolist() == [[9, 8, 7], [3, 1, 2]]
    assert [taken.relevant[0].tolist(), taken.excluded[0].tolist()] == [[8], [3, 4, 5]]
    assert dict(taken.facts) == FACTS


def test_parts_join_to_the_whole(mined):
    parts = [mined.take(np.array(places, np.int64)) for places in ([0, 1], [2], [3, 4])]
    assert_same(joined(parts), mined)
    assert_same(joined([mined]), mined)


@pytest.mark.parametrize(("queries", "count", "sizes"), [(20, 5, [4] * 5), (7, 3, [2, 2, 3]), (3, 5, [1, 1, 1])])
def test_folds_judge_each_query_once_and_learn_from_all_others(queries, count, sizes):
    whole = mined_of([[0]] * queries, [[1]] * queries)
    folds, order = whole.folds(count, 3), whole.case_ids.to_pylist()
    assert sorted(len(judged) for _, judged in folds) == sizes
    assert sorted(case for _, judged in folds for case in judged.case_ids.to_pylist()) == sorted(order)
    for learn, judged in folds:
        assert sorted(learn.case_ids.to_pylist() + judged.case_ids.to_pylist()) == sorted(order)
        for part in (learn.case_ids.to_pylist(), judged.case_ids.to_pylist()):
            assert part == sorted(part, key=order.index)


def test_one_seed_gives_one_division_and_another_another():
    whole = mined_of([[0]] * 40, [[1]] * 40)
    drawn = [whole.folds(2, seed)[0][0].case_ids.to_pylist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_single_query_cannot_be_divided():
    with pytest.raises(DataError, match=r"^mined: got 1 queries, expected at least 2, to learn and to judge\.$"):
        mined_of([[0]], [[1]]).folds(5, 0)


def test_as_many_of_everything_as_queries_are_wanted(mined):
    with pytest.raises(ShapeError, match=r"^mined: got \[4, 5\], expected as many of everything as queries"):
        Mined(
            mined.case_ids,
            mined.query_vectors,
            mined.query_lengths,
            mined.first,
            sets([1], [2], [3], [4]),
            mined.excluded,
            {},
        )


def table(**changes: pa.Array) -> pa.Table:
    numbers = pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2))
    rows = pa.array([[1, 2]], pa.list_(pa.int32(), 2))
    some = pa.array([[1]], pa.large_list(pa.int32()))
    columns = dict(
        zip(COLUMNS, (pa.array(["a"]), numbers, pa.array([1.0], pa.float32()), rows, numbers, some, some), strict=True)
    )
    return pa.table({name: changes.get(name, column) for name, column in columns.items()})


def ipc(path, content: pa.Table) -> None:
    with pa.ipc.new_file(str(path), content.schema) as writer:
        writer.write_table(content)


def test_no_changed_bit_is_read_as_something_else(mined, tmp_path):
    path = tmp_path / "mined.arrow"
    mined.write(path)
    whole, told = path.read_bytes(), []
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            # what means nothing, such as padding, may change
            assert_same(Mined.read(path), mined)
        except DataError as error:
            told.append(str(error))
    silent = "got another checksum than its content has, expected mined feedback as it was written. Mine again"
    assert sum(silent in error for error in told) > 10


def test_a_file_without_a_checksum_is_refused_however_right_its_columns_are(tmp_path):
    ipc(tmp_path / "mined.arrow", table())
    with pytest.raises(DataError, match=r"mined\.arrow: got another checksum than its content has"):
        Mined.read(tmp_path / "mined.arrow")


def test_mined_feedback_fits_a_catalogue_that_has_all_its_rows(mined):
    # the largest row is 9
    assert mined.fits(10)
    assert not mined.fits(9)
    assert not mined.take(np.arange(0)).fits(10)
    assert not replace(mined, query_vectors=np.full_like(mined.query_vectors, np.nan)).fits(10)
    assert not replace(mined, relevant=sets([1], [], [4], [0], [8])).fits(10)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"case_id,query_vector\n1,2\n"),
        lambda path: pq.write_table(table(), path),
        lambda path: ipc(path, table().drop_columns(["relevant"])),
        lambda path: ipc(path, table(query_vector=pa.array(["near"]))),
        lambda path: ipc(path, table(item_rows=pa.array([["a", "b"]], pa.list_(pa.string(), 2)))),
        lambda path: ipc(path, table(relevant=pa.array([1]))),
        lambda path: (path.unlink(), path.mkdir()),
    ],
    ids=["missing", "cut", "empty", "text", "parquet", "fewer columns", "no vectors", "words", "no sets", "a folder"],
)
def test_a_file_that_is_not_mined_feedback_is_refused_with_advice(spoil, mined, tmp_path):
    path = tmp_path / "mined.arrow"
    mined.write(path)
    spoil(path)
    with pytest.raises(DataError) as caught:
        Mined.read(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: got ")
    assert told.endswith("expected a file of mined feedback. Write it with `recsys mine`.")


def test_where_nothing_can_be_written_nothing_is_left(mined, tmp_path):
    (tmp_path / "mined.arrow").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        mined.write(tmp_path / "mined.arrow")
    assert [path.name for path in tmp_path.iterdir()] == ["mined.arrow"]


def test_no_queries_are_written_and_read_back(tmp_path):
    none = np.zeros((0, 3), np.float32)
    empty = Mined(
        pa.array([], pa.string()),
        none,
        none[:, 0],
        Neighbours(none.astype(np.int32), none),
        RowSets.empty(0),
        RowSets.empty(0),
        {},
    )
    empty.write(tmp_path / "mined.arrow")
    assert_same(Mined.read(tmp_path / "mined.arrow"), empty)
