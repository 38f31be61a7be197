"""`report.html` of a release: one page that needs nothing else, for screens, paper and screen readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import config
from recsys.config import Run
from recsys.data.prepare import parts_in_words
from recsys.evaluation import report as evaluation
from recsys.evaluation.charts import COLORS, GRAY, Interval, curve, dot_plot, scatter, text
from recsys.evaluation.comparison import compare
from recsys.evaluation.index_quality import CERTIFICATE, Certificate, recall_at_k, single_us
from recsys.evaluation.item_map import agreement, layout
from recsys.evaluation.report import OURS, EvaluationReport, fitted_in_words
from recsys.evaluation.slices import ALL, DEFINITIONS
from recsys.evaluation.verdict import verdict
from recsys.export.release import Facts, Release
from recsys.files import write_atomically
from recsys.indexes import ExactSearcher
from recsys.indexes.scann import ScannSearcher
from recsys.progress import task
from recsys.spelling import Spelling, is_list, plain_type
from recsys.types import ITEM_ID, TRAINING_COUNT

MAP_ITEMS = 800
"""Items on the map; its time grows with their square."""
CURVE_QUERIES = 300
CURVE_POINTS = 10
BY_POPULARITY = ("head", "torso", "tail", "cold")
GROUPS = len(COLORS)
"""Values of a column that have a color of their own."""
WARNING = ' class="warning"'
STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1c2128; background: #fff;
  max-width: 780px; margin: 0 auto; padding: 28px 24px 60px; overflow-wrap: anywhere; }
h1 { font-size: 26px; margin: 0 0 2px; } h2 { font-size: 19px; margin: 40px 0 8px; }
p, ul { margin: 8px 0; } .quiet { color: #57606a; }
.verdict li { margin: 6px 0; } .warning { border-left: 4px solid #d55e00; padding: 2px 12px; list-style: none; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } caption { text-align: left; font-weight: 600; padding: 8px 0 4px; }
th, td { padding: 4px 10px 4px 0; border-bottom: 1px solid #e3e6ea; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } td small { color: #57606a; display: block; }
.facts td { text-align: left; } .facts th { white-space: nowrap; } .best { font-weight: 700; }
td small { font-weight: 400; }
figure { margin: 18px 0; break-inside: avoid; } figcaption { font-weight: 600; margin-bottom: 4px; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: #1c2128; }
svg text.number { font-variant-numeric: tabular-nums; } .grid { stroke: #e3e6ea; }
pre { font-size: 12px; background: #f6f8fa; padding: 12px; white-space: pre-wrap; }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } h2 { break-after: avoid; }
  tr { break-inside: avoid; } details { display: none; } }
"""


def path_of(release: Release) -> Path:
    """Return where the page of a release stands: beside its folder."""
    return release.folder.with_name(f"{release.folder.name}.report.html")


def write(release: Release) -> Path:
    """Write the page of a release and return its path.

    Everything on it comes from the release.

    Raises:
        MissingError: the release holds no evaluation.
        ReleaseError: a part of it cannot be read.
        StorageError: writing failed.
    """
    sections = (_head, _verdict, _metrics, _popularity, _slices, _index, _map, _shown, _settings)
    judged = evaluation.load(release.folder)
    parts: list[str] = []
    with task("report", len(sections), "sections") as running:
        for section in sections:
            parts += section(release, judged)
            running.advance()
    title = f"{release.facts.run}: evaluation report"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    write_atomically(path_of(release), page)
    return path_of(release)


def fitted_on_in_words(facts: Facts) -> str:
    """Return which rows a release's model was fitted on, and whether the report judges another model."""
    words = f"{parts_in_words(facts.fitted_on)} rows"
    if facts.fitted_on == facts.judged_on:
        return words
    judged = parts_in_words(facts.judged_on)
    return f"{words} (release.refit); the evaluation is that of a model fitted on {judged} rows only"


