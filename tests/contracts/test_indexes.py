"""The contract of the family `indexes`: every choice answers as exact arithmetic does, and refuses what it must."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from recsys import registry
from recsys.errors import ReleaseError, ShapeError
from recsys.types import NO_ROW
from twintower.errors import RequestError

EVERYTHING = 1_000_000
# Searching every leaf and re-scoring every item leaves no room for approximation: the answer must be exact.
CHOICES = [{"kind": kind} for kind in registry.names("indexes")] + [
    {"kind": "scann", "brute_force_below": 0, "leaves_to_search": EVERYTHING, "reorder_k": EVERYTHING},
    {"kind": "scann", "brute_force_below": 0, "leaves": 1, "reorder_k": EVERYTHING},
    {"kind": "scann", "brute_force_below": 0, "leaves": 7, "leaves_to_search": EVERYTHING, "quantisation": "none"},
    {"kind": "scann", "brute_force_below": 0, "leaves": EVERYTHING, "leaves_to_search": EVERYTHING},
]


@pytest.fixture(params=CHOICES, ids=lambda table: "-".join(str(value) for value in table.values()))
def index(request):
    return registry.build("indexes", request.param, "index")


@pytest.fixture
def build(index, tmp_path):
    def build_and_load(vectors):
        folder = tmp_path / "index"
        folder.mkdir()
        index.build(vectors, folder)
        return index.load(folder, vectors)

    return build_and_load


def drawn(rows, dim, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def assert_best(neighbours, vectors, queries, k):
    """Given rows and scores, they are the k largest inner products, each row with its own score, none twice."""
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    k_found = min(k, len(vectors))
    rows, scores = neighbours.item_rows, neighbours.scores
    assert (rows.dtype, scores.dtype) == (np.int32, np.float32)
    assert rows.shape == scores.shape == (len(queries), k)
    np.testing.assert_allclose(scores[:, :k_found], -np.sort(-exact, axis=1)[:, :k_found], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        scores[:, :k_found], np.take_along_axis(exact, rows[:, :k_found], 1), rtol=1e-4, atol=1e-4
    )
    assert all(len(set(row)) == k_found for row in rows[:, :k_found].tolist())
    assert (rows[:, k_found:] == NO_ROW).all()
    assert np.isneginf(scores[:, k_found:]).all()


@pytest.mark.parametrize("batch", [1, 2, 33])
def test_the_answer_is_the_largest_inner_products_best_first(build, batch):
    vectors, queries = drawn(400, 8), drawn(batch, 8, seed=1)

    neighbours = build(vectors).search(queries, 10)

    assert_best(neighbours, vectors, queries, 10)


def test_more_effort_finds_no_worse_items(build):
    vectors, queries = drawn(400, 8), drawn(7, 8, seed=1)
    searcher = build(vectors)

    found = [searcher.search(queries, 10, effort=effort).scores.sum() for effort in (0.01, 1, 1000)]

    assert found[0] <= found[1] + 1e-4 <= found[2] + 2e-4


def test_vectors_of_very_different_length_are_ranked_by_inner_product_not_by_angle(build):
    vectors = drawn(300, 6) * np.geomspace(1e-3, 1e3, 300, dtype=np.float32)[:, None]
    queries = drawn(5, 6, seed=1)

    neighbours = build(vectors).search(queries, 5)

    exact = -np.sort(-(queries @ vectors.T), axis=1)[:, :5]
    np.testing.assert_allclose(neighbours.scores, exact, rtol=1e-3)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("items", [1, 2, 20])
def test_more_places_than_items_end_in_no_row_and_minus_infinity(build, batch, items):
    vectors, queries = drawn(items, 4), drawn(batch, 4, seed=1)

    neighbours = build(vectors).search(queries, items + 3)

    assert_best(neighbours, vectors, queries, items + 3)


@pytest.mark.parametrize("vector", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_equal_vectors_are_all_found_with_the_same_score(build, vector):
    vectors = np.tile(np.array(vector, np.float32), (60, 1))

    neighbours = build(vectors).search(np.array([[1, 2, 3, 4]], np.float32), 60)

    assert sorted(neighbours.item_rows[0].tolist()) == list(range(60))
    assert set(neighbours.scores[0].tolist()) == {float(np.dot(vector, [1, 2, 3, 4]))}


def test_a_catalogue_with_many_copies_of_few_vectors_gives_every_copy_once(build):
    # Three vectors, 30 copies each; the best 30 for (1, 0, 0) are the copies of the first: rows 0..29.
    vectors = np.repeat(np.eye(3, dtype=np.float32), 30, axis=0)

    neighbours = build(vectors).search(np.array([[1, 0, 0]], np.float32), 30)

    assert sorted(neighbours.item_rows[0].tolist()) == list(range(30))
    assert neighbours.scores[0].tolist() == [1.0] * 30


def test_vectors_with_one_dimension_work(build):
    vectors = np.linspace(-1, 1, 41, dtype=np.float32)[:, None]

    neighbours = build(vectors).search(np.array([[2.0]], np.float32), 3)

    # The largest of -1, -0.95, ..., 1 are 1, 0.95 and 0.9, at rows 40, 39 and 38.
    assert neighbours.item_rows.tolist() == [[40, 39, 38]]
    np.testing.assert_allclose(neighbours.scores, [[2.0, 1.9, 1.8]], rtol=1e-5)


def test_no_queries_give_an_empty_answer(build):
    neighbours = build(drawn(50, 4)).search(np.empty((0, 4), np.float32), 3)

    assert neighbours.item_rows.shape == neighbours.scores.shape == (0, 3)


def test_one_query_alone_and_within_a_batch_get_the_same_items(build):
    vectors, queries = drawn(400, 8), drawn(9, 8, seed=1)
    searcher = build(vectors)

    together = searcher.search(queries, 10)

    for place, query in enumerate(queries):
        assert searcher.search(query[None], 10).item_rows[0].tolist() == together.item_rows[place].tolist()


def test_the_item_vectors_may_be_a_memory_map(index, tmp_path):
    vectors, queries = drawn(200, 4), drawn(3, 4, seed=1)
    np.save(tmp_path / "vectors.npy", vectors)
    folder = tmp_path / "index"
    folder.mkdir()
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")

    index.build(mapped, folder)

    assert_best(index.load(folder, mapped).search(queries, 5), vectors, queries, 5)


def test_a_folder_can_be_moved_after_it_was_built(index, tmp_path):
    vectors, queries = drawn(200, 4), drawn(3, 4, seed=1)
    first, second = tmp_path / "first", tmp_path / "releases" / "second"
    first.mkdir()
    index.build(vectors, first)
    second.parent.mkdir()
    shutil.move(first, second)

    searcher = index.load(second, vectors)

    assert_best(searcher.search(queries, 5), vectors, queries, 5)


def test_no_file_of_an_index_names_the_folder_or_runs_code_when_it_is_read(index, tmp_path):
    folder = tmp_path / "index"
    folder.mkdir()

    index.build(drawn(200, 4), folder)

    for file in folder.iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()
        assert file.suffix != ".pkl"


def test_the_parameters_that_were_settled_on_are_plain_json(index, tmp_path):
    parameters = index.build(drawn(200, 4), tmp_path)

    assert json.loads(json.dumps(parameters)) == parameters


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_query_that_is_not_finite_is_the_callers_mistake(build, value, batch):
    queries = drawn(batch, 4)
    queries[-1, 2] = value

    with pytest.raises(RequestError, match=f"query {batch - 1} ") as caught:
        build(drawn(50, 4)).search(queries, 3)

    assert caught.value.field == "vector"


@pytest.mark.parametrize("shape", [(1, 3), (2, 5), (4,), (1, 0), (1, 1, 4)])
def test_a_vector_of_the_wrong_length_is_the_callers_mistake(build, shape):
    with pytest.raises(RequestError, match=r"expected \[batch, 4\]") as caught:
        build(drawn(50, 4)).search(np.ones(shape, np.float32), 3)

    assert caught.value.field == "vector"


@pytest.mark.parametrize("k", [0, -1])
def test_fewer_than_one_place_is_the_callers_mistake(build, k):
    with pytest.raises(RequestError, match="expected >= 1") as caught:
        build(drawn(50, 4)).search(drawn(1, 4), k)

    assert caught.value.field == "k"


@pytest.mark.parametrize(
    "vectors",
    [
        np.empty((0, 4), np.float32),
        np.empty((4, 0), np.float32),
        np.ones(4, np.float32),
        np.ones((4, 2), np.float64),
        np.array([[1, 2], [np.nan, 1]], np.float32),
        np.array([[1, 2], [np.inf, 1]], np.float32),
    ],
    ids=["no items", "no dimensions", "one axis", "float64", "NaN", "infinity"],
)
def test_item_vectors_that_cannot_be_searched_are_refused_before_anything_is_written(index, tmp_path, vectors):
    with pytest.raises(ShapeError):
        index.build(vectors, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_an_index_over_other_vectors_is_refused(index, tmp_path):
    vectors = drawn(50, 4)
    index.build(vectors, tmp_path)
    other = vectors.copy()
    other[17, 2] += 1

    for wrong in (other, vectors[:49], vectors[:, :3], vectors[::-1]):
        with pytest.raises(ReleaseError, match="item vectors"):
            index.load(tmp_path, wrong)


def test_a_missing_or_shortened_file_is_refused_by_name(index, tmp_path):
    vectors = drawn(200, 4)
    built = tmp_path / "built"
    built.mkdir()
    index.build(vectors, built)

    for file in built.iterdir():
        for damage in ("missing", "short"):
            broken = tmp_path / f"{damage}-{file.name}"
            shutil.copytree(built, broken)
            if damage == "missing":
                (broken / file.name).unlink()
            else:
                (broken / file.name).write_bytes(file.read_bytes()[:-3])
            with pytest.raises(ReleaseError, match=file.name):
                index.load(broken, vectors)


def test_a_folder_of_another_kind_is_refused(index, tmp_path):
    vectors = drawn(50, 4)
    index.build(vectors, tmp_path)
    other = next(kind for kind in registry.names("indexes") if kind != registry.kind_of(index))

    with pytest.raises(ReleaseError, match=registry.kind_of(index)):
        registry.build("indexes", {"kind": other}, "index").load(tmp_path, vectors)


def test_several_threads_get_the_answers_that_one_gets(build):
    vectors, queries = drawn(400, 8), drawn(64, 8, seed=1)
    searcher = build(vectors)
    alone = [searcher.search(query[None], 10).item_rows.tolist() for query in queries]

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda query: searcher.search(query[None], 10).item_rows.tolist(), queries))

    assert together == alone
