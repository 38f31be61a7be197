"""`recsys train`: run file in, release out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, Releases, RunFile, Work, program


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
    from recsys.commands.release import show_release
    from recsys.evaluation import report, report_page
    from recsys.evaluation.verdict import verdict

    run = config.load(run_file, overrides)
    from recsys import pipeline  # brings TensorFlow: a mistake in the run file is told without waiting for it

    if restart:
        shutil.rmtree(work / run.name, ignore_errors=True)
    console = Console()
    release = pipeline.train(run, work, releases)
    show_release(release, console)
    for sentence in verdict(report.load(release.folder)):
        console.print(sentence, soft_wrap=True)
    console.print(f"release: {release.folder}", soft_wrap=True)
    console.print(f"report: {report_page.path_of(release)}", soft_wrap=True)
    console.print(
        f"watch the losses: tensorboard --logdir {work / run.name / 'training' / 'tensorboard'}", soft_wrap=True
    )
    console.print(f"serve it: {program()} serve {release.folder}", soft_wrap=True)