def _head(release: Release, judged: EvaluationReport) -> Iterator[str]:
    facts, manifest = release.facts, release.manifest
    yield f"<h1>{text(facts.run)}</h1>"
    yield f'<p class="quiet">Evaluation of the release {text(release.name)}, written {text(manifest.created)}</p>'
    rows = [
        ("catalog", f"{facts.item_count:,} items, vectors of {facts.dim} dimensions"),
        ("queries", f"{facts.query_entity}; {facts.query_count:,} known by id"),
        ("released model", f"fitted on {fitted_on_in_words(facts)}"),
        ("test", f"{judged.cases:,} cases, all {judged.items:,} items ranked"),
        ("left out of rankings", _left_out(config.load_spelt_out(release.folder / "run.toml"))),
        ("history of a query", judged.history),
        ("fitted for the test", fitted_in_words(judged.fits)),
        ("training", judged.training),
        ("data", facts.notice),
    ]
    cells = "".join(f"<tr><th>{name}</th><td>{text(value)}</td></tr>" for name, value in rows if value)
    yield f'<table class="facts"><caption>What was evaluated</caption>{cells}</table>'


def _left_out(run: Run) -> str:
    """Return in words what no ranking of the run's evaluation holds."""
    seen = ["what the query entity met before (evaluation.exclude_seen)"] * bool(run.evaluation.exclude_seen)
    own = ["the item itself"] * (run.query.entity == "item")
    return " and ".join(seen + own) or "nothing"


