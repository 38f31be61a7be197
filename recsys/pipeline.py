"""The offline flow: run file in, release out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from recsys import config, registry
from recsys.config import Run
from recsys.data.decisions import decide
from recsys.data.prepare import Codes, Prepared, check_cases, parts_to_judge, prepare, refitted, training_version
from recsys.errors import DataError
from recsys.evaluation import report as evaluation
from recsys.evaluation import report_page
from recsys.evaluation.baselines import fit_baselines
from recsys.evaluation.default_reformulator import DefaultChoice, choose_untrained, validation_cases
from recsys.evaluation.fusion import choose_fusion, own_scores
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.index_quality import CERTIFICATE, Certificate, tune
from recsys.evaluation.recommenders import VectorRecommender
from recsys.evaluation.report import OURS, Accuracy, EvaluationReport, Fit
from recsys.export import assemble
from recsys.export.own_items import Fusion
from recsys.export.release import Facts, Release, derive, open_release, publish
from recsys.files import exclusive, storage, write_atomically
from recsys.forward import PlainTower
from recsys.metrics.ranking import measure, parse
from recsys.progress import inform
from recsys.retrieval import Retriever
from recsys.retrieval.reformulation import NamedReformulator
from recsys.stack import tf
from recsys.training.loop import Fitted, fit, fit_as_chosen
from recsys.training.model import TwoTowerModel
from recsys.types import QUERY_ID, Float32, ItemRoles, RowSets
from twintower.errors import SettingError, TwintowerError, describe
from twintower.types import Query

PUBLISHED = "published"
DATA_VERSION = "data_version"


def train(run: Run, work: Path, releases: Path) -> Release:
    """Read, train, evaluate, index and publish a run; an interrupted call goes on where it stopped.

    A run that was finished before, with the same settings and data, gives its release again.

    Args:
        run: the settings.
        work: holds what is needed to resume, under the run's name; made if needed.
        releases: the folder of releases; made if needed.

    Raises:
        InterruptedRun: stopped by a signal, after a checkpoint.
        RefusedError: another process works on this run.
        DataError: settings or data changed since the checkpoints of this name were written.
        TwintowerError: as the stages raise.
    """
    for name in run.evaluation.metrics:
        parse(name)
    parse(run.training.validation_metric, "training.validation_metric")
    home = work / run.name
    for folder in (home, releases):
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
    with exclusive(home):
        _same_run(run, home)
        prepared = prepare(run, home / "prepared")
        run, decisions = decide(run, prepared)
        for sentence in decisions:
            inform(sentence)
        if (finished := _published(run, home, releases)) is not None:
            return finished
        release = _train(run, prepared, home, releases)
        write_atomically(home / PUBLISHED, f"{release.folder}\n{_digest(run)}\n")
    return release


def _train(run: Run, prepared: Prepared, home: Path, releases: Path) -> Release:
    check_cases(run, prepared)
    validation = held_out(run, prepared, "validation", run.training.validation_cases)
    with storage(home):
        # A closed form does not read order: to it, what an entity has met is what it will meet again.
        by_new_items = run.objective.reads == "matrix"
        validator = Validator(run, validation, by_new_items) if validation.cases.reachable.rows.size else None
        refit_on = refitted(run, prepared, *parts_to_judge(run, prepared))
        fitted = fit(run, prepared, home / "training", validator, refit_on)
    test = held_out(run, fitted.prepared, "test", run.evaluation.max_cases)
    fusion = _fusion(run, validator, validation)
    reformulators, default = _reformulators(run, prepared, validator, validation)
    report = replace(judge(run, fitted, validation, test, fusion), feedback=default.sentence)
    judged_on = fitted.prepared.fitted_on
    if run.release.refit == "all":
        with storage(home):
            everything = refitted(run, prepared, "train", "validation", "test")
            fitted = fit_as_chosen(run, everything, home / "training" / "refit_all", fitted.choice)
    prepared, model = fitted.prepared, fitted.model
    item_vectors = model.encode_items()
    asking = held_out(run, prepared, "validation" if len(validation.cases) else "test", run.training.validation_cases)
    query_vectors = model.encode_queries(asking.codes)

    def fill(folder: Path) -> Facts:
        certificate = _index(run, item_vectors, query_vectors, folder)
        assemble.fill(folder, fitted.choice.run, prepared, model, item_vectors, fusion)
        assemble.write_golden_answers(folder, item_vectors, run.index)
        report.save(folder)
        for named in reformulators:
            named.save(folder, default=False)
        default.save(folder)
        return _facts(run, prepared, report, certificate, item_vectors, judged_on)

    release = publish(releases, fill)
    Retriever.load(release.folder).warm()
    report_page.write(release)
    return release


def best_on_validation(run: Run, folder: Path) -> float:
    """Return the best validation metric of a run's training, which is not fitted anew, judged on tests or published.

    Args:
        run: the settings.
        folder: holds prepared data and checkpoints; made if needed.

    Raises:
        DataError: there are no validation cases, or as the stages raise.
    """
    prepared = prepare(run, folder / "prepared")
    run, _ = decide(run, prepared)
    check_cases(run, prepared)
    validation = held_out(run, prepared, "validation", run.training.validation_cases)
    if not validation.cases.reachable.rows.size:
        raise DataError(f"{run.name}: no validation case names an item of the training part. Change the split.")
    fitted = fit(run, prepared, folder / "training", Validator(run, validation))
    return max(look.metric for look in fitted.validations)


def judge(
    run: Run, fitted: Fitted, validation: HeldOut, test: HeldOut, fusion: Fusion | None = None
) -> EvaluationReport:
    """Return the measurements of the model and of the run's baselines on the same cases.

    Args:
        run: gives metrics, baselines and intervals.
        fitted: the trained model.
        validation: the cases that choose the baselines' settings.
        test: the cases.
        fusion: how own items are added to the dense list, as the release serves them; None where they are not.
    """
    settings, model = run.evaluation, fitted.model
    item_vectors = model.encode_items()
    own = None if fusion is None else own_scores(fusion, test.met, len(item_vectors))
    recommenders = {OURS: VectorRecommender(model.encode_queries(test.codes), item_vectors, test.cases.excluded, own)}
    baselines, left_out = fit_baselines(
        settings.baselines,
        validation,
        test,
        metric=run.training.validation_metric,
        search_s=settings.baseline_search_s,
    )
    fits = {OURS: Fit(fitted.prepared.fitted_on, _settings(fitted.choice.run, fitted.choice.start))}
    return evaluation.evaluate(
        recommenders | {name: each.recommender for name, each in baselines.items()},
        test.cases,
        settings.metrics,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=run.seed,
        fits=fits | {name: each.fit for name, each in baselines.items()},
        left_out=left_out,
        training=fitted.sentence,
    )


def tune_release(release: Release, overrides: list[str]) -> tuple[Release, Certificate]:
    """Tune the index of a release anew and publish the outcome as a release of its own, the rest shared.

    The queries are known entities as they stand after all of the data, as many as `index.tuning_queries` says.

    Args:
        release: stays as it is.
        overrides: `index.key=value` strings on top of its run file; another `index.kind` starts from its defaults.

    Raises:
        SettingError: an override of anything but the index, which is all that changes here.
    """
    run = config.from_tables(_with_index(config.tables_of(release.folder / "run.toml"), overrides))
    item_vectors = np.load(release.folder / "item_embeddings.npy")
    query_vectors = _query_vectors(release, getattr(run.index, "tuning_queries", 0), run.seed)

    def change(folder: Path) -> dict[str, object]:
        for name in release.manifest.parts:
            if name.startswith("index/") or name in ("run.toml", CERTIFICATE, "golden/item_rows.npy"):
                (folder / name).unlink()
        (folder / "index").rmdir()
        certificate = _index(run, item_vectors, query_vectors, folder)
        (folder / "run.toml").write_text(config.dumps(run), encoding="utf-8")
        assemble.write_golden_answers(folder, item_vectors, run.index)
        return {"index": certificate.kind, "index_recall": certificate.recall_low}

    tuned = derive(release, change)
    Retriever.load(tuned.folder).warm()
    return tuned, Certificate.read(tuned.folder / CERTIFICATE)


def _query_vectors(release: Release, count: int, seed: int) -> Float32:
    """Return vectors of known entities drawn at random; the golden queries where they are more or none is known."""
    golden: Float32 = np.load(release.folder / "golden" / "vectors.npy")
    if min(release.facts.query_count, count) <= len(golden):
        return golden
    known = pq.read_table(release.folder / "queries.parquet", columns=[QUERY_ID])[QUERY_ID].to_pylist()
    drawn = np.random.default_rng(seed).permutation(len(known))[:count]
    return Retriever(release).encode([Query(entity_id=known[row]) for row in drawn]).vectors


def _index(run: Run, item_vectors: Float32, query_vectors: Float32, folder: Path) -> Certificate:
    """Build and certify the index in a release folder; what was settled stands in the index's own folder."""
    (folder / "index").mkdir()
    if len(query_vectors) == 1:  # one half chooses, the other certifies
        query_vectors = np.repeat(query_vectors, 2, axis=0)
    tuning = tune(item_vectors, query_vectors, run.index, folder / "index", seed=run.seed)
    tuning.certificate.write(folder / CERTIFICATE)
    return tuning.certificate


