"""`recsys experiment`: who is in which arm, how many units are needed, and what a log says."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys.commands import _simulation
from recsys.errors import DataError, RefusedError
from twintower.errors import SettingError, describe, unknown, verbatim

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from recsys.experiment.analysis import Analysis
    from recsys.experiment.interleaving import Preference
    from recsys.experiment.log import Log
    from recsys.experiment.plan import Metric, Plan

app = typer.Typer(help="Assign arms, plan experiments, and read what they found.", no_args_is_help=True)
app.command()(_simulation.simulate)
app.command()(_simulation.demo)

PlanFile = Annotated[Path, typer.Argument(metavar="PLAN", help="An experiment file (TOML).")]
LogFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A log folder: exposures/ and events/.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
SHOWN_UNITS = 50
"""Units that `assign` shows one by one."""


@app.command()
def analyze(
    folder: LogFolder,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", metavar="PLAN", help="The experiment file: arms, shares, metrics.")
    ] = None,
    name: Annotated[str, typer.Option("--experiment", help="Which one; not needed where there is only one.")] = "",
    control: Annotated[str, typer.Option(help="The arm to compare with. Default: the plan's, or 'control'.")] = "",
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="Level of all intervals.")] = 0.95,
    final: Annotated[
        bool, typer.Option("--final", help="This is the planned last look: fixed intervals decide.")
    ] = False,
    planned_units: Annotated[
        int | None, typer.Option(min=1, help="Units at which always-valid intervals are tightest. Default: the plan's.")
    ] = None,
    before_days: Annotated[float, typer.Option(min=0, help="Days before the start that CUPED reads; 0: none.")] = 14.0,
    attribution_h: Annotated[float, typer.Option(min=0.001, help="Hours in which events count.")] = 168.0,
    quantiles: Annotated[list[float], typer.Option("--quantile", help="Also compare it; may be repeated.")] = [],  # noqa: B006
    slices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Parquet or CSV with item_id and slice: also by slice.")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(metavar="RELEASE", help="Slices head, torso, tail, cold by its training counts.")
    ] = None,
    despite_sample_ratio: Annotated[
        bool, typer.Option("--despite-sample-ratio", help="Show effects even though units were lost.")
    ] = False,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append offline differences and online effects to it.")
    ] = None,
    offline: Annotated[
        list[str], typer.Option("--offline", metavar="ARM:METRIC=DIFFERENCE", help="For the ledger; may be repeated.")
    ] = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Read a log and say what follows: sample ratio, effects, CUPED, guardrails, days, slices, decisions.

    Of an interleaved experiment: which arm its units prefer.
    """
    from recsys.experiment import analysis, interleaving
    from recsys.experiment import plan as plans
    from recsys.experiment.log import open_log
    from recsys.experiment.units import Window, arms_of, event_kinds, read_units
    from recsys.registry import parse

    plan = plans.load(plan_file) if plan_file else plans.Plan()
    promised = _offline(offline)
    if promised and ledger is None:
        raise SettingError(describe("--offline", offline, "a --ledger to write it to"))
    log = open_log(folder)
    name = name or _only_experiment(log, plan)
    experiment = plan.experiment(name) if plan_file else None
    if planned_units is None and experiment is not None:
        planned_units = experiment.planned_units
    if arms_of(log, name) == [plans.INTERLEAVED]:
        if quantiles or slices or release or ledger:
            asked = verbatim("--quantile, --slices, --release or --ledger")
            raise SettingError(describe("analyze", asked, "none of them: interleaved lists only tell a preference"))
        kinds = [metric.event for metric in plan.metrics.values()] or event_kinds(log)
        found = interleaving.preferences(
            log,
            name,
            dict.fromkeys(kinds),
            control=control or (experiment.control if experiment else "control"),
            confidence=confidence,
            planned_units=planned_units,
            min_units=plans.MIN_UNITS if experiment is None else experiment.min_units,
            final=final,
            attribution_h=attribution_h,
        )
        _show_preferences(name, found, confidence, final=final, as_json=as_json)
        return
    window = parse(Window, {"before_days": before_days, "attribution_h": attribution_h}, "analyze")
    units = read_units(
        log,
        name,
        plan.metrics or _default_metrics(log),
        experiment=experiment,
        window=window,
        slices=_slices(slices, release),
    )
    found = analysis.analyse(
        units,
        experiment=experiment,
        control=control,
        confidence=confidence,
        planned_units=planned_units,
        final=final,
        quantiles=quantiles,
        despite_sample_ratio=despite_sample_ratio,
    )
    if as_json:
        print(json.dumps(analysis.as_json(found), indent=1, allow_nan=False))
    else:
        analysis.render(found, Console())
    if ledger is not None:
        ended = experiment.end if experiment is not None and experiment.end is not None else datetime.now().astimezone()
        _append(ledger, found, promised, ended)