def _verdict(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del release
    lines = "".join(
        f"<li{WARNING if sentence.startswith('Warning') else ''}>{text(sentence)}</li>" for sentence in verdict(judged)
    )
    yield f'<h2>Verdict</h2><ul class="verdict">{lines}</ul>'
    yield (
        '<p class="quiet">Significant: a paired randomization test over the cases gives a p-value below 0.05 after '
        "Holm's correction for the number of baselines. In parentheses: this model minus the baseline.</p>"
    )


def _metrics(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del release
    yield "<h2>Accuracy</h2>"
    for metric in judged.metrics:
        rows = []
        for name in judged.recommenders:
            entry = judged.find(name, metric)
            rows.append(Interval(name, entry.value, entry.low, entry.high, COLORS[0] if name == OURS else GRAY))
        words = ", ".join(f"{row.label} {row.value:.4f}" for row in rows)
        title = f"{metric}: mean over {judged.cases:,} cases with its {judged.confidence:.0%} interval"
        yield dot_plot(title, f"{metric} by recommender: {words}.", f"{metric} (0 to 1, higher is better)", rows)
    yield _table("All metrics", judged, [(metric, ALL, metric) for metric in judged.metrics])


def _popularity(release: Release, judged: EvaluationReport) -> Iterator[str]:
    """The difference to each baseline by how often the relevant items were met in training."""
    del release
    metric, ours = judged.metrics[0], judged.case_values_of(OURS)
    slices = [name for name in BY_POPULARITY if judged.find(OURS, metric, name).cases]
    baselines = [name for name in judged.recommenders if name != OURS]
    if not slices or not baselines:
        return
    yield "<h2>Gain by popularity of the item</h2>"
    explained = "; ".join(f"{name}: {DEFINITIONS[name]}" for name in slices)
    yield f'<p class="quiet">{text(explained)}.</p>'
    for name in baselines:
        rows = []
        for slice in slices:
            (found,) = compare(
                judged.case_values_of(name), ours, (name, OURS), slice=slice, metrics=[metric], flips=1
            ).differences
            color = COLORS[2] if found.low > 0 else COLORS[1] if found.high < 0 else GRAY
            rows.append(Interval(slice, found.difference, found.low, found.high, color))
        words = ", ".join(f"{row.label} {row.value:+.4f}" for row in rows)
        title = f"{metric}: this model minus {name}, paired 95% intervals"
        description = f"Difference in {metric} to {name} by popularity of the relevant items: {words}."
        yield dot_plot(title, description, f"difference in {metric}; green: ahead, orange: behind", rows, signed=True)


def _slices(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del release
    metric = judged.metrics[0]
    yield f"<h2>{text(metric)} by slice</h2>"
    yield _table("Mean and interval", judged, [(metric, name, name) for name in DEFINITIONS])
    explained = "".join(f"<li><b>{name}</b>: {text(words)}</li>" for name, words in DEFINITIONS.items())
    yield f'<ul class="quiet">{explained}</ul>'


def _index(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del judged
    certificate = Certificate.read(release.folder / CERTIFICATE)
    yield "<h2>Index</h2>"
    yield (
        f"<p>{text(certificate.kind)}: recall@{certificate.k} {certificate.recall:.4f}, at least "
        f"{certificate.recall_low:.4f} with {certificate.confidence:.0%} confidence "
        f"({certificate.queries:,} queries); {certificate.query_us:.0f} µs a query, exact search "
        f"{certificate.exact_query_us:.0f} µs. {text(certificate.note)}</p>"
    )
    run = config.load_spelt_out(release.folder / "run.toml")
    vectors = np.load(release.folder / "item_embeddings.npy", mmap_mode="r")
    searcher = run.index.load(release.folder / "index", vectors)
    if not isinstance(searcher, ScannSearcher):
        yield '<p class="quiet">The search is exact: it finds all there is, so that there is no curve to show.</p>'
        return
    queries = np.load(release.folder / "golden" / "vectors.npy")[:CURVE_QUERIES]
    exact = ExactSearcher(vectors).search(queries, certificate.k).item_rows
    leaves = searcher.parameters["leaves"]
    points = []
    for searched in np.unique(np.geomspace(1, leaves, CURVE_POINTS).round().astype(int)).tolist():
        search = partial(searcher.search, leaves_to_search=searched)
        shares = recall_at_k(search(queries, certificate.k).item_rows, exact, queries, vectors)
        us, recall = single_us(search, queries[:50], certificate.k), float(shares.mean())
        points.append((us, recall, f"{searched:,} of {leaves:,} leaves: recall {recall:.4f}, {us:.0f} µs"))
    marks = {
        f"this release: {certificate.query_us:.0f} µs": certificate.query_us,
        f"exact search: {certificate.exact_query_us:.0f} µs": certificate.exact_query_us,
    }
    words = "; ".join(label for _, _, label in points)
    yield curve(
        f"Recall of the index by time: more leaves searched from left to right ({len(queries):,} queries)",
        f"Recall at {certificate.k} of the index against the time of a query: {words}.",
        ("median time of a query, µs", f"recall@{certificate.k}"),
        sorted(points),
        marks,
    )


def _map(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del judged
    items = pq.read_table(release.folder / "items.parquet")
    counts = items[TRAINING_COUNT].to_numpy()
    known = np.flatnonzero(counts > 0)
    rows = np.sort(np.random.default_rng(0).choice(known, min(MAP_ITEMS, len(known)), replace=False))
    if len(rows) < 3:
        return
    vectors = np.load(release.folder / "item_embeddings.npy", mmap_mode="r")[rows]
    taken = items.take(pa.array(rows))
    column, groups, group, words = _colored(taken, counts[rows], vectors)
    names = _names(taken)
    points = [
        (float(x), float(y), int(each), f"{name} ({groups[each][0]})")
        for (x, y), each, name in zip(layout(vectors), group, names, strict=True)
    ]
    yield "<h2>Map of the items</h2>"
    sample = f"{len(rows):,} of {len(items):,} items"
    drawn = ", drawn at random from those with training interactions" if len(rows) < len(items) else ""
    yield (
        f"<p>{sample}{drawn}, placed so that items with similar vectors lie close together (t-SNE; distances between "
        f"far groups mean nothing). {text(words)} Point at an item for its name.</p>"
    )
    counted = Counter(groups[each][0] for each in group)
    described = ", ".join(f"{name} {number}" for name, number in counted.most_common())
    yield scatter(
        f"{sample} by {column}", f"Items as points in the plane, colored by {column}: {described}.", points, groups
    )


def _colored(
    items: pa.Table, counts: np.ndarray, vectors: np.ndarray
) -> tuple[str, Sequence[tuple[str, str]], np.ndarray, str]:
    """Return the column that colors the map, its groups with their colors, each item's group, and what it shows.

    Of the columns with a few values, the one that the vectors follow most; without such a column, the popularity.
    """
    best, best_gain = None, 0.0
    for name in items.column_names:
        codes, values = _codes_of(items, name)
        if 2 <= len(values) <= len(items) / 4 and (codes >= 0).sum() >= 3:
            found = agreement(vectors, codes)
            if found.neighbors - found.chance > best_gain:
                best, best_gain = (name, codes, values, found), found.neighbors - found.chance
    if best is None:
        edges = np.unique(np.quantile(counts, [0.25, 0.5, 0.75]))
        group = np.searchsorted(edges, counts)
        bounds = [f"{edge:,.0f}" for edge in edges]
        labels = [f"up to {bounds[0]}", *(f"up to {bound}" for bound in bounds[1:]), f"above {bounds[-1]}"]
        colors = COLORS[: len(labels)]
        return "training interactions", tuple(zip(labels, colors, strict=True)), group, "Colors: training interactions."
    name, codes, values, found = best
    frequent = np.argsort(-np.bincount(codes[codes >= 0], minlength=len(values)), kind="stable")[:GROUPS]
    group = np.full(len(codes), len(frequent))
    for place, code in enumerate(frequent):
        group[codes == code] = place
    groups = [(values[code], COLORS[place]) for place, code in enumerate(frequent)]
    words = (
        f"Colors: the {len(frequent)} most frequent values of the column {name!r}. Of an item's 10 nearest neighbors, "
        f"{found.neighbors:.0%} share its value ({found.chance:.0%} of two items drawn at random do)."
    )
    others = [("others", "#c9cdd3")] if (group == len(frequent)).any() else []
    return name, (*groups, *others), group, words


def _codes_of(items: pa.Table, name: str) -> tuple[np.ndarray, list[str]]:
    """Return the value of each item in a column of strings as a code, -1 for none, and the values."""
    column = items[name]
    kind = plain_type(column.type)
    if name == ITEM_ID or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)) or is_list(kind):
        return np.zeros(0, int), []
    spelled = Spelling(name).spell_column(column)
    return np.where(spelled.is_missing, -1, spelled.rows), list(spelled.texts)


def _names(items: pa.Table) -> list[str]:
    """Return a name for each item: its id, and the first column in which nearly every item has a text of its own."""
    ids = items[ITEM_ID].to_pylist()
    for name in items.column_names:
        codes, values = _codes_of(items, name)
        if len(values) > 0.6 * len(ids):
            return [values[code] if code >= 0 else id for code, id in zip(codes, ids, strict=True)]
    return ids


def _shown(release: Release, judged: EvaluationReport) -> Iterator[str]:
    del release
    head = "<tr><th>recommender</th><th>k</th><th>coverage</th><th>Gini</th><th>popularity</th></tr>"
    rows = "".join(
        f"<tr><td>{text(name)}</td><td>{each.cutoff}</td><td>{each.coverage:.3f}</td><td>{each.gini:.3f}</td>"
        f"<td>{each.popularity_percentile:.3f}</td></tr>"
        for name, exposures in judged.exposure.items()
        for each in exposures
    )
    yield f'<h2>What is shown</h2><div class="wide"><table>{head}{rows}</table></div>'
    yield (
        '<p class="quiet">Over all cases. Coverage: share of the catalog that is recommended at least once. Gini: 0 '
        "where all items are recommended equally often, 1 where it is always the same one. Popularity: mean percentile "
        "of the recommended items by training interactions, 0.5 for items drawn at random.</p>"
    )


def _settings(release: Release, judged: EvaluationReport) -> Iterator[str]:
    file = (release.folder / "run.toml").read_text(encoding="utf-8")
    yield (
        f'<h2>How it was made</h2><p class="quiet">{judged.confidence:.0%} bootstrap intervals over cases with '
        f"{judged.resamples:,} resamples. Fingerprint of the release {text(release.fingerprint)}; of the test cases "
        f"{text(judged.cases_digest)}.</p><details><summary>The run file, defaults written out</summary>"
        f"<pre>{text(file)}</pre></details>"
    )


def _table(caption: str, judged: EvaluationReport, rows: Sequence[tuple[str, str, str]]) -> str:
    """Return a table of metric, slice and label by recommender, the best of a row in bold."""
    head = "".join(f"<th>{text(name)}</th>" for name in judged.recommenders)
    lines = []
    for metric, slice, label in rows:
        entries = [judged.find(name, metric, slice) for name in judged.recommenders]
        best = max((entry.value for entry in entries if entry.value is not None), default=None)
        cells = "".join(_cell(entry, best) for entry in entries)
        lines.append(f"<tr><td>{text(label)}</td><td>{entries[0].cases:,}</td>{cells}</tr>")
    return (
        f'<div class="wide"><table><caption>{text(caption)}</caption><tr><th></th><th>cases</th>{head}</tr>'
        f"{''.join(lines)}</table></div>"
    )


def _cell(entry: Any, best: float | None) -> str:
    if entry.value is None:
        return "<td>no case</td>"
    mark = ' class="best"' if entry.value == best else ""
    return f"<td{mark}>{entry.value:.4f}<small>{entry.low:.4f} to {entry.high:.4f}</small></td>"
