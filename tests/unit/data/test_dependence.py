"""Mutual information of features: brute force, scikit-learn and figures by hand."""

from __future__ import annotations

import io
import itertools
import math
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score

from recsys.data.dependence import Dependence, measure_dependence, plot, render
from recsys.errors import ShapeError, StorageError
from recsys.features.categorical import Categorical
from recsys.features.embedding import Embedding
from recsys.features.id import Id
from recsys.features.multi_categorical import MultiCategorical
from recsys.features.numeric import Numeric
from recsys.features.text import Text

LOG_2 = math.log(2)


def measure(columns, features=None, weight=None, **options) -> Dependence:
    """Fit a feature to each column of raw values and measure; by default lists are bags, the others categories."""
    encoders, codes = {}, {}
    for name, values in columns.items():
        bag = any(isinstance(value, list) for value in values)
        feature = (features or {}).get(name) or (MultiCategorical() if bag else Categorical())
        array = pa.chunked_array([pa.array(values)])
        encoders[name] = feature.fit(array, np.ones(len(values), np.int64))
        codes[name] = encoders[name].encode(array)
    return measure_dependence(encoders, codes, weight, **options)


def brute_force(first, second, weight=None) -> float:
    """Eq. 4 by dictionaries, from rows that are lists of values."""
    joint: Counter = Counter()
    for place, (bag, other) in enumerate(zip(first, second, strict=True)):
        for value, partner in itertools.product(bag, other):
            joint[value, partner] += (1 if weight is None else int(weight[place])) / len(bag) / len(other)
    total = sum(joint.values())
    left, right = Counter(), Counter()
    for (value, partner), mass in joint.items():
        left[value] += mass / total
        right[partner] += mass / total
    return sum(
        mass / total * math.log(mass / total / left[value] / right[partner])
        for (value, partner), mass in joint.items()
        if mass
    )


def shannon(values) -> float:
    shares = np.array(list(Counter(values).values())) / len(values)
    return float(-np.sum(shares * np.log(shares)))


def random_values(random, count, kinds):
    return [f"v{value}" for value in random.integers(kinds, size=count)]


def random_bags(random, count, kinds, most):
    return [random_values(random, random.integers(1, most + 1), kinds) for _ in range(count)]


def bags_of(values):
    return [value if isinstance(value, list) else [value] for value in values]


def test_by_hand_on_four_items():
    found = measure({"colour": ["red", "red", "blue", "blue"], "size": ["s", "m", "l", "l"]})
    # H(colour) = log 2; H(size) = 2/4 log 4 + 1/2 log 2 = 1.5 log 2; size decides colour, so MI = H(colour).
    np.testing.assert_allclose(found.mutual_information, [[LOG_2, LOG_2], [LOG_2, 1.5 * LOG_2]], rtol=1e-12)
    # 2 log 2 / (log 2 + 1.5 log 2) = 0.8
    np.testing.assert_allclose(found.normalised, [[1, 0.8], [0.8, 1]], rtol=1e-12)