@app.command()
def log(folder: LogFolder, as_json: AsJson = False) -> None:
    """Say what a log holds: rows, time, releases, arms, and what was lost."""
    import dataclasses

    from recsys.experiment.log import open_log
    from recsys.experiment.summary import summarise

    found = summarise(open_log(folder))
    if as_json:
        arms = [dict(zip(("experiment", "arm", "exposures"), (*key, n), strict=True)) for key, n in found.arms.items()]
        print(json.dumps(dataclasses.asdict(found) | {"arms": arms}, indent=1, default=datetime.isoformat))
        return
    console = Console()
    span = "" if found.first is None else f" from {str(found.first)[:16]} to {str(found.last)[:16]} UTC"
    console.print(
        f"{found.exposures:,} exposures{span}, {found.events:,} events "
        f"({', '.join(found.kinds) or 'of no kind'}), {found.size_bytes / 1e6:,.1f} MB in "
        f"{found.parquet_files} Parquet files, {found.ended_segments} ended and {found.living_segments} living "
        "segments.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"lost: {found.dropped_exposures:,} exposures dropped by servers, "
        f"{found.torn_segments:,} segments torn in their last batch.",
        highlight=False,
        soft_wrap=True,
    )
    _show([(name, f"{count:,}") for name, count in found.releases.items()], ["release", "exposures"], console)
    if found.arms:
        rows = [(*names, f"{count:,}") for names, count in found.arms.items()]
        _show(rows, ["experiment", "arm", "exposures"], console)


@app.command()
def compact(folder: LogFolder, as_json: AsJson = False) -> None:
    """Move what servers have ended writing to Parquet files; they may go on writing meanwhile."""
    import dataclasses

    from recsys.experiment import compaction

    done = compaction.compact(folder)
    if as_json:
        print(json.dumps({name: dataclasses.asdict(each) for name, each in done.items()}))
        return
    for name, each in done.items():
        Console().print(
            f"{name}: {each.rows:,} rows of {each.segments} segments ({each.torn_segments} torn) in {each.files} new "
            f"Parquet files; {each.living_segments} segments are being written to.",
            highlight=False,
            soft_wrap=True,
        )


