"""`recsys experiment simulate` and `recsys experiment demo`: experiments whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys.commands import Overrides, Work, program
from twintower.errors import SettingError, describe, verbatim

if TYPE_CHECKING:
    from recsys.experiment.plan import Plan
    from recsys.experiment.simulation import People
    from recsys.export.release import Release
    from serving.simulation import Simulated

Users = Annotated[int, typer.Option(min=1, help="How many of the source's users come.")]
DEMO_RUN = "simulated"
SELF_SUPERVISED = (
    "name=simulated_ssl",
    "self_supervision.side=both",
    "self_supervision.objective={kind='contrastive', weight=0.3, temperature=0.1}",
    "self_supervision.augmentations=[{kind='value_dropout', rate=0.3}]",
)
"""What the other arm's towers are trained with."""
DEMO_HABITS = (
    "visits=4", "wishes=100", "impatience=0.2", "stranger_rate=0.4", "duplicate_rate=0.02", "late_rate=0.01",
    "early_rate=0.01",
)  # fmt: skip
DEMO_PLAN = """\
[metrics]
clicks = {{ event = "click", role = "primary" }}
click_rate = {{ event = "click", count = "exposures", per = "exposure" }}
revenue = {{ event = "purchase", count = "value", role = "guardrail", margin_rate = 0.1 }}

[experiments.towers]  # self-supervised towers against plain ones
layer = "release"
arms.control = {{ share = 0.5 }}
arms.ssl = {{ share = 0.5, release = "{ssl}" }}

[experiments.feedback]  # a trained reformulator against none, on the same users: layers overlap
layer = "feedback"
arms.control = {{ share = 0.5, reformulator = "identity" }}
arms.attention = {{ share = 0.5, reformulator = "attention" }}
"""


def simulate(
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="An experiment file (TOML).")],
    releases: Annotated[Path, typer.Argument(metavar="FOLDER", help="Releases of a synthetic source, of all arms.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Gets log, plan and truth; must be empty.")] = Path(
        "simulated"
    ),
    users: Users = 1000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that visit.")] = 4,
    habits: Annotated[
        list[str], typer.Option("--set", metavar="HABIT=VALUE", help="Such as visits=5 or late_rate=0.01; see Habits.")
    ] = [],  # noqa: B006
) -> None:
    """Serve, let users with known preferences visit over gRPC, and write a log with the truth beside it."""
    from recsys.export.release import find, open_release
    from serving.simulation import simulate

    console = Console()
    people = _people(open_release(find(releases), verify=False), users, habits)
    found = simulate(people, plan_file, releases, out, workers=workers, say=_saying(console))
    _show_simulated(found, console)
    console.print(f"next: {program()} experiment analyze {found.log} --plan {found.plan}", soft_wrap=True)


def demo(work: Work = Path("work"), users: Users = 3000, overrides: Overrides = []) -> None:  # noqa: B006
    """Train, serve in arms, simulate users, analyse their log, and compare the decisions with the truth.

    Exits with 1 where a decision is not the one that the truth asks for. The log of an earlier demo is replaced.
    """
    import shutil
    import time

    from recsys.experiment import plan as plans
    from recsys.export.release import promote
    from recsys.files import write_atomically
    from serving.simulation import simulate

    started, console = time.monotonic(), Console()
    folder = work / "demo-experiment"
    releases, out = folder / "releases", folder / "simulated"
    console.rule("1. train plain towers and self-supervised ones, and a reformulator for each")
    control = _with_reformulator(overrides, folder / "work", releases)
    ssl = _with_reformulator([*SELF_SUPERVISED, *overrides], folder / "work", releases)
    promote(control, "stable", max_drop_rate=0.0, force=True)
    plan_file = folder / "plan.toml"
    write_atomically(plan_file, DEMO_PLAN.format(ssl=ssl.name))
    console.rule("2. serve in arms, and let users visit")
    shutil.rmtree(out, ignore_errors=True)
    people = _people(control, users, list(DEMO_HABITS))
    simulated = simulate(people, plan_file, releases, out, workers=4, say=_saying(console))
    _show_simulated(simulated, console)
    console.rule("3. analyse the log, and compare with the truth")
    right = compare(simulated, plans.load(simulated.plan), console)
    console.rule("done")
    console.print(f"{time.monotonic() - started:.0f} s in all", highlight=False)
    for said in (
        f"log:      {simulated.log} (seconds became days)",
        f"plan:     {simulated.plan}",
        f"truth:    {out / 'truth.json'}",
        "notebook: notebooks/05_ab_analysis.ipynb reads them",
    ):
        console.print(said, highlight=False, soft_wrap=True)
    if not right:
        console.print("a decision is not the one that the truth asks for", style="red")
        raise typer.Exit(1)


