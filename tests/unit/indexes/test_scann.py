"""ScaNN's settings: when search is exact, what is settled on, and what can be changed without building again."""

import json
import resource

import numpy as np
import pytest

from recsys import registry
from recsys.errors import ReleaseError, StorageError
from recsys.indexes import ExactSearcher
from recsys.indexes.scann import Scann, ScannSearcher
from recsys.stack import avx2_switch, scann_kernels
from twintower.errors import RequestError, SettingError


def clustered(items, dim=8, seed=0):
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(20, dim))
    vectors = centres[draw.integers(0, 20, items)] + 0.3 * draw.normal(size=(items, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def searcher_of(index, vectors, folder):
    index.build(vectors, folder)
    return index.load(folder, vectors)


@pytest.mark.parametrize(("items", "searcher"), [(99, ExactSearcher), (100, ScannSearcher)])
def test_a_catalogue_below_the_limit_is_searched_exactly(tmp_path, items, searcher):
    assert isinstance(searcher_of(Scann(brute_force_below=100), clustered(items), tmp_path), searcher)


def test_an_exact_index_stores_no_second_copy_of_the_vectors(tmp_path):
    Scann(brute_force_below=1000).build(clustered(999), tmp_path)

    assert [file.name for file in tmp_path.iterdir()] == ["index.json"]


def test_choices_left_open_follow_the_square_root_of_the_items(tmp_path):
    # 900 items: sqrt = 30 leaves, 15 % of them is 4.5, rounded up 5; 10 x target_k = 70 items re-scored.
    parameters = Scann(brute_force_below=0, target_k=7).build(clustered(900), tmp_path)

    assert parameters["leaves"] == 30
    assert parameters["leaves_to_search"] == 5
    assert parameters["reorder_k"] == 70
    assert parameters["quantisation"] == "ah"


def test_effort_multiplies_the_leaves_that_are_searched(tmp_path):
    vectors = clustered(900)
    searcher = searcher_of(Scann(brute_force_below=0, leaves=30, leaves_to_search=1, reorder_k=900), vectors, tmp_path)
    queries = clustered(20, seed=1)

    found = {effort: searcher.search(queries, 10, effort=effort) for effort in (1, 3, 30)}

    for effort, neighbours in found.items():
        same = searcher.search(queries, 10, leaves_to_search=effort)
        np.testing.assert_array_equal(neighbours.item_rows, same.item_rows)
    assert found[1].scores.sum() < found[30].scores.sum()


def test_no_more_is_asked_of_scann_than_the_items_allow(tmp_path):
    # 12 items are fewer than the 16 codes of a quantiser's block.
    index = Scann(brute_force_below=0, leaves=500, leaves_to_search=300, reorder_k=900)

    parameters = index.build(clustered(12), tmp_path)

    assert parameters["leaves"] == 12
    assert parameters["leaves_to_search"] == 12
    assert parameters["reorder_k"] == 12
    assert parameters["quantisation"] == "none"


def test_fewer_leaves_searched_per_call_find_less_and_more_find_everything(tmp_path):
    vectors, queries = clustered(2000), clustered(100, seed=1)
    searcher = searcher_of(
        Scann(brute_force_below=0, leaves=40, leaves_to_search=40, reorder_k=2000), vectors, tmp_path
    )
    exact = ExactSearcher(vectors).search(queries, 10).scores.sum()

    one_leaf = searcher.search(queries, 10, leaves_to_search=1).scores.sum()
    one_candidate = searcher.search(queries, 10, reorder_k=10).scores.sum()
    everything = searcher.search(queries, 10).scores.sum()

    assert one_leaf < everything
    assert one_candidate < everything
    assert everything == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("batch", [1, 5])
def test_a_query_whose_leaves_hold_too_few_items_still_gets_k(tmp_path, batch):
    vectors, queries = clustered(400), clustered(batch, seed=1)
    searcher = searcher_of(Scann(brute_force_below=0, leaves=40, leaves_to_search=1), vectors, tmp_path)

    neighbours = searcher.search(queries, 200)

    exact = ExactSearcher(vectors).search(queries, 200)
    np.testing.assert_array_equal(neighbours.item_rows, exact.item_rows)


def test_the_search_time_settings_of_a_folder_can_be_changed_without_building_again(tmp_path):
    vectors = clustered(600)
    index = Scann(brute_force_below=0, leaves=20, leaves_to_search=2, reorder_k=30)
    index.build(vectors, tmp_path)
    built = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "index.json"}

    Scann(brute_force_below=0, leaves_to_search=9, reorder_k=50).resettle(tmp_path, vectors)

    parameters = index.load(tmp_path, vectors).parameters
    assert (parameters["leaves"], parameters["leaves_to_search"], parameters["reorder_k"]) == (20, 9, 50)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.name != "index.json"} == built


