"""From a release to a release that reformulates: mine first results, train on them, judge the outcome."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import config
from recsys.config import Run
from recsys.data import encoders
from recsys.data.mined import Mined, joined, read_if_whole
from recsys.data.prepare import Codes, Prepared, prepare, refitted
from recsys.documents import read_json
from recsys.errors import DataError, RefusedError
from recsys.evaluation.cross_fitting import cross_fit
from recsys.evaluation.default_reformulator import Gain
from recsys.evaluation.held_out import questions
from recsys.evaluation.reformulation_report import ReformulationReport, judge
from recsys.export import assemble
from recsys.export.query_side import load_query_side, load_roles
from recsys.export.release import Release, derive
from recsys.export.saved_model import PLAIN, QUERY_TOWER, GraphTower
from recsys.files import exclusive, storage
from recsys.metrics.ranking import parse
from recsys.progress import task, warn
from recsys.retrieval import Retriever
from recsys.retrieval.reformulation import CHOICE, FOLDER, NamedReformulator, Reformulators, check_name
from recsys.retrieval.retriever import GOLDEN_TOLERANCE
from recsys.stack import tf
from recsys.types import ITEM_ID, Float32
from twintower.errors import SettingError, describe, verbatim

WHAT_TO_TRY = "Mine more queries (a larger split.validation_rate), or change reformulation.learning_rate or .steps."
"""What to do about a training without a significant gain."""
BLOCK = 1024
"""Queries that are searched and written at once."""
TIED = ("item_embeddings.npy", "index", "known_queries", "query_side", QUERY_TOWER, f"{PLAIN}{QUERY_TOWER}")
"""Parts of a release that mined feedback depends on."""


def mine(release: Release, run: Run, *, part: str, k: int, out: Path, work: Path) -> Mined:
    """Write the first results of a part's queries, with what would have been right; interrupted, it goes on.

    Args:
        release: answers the queries.
        run: reads the data, as the release's own run did.
        part: `validation`, whose answers the towers have not seen, `test`, to judge with, or `train`, for hard
            negatives: what is found is then free of the query's training items.
        k: first results of each query; excluded items are not among them.
        out: the file.
        work: holds the prepared data; made if needed.

    Raises:
        DataError: the run's data or split are not those that the release was trained on, or the part has no case.
        SettingError: there is a folder where the file should be, or the release was fitted on the test part.
        StorageError: writing failed.
        RefusedError: another process writes this file.
    """
    if part == "validation" and part in release.facts.fitted_on:
        warn(
            f"{release.name} was fitted on validation queries, too (training.refit): what is learned from their first "
            "results holds less for others. Train with training.refit = 'none' before a reformulator."
        )
    if part == "test" and part in release.facts.fitted_on:
        advice = 'Judge a release that was trained with release.refit = "none".'
        got = verbatim(f"'test' of {release.name}, which was fitted on it (release.refit)")
        raise SettingError(describe("--part", got, "a part that the towers have not seen", advice))
    if out.is_dir():
        raise SettingError(describe("--out", str(out), "a file, not a folder", "Name a file in it."))
    _check_same_parts(release, run)
    retriever = Retriever(release)
    prepared = refitted(run, prepare(run, work / run.name / "prepared"), *release.facts.fitted_on)
    tower, side = GraphTower(release.folder / QUERY_TOWER), load_query_side(release)
    _check_same_data(release, run, prepared, tower)
    asked = questions(run, prepared, part)
    count = len(asked.case_ids)
    if not count:
        raise DataError(describe("split", verbatim(f"no {part} case"), "at least one", f"Give a larger {part}_rate."))
    facts = _tied(release) | {"part": part, "run": run.name, "k": str(k), "queries": str(count)}
    if part == "train":
        facts["training_data"] = prepared.training_digest
    # Exclusions decide the cases, too: parts of another run file are not gone on with.
    facts["run_file"] = hashlib.sha256(config.dumps(run).encode()).hexdigest()
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    parts = out.with_name(f".{out.name}.{digest}")
    with storage(parts):
        parts.mkdir(parents=True, exist_ok=True)
    blocks = []
    with exclusive(parts), task("mine", count, "queries") as running:
        for start in range(0, count, BLOCK):
            rows, file = np.arange(start, min(start + BLOCK, count)), parts / f"{start}.arrow"
            if (block := read_if_whole(file)) is not None:
                running.start_at(start + len(rows))
            else:
                codes = {name: of_query[rows] for name, of_query in asked.codes.items()}
                vectors, raw = tower.encode(codes)
                excluded = asked.excluded.take(rows)
                block = Mined(
                    case_ids=asked.case_ids.take(pa.array(rows)),
                    query_vectors=vectors,
                    query_lengths=side.lengths(encoders.evidence(prepared.query_encoders, codes, raw)),
                    first=retriever.search_without(vectors, k, excluded),
                    relevant=asked.relevant.take(rows),
                    excluded=excluded,
                    facts=facts,
                )
                block.write(file)
                running.advance(len(rows))
            blocks.append(block)
        mined = joined(blocks)
        mined.write(out)
    shutil.rmtree(parts)
    return mined


def train(release: Release, mined: Mined, run: Run, *, name: str, work: Path, default: bool) -> Release:
    """Train a reformulator on mined feedback and publish a release that has it with all that the old one has.

    The queries judge it by cross-fitting (see `evaluation.cross_fitting`), and the untrained ones with it. What
    requests get that name none is decided by `evaluation.default_reformulator`.

    Args:
        release: whose item vectors the reformulator reads; stays as it is.
        mined: of this release, or of one with the same towers and index.
        run: its `reformulation` section is read, and its seed.
        name: what requests ask for.
        work: holds checkpoints; made if needed.
        default: whether it may become the default.

    Raises:
        DataError: the feedback was mined from another release, is damaged, or is too little.
        RefusedError: no gain is significant, and the one of this name that it would replace is the default.
        InterruptedRun: stopped by a signal; the same command continues.
        SettingError: a name that cannot be one, more feedback than first results, or training diverged.
    """
    check_name(name)
    _check_tied(release, mined)
    settings, roles = run.reformulation, load_roles(release)
    _check_depth("reformulation.feedback_k", settings.feedback_k, mined)
    parse(settings.validation_metric, "reformulation.validation_metric")
    table = config.plain_tables(run)["reformulation"]
    digest = hashlib.sha256(json.dumps([table, dict(mined.facts), run.seed], sort_keys=True).encode()).hexdigest()[:12]
    folder = work / run.name / "reformulators" / f"{name}-{digest}"
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder):
        fitted = cross_fit(mined, roles, settings, name=name, seed=run.seed, folder=folder)
    held, named = Reformulators.load(release.folder), fitted.named
    if name == held.default and not named.facts["is_significant"]:
        got = f"a training on {len(mined):,} queries without a significant gain"
        advice = f"Give it another --name. {WHAT_TO_TRY}"
        rule = f"a significant gain, because it is the default of {release.name}"
        raise RefusedError(describe(name, verbatim(got), rule, advice))
    others = [each for each in map(held.get, held.names) if _is_measurable(each, mined) and each.name != name]
    choice = fitted.choose_default(others, roles, run.seed)
    facts = {**named.facts, "settings": table, "mined": dict(mined.facts), "seed": run.seed}
    named = dataclasses.replace(named, facts=facts)
    # A default that these queries cannot judge, such as `history`, gives way to a larger gain than it was chosen for.
    is_judged = held.default in (name, *(each.name for each in others))
    is_ahead = choice.name == name and _mean_gain(choice.gains, name) > _mean_gain(
        _published_gains(release), held.default
    )
    decides = default and (is_judged or is_ahead)

    def change(folder: Path) -> dict[str, Any]:
        named.save(folder, default=False)
        if decides:
            choice.save(folder)
        return {}

    derived = derive(release, change)
    Retriever.load(derived.folder).warm()
    return derived


def _published_gains(release: Release) -> list[Gain]:
    """Return the gains by which a release's default was chosen; none where nothing was measured."""
    path = release.folder / FOLDER / CHOICE
    return [Gain(**each) for each in read_json(path, dict)["gains"]] if path.exists() else []