class Validator:
    """Measures a model on the validation cases, and keeps what the best one finds.

    Args:
        run: gives the metric.
        validation: with at least one case that can be answered.
        by_new_items: whether a model is measured by the items that are new to each entity where entities come back to
            items, whose own items are a list of their own; see `EvaluationCases.of_new_items`.

    Attributes:
        best: the recommender of the model with the largest metric so far; None before the first.
        tower: its query tower.
    """

    def __init__(self, run: Run, validation: HeldOut, by_new_items: bool = False) -> None:
        self._metric = run.training.validation_metric
        self._validation = validation
        self._cases = validation.cases.of_new_items if by_new_items else validation.cases
        self._rows = np.flatnonzero(self._cases.reachable.sizes > 0)
        self._relevant = self._cases.reachable.take(self._rows)
        is_trained = self._cases.item_counts[self._relevant.rows] > 0
        self._of_trained_items = RowSets.from_pairs(
            self._relevant.owners[is_trained], self._relevant.rows[is_trained], len(self._rows)
        )
        self._highest = -np.inf
        self.best: VectorRecommender | None = None
        self.tower: PlainTower | LiveTower | None = None

    def __call__(self, model: TwoTowerModel) -> float:
        """Return the validation metric of a model, larger is better."""
        recommender = self.recommender(model)
        value = self._measured(recommender, self._relevant)
        if value > self._highest:
            self._highest, self.best = value, recommender
            self.tower = model.query_tower.plain() or LiveTower(model)
        return value

    def on_trained_items(self, model: TwoTowerModel) -> float:
        """Return the same metric with only those items as answers that have interactions in the training part.

        The rankings hold all items. Cases without such an answer do not count.
        """
        return self._measured(self.recommender(model), self._of_trained_items)

    def _measured(self, recommender: VectorRecommender, relevant: RowSets) -> float:
        asked = np.flatnonzero(relevant.sizes > 0)
        judged = replace(recommender, excluded=self._cases.excluded)
        ranked = judged.recommend(self._rows[asked], parse(self._metric).cutoff).item_rows
        return float(np.mean(measure([self._metric], ranked, relevant.take(asked))[self._metric]))

    def recommender(self, model: TwoTowerModel) -> VectorRecommender:
        """Return the recommender of a model for the validation cases."""
        codes, excluded = self._validation.codes, self._validation.cases.excluded
        return VectorRecommender(model.encode_queries(codes), model.encode_items(), excluded)


