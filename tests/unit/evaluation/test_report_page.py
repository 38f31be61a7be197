"""The report page stands alone: valid, without scripts, every chart in words, all text escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.evaluation.charts import Interval, curve, dot_plot, scatter, text
from recsys.evaluation.item_map import agreement, layout
from recsys.evaluation.report_page import _left_out, path_of, write
from tests.worlds import copy_of

VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = "</title><script>alert(1)</script>\"'&\x00\u202e"


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects names and attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()
        self.links: list[str] = []
        self.words = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


def charts_of(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def test_training_writes_a_page_that_stands_alone(block_release):
    written = path_of(block_release).read_text(encoding="utf-8")
    page = Page(written)
    assert page.links == []
    assert not page.names & {"script", "link", "img", "iframe", "object"}
    assert "url(" not in written
    assert "@import" not in written
    for heading in ("Verdict", "Accuracy", "Gain by popularity of the item", "Index", "Map of the items"):
        assert heading in page.words
    assert "ahead of" in page.words or "no difference shown" in page.words
    assert "training and validation rows" in page.words


@pytest.mark.parametrize(
    ("entity", "exclude_seen", "words"),
    [
        ("user", False, "nothing"),
        ("user", True, "what the query entity met before (evaluation.exclude_seen)"),
        ("item", False, "the item itself"),
        ("item", True, "what the query entity met before (evaluation.exclude_seen) and the item itself"),
    ],
)
def test_the_page_says_what_rankings_leave_out(block_settings, entity, exclude_seen, words):
    evaluation = replace(block_settings.evaluation, exclude_seen=exclude_seen)
    run = replace(block_settings, evaluation=evaluation, query=replace(block_settings.query, entity=entity))
    assert _left_out(run) == words


def test_every_chart_says_in_words_what_it_shows(block_release):
    charts = charts_of(path_of(block_release).read_text(encoding="utf-8"))
    assert len(charts) >= 3
    named = "{http://www.w3.org/2000/svg}"
    for chart in charts:
        assert chart.get("role") == "img"
        ids = {each.get("id") for each in chart if each.tag in (f"{named}title", f"{named}desc") and each.text}
        assert ids == set(chart.get("aria-labelledby").split())


def test_a_page_is_made_again_from_the_release_alone(block_release, tmp_path):
    release = copy_of(block_release, tmp_path)
    assert write(release) == tmp_path / f"{release.name}.report.html"
    Page(path_of(release).read_text(encoding="utf-8"))


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_is_harmless_and_legal(name):
    shown = scatter(name, name, [(0.5, 0.5, 0, name)], [(name, "#000")])
    (chart,) = charts_of(shown)
    assert {each.tag.rpartition("}")[2] for each in chart.iter()} == {"svg", "title", "desc", "rect", "circle", "text"}
    text(name).encode("utf-8")


def test_hostile_names_stay_text():
    intervals = [Interval(HOSTILE, 0.5, 0.4, 0.6)]
    for shown in (
        dot_plot(HOSTILE, HOSTILE, HOSTILE, intervals),
        curve(HOSTILE, HOSTILE, (HOSTILE, HOSTILE), [(1.0, 0.5, HOSTILE), (2.0, 0.9, HOSTILE)], {HOSTILE: 1.5}),
    ):
        assert "script" not in Page(shown).names
        charts_of(shown)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 60])
def test_a_map_has_a_finite_position_for_every_item_even_where_all_are_equal(count):
    for vectors in (np.ones((count, 4)) / 2, np.eye(count, 4) + 1e-3):
        placed = layout(vectors.astype(np.float32))
        assert placed.shape == (count, 2)
        assert ((placed >= 0) & (placed <= 1)).all()


def test_groups_of_similar_items_stay_together_on_the_map():
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 30)
    vectors = np.eye(4, 16)[group] + 0.1 * random.standard_normal((120, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    placed = layout(vectors)
    squares = ((placed[:, None] - placed) ** 2).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    nearest = np.argsort(squares, axis=1)[:, :5]
    assert (group[nearest] == group[:, None]).mean() > 0.95
    # 29 of the other 119 items are of an item's own group
    found = agreement(vectors, group)
    assert found.neighbors > 0.95
    assert found.chance == pytest.approx(29 / 119)