def _mean_gain(gains: Sequence[Gain], name: str) -> float:
    """Return the mean gain of a reformulator over kinds and numbers of feedback; 0 where it was not measured."""
    return float(np.mean([gain.gain for gain in gains if gain.reformulator == name] or [0.0]))


def _is_measurable(named: NamedReformulator, mined: Mined) -> bool:
    """Return whether mined queries can judge a reformulator: it reads what they hold, and has not learned from them."""
    return not named.choice.reads_extended and not _has_learned_from(named, mined)


def _has_learned_from(named: NamedReformulator, mined: Mined) -> bool:
    # Whatever else differs, such as the index or k, the queries of a part are the same.
    return named.facts.get("mined", {}).get("part") == mined.facts["part"]


def evaluate(
    release: Release, mined: Mined, *, names: Sequence[str], metrics: Sequence[str], depths: Sequence[int], seed: int
) -> ReformulationReport:
    """Judge reformulators of a release on mined test cases.

    Args:
        release: holds them.
        mined: of this release, or of one with the same towers and index; of the test part.
        names: which; none means all.
        metrics: in ir-measures spelling; helped and hurt go by the first.
        depths: numbers of items of feedback.
        seed: of the bootstrap.

    Raises:
        DataError: the feedback was mined from another release, is damaged, or is what one of them was trained on.
        RequestError: an unknown name.
        SettingError: an unknown metric, or a depth with more feedback than first results.
    """
    measured = [parse(metric, "--metric").name for metric in metrics]
    _check_tied(release, mined)
    held = Reformulators.load(release.folder)
    judged = [held.get(name) for name in (names or held.names)]
    _check_depth("--depth", max(depths), mined)
    for one in judged:
        if _has_learned_from(one, mined):
            got, advice = verbatim("the queries that it was trained on"), "Mine others: `recsys mine --part test`."
            raise DataError(describe(one.name, got, "queries that it has not seen", advice))
    return judge(judged, mined, load_roles(release), measured, depths, seed=seed)