class LiveTower:
    """The query tower of a model that has no NumPy form, as it is when it is called."""

    def __init__(self, model: TwoTowerModel) -> None:
        self._tower = model.query_tower

    def __call__(self, codes: Codes) -> Float32:
        """Return the vectors of queries."""
        return self.encode(codes)[0]

    def encode(self, codes: Codes) -> tuple[Float32, Float32]:
        """Return the vectors, and the lengths that they had before they were brought to unit length."""
        vectors, lengths = self._tower.encode({name: tf.constant(values) for name, values in codes.items()})
        return vectors.numpy(), lengths.numpy()


def _reformulators(
    run: Run, prepared: Prepared, validator: Validator | None, validation: HeldOut
) -> tuple[tuple[NamedReformulator, ...], DefaultChoice]:
    """Return the untrained reformulators with the weights that validation chose, and the default.

    The model that validation chose decides, not the one that is fitted anew on validation rows.
    """
    metric = run.training.validation_metric
    if validator is None:
        return choose_untrained({}, None, metric)
    tower, item_vectors = validator.tower, validator.best.item_vectors
    side = assemble.measure_query_side(tower, run, prepared, validation.codes, item_vectors)
    cases = validation_cases(run, prepared, validation, tower, side, item_vectors)
    return choose_untrained(cases, ItemRoles(item_vectors, side.vectors), metric)


