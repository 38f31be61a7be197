"""`recsys reformulate`: train reformulators on mined feedback, and judge them depth by depth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import Overrides, ReleaseFolder, Work

app = typer.Typer(help="Train reformulators on mined feedback, and judge them.", no_args_is_help=True)

MinedFile = Annotated[Path, typer.Argument(metavar="MINED", help="A file that `recsys mine` wrote.")]


@app.command()
def train(
    folder: ReleaseFolder,
    mined_file: MinedFile,
    run_file: Annotated[Path | None, typer.Argument(metavar="RUN", help="Default: the release's own run file.")] = None,
    name: Annotated[str, typer.Option(help="What requests will ask for.")] = "attention",
    default: Annotated[
        bool, typer.Option(help="Choose anew what answers requests that name none, by significant gains.")
    ] = True,
    overrides: Overrides = [],  # noqa: B006 - typer reads the default
    work: Work = Path("work"),
) -> None:
    """Train a reformulator as the run file's section `reformulation` says; publishes a new release with it."""
    from recsys import config, reformulation
    from recsys.data.mined import Mined
    from recsys.evaluation.reformulation import SURE
    from recsys.export.release import find, open_release
    from recsys.retrieval.reformulation import Reformulators

    release = open_release(find(folder))
    own = release.folder / "run.toml"
    run = config.load(run_file, overrides) if run_file else config.load_spelt_out(own, overrides)
    derived = reformulation.train(release, Mined.read(mined_file), run, name=name, work=work, default=default)
    console, held = Console(), Reformulators.load(derived.folder)
    facts = held.get(name).facts
    console.print(
        f"{name}: {facts['steps']} steps on {facts['queries']:,} queries, {facts['share']:.0%} of the trained move. "
        f"Each query judged by a training without it (reformulation.folds = {facts['folds']}): "
        f"{facts['validation_metric']} {facts['original']:.4f} without feedback, {facts['reached']:.4f} with it.",
        soft_wrap=True,
    )
    for kind in dict.fromkeys(gain["feedback"] for gain in facts["gains"]):
        gains = [gain for gain in facts["gains"] if gain["feedback"] == kind]
        of_depths = ", ".join(f"{gain['gain']:+.4f} with {gain['depth']}" for gain in gains)
        console.print(
            f"  {kind} feedback on {gains[0]['queries']:,} queries: {of_depths} items (p {gains[0]['p_value']:.2g}); "
            f"with {gains[-1]['depth']}, {gains[-1]['helped_rate']:.0%} helped and {gains[-1]['hurt_rate']:.0%} hurt",
            soft_wrap=True,
        )
    if facts["ignores"]:
        kinds = ", ".join(each.lower() for each in facts["ignores"])
        console.print(f"  ignored, because they do harm at some depth: {kinds}", soft_wrap=True)
    if not facts["is_significant"]:
        console.print(
            f"No default: a significant gain (p < {SURE:g}) without harm at some depth is needed, and "
            f"{facts['queries']:,} queries do not show one. {reformulation.WHAT_TO_TRY}",
            soft_wrap=True,
        )
    console.print(f"default: {held.default}", soft_wrap=True)
    console.print(f"release: {derived.folder}", soft_wrap=True)


@app.command("eval")
def evaluate(
    folder: ReleaseFolder,
    mined_file: MinedFile,
    names: Annotated[list[str], typer.Option("--name", help="Only this reformulator; may be repeated.")] = [],  # noqa: B006
    metrics: Annotated[list[str], typer.Option("--metric", help="In ir-measures spelling.")] = ["nDCG@10", "R@100"],  # noqa: B006
    depths: Annotated[list[int], typer.Option("--depth", min=0, help="Items of feedback.")] = [1, 2, 3, 4, 5, 10],  # noqa: B006
    seed: Annotated[int, typer.Option(help="Of the intervals' bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write JSON and plots into this folder.")] = None,
) -> None:
    """Compare reformulators with the original query: metric, gain, whom it hurts, with and without their guards."""
    from recsys import reformulation
    from recsys.data.mined import Mined
    from recsys.evaluation.reformulation_report import render
    from recsys.export.release import find, open_release
    from recsys.files import storage

    release = open_release(find(folder))
    report = reformulation.evaluate(
        release, Mined.read(mined_file), names=names, metrics=metrics, depths=depths, seed=seed
    )
    console = Console()
    render(report, console)
    if out is not None:
        with storage(out):
            out.mkdir(parents=True, exist_ok=True)
            for path in report.save(out):
                console.print(f"written: {path}", soft_wrap=True)