@app.command()
def power(
    mean: Annotated[float | None, typer.Option(help="Mean of the metric in the control.")] = None,
    deviation: Annotated[float | None, typer.Option(min=0, help="Its standard deviation between units.")] = None,
    rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Instead of both: share of units that convert.")
    ] = None,
    units: Annotated[int | None, typer.Option(help="Units of both arms together.")] = None,
    effect: Annotated[float | None, typer.Option(help="Relative difference to find, such as 0.02.")] = None,
    chance: Annotated[float | None, typer.Option("--power", help="Chance of finding it.")] = None,
    alpha: Annotated[float, typer.Option(help="Chance of finding what is not there.")] = 0.05,
    ratio: Annotated[float, typer.Option(help="Units of the new arm for each one of the control.")] = 1.0,
    correlation: Annotated[float, typer.Option(help="Of the metric with CUPED's covariate.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Solve for what is left out of --units, --effect and --power; without --power it is 0.8."""
    import dataclasses

    from recsys.experiment.power import design

    if (rate is None) == (mean is None or deviation is None) or (
        rate is not None and not (mean is None and deviation is None)
    ):
        raise SettingError(describe("power", {"rate": rate, "mean": mean}, "either --rate, or --mean and --deviation"))
    if rate is not None:
        if not 0 < rate < 1:
            raise SettingError(describe("--rate", rate, "above 0 and below 1: units that all do the same do not vary"))
        mean, deviation = rate, (rate * (1 - rate)) ** 0.5
    if chance is None and (units is None or effect is None):
        chance = 0.8
    found = design(
        mean,
        deviation,
        units=units,
        relative_difference=effect,
        power=chance,
        alpha=alpha,
        ratio=ratio,
        correlation=correlation,
    )
    if as_json:
        print(json.dumps(dataclasses.asdict(found), allow_nan=False))
        return
    Console().print(
        f"{found.units:,} units, both arms together, find a relative difference of {found.relative_difference:.2%} "
        f"({found.difference:+.4g}) with a chance of {found.power:.1%}, at alpha = {found.alpha:g}.",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def assign(
    plan_file: PlanFile,
    units: Annotated[list[str] | None, typer.Argument(metavar="UNIT...", help="Users or sessions.")] = None,
    file: Annotated[
        Path | None, typer.Option("--units", metavar="FILE", help="Text, one unit a line, or Parquet with `unit`.")
    ] = None,
    at: Annotated[datetime | None, typer.Option(help="The moment; UTC. Default: now.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write `unit` and one column an experiment.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which arm of each experiment units are in; the same as the server says."""
    from datetime import UTC

    import polars as pl

    from recsys.experiment import plan as plans
    from recsys.experiment.assignment import Assigner
    from recsys.files import storage

    assigner = Assigner(plans.load(plan_file))
    named = [*(units or []), *(_units_in(file) if file else [])]
    if not named:
        raise SettingError(describe("units", verbatim("none"), "units as arguments or --units FILE"))
    for unit in units or []:
        if any("\ud800" <= letter <= "\udfff" for letter in unit):  # bytes of the command line that are no text
            raise SettingError(describe("units", unit, "UTF-8 text"))
    now = datetime.now(UTC) if at is None else at.replace(tzinfo=UTC)
    arms = {name: assigner.arms_of(name, named, now) for name in assigner.plan.experiments}
    frame = pl.DataFrame({"unit": named, **arms})
    console = Console()
    if out is not None:
        with storage(out.parent):
            temporary = out.with_name(f".{out.name}")
            frame.write_parquet(temporary)
            temporary.replace(out)
        console.print(f"written: {out}", soft_wrap=True)
    elif as_json:
        print(json.dumps(frame.to_dicts()))
    elif len(frame) <= SHOWN_UNITS:
        _show(frame.rows(), frame.columns, console)
    else:
        counts = [
            (name, arm or "none", f"{count:,}")
            for name in arms
            for arm, count in frame.group_by(name).len().sort(name).iter_rows()
        ]
        _show(counts, ["experiment", "arm", "units"], console)


@app.command()
def check(
    plan_file: PlanFile,
    releases: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also look whether these releases can serve every arm.")
    ] = None,
) -> None:
    """Show the experiments of a file, or say what a server would refuse it for."""
    from datetime import UTC

    from recsys.experiment import plan as plans

    plan, now = plans.load(plan_file), datetime.now(UTC)
    if releases is not None:
        _check_served(plan, releases, now)
    rows = []
    for name, experiment in plan.experiments.items():
        ended = experiment.end is not None and experiment.end <= now
        state = "runs" if experiment.runs_at(now) else "has ended" if ended else "is to start"
        start, stop = experiment.segment
        taken = f"{experiment.traffic_rate:.4g} of {stop - start:.4g} of {experiment.namespace}"
        arms = ", ".join(f"{arm} {chosen.share:.4g}" for arm, chosen in experiment.arms.items())
        shown = f"{arms}, interleaved" if experiment.interleave else arms
        rows.append((name, state, experiment.unit, taken, shown, ", ".join(sorted(experiment.decides))))
    _show(rows, ["experiment", "state", "unit", "takes", "arms", "sets"], Console())


def _check_served(plan: Plan, folder: Path, now: datetime) -> None:
    import functools

    from recsys.export.release import published
    from recsys.retrieval import Retriever
    from serving.arms.treatment import check
    from serving.runtime.release_folder import labelled
    from serving.settings import ReleaseSettings
    from twintower.errors import MissingError

    root = folder.resolve()
    known = published(root)
    known |= labelled(root, ReleaseSettings().labels)

    @functools.cache
    def retriever_of(release: str) -> Retriever:
        if (release or "stable") not in known:
            raise MissingError(unknown("label that is served, or release", release, known))
        return Retriever.load(known[release or "stable"])

    check(plan, now, retriever_of)


def _show_preferences(
    name: str, found: Mapping[str, Preference], confidence: float, *, final: bool, as_json: bool
) -> None:
    import dataclasses

    if as_json:
        preferences = {kind: dataclasses.asdict(one) for kind, one in found.items()}
        print(json.dumps({"experiment": name, "final": final, "preferences": preferences}, allow_nan=False))
        return
    first, second = next((one.first, one.second) for one in found.values())
    rows = [
        (kind, f"{one.first_wins:,}", f"{one.second_wins:,}", f"{one.ties:,}", f"{one.win_rate:.1%}",
         f"{one.low:.1%} {one.high:.1%}", f"{one.always_low:.1%} {one.always_high:.1%}", f"{one.p_value:.3g}",
         f"{one.always_p_value:.3g}")
        for kind, one in found.items()
    ]  # fmt: skip
    columns = ["event", f"prefer {first}", f"prefer {second}", "neither", f"share of {second}"]
    console = Console()
    console.print(f"experiment {name}, interleaved, by unit", highlight=False)
    _show(rows, [*columns, f"{confidence:.0%} interval", "always valid", "p", "always-valid p"], console)
    for kind, one in found.items():
        told = f"{one.preferred} is preferred" if one.preferred else f"undecided: {one.reason}"
        console.print(f"{kind}: {told} ({'fixed' if final else 'always-valid'} test)", style="bold", highlight=False)


def _show(rows: list[tuple], columns: list[str], console: Console) -> None:
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(cell) or "-" for cell in row))
    console.print(table)


def _units_in(file: Path) -> list[str]:
    if file.suffix in (".parquet", ".csv"):
        return _frame(file, "unit")["unit"].drop_nulls().to_list()
    try:
        return [line for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"--units: cannot read {file}: {error}.") from None


def _frame(file: Path, ids: str, *others: str) -> pl.DataFrame:
    """Return columns of a Parquet or CSV file as text, one of them ids, spelled as in training data."""
    import polars as pl

    from recsys.ids import id_texts

    try:
        frame = pl.read_csv(file, infer_schema=False) if file.suffix == ".csv" else pl.read_parquet(file)
        texts = id_texts(frame[ids].rechunk().to_arrow(), f"{file}: {ids}")
        return frame.select(pl.from_arrow(texts).alias(ids), *(pl.col(name).cast(pl.String) for name in others))
    except (OSError, pl.exceptions.PolarsError) as error:
        told = str(error).partition("\n")[0]
        raise DataError(f"{file}: cannot read {' and '.join((ids, *others))}: {told}.") from None


def _only_experiment(log: Log, plan: Plan) -> str:
    from recsys.experiment.units import experiments_of

    names = sorted(experiments_of(log))
    known = [name for name in names if name in plan.experiments] if plan.experiments else names
    if len(known) != 1:
        raise SettingError(describe("--experiment", "", f"one of {', '.join(names) or 'none: the log names none'}"))
    return known[0]


def _default_metrics(log: Log) -> dict[str, Metric]:
    """Return one metric for each kind of event: the share of lists that it came of."""
    from recsys.experiment.plan import Metric
    from recsys.experiment.units import event_kinds

    return {f"{kind}_rate": Metric(event=kind, count="exposures", per="exposure") for kind in event_kinds(log)}


def _slices(file: Path | None, release: Path | None) -> pl.DataFrame | None:
    import polars as pl

    if file is not None and release is not None:
        raise SettingError(describe("--slices and --release", [str(file), str(release)], "one of both"))
    if release is not None:
        from recsys.evaluation.slices import item_slices
        from recsys.export.release import find, open_release

        items = pl.read_parquet(open_release(find(release)).folder / "items.parquet")
        members = item_slices(items["training_count"].to_numpy())
        return pl.concat(
            items.filter(pl.Series(chosen)).select(pl.col("item_id").cast(pl.String), slice=pl.lit(name))
            for name, chosen in members.items()
        )
    if file is None:
        return None
    frame = _frame(file, "item_id", "slice").drop_nulls()
    if frame["item_id"].is_duplicated().any():
        twice = frame.filter(pl.col("item_id").is_duplicated())["item_id"][0]
        raise DataError(describe(f"{file}: item_id", twice, "each item once"))
    return frame


def _offline(words: list[str]) -> dict[str, dict[str, float]]:
    promised: dict[str, dict[str, float]] = {}
    for word in words:
        left, equals, number = word.rpartition("=")
        arm, colon, metric = left.partition(":")
        try:
            value = float(number)
        except ValueError:
            equals = ""
        if not (equals and colon and arm and metric):
            raise SettingError(describe("--offline", word, "ARM:METRIC=DIFFERENCE, such as ssl:nDCG@10=0.004"))
        promised.setdefault(arm, {})[metric] = value
    return promised


def _append(path: Path, found: Analysis, promised: dict[str, dict[str, float]], ended: datetime) -> None:
    from recsys.experiment import analysis, ledger

    if not any(effect.low is not None for effect in found.effects):
        told = "; ".join(reason for decision in found.decisions for reason in decision.reasons)
        raise RefusedError(describe(str(path), verbatim(f"no effect with an interval ({told})"), "at least one"))
    arms = [arm for arm in found.units if arm != found.control]
    for arm in promised:
        if arm not in arms:
            raise SettingError(f"--offline: {unknown('arm', arm, arms)}")
    for arm in arms:
        online = {
            effect.metric: ledger.Outcome(effect.difference, effect.low, effect.high)
            for effect in analysis.deciding(found.effects)
            if effect.arm == arm and effect.low is not None
        }
        day = ended.date().isoformat()
        ledger.append(path, ledger.Entry(found.experiment, arm, found.control, day, promised.get(arm, {}), online))