def _fusion(run: Run, validator: Validator | None, validation: HeldOut) -> Fusion | None:
    """Return how own items are added to the dense list; None where they may not be shown or do not help.

    The model that validation chose decides, not the one that is fitted anew on validation rows.
    """
    if validator is None or validation.cases.known is None:
        return None
    return choose_fusion(validator.best, validation.cases, validation.met, run.evaluation.metrics, run.seed)


def _facts(
    run: Run,
    prepared: Prepared,
    report: EvaluationReport,
    certificate: Certificate,
    item_vectors: Float32,
    judged_on: tuple[str, ...],
) -> Facts:
    columns, reads_history = assemble.query_columns(run)
    return Facts(
        run=run.name,
        query_entity=run.query.entity,
        query_columns=columns,
        reads_history=reads_history,
        dim=item_vectors.shape[1],
        item_count=prepared.item_count,
        query_count=0 if run.query.entity == "features" else prepared.query_count,
        index=certificate.kind,
        notice=prepared.notice,
        metrics={entry.metric: entry.value for entry in _measured(report)},
        cases_digest=report.cases_digest,
        index_recall=certificate.recall_low,
        fitted_on=prepared.fitted_on,
        judged_on=judged_on,
    )


def _measured(report: EvaluationReport) -> list[Accuracy]:
    return [entry for metric in report.metrics if (entry := report.find(OURS, metric)).value is not None]


def _with_index(tables: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    for word in overrides:
        if not word.startswith("index."):
            raise SettingError(describe("--set", word, "index.key=value", "Train again to change anything else."))
    return config.overridden_spelt_out(tables, overrides)


def _same_run(run: Run, home: Path) -> None:
    """Refuse to go on with the checkpoints of other weights-to-be: what would come out would be neither run."""
    path, data = home / "run.toml", home / DATA_VERSION
    now = training_version(run)
    if path.exists():
        changed = changed_settings(_deciding(config.tables_of(path)), _deciding(config.plain_tables(run)))
        if not changed and data.exists() and data.read_text(encoding="utf-8") != now:
            changed = ["the files that it reads"]
        if changed:
            raise DataError(
                f"{home}: holds a run of this name that differs in {', '.join(changed)}. Add --restart to begin anew, "
                "or give this run another name (--set name=...) or another --work folder."
            )
    write_atomically(path, config.dumps(run))
    write_atomically(data, now)


def _deciding(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the weights: what is judged, shown and indexed may change after training."""
    kept = {
        name: table
        for name, table in tables.items()
        if name not in ("evaluation", "index", "ablation", "reformulation", "release")
    }
    return {**kept, "item": tables["item"]["features"]}


def _published(run: Run, home: Path, releases: Path) -> Release | None:
    """Return the release that this run has written before, if it is whole, of these very settings, and still there."""
    try:
        name, digest = (home / PUBLISHED).read_text(encoding="utf-8").splitlines()
        folder = Path(name)
        return open_release(folder) if digest == _digest(run) and folder.parent == releases.resolve() else None
    except (OSError, ValueError, TwintowerError):
        return None


def _digest(run: Run) -> str:
    """Return SHA-256 over all settings, as they are before validation chooses among those to try."""
    return hashlib.sha256(config.dumps(run).encode()).hexdigest()


def _settings(run: Run, start: Run | None) -> dict[str, Any]:
    """Return the settings of a model as the report shows them, those that validation chose as one value.

    Args:
        run: of the model.
        start: the run whose solution training started from, shown as `start.<setting>`; None where vectors were random.
    """
    tables = {"dim": run.tower.dim, **registry.plain(run.objective)}
    if start is not None:
        tables["start"] = {"objective": registry.kind_of(start.objective), **_flat(registry.plain(start.objective))}
    return {"objective": registry.kind_of(run.objective), **_flat(tables)}


def _flat(tables: dict[str, Any]) -> dict[str, Any]:
    """Return the values of nested tables by their paths, a list of one value as that value."""
    flat = {}
    for name, value in tables.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": nested for key, nested in _flat(value).items()}
        else:
            flat[name] = value[0] if isinstance(value, list) and len(value) == 1 else value
    return flat


def changed_settings(before: dict[str, object], after: dict[str, object], prefix: str = "") -> list[str]:
    """Return the paths at which two nested tables differ."""
    names = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += changed_settings(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names
