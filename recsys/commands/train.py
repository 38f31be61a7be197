"""`recsys train`: run file in, release out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys.commands import Overrides, Releases, RunFile, Work, program

if TYPE_CHECKING:
    from recsys.evaluation.report import EvaluationReport


def command(
    run_file: RunFile,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
    releases: Releases = Path("releases"),
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away what an earlier run of this name left.")
    ] = False,
) -> None:
    """Read, train, evaluate against baselines, build and certify the index, publish a release. Resumes by itself."""
    from recsys import config
    from recsys.commands.release import index_in_words
    from recsys.evaluation import report, report_page
    from recsys.evaluation.index_quality import CERTIFICATE, Certificate
    from recsys.evaluation.verdict import verdict

    run = config.load(run_file, overrides)
    from recsys import pipeline  # brings TensorFlow: a mistake in the run file is told without waiting for it

    if restart:
        shutil.rmtree(work / run.name, ignore_errors=True)
    console = Console()
    release = pipeline.train(run, work, releases)
    judged = report.load(release.folder)
    console.print(_short(judged))
    for sentence in verdict(judged):
        console.print(sentence, soft_wrap=True)
    certificate = Certificate.read(release.folder / CERTIFICATE)
    console.print(f"index: {index_in_words(certificate)}", soft_wrap=True)
    console.print(f"release: {release.folder}", soft_wrap=True)
    console.print(f"all figures: {program()} release show {release.folder}", soft_wrap=True)
    console.print(f"report: {report_page.path_of(release)}", soft_wrap=True)
    console.print(
        f"watch the losses: tensorboard --logdir {work / run.name / 'training' / 'tensorboard'}", soft_wrap=True
    )
    console.print(f"serve it: {program()} serve {release.folder}", soft_wrap=True)


def _short(judged: EvaluationReport) -> Table:
    """Return two metrics of every recommender over all cases."""
    measures = [name.partition("@")[0] for name in judged.metrics]
    wanted = [judged.metrics[measures.index(measure)] for measure in ("nDCG", "R") if measure in measures]
    metrics = wanted if len(wanted) == 2 else judged.metrics[:2]
    table = Table("recommender", *metrics, title="test cases", title_justify="left")
    for name in judged.recommenders:
        found = [judged.find(name, metric).value for metric in metrics]
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in found))
    return table