def _tied(release: Release) -> dict[str, str]:
    """Return a digest of the parts that decide the first results."""
    parts = release.manifest.parts
    decide = {name: part.sha256 for name, part in parts.items() if name.split("/")[0] in TIED}
    return {"search": hashlib.sha256(json.dumps(decide, sort_keys=True).encode()).hexdigest()}


def _check_tied(release: Release, mined: Mined) -> None:
    if mined.facts.get("part") == "train":
        got, advice = verbatim("first results of training queries"), "Mine with `--part validation` or `--part test`."
        raise DataError(describe(release.name, got, "those of queries whose answers it has not seen", advice))
    if mined.facts.get("search") != _tied(release)["search"]:
        got = verbatim("feedback mined with other towers or another index")
        advice = "Mine again with `recsys mine`."
        raise DataError(describe(release.name, got, "feedback of this release", advice))
    items, dim = np.load(release.folder / "item_embeddings.npy", mmap_mode="r").shape
    if mined.query_vectors.shape[1] != dim or not mined.fits(items):
        got, rule = verbatim("no queries, or some that cannot have been mined"), "feedback of this release, undamaged"
        raise DataError(describe(release.name, got, rule, "Mine again with `recsys mine`."))


def _check_depth(where: str, depth: int, mined: Mined) -> None:
    found = mined.first.item_rows.shape[1]
    if depth > found:
        rule = f"at most {found}, the first results of each query"
        raise SettingError(describe(where, depth, rule, f"Lower it, or mine with `recsys mine -k {depth}`."))


def _check_same_parts(release: Release, run: Run) -> None:
    """Refuse another split: its held-out answers are some that the towers were trained on."""
    trained = config.load(release.folder / "run.toml")
    if (run.split, run.seed) != (trained.split, trained.seed):
        advice = "Give the split and the seed that this release was trained with."
        raise DataError(describe(run.name, verbatim("another split"), f"that of {release.name}", advice))


def _check_same_data(release: Release, run: Run, prepared: Prepared, tower: Callable[[Codes], Float32]) -> None:
    """Refuse data that the release's towers were not trained on: their codes would mean other things."""
    advice = "Give the run file and the data that this release was trained with."
    ids = pq.read_table(release.folder / "items.parquet", columns=[ITEM_ID])[ITEM_ID].combine_chunks()
    if run.query.entity != release.facts.query_entity or not ids.equals(prepared.items[ITEM_ID].combine_chunks()):
        raise DataError(describe(run.name, verbatim("another catalog"), f"that of {release.name}", advice))
    _, codes = assemble.golden_queries(run, prepared)
    golden = np.load(release.folder / "golden" / "vectors.npy")
    try:
        vectors = tower(codes)
    except (KeyError, TypeError, ValueError, tf.errors.OpError):
        got = verbatim("queries that the query tower cannot read")
        raise DataError(describe(run.name, got, f"those of {release.name}", advice)) from None
    if vectors.shape != golden.shape or np.abs(vectors - golden).max(initial=0) > GOLDEN_TOLERANCE:
        raise DataError(describe(run.name, verbatim("data with other codes"), f"those of {release.name}", advice))
