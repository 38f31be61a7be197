"""The offline flow: run file in, release out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from recsys import config
from recsys.config import Run
from recsys.data.prepare import Prepared, prepare
from recsys.errors import DataError, describe, verbatim
from recsys.evaluation import report as evaluation
from recsys.evaluation.baselines import baseline
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.evaluation.index_quality import Certificate, tune
from recsys.evaluation.recommenders import VectorRecommender
from recsys.evaluation.report import EvaluationReport
from recsys.export import assemble
from recsys.export.release import Facts, Release, derive, publish
from recsys.metrics.ranking import measure, parse
from recsys.retrieval import Retriever
from recsys.training.loop import fit
from recsys.training.model import TwoTowerModel
from recsys.types import Float32

CERTIFICATE = "index_certificate.json"
OURS = "two_tower"


def train(run: Run, work: Path, releases: Path) -> Release:
    """Read, train, evaluate, index and publish a run; an interrupted call goes on where it stopped.

    Args:
        run: the settings.
        work: holds what is needed to resume, under the run's name; made if needed.
        releases: the folder of releases; made if needed.

    Raises:
        InterruptedRun: stopped by a signal, after a checkpoint.
        RecsysError: as the stages raise.
    """
    home = work / run.name
    home.mkdir(parents=True, exist_ok=True)
    _same_run(run, home)
    prepared = prepare(run, home / "prepared")
    validation = held_out(run, prepared, "validation", run.training.validation_cases)
    test = held_out(run, prepared, "test", run.evaluation.max_cases)
    if len(test.cases) == 0:
        advice = "Give more data or a larger test_rate."
        raise DataError(describe("split", verbatim("no test case"), "at least one", advice))
    fitted = fit(run, prepared, home / "training", _validator(run, validation))
    model = fitted.model
    item_vectors = model.encode_items()
    report = judge(run, model, item_vectors, test)
    asking = validation if len(validation.cases) else test
    query_vectors = model.encode_queries(asking.codes)

    def fill(folder: Path) -> Facts:
        certificate = _index(run, item_vectors, query_vectors, folder)
        assemble.fill(folder, run, prepared, model, item_vectors)
        assemble.write_golden_answers(folder, item_vectors, run.index)
        report.save(folder)
        return _facts(run, prepared, report, certificate, item_vectors)

    release = publish(releases, fill)
    Retriever.load(release.folder).warm()
    return release


def judge(run: Run, model: TwoTowerModel, item_vectors: Float32, test: HeldOut) -> EvaluationReport:
    """Return the measurements of the model and of the run's baselines on the same cases.

    Args:
        run: gives metrics, baselines and intervals.
        model: the trained model.
        item_vectors: `[items, dim]`, float32, the catalogue through the item tower.
        test: the cases.
    """
    settings, excluded = run.evaluation, test.cases.excluded
    recommenders = {OURS: VectorRecommender(model.encode_queries(test.codes), item_vectors, excluded)}
    for name in settings.baselines:
        recommenders[name] = baseline(name).fit(test.interactions, test.histories, excluded)
    return evaluation.evaluate(
        recommenders,
        test.cases,
        settings.metrics,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=run.seed,
    )


def tune_release(release: Release, overrides: list[str]) -> tuple[Release, Certificate]:
    """Tune the index of a release anew and publish the outcome as a release of its own, the rest shared.

    The queries are the golden ones: known entities as they stand after all of the data.

    Args:
        release: stays as it is.
        overrides: `index.key=value` strings on top of its run file.
    """
    run = config.load(release.folder / "run.toml", overrides)
    item_vectors = np.load(release.folder / "item_embeddings.npy")
    query_vectors = np.load(release.folder / "golden" / "vectors.npy")

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


def _index(run: Run, item_vectors: Float32, query_vectors: Float32, folder: Path) -> Certificate:
    """Build and certify the index in a release folder; what was settled stands in the index's own folder."""
    (folder / "index").mkdir()
    if len(query_vectors) == 1:  # one half chooses, the other certifies
        query_vectors = np.repeat(query_vectors, 2, axis=0)
    tuning = tune(item_vectors, query_vectors, run.index, folder / "index", seed=run.seed)
    tuning.certificate.write(folder / CERTIFICATE)
    return tuning.certificate


def _validator(run: Run, validation: HeldOut) -> Callable[[TwoTowerModel], float] | None:
    if len(validation.cases) == 0:
        return None
    name = run.training.validation_metric
    rows = np.arange(len(validation.cases))

    def validate(model: TwoTowerModel) -> float:
        recommender = VectorRecommender(
            model.encode_queries(validation.codes), model.encode_items(), validation.cases.excluded
        )
        depth = parse(name, "training.validation_metric").cutoff
        ranked = recommender.recommend(rows, depth).item_rows
        return float(np.mean(measure([name], ranked, validation.cases.reachable)[name]))

    return validate


def _facts(
    run: Run, prepared: Prepared, report: EvaluationReport, certificate: Certificate, item_vectors: Float32
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
        metrics={metric: report.find(OURS, metric).value or 0.0 for metric in report.metrics},
        index_recall=certificate.recall_low,
    )


def _same_run(run: Run, home: Path) -> None:
    """Refuse to go on with the checkpoints of other settings: what would come out would be neither run."""
    path, now = home / "run.toml", config.dumps(run)
    if not path.exists():
        path.write_text(now, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != now:
        changed = _changed(config.plain_tables(config.load(path)), config.plain_tables(run))
        raise DataError(
            f"{home}: holds an unfinished or finished run of this name with other settings ({', '.join(changed)}). "
            "Give the new run another name (--set name=...), another --work folder, or add --restart to begin anew."
        )


def _changed(before: dict[str, object], after: dict[str, object], prefix: str = "") -> list[str]:
    names = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += _changed(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names