def test_quantisation_does_not_depend_on_the_unit_of_the_vectors(tmp_path):
    # Doubling every vector doubles every score and changes no order.
    vectors, queries = clustered(3000, dim=16), clustered(50, dim=16, seed=1)
    found = []
    for scale in (1, 1024):
        folder = tmp_path / str(scale)
        folder.mkdir()
        index = Scann(brute_force_below=0, leaves=1, reorder_k=20)
        found.append(searcher_of(index, vectors * np.float32(scale), folder).search(queries, 10).item_rows)

    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("batch", [1, 50])
def test_the_kernels_that_scann_does_not_choose_by_itself_find_what_its_own_do(tmp_path, batch):
    vectors = clustered(5000, dim=32)
    searcher = searcher_of(Scann(brute_force_below=0), vectors, tmp_path)
    if scann_kernels() != "AVX2":
        pytest.skip("this processor has no AVX2")
    wide = searcher.search(vectors[:batch], 10)
    switch = avx2_switch()
    switch.value = False
    try:
        narrow = searcher.search(vectors[:batch], 10)
    finally:
        switch.value = True
    assert (wide.item_rows == narrow.item_rows).mean() > 0.99  # sums of other orders differ in the last digit
    np.testing.assert_allclose(wide.scores, narrow.scores, rtol=1e-4)


def test_a_folder_that_scann_cannot_read_is_refused(tmp_path):
    vectors = clustered(300)
    index = Scann(brute_force_below=0)
    index.build(vectors, tmp_path)
    assets = tmp_path / "scann_assets.pbtxt"
    assets.write_text("x" * assets.stat().st_size)

    with pytest.raises(ReleaseError, match="ScaNN"):
        index.load(tmp_path, vectors)


def test_a_disk_that_takes_no_more_is_a_storage_error(tmp_path):
    # The operating system refuses files above 50,000 bytes; the vectors alone are 8,000 x 8 x 4 = 256,000.
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limit[1]))
    try:
        with pytest.raises(StorageError, match="Make room"):
            Scann().build(clustered(8000), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)


def test_the_description_of_a_folder_holds_kind_shape_digest_and_sizes(tmp_path):
    Scann(brute_force_below=0).build(clustered(300), tmp_path)

    content = json.loads((tmp_path / "index.json").read_text())

    assert (content["kind"], content["items"], content["dim"]) == ("scann", 300, 8)
    assert set(content["file_bytes"]) == {file.name for file in tmp_path.iterdir()} - {"index.json"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("leaves", -1),
        ("leaves_to_search", -1),
        ("reorder_k", -1),
        ("quantisation", "pq"),
        ("dimensions_per_block", 0),
        ("anisotropic_threshold", 1.0),
        ("target_recall", 1.0),
        ("target_recall", 0.0),
        ("target_k", 0),
        ("tuning_queries", 1),
        ("brute_force_below", -1),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_its_path(name, value):
    with pytest.raises(SettingError, match=rf"index\.{name}: got {value!r}"):
        registry.build("indexes", {"kind": "scann", name: value}, "index")


@pytest.mark.parametrize("name", ["leaves_to_search", "reorder_k"])
def test_a_search_of_0_leaves_or_items_is_refused_and_never_taken_for_the_default(tmp_path, name):
    vectors = clustered(900)
    searcher = searcher_of(Scann(brute_force_below=0), vectors, tmp_path)
    with pytest.raises(RequestError, match="got 0, expected >= 1"):
        searcher.search(vectors[:2], 5, **{name: 0})