def _with_reformulator(overrides: list[str], work: Path, releases: Path) -> Release:
    """Return a release of the demo's run with a reformulator; what an earlier call has made is taken again."""
    from recsys import config, pipeline, reformulation

    run = config.load(DEMO_RUN, overrides)
    release = pipeline.train(run, work, releases)
    mined = reformulation.mine(release, run, part="validation", k=20, out=work / run.name / "mined.arrow", work=work)
    return reformulation.train(release, mined, run, name="attention", work=work, default=False)


def _people(release: Release, users: int, habits: list[str]) -> People:
    from recsys import config
    from recsys.experiment.simulation import Habits, People
    from recsys.registry import parse
    from recsys.sources.synthetic import Synthetic

    source = config.load(release.folder / "run.toml").source
    if not isinstance(source, Synthetic):
        advice = "Only there the users' preferences are known."
        raise SettingError(describe(f"{release.name}: source", verbatim(type(source).__name__), "synthetic", advice))
    settings = parse(Habits, config.overridden({}, habits), "habits")
    return People(source, settings, users, release.facts.query_columns)


def _saying(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _show_simulated(found: Simulated, console: Console) -> None:
    rejected = ", ".join(f"{reason} {count:,}" for reason, count in sorted(found.rejected.items())) or "none"
    told = f"{found.visits:,} visits and {found.events:,} events logged; events rejected: {rejected}"
    if found.strayed:
        told += f"; {found.strayed:,} visits were shown other lists than the truth was made with"
    console.print(told, highlight=False, soft_wrap=True)
    table = Table(title="truth: every unit under every arm", title_justify="left")
    for column in ("experiment", "arm", "metric"):
        table.add_column(column)
    for column in ("units", "control", "value", "difference", "relative"):
        table.add_column(column, justify="right")
    for truth in found.truths:
        relative = f"{truth.difference / truth.control:+.2%}" if truth.control else ""
        table.add_row(
            truth.experiment, truth.arm, truth.metric, f"{truth.units:,}", f"{truth.control:.4g}",
            f"{truth.value:.4g}", f"{truth.difference:+.4g}", relative,
        )  # fmt: skip
    console.print(table)


def compare(simulated: Simulated, plan: Plan, console: Console) -> bool:
    """Analyse every experiment of a simulation; return whether each decision is the one that the truth asks for."""
    import dataclasses

    from recsys.experiment.analysis import analyse, deciding, interval_of, number, render
    from recsys.experiment.log import open_log
    from recsys.experiment.units import read_units

    table = Table(title="decisions and truth", title_justify="left")
    for column in ("experiment", "arm", "metric", "truth", "found", "95% interval", "decision", "truth asks for"):
        table.add_column(column)
    right = True
    for name, experiment in plan.experiments.items():
        units = read_units(open_log(simulated.log), name, plan.metrics, experiment=experiment)
        found = analyse(units, experiment=experiment, final=True)
        render(dataclasses.replace(found, days=(), slices=()), console)
        effects = {(effect.arm, effect.metric): effect for effect in deciding(found.effects)}
        verdicts = {decision.arm: decision.verdict for decision in found.decisions}
        for truth in simulated.truths:
            if truth.experiment != name or plan.metrics[truth.metric].role != "primary":
                continue
            wanted = truth.verdict(plan.metrics[truth.metric])
            right &= verdicts[truth.arm] == wanted
            effect = effects.get((truth.arm, truth.metric))
            told = (
                ("-", "-")
                if effect is None
                else (number(effect.difference, "+.4g"), interval_of(effect.low, effect.high))
            )
            table.add_row(
                name, truth.arm, truth.metric, f"{truth.difference:+.4g}", *told, verdicts[truth.arm], wanted
            )  # fmt: skip
    console.print(table)
    return right
