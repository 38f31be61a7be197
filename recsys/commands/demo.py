"""`recsys demo`: the whole path on real data, from purchases to answers over gRPC, as a story of ten short chapters."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from recsys.commands import Overrides, Releases, Work, program

if TYPE_CHECKING:
    from recsys.data.prepare import Prepared
    from recsys.evaluation.report import EvaluationReport
    from recsys.export.release import Release
    from twintower.client import Client
    from twintower.types import Query, Ranking

RUN = "complete_journey"
K = 5
SERVER_START_S = 120.0
TIMED_CALLS = 200
DAMAGED_PART = "item_embeddings.npy"


def command(
    work: Work = Path("work"),
    releases: Releases = Path("releases"),
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an earlier demo left and train anew.")] = (
        False
    ),
) -> None:
    """Train on grocery purchases, judge, serve, recommend, take feedback, filter, refuse damage: some minutes."""
    from recsys import config, pipeline, progress
    from recsys.data.prepare import prepare
    from recsys.evaluation import report, report_page
    from serving.process import served

    started = time.monotonic()
    console = Console()
    run = config.load(RUN, overrides)
    home = work / run.name
    if restart:
        shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)

    console.rule("1. The data")
    with progress.one_line("read"):
        prepared = prepare(run, home / "prepared")
    story = Story(console, Shop.of(prepared))
    story.data(prepared)
    console.rule("2. Training")
    with progress.one_line("train, evaluate, index"):
        release = pipeline.train(run, work, releases)
    console.rule("3. The verdict")
    story.verdict(report.load(release.folder))
    with served(release.folder, home, start_s=SERVER_START_S) as client:
        story.household(client)
        story.neighbors(client)
        story.feedback(client)
        story.filtered(client)
        story.speed(client, release)
    story.damage(release, home)
    console.rule("10. Look around")
    for line in (
        f"release      {release.folder}",
        f"report       {report_page.path_of(release)} (with a map of the products)",
        f"server log   {home / 'server.log'}",
        f"all figures  {program()} release show {release.folder}",
        f"serve it     {program()} serve {release.folder}",
        f"ask it       {program()} query --entity {story.shop.household} -k 10",
        "your data    README.md, 'Your own data'",
    ):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"{time.monotonic() - started:.0f} s in all.")


@dataclass(frozen=True)
class Shop:
    """What the story knows of its customer and products.

    Attributes:
        household: the id of the first household whose demographics are known and which the test part asks about.
        demographics: what is known of it, in words.
        purchases: the products that it bought before the test part, oldest first, a product as often as it was bought.
        ages_days: how many days before the test part each was bought.
        bought_later: the products that it bought in the test part.
        products: display columns of each product by id, and how often it was bought in training.
    """

    household: str
    demographics: str
    purchases: tuple[str, ...]
    ages_days: tuple[float, ...]
    bought_later: frozenset[str]
    products: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def of(prepared: Prepared) -> Shop:
        """Choose the household, and look its purchases up."""
        from recsys.types import DAY_US, ITEM_ID, QUERY_ID

        columns = [ITEM_ID, "name", "department", "product_category"]
        rows = prepared.items.select(columns).to_pylist()
        for row, count in zip(rows, prepared.item_counts.tolist(), strict=True):
            row["count"] = count
        households = prepared.queries.to_pylist()
        asked = set(prepared.parts["test"].query_row.tolist())
        place = next(place for place, each in enumerate(households) if each["income"] is not None and place in asked)
        met, later = prepared.until("train", "validation"), prepared.parts["test"]
        own = met.take(met.query_row == place)
        return Shop(
            household=households[place][QUERY_ID],
            demographics=", ".join(
                f"{name.replace('_', ' ')} {value}"
                for name, value in households[place].items()
                if name != QUERY_ID and value is not None
            ),
            purchases=tuple(rows[row][ITEM_ID] for row in own.item_row.tolist()),
            ages_days=tuple(((met.timestamp.max() - own.timestamp) / DAY_US).tolist()),
            bought_later=frozenset(rows[row][ITEM_ID] for row in later.item_row[later.query_row == place].tolist()),
            products={row[ITEM_ID]: row for row in rows},
        )

    @cached_property
    def bought(self) -> Mapping[str, int]:
        """How often it bought each product before the test part, most often first."""
        return dict(Counter(self.purchases).most_common())

    def query(self, **changes: Any) -> Query:
        """Return the household as it stood before the test part: a release knows its households until the end."""
        from twintower.types import Query

        return Query(history=self.purchases, history_age_days=self.ages_days, **changes)

    def name(self, item_id: str) -> str:
        """Return what a person calls a product."""
        return str(self.products[item_id]["name"])

    def category(self, item_id: str) -> str:
        """Return the category of a product."""
        return str(self.products[item_id]["product_category"] or "").capitalize()

    def never_bought_category(self, shown: Sequence[str]) -> str:
        """Return the best-selling product of a category that the household never bought from and is not shown."""
        known = {self.category(item_id) for item_id in (*self.bought, *self.bought_later, *shown)}
        others = [item_id for item_id in self.products if self.category(item_id) not in known]
        return max(others or self.products, key=lambda item_id: self.products[item_id]["count"])


class Story:
    """The chapters after training, each a sentence and five rows.

    Args:
        console: where they are printed.
        shop: the household and the products that they are about.
    """

    def __init__(self, console: Console, shop: Shop) -> None:
        self._console, self.shop = console, shop

    def data(self, prepared: Prepared) -> None:
        """Say what there is to learn from."""
        parts = {name: len(prepared.parts[name]) for name in ("train", "validation", "test")}
        self._say(
            f"{prepared.query_count:,} households bought {prepared.item_count:,} products {sum(parts.values()):,} "
            f"times. The last {parts['test']:,} purchases are the test, the {parts['validation']:,} before them choose "
            f"settings. {prepared.notice}"
        )

    def verdict(self, judged: EvaluationReport) -> None:
        """Show the model beside its baselines: two metrics, then the verdict in sentences."""
        from recsys.evaluation.report import OURS
        from recsys.evaluation.slices import ALL, NEW_ITEMS
        from recsys.evaluation.verdict import verdict

        shown = ((ALL, "nDCG@10"), (ALL, "R@50"), (NEW_ITEMS, "nDCG@10"), (NEW_ITEMS, "R@50"))
        columns = {"recommender": ["this model" if name == OURS else name for name in judged.recommenders]}
        for part, metric in [each for each in shown if each[1] in judged.metrics]:
            found = [judged.find(name, metric, part).value for name in judged.recommenders]
            title = metric if part == ALL else f"{metric}, new products"
            columns[title] = ["" if value is None else f"{value:.4f}" for value in found]
        self._table(columns)
        self._say(
            "nDCG@10: how many of the first ten products were bought in the test, those in front counting more. R@50: "
            "the share of what was bought that is among the first fifty. New products: only those that the household "
            "had not bought before."
        )
        self._say("")
        for sentence in verdict(judged):
            self._say(sentence)

    def household(self, client: Client) -> None:
        """Show what a household bought beside what it is recommended, all products and only new ones."""
        from twintower.types import Repeats

        shop = self.shop
        self._console.rule("4. A household")
        answer = client.nearest_items(shop.query(), K)
        new = client.nearest_items(shop.query(repeats=Repeats.EXCLUDE), K)
        self._say(f"Household {shop.household}: {shop.demographics}.")
        bought = [f"{count} x {shop.name(item_id)}" for item_id, count in list(shop.bought.items())[:K]]
        titles = ("bought most often", "recommended", "recommended, new to it")
        self._table(dict(zip(titles, (bought, self._later(answer), self._later(new)), strict=True)))
        self._say("* bought in the weeks of the test, of which neither the model nor this query knows")

    def neighbors(self, client: Client) -> None:
        """Show a product and what is similar to it."""
        from twintower.types import Query

        product = next(iter(self.shop.bought))
        self._console.rule("5. A product and its neighbors")
        answer = client.nearest_items(Query(item_ids=[product], similar=True), K)
        self._say(f"Similar to {self.shop.name(product)} ({self.shop.category(product)}):")
        self._table({"product": self._names(answer), "category": self._categories(answer)})

    def feedback(self, client: Client) -> None:
        """Show what is new to the household, before and after a like and a dislike."""
        from twintower.types import FeedbackItem, FeedbackKind, Repeats

        self._console.rule("6. Like and dislike")
        query = self.shop.query(repeats=Repeats.EXCLUDE)
        before = client.nearest_items(query, K)
        liked, disliked = self.shop.never_bought_category(before.item_ids), before.item_ids[0]
        feedback = [FeedbackItem(liked, FeedbackKind.LIKED), FeedbackItem(disliked, FeedbackKind.DISLIKED)]
        after = client.reformulate(query, K, feedback).ranking
        self._say(f"The household likes {self.shop.name(liked)} and dislikes {self.shop.name(disliked)}.")
        self._table({"new to it, before": self._names(before), "after": self._names(after)})
        self._say("Both are left out of the list after (`include_feedback_items` shows them), and others fill it up.")

    def filtered(self, client: Client) -> None:
        """Show a list that a condition narrows."""
        self._console.rule("7. A filter")
        condition = {"department": "PRODUCE", "brand": "Private"}
        answer = client.nearest_items(self.shop.query(), K, filter=condition)
        self._say("For the same household, only produce of the store's own brand:")
        self._table({"product": self._names(answer), "category": self._categories(answer)})

    def speed(self, client: Client, release: Release) -> None:
        """Say how long a search takes, beside exact search and as a caller sees it."""
        from recsys.evaluation.index_quality import Certificate
        from recsys.pipeline import CERTIFICATE
        from twintower.types import Query

        self._console.rule("8. Speed")
        found = Certificate.read(release.folder / CERTIFICATE)
        took = []
        for _ in range(TIMED_CALLS):
            start = time.perf_counter()
            client.nearest_items(Query(entity_id=self.shop.household), K)
            took.append(time.perf_counter() - start)
        self._say(
            f"The index ({found.kind}) answers in {found.query_us:.0f} us where exact search takes "
            f"{found.exact_query_us:.0f} us, and finds {found.recall:.1%} of the true top {found.k} (at least "
            f"{found.recall_low:.1%} with {found.confidence:.0%} confidence). A call over gRPC, from request to "
            f"answer: {1000 * sorted(took)[TIMED_CALLS // 2]:.1f} ms."
        )

    def damage(self, release: Release, scratch: Path) -> None:
        """Show that a copy of the release with one wrong byte is refused."""
        from recsys.errors import ReleaseError
        from recsys.export.release import open_release

        self._console.rule("9. A damaged copy")
        copy = scratch / f"{release.name}-damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(release.folder, copy)
        with open(copy / DAMAGED_PART, "r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
        self._say(f"One bit of {DAMAGED_PART} in a copy of the release is wrong. Opening it:")
        try:
            open_release(copy)
        except ReleaseError as error:
            self._console.print(f"refused: {error}", style="red", markup=False, highlight=False)
        finally:
            shutil.rmtree(copy)

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False)

    def _names(self, answer: Ranking) -> list[str]:
        return [self.shop.name(item_id) for item_id in answer.item_ids]

    def _later(self, answer: Ranking) -> list[str]:
        """Return the names, with a mark on those that the household bought in the test part."""
        marks = ["* " if item_id in self.shop.bought_later else "  " for item_id in answer.item_ids]
        return [f"{mark}{name}" for mark, name in zip(marks, self._names(answer), strict=True)]

    def _categories(self, answer: Ranking) -> list[str]:
        return [self.shop.category(item_id) for item_id in answer.item_ids]

    def _table(self, columns: Mapping[str, Sequence[str]]) -> None:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in columns:
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        for row in zip(*columns.values(), strict=False):
            table.add_row(*row)
        self._console.print(table)