def test_by_hand_with_two_values_in_an_item():
    found = measure({"tags": [["a", "b"], ["a"]], "shop": ["x", "y"]})
    # P(a, x) = P(b, x) = 1/4, P(a, y) = 1/2; P(a) = 3/4, P(b) = 1/4, P(x) = P(y) = 1/2.
    # 1/4 log(1/4 / 3/8) + 1/4 log(1/4 / 1/8) + 1/2 log(1/2 / 3/8)
    expected = 0.25 * math.log(2 / 3) + 0.25 * math.log(2) + 0.5 * math.log(4 / 3)
    assert found.mutual_information[0, 1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_single_values_are_counted_as_brute_force_counts_them(seed):
    random = np.random.default_rng(seed)
    columns = {"a": random_values(random, 60, 3), "b": random_values(random, 60, 5), "c": random_values(random, 60, 40)}
    found = measure(columns)
    for (i, first), (j, second) in itertools.product(enumerate(columns.values()), repeat=2):
        expected = brute_force(bags_of(first), bags_of(second))
        assert found.mutual_information[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_bags_are_counted_as_brute_force_counts_them_repeated_values_and_all(seed):
    random = np.random.default_rng(seed)
    columns = {
        "tags": random_bags(random, 50, 6, 5),
        "terms": random_bags(random, 50, 30, 9),
        "shop": random_values(random, 50, 30),
    }
    assert any(len(set(bag)) < len(bag) for bag in columns["tags"])
    weight = random.integers(0, 4, 50)
    for weights in (None, weight):
        found = measure(columns, weight=weights)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            first, second = (bags_of(columns[name]) for name in (found.names[i], found.names[j]))
            assert found.mutual_information[i, j] == pytest.approx(brute_force(first, second, weights), abs=1e-12)


def test_the_entropy_of_a_bag_is_that_of_one_drawn_value():
    # P(a) = (1/2 + 1) / 2 = 3/4; in the second pair of bags 'a' stands twice: (2/3 + 1) / 2 = 5/6.
    for bags, share in (([["a", "b"], ["a"]], 3 / 4), ([["a", "b", "a"], ["a"]], 5 / 6)):
        expected = -share * math.log(share) - (1 - share) * math.log(1 - share)
        assert measure({"tags": bags}).mutual_information[0, 0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_scikit_learn_finds_the_same_information_and_the_same_normalised_one(seed):
    random = np.random.default_rng(seed)
    first = random.integers(8, size=300)
    second = (first + random.integers(3, size=300)) % 20
    found = measure({"a": first.tolist(), "b": second.tolist()})
    assert found.mutual_information[0, 1] == pytest.approx(mutual_info_score(first, second), rel=1e-9)
    assert found.normalised[0, 1] == pytest.approx(normalized_mutual_info_score(first, second), rel=1e-9)


def test_a_weight_is_as_good_as_so_many_equal_rows():
    random = np.random.default_rng(0)
    weight = random.integers(0, 4, 80)
    columns = {
        "shop": random_values(random, 80, 5),
        "brand": random_values(random, 80, 60),
        "tags": random_bags(random, 80, 6, 4),
        "price": [None if row % 7 == 0 else float(row**2 % 50) for row in range(80)],
        "vector": random.standard_normal((80, 4)).tolist(),
    }
    features = {"price": Numeric(), "vector": Embedding()}
    repeated = {
        name: [value for value, times in zip(values, weight, strict=True) for _ in range(times)]
        for name, values in columns.items()
    }
    weighted = measure(columns, features, weight).mutual_information
    # The z-scores of the repeated rows have another mean and scale, which deciles do not see.
    np.testing.assert_allclose(weighted, measure(repeated, features).mutual_information, atol=1e-12)


def test_features_that_do_not_depend_on_each_other_tell_nothing():
    # Each of 4 x 5 combinations stands there twice.
    pairs = list(itertools.product("abcd", "vwxyz")) * 2
    first, second = zip(*pairs, strict=True)
    found = measure({"a": list(first), "b": list(second)})
    assert 0 <= found.mutual_information[0, 1] < 1e-12
    np.testing.assert_allclose(np.diagonal(found.mutual_information), [math.log(4), math.log(5)], rtol=1e-12)


def test_a_copied_feature_tells_all_of_its_entropy():
    values = random_values(np.random.default_rng(0), 100, 7)
    found = measure({"a": values, "copy": values})
    np.testing.assert_allclose(found.mutual_information, np.full((2, 2), shannon(values)), rtol=1e-12)
    np.testing.assert_allclose(found.normalised, 1)


def test_an_id_tells_the_entropy_of_each_single_value_and_of_a_bag_what_is_not_left_to_the_draw():
    random = np.random.default_rng(0)
    columns = {
        "id": [f"i{row}" for row in range(50)],
        "shop": random_values(random, 50, 4),
        "tags": [[f"t{row % 5}", f"t{row % 5 + 1}"] for row in range(50)],
    }
    found = measure(columns, {"id": Id()}).mutual_information
    assert found[0, 0] == pytest.approx(math.log(50), rel=1e-12)
    assert found[0, 1] == pytest.approx(found[1, 1], rel=1e-12)
    # H(tags) - mean_x H(tags | x); each item has two different tags.
    assert found[0, 2] == pytest.approx(found[2, 2] - LOG_2, rel=1e-12)


def test_ids_that_share_out_of_vocabulary_buckets_are_counted():
    random = np.random.default_rng(0)
    tags = random_bags(random, 40, 6, 4)
    codes = np.where(np.arange(40) % 3 == 0, 1 + np.arange(40) % 2, 3 + np.arange(40)).astype(np.int32)
    column = pa.chunked_array([pa.array(tags)])
    encoders = {"id": Id(oov_buckets=2).fit(pa.chunked_array([["x"]]), np.ones(1, np.int64))}
    encoders["tags"] = MultiCategorical().fit(column, np.ones(40, np.int64))
    found = measure_dependence(encoders, {"id": codes, "tags": encoders["tags"].encode(column)})
    expected = brute_force([[code] for code in codes.tolist()], tags)
    assert found.mutual_information[0, 1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk_pairs", [1, 7, 1000])
def test_the_size_of_a_chunk_does_not_change_the_result(chunk_pairs):
    random = np.random.default_rng(0)
    words = [" ".join(random_values(random, 12, 400)) for _ in range(200)]
    columns = {"text": words, "title": words[::-1], "shop": random_values(random, 200, 5), "id": list(range(200))}
    # 20,000 x 20,000 possible cells are not held in an array, 5 x 20,000 are.
    features = {"text": Text(), "title": Text(max_terms=3)}
    whole = measure(columns, features)
    pieces = measure(columns, features, chunk_pairs=chunk_pairs)
    np.testing.assert_allclose(pieces.mutual_information, whole.mutual_information, rtol=1e-10, atol=1e-12)


def test_large_vocabularies_are_counted_as_brute_force_counts_them():
    random = np.random.default_rng(1)
    first, second = random_bags(random, 150, 900, 8), random_bags(random, 150, 900, 8)
    second = [bag + other[:2] for bag, other in zip(second, first, strict=True)]
    found = measure({"a": first, "b": second}, chunk_pairs=500)
    assert found.mutual_information[0, 1] == pytest.approx(brute_force(first, second), rel=1e-10)


def test_bags_of_one_place_are_single_values():
    bags, shops = [["a", "x"], ["b"], [], ["a"]], ["s", "t", "t", "s"]
    found = measure({"tags": bags, "shop": shops}, {"tags": MultiCategorical(max_values=1)})
    # Only the first tag counts: a, b, missing, a. The tag decides the shop: MI = H(shop) = log 2.
    np.testing.assert_allclose(found.mutual_information, [[1.5 * LOG_2, LOG_2], [LOG_2, LOG_2]], rtol=1e-12)


def test_the_same_data_gives_the_very_same_numbers():
    random = np.random.default_rng(0)
    columns = {"tags": random_bags(random, 90, 700, 6), "vector": random.standard_normal((90, 3)).tolist()}
    features = {"vector": Embedding()}
    once, again = measure(columns, features), measure(columns, features)
    np.testing.assert_array_equal(once.mutual_information, again.mutual_information)


def test_numbers_count_as_deciles_and_missing_ones_as_a_value_of_their_own():
    # 100 numbers fall into ten bins of ten, 25 are missing.
    prices = [float(row) for row in range(100)] + [None] * 25
    decile = [str(row // 10) for row in range(100)] + ["none"] * 25
    found = measure({"price": prices, "decile": decile}, {"price": Numeric()}).mutual_information
    expected = 10 * (10 / 125) * math.log(125 / 10) + 25 / 125 * math.log(125 / 25)
    np.testing.assert_allclose(found, np.full((2, 2), expected), rtol=1e-12)


def test_a_rare_number_is_told_from_the_common_one():
    numbers = [0.0] * 95 + [1.0] * 5
    found = measure({"discount": numbers}, {"discount": Numeric()})
    assert found.mutual_information[0, 0] == pytest.approx(shannon(numbers), rel=1e-12)


def test_numbers_that_are_all_missing_tell_nothing():
    found = measure({"price": [None, None], "shop": ["x", "y"]}, {"price": Numeric()})
    np.testing.assert_allclose(found.mutual_information, [[0, 0], [0, LOG_2]], rtol=1e-12)


def test_vectors_count_as_the_cell_that_they_lie_in_and_missing_ones_as_a_cell_of_their_own():
    # Two far clusters lie on different sides of some hyperplane through their mean; zeros are a missing vector.
    vectors = [[10.0, 10.0, 10.0], [-10.0, 10.0, -10.0], [0.0, 0.0, 0.0]] * 20
    cluster = ["a", "b", "none"] * 20
    found = measure({"vector": vectors, "cluster": cluster}, {"vector": Embedding(normalised=False)})
    np.testing.assert_allclose(found.mutual_information, np.full((2, 2), math.log(3)), rtol=1e-12)


def test_equal_vectors_tell_nothing():
    found = measure({"vector": [[0.1, 0.7]] * 9, "shop": random_values(np.random.default_rng(0), 9, 3)},
                    {"vector": Embedding()})  # fmt: skip
    assert found.mutual_information[0].tolist() == [0, 0]


def test_missing_is_a_value_like_any_other():
    found = measure({"colour": ["red", None, "red", None], "tags": [["a"], [], ["a"], None]})
    np.testing.assert_allclose(found.mutual_information, np.full((2, 2), LOG_2), rtol=1e-12)


def test_a_constant_feature_tells_nothing_and_nothing_tells_about_it():
    found = measure({"one": ["x"] * 9, "also": [["y", "y"]] * 9, "shop": list("abcabcaab"), "id": list("123456789")})
    assert (found.mutual_information[:2] == 0).all()
    assert (found.normalised[:2] == 0).all()
    assert found.normalised[2, 2] == 1


def test_one_item_and_one_feature_and_no_item_at_all_are_no_special_cases():
    assert measure({"shop": ["x"], "tags": [["a", "a"]]}).mutual_information.tolist() == [[0, 0], [0, 0]]
    assert measure({"shop": ["x", "y"]}).mutual_information == pytest.approx(LOG_2)
    columns = {"shop": pa.array([], pa.string()), "price": pa.array([], pa.float64())}
    assert measure(columns, {"price": Numeric()}).mutual_information.tolist() == [[0, 0], [0, 0]]
    assert measure({"shop": ["x", "y"]}, weight=np.zeros(2, np.int64)).mutual_information.tolist() == [[0]]
    assert measure({}).names == ()


def test_features_without_codes_are_left_out_and_the_others_keep_the_order_of_the_encoders():
    column = pa.chunked_array([["x", "y"]])
    encoder = Categorical().fit(column, np.ones(2, np.int64))
    codes = {"a": encoder.encode(column), "b": encoder.encode(column)}
    assert measure_dependence({"b": encoder, "history": encoder, "a": encoder}, codes).names == ("b", "a")


@pytest.mark.parametrize("weight", [[1, 1], [1, 1, -1]])
def test_weights_of_the_wrong_number_or_sign_are_refused(weight):
    with pytest.raises(ShapeError, match="weight"):
        measure({"shop": ["x", "y", "y"]}, weight=np.array(weight))


def test_codes_of_different_lengths_are_refused():
    column = pa.chunked_array([["x", "y"]])
    encoder = Categorical().fit(column, np.ones(2, np.int64))
    codes = {"a": encoder.encode(column), "b": encoder.encode(column)[:1]}
    with pytest.raises(ShapeError, match=r"codes\['b'\]: got 1, expected 2 rows"):
        measure_dependence({"a": encoder, "b": encoder}, codes)


ROWS = st.lists(st.tuples(*[st.integers(0, 4)] * 3, st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS)
def test_information_is_symmetric_not_negative_and_at_most_the_smaller_entropy(rows):
    *columns, weight = (list(values) for values in zip(*rows, strict=True))
    found = measure(dict(zip("abc", columns, strict=True)), weight=np.array(weight))
    information, entropy = found.mutual_information, np.diagonal(found.mutual_information)
    np.testing.assert_array_equal(information, information.T)
    assert (information >= 0).all()
    assert (information <= np.minimum(entropy[:, None], entropy[None, :]) + 1e-12).all()
    assert ((found.normalised >= 0) & (found.normalised <= 1)).all()
    assert (np.diagonal(found.normalised) == (entropy > 0)).all()


def test_what_was_saved_is_loaded_again_even_under_awkward_names(tmp_path):
    found = measure({"feature": list("aabb"), "a/b": list("abca"), "ü": list("abcd")})
    found.save(tmp_path / "dependence.arrow")
    loaded = Dependence.load(tmp_path / "dependence.arrow")
    assert loaded.names == ("feature", "a/b", "ü")
    np.testing.assert_array_equal(loaded.mutual_information, found.mutual_information)
    assert [path.name for path in tmp_path.iterdir()] == ["dependence.arrow"]


def test_the_saved_table_names_the_features_in_its_first_column_and_its_heads(tmp_path):
    import pyarrow.feather as feather

    measure({"a": list("xy"), "b": list("xx")}).save(tmp_path / "dependence.arrow")
    table = feather.read_table(tmp_path / "dependence.arrow")
    assert table.schema.names == ["feature", "a", "b"]
    assert table["feature"].to_pylist() == ["a", "b"]
    assert table["a"].to_pylist() == pytest.approx([LOG_2, 0])


def printed(dependence, width=100, **options) -> str:
    console = Console(file=io.StringIO(), width=width, **options)
    render(dependence, console)
    return console.file.getvalue()


COLOURS = {"[red]": ["r", "r", "b", "b"], "size": ["s", "m", "l", "l"], "one": ["x"] * 4}


def test_the_heat_map_can_be_read_without_colours():
    text = printed(measure(COLOURS))
    # nats: H = 0.69 and 1.04, MI = 0.69; normalised 0.8
    for row in (
        "1 [red]│   0.69│   0.69│   0.00",
        "2 size │   0.69│   1.04│   0.00",
        "2 size │   0.80│   1.00│   0.00",
    ):
        assert row in text
    assert "\x1b" not in text


def test_the_heat_map_is_coloured_on_a_terminal():
    text = printed(measure(COLOURS), force_terminal=True, color_system="truecolor")
    assert "\x1b[37;48;2;" in text  # white on a strong ground
    assert "\x1b[30;48;2;" in text  # black on a faint one


def test_a_narrow_terminal_gets_the_columns_in_blocks():
    names = [f"a feature with a long name {place}" for place in range(9)]
    random = np.random.default_rng(0)
    text = printed(measure({name: random_values(random, 30, 3) for name in names}), width=50)
    table = [line for line in text.splitlines() if set("┃│┏└") & set(line)]
    assert max(map(len, table)) <= 50
    assert sum("feature" in line and "┃" in line for line in table) == 6
    # Every one of the 81 numbers of both matrices is whole.
    assert sum(line.count(".") for line in table if line.startswith("│")) == 2 * 81


def test_a_sentence_names_the_partner_of_each_feature():
    text = printed(measure(COLOURS), width=200)
    assert "[red] and size depend most on each other: 0.693 nats, 0.800 normalised." in text
    assert "one depends on no other feature." in text


def test_a_feature_whose_partner_prefers_another_has_a_sentence_of_its_own():
    values = list("aabbccdd")
    text = printed(measure({"a": values, "copy": values, "half": list("xxxxyyyy")}), width=200)
    assert "a and copy depend most on each other" in text
    # H(half) = log 2, H(a) = log 4: 2 log 2 / (3 log 2)
    assert "half depends most on a: 0.693 nats, 0.667 normalised." in text


def test_one_feature_and_none_are_rendered_without_a_sentence():
    assert "depend" not in printed(measure({"a": ["x", "y"]}))
    assert printed(measure({})) == ""


def test_a_plot_is_a_png_file(tmp_path):
    plot(measure({"$x_": ["r", "b", "r"], "size": ["s", "m", "l"]}), tmp_path / "new" / "heat.map")
    assert (tmp_path / "new" / "heat.map").read_bytes().startswith(b"\x89PNG\r\n")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["heat.map"]


def test_without_matplotlib_a_plot_says_which_extra_to_install(tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('no', name='matplotlib')\n")
    code = """
from pathlib import Path
import numpy as np
from recsys.data.dependence import Dependence, plot
from recsys.errors import InstallationError
try:
    plot(Dependence(("a",), np.ones((1, 1))), Path("heat.png"))
except InstallationError as error:
    print(error)
"""
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, cwd=tmp_path, check=False,
    )  # fmt: skip
    run = "python -m pip install 'twintower-recsys[explore]'"
    told = f"a plot needs the package 'matplotlib', which is not installed. Run: {run}"
    assert told in done.stdout, done.stderr


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "heat.png").mkdir()
    with pytest.raises(StorageError, match=r"heat\.png: cannot write"):
        Dependence(("a",), np.ones((1, 1))).save(tmp_path / "heat.png")
