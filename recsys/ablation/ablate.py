"""Tune, train and judge the rows of an ablation, in three rounds that can be interrupted."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys import config
from recsys.ablation.cells import Case, Cell, Cells, asked
from recsys.ablation.rows import BASELINE, Subject, combinations, row_tables, subjects_of
from recsys.ablation.show import titled
from recsys.ablation.tables import Ablation, Measured, Trial, below_references, measure_case
from recsys.config import AblationPlan, Run, put
from recsys.data.encoders import bags_of
from recsys.errors import DataError, InterruptedRun
from recsys.evaluation.baselines import fit_baselines
from recsys.evaluation.held_out import HeldOut, held_out
from recsys.files import exclusive, storage
from recsys.metrics.ranking import measure, parse
from recsys.types import Int32
from twintower.errors import SettingError, describe, verbatim

NOT_THE_BASELINE_S = ("self_supervision.", "item.augmentations.")
"""What begins the paths that would give the baseline what the rows are compared for."""


def ablate(run: Run, home: Path, jobs: int = 0) -> Ablation:
    """Tune and measure every row of `run.ablation`; an interrupted call goes on where it stopped.

    Args:
        run: the run; its own second task, if any, is left out, and `ablation` says what is compared. Without an
            objective it takes the first default one that is trained in steps: a closed form has no second task.
        home: holds prepared data and cells; made if needed.
        jobs: worker processes; 0 means one for each core. Each trains on its share of the cores.

    Raises:
        InterruptedRun: stopped by a signal; finished cells are kept.
        RefusedError: another process works on this run.
        SettingError: an unknown row, or a searched setting that does not exist.
        DataError: no test or validation case, or a worker was killed.
        TwintowerError: as the stages raise.
    """
    run = config.with_default_objective(run, in_steps=True)
    run = dataclasses.replace(run, ablation=_with_plain_metrics(run.ablation))
    with storage(home):
        home.mkdir(parents=True, exist_ok=True)
    with exclusive(home):
        try:
            return _Rounds(run, home, jobs or len(os.sched_getaffinity(0))).run_to_end()
        except KeyboardInterrupt:
            told = f"interrupted; finished cells are kept in {home}. Run the same command to go on."
            raise InterruptedRun(told) from None


class _Rounds:
    def __init__(self, run: Run, home: Path, jobs: int) -> None:
        self._run, self._plan = run, run.ablation
        self._subjects = subjects_of(run.ablation)
        self._misfits: dict[str, str] = {}
        self._cells = Cells(home, jobs)
        self._base = _baseline_tables(run)
        corrections = _corrections(self._plan, self._base["objective"])
        self._cases = [Case(rate, logq) for rate in self._plan.training_rates for logq in corrections]
        self._parts: dict[tuple[float, str], HeldOut] = {}
        self._references: dict[float, dict[str, Int32]] = {}
        self._left_out: dict[str, str] = {}
        self._notice = ""
        self._has_bags = True
        self._seconds: dict[str, float] = {}

    def run_to_end(self) -> Ablation:
        self._check_rows()
        for training_rate in self._plan.training_rates:
            self._prepare(training_rate)
        with self._cells:
            frozen, tuned_baseline = self._tune([BASELINE], {case: {} for case in self._cases}, "tune the baseline")
            baseline = {case: chosen[BASELINE] for case, chosen in frozen.items()}
            rows = [name for name in self._subjects if name != BASELINE]
            chosen, tuned_rows = self._tune(rows, baseline, "tune the rows")
            for case in self._cases:
                chosen[case] = {BASELINE: baseline[case], **chosen[case]}
            grid = [
                self._cell(case, name, baseline[case], {} if name == BASELINE else chosen[case][name], seed, "test")
                for case in self._cases
                for name in self._subjects
                for seed in self._plan.seeds
            ]
            self._seconds["train the rows"] = self._cells.train(grid, "train the rows")
        for training_rate in self._plan.training_rates:
            self._references[training_rate] = self._rank_references(training_rate)
        by_case = {case: self._measure(case, grid) for case in self._cases}
        return Ablation(
            name=self._run.name,
            notice=self._notice,
            metrics=tuple(self._plan.metrics),
            chosen=chosen,
            trials=(*tuned_baseline, *tuned_rows),
            measured=tuple(itertools.chain.from_iterable(by_case.values())),
            seconds=self._seconds,
            remarks=(
                *remarks(self._run, self._subjects, tuned=all(baseline.values()), has_bags=self._has_bags),
                *(f"not compared with {kind}: {reason}" for kind, reason in self._left_out.items()),
                *(f"the row {name} was left out: {reason}" for name, reason in self._misfits.items()),
                *(
                    sentence
                    for case, measured in by_case.items()
                    for sentence in refusals(case, measured, list(self._references[case.training_rate]))
                ),
            ),
            references=tuple(dict.fromkeys(itertools.chain.from_iterable(self._references.values()))),
        )

    def _check_rows(self) -> None:
        """Tell a row that cannot be trained, such as one with a wrong path in its search, before anything is read."""
        for path in self._plan.baseline_search:
            if f"{path}.".startswith(NOT_THE_BASELINE_S):
                rule = "settings of a run without a second task and without augmentations"
                raise SettingError(describe("ablation.baseline_search", path, rule, "Give it to a variant's search."))
        for name in self._subjects:
            try:
                self._trials(self._cases[0], name, {})
            except SettingError as error:
                if not self._plan.subjects and name not in (BASELINE, *self._plan.variants):
                    self._misfits[name] = str(error)
                    continue
                advice = ""
                if name == BASELINE:  # it is always among the rows; what is wrong can only come from its search
                    advice = " Mend ablation.baseline_search."
                elif name in self._plan.variants:
                    advice = f" Mend ablation.variants.{name}."
                raise SettingError(f"row {name!r} of the ablation: {error}{advice}") from None
        self._subjects = {name: each for name, each in self._subjects.items() if name not in self._misfits}
        if len(self._subjects) == 1 and self._misfits:
            name, error = next(iter(self._misfits.items()))
            advice = "No other row fits either. Try --set objective.kind=all_items, which is trained in steps."
            raise SettingError(f"row {name!r} of the ablation: {error} {advice}")

    def _prepare(self, training_rate: float) -> None:
        case = Case(training_rate, self._cases[0].logq)
        run = self._cell(case, BASELINE, {}, {}, 0, "test").run
        prepared = self._cells.prepared(run)
        self._notice = prepared.notice
        self._has_bags = bool(bags_of(prepared.item_encoders))
        for part in ("validation", "test"):
            held = held_out(run, prepared, part, run.evaluation.max_cases)
            if not held.cases.reachable.rows.size:
                got = verbatim(f"no {part} case")
                advice = f"Give more data or a larger split.{part}_rate or {part}_count."
                if part == "validation":
                    advice += " Settings are chosen on validation cases."
                raise DataError(describe("split", got, "at least one", advice))
            self._parts[training_rate, part] = held

    def _cell(
        self,
        case: Case,
        subject: str,
        frozen: Mapping[str, Any],
        chosen: Mapping[str, Any],
        seed: int,
        part: str,
    ) -> Cell:
        tables = row_tables(self._base, frozen, self._subjects[subject], chosen)
        put(tables, "data.training_rate", case.training_rate)
        if case.logq:
            put(tables, "objective.logq", case.logq)
        # With every default written out, so that a cell is known by what it is, not by how it was said.
        return Cell(case, subject, chosen, seed, part, config.plain_tables(config.from_tables(tables)))

    def _tune(
        self, subjects: Sequence[str], frozen: Mapping[Case, Mapping[str, Any]], description: str
    ) -> tuple[dict[Case, dict[str, Mapping[str, Any]]], list[Trial]]:
        """Return the settings with the best validation metric, by case and row, and all looks.

        A row that searches nothing has nothing to choose, and is not looked at.
        """
        searching = [name for name in subjects if name == BASELINE or self._subjects[name].search]
        rows = itertools.product(self._cases, searching)
        cells = [cell for case, name in rows for cell in self._trials(case, name, frozen[case])]
        self._seconds[description] = self._cells.train(cells, description)
        trials = [Trial(cell.case, cell.subject, cell.chosen, self._mean(cell)) for cell in cells]
        best: dict[Case, dict[str, Mapping[str, Any]]] = {case: {} for case in self._cases}
        for case, name in itertools.product(self._cases, subjects):
            if name not in searching:
                best[case][name] = {}
                continue
            of_row = [trial for trial in trials if (trial.case, trial.subject) == (case, name)]
            best[case][name] = max(of_row, key=lambda trial: trial.values[self._plan.tuning_metric]).chosen
        return best, trials

    def _trials(self, case: Case, name: str, frozen: Mapping[str, Any]) -> list[Cell]:
        """Return the cells that tune a row."""
        plan = self._plan
        trials = plan.baseline_trials if name == BASELINE else plan.trials
        search = plan.baseline_search if name == BASELINE else self._subjects[name].search
        return [
            self._cell(case, name, frozen, chosen, plan.tuning_seed, "validation")
            for chosen in combinations(search, trials, plan.tuning_seed)
        ]

    def _mean(self, cell: Cell) -> dict[str, float]:
        _, reachable = asked(self._parts[cell.case.training_rate, cell.part])
        names = dict.fromkeys((*self._plan.metrics, self._plan.tuning_metric))
        values = measure(names, self._cells.ranked(cell), reachable)
        return {name: float(of_cases.mean()) for name, of_cases in values.items()}

    def _rank_references(self, training_rate: float) -> dict[str, Int32]:
        """Return what each of the run's baselines ranks for the test cases, by kind, `[cases, depth]`."""
        test, plan = self._parts[training_rate, "test"], self._plan
        fitted, left_out = fit_baselines(
            self._run.evaluation.baselines,
            self._parts[training_rate, "validation"],
            test,
            metric=plan.tuning_metric,
            search_s=self._run.evaluation.baseline_search_s,
        )
        self._left_out |= left_out
        rows, _ = asked(test)
        depth = max(parse(name).cutoff for name in plan.metrics)
        return {kind: each.recommender.recommend(rows, depth).item_rows for kind, each in fitted.items()}

    def _measure(self, case: Case, grid: Sequence[Cell]) -> list[Measured]:
        ranked: dict[str, list[Int32]] = {name: [] for name in self._subjects}
        for cell in grid:
            if cell.case == case:
                ranked[cell.subject].append(self._cells.ranked(cell))
        test, plan = self._parts[case.training_rate, "test"], self._plan
        likes = {name: str(table.get("like", BASELINE)) for name, table in plan.variants.items() if name in ranked}
        references = self._references[case.training_rate]
        return measure_case(case, test, ranked, plan.metrics, plan.resamples, self._run.seed, likes, references)


def refusals(case: Case, measured: Sequence[Measured], references: Sequence[str]) -> Iterator[str]:
    """Yield one sentence where gains have no star because the baseline itself is below a simplest reference.

    Args:
        case: the comparison.
        measured: its numbers.
        references: the kinds that it was compared with.
    """
    if found := below_references(measured, references):
        listed = ", ".join(f"{kind} in {metric} ({difference:+.4f})" for metric, kind, difference in found)
        yield (
            f"{titled(case)}: gains in {', '.join(dict.fromkeys(metric for metric, _, _ in found))} have no star, "
            f"because the baseline is below {listed}: give ablation.baseline_search more to try (learning rate, "
            "epochs, dimensions) until it is above, or look for broken columns with `recsys data describe`."
        )


def remarks(run: Run, subjects: Mapping[str, Subject], *, tuned: bool, has_bags: bool) -> Iterator[str]:
    """Yield the sentences without which a table would say more than was found.

    Args:
        run: what was ablated.
        subjects: the rows, by name.
        tuned: settings were tried for the baseline.
        has_bags: some item feature holds several values a row.
    """
    if not tuned:
        yield (
            "the baseline was not tuned, the other rows were: some of their gain may be that. Give "
            "ablation.baseline_search, values to try by path, such as training.learning_rate."
        )
    if run.self_supervision is not None or run.item.augmentations:
        yield "the run's own self_supervision and item.augmentations were left out: the rows say what is compared."
    if run.training.patience > 0:
        yield "no training stopped early (training.patience): each went to the end of its training.epochs."
    dropping = [name for name, subject in subjects.items() if _drops_values(subject)]
    if dropping and not has_bags:
        yield (
            f"no item feature holds several values, so value_dropout dropped nothing in {', '.join(dropping)}: "
            "with masks they are what they are without it; without masks they only push items apart, as so does."
        )


def _drops_values(subject: Subject) -> bool:
    second = subject.settings.get("self_supervision", {})
    return any(stage["kind"] == "value_dropout" for stage in second.get("augmentations", ()))


def _with_plain_metrics(plan: AblationPlan) -> AblationPlan:
    """Return the plan with every metric under its name in `ir-measures` spelling, not under an alias."""
    metrics = dict.fromkeys(parse(name, "ablation.metrics").name for name in plan.metrics)
    tuning_metric = parse(plan.tuning_metric, "ablation.tuning_metric").name
    return dataclasses.replace(plan, metrics=tuple(metrics), tuning_metric=tuning_metric)


def _corrections(plan: AblationPlan, objective: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the corrections to compare; an empty one where the objective has no such setting."""
    if "logq" in objective:
        return plan.logq
    if len(plan.logq) > 1:
        rule = f"one value, because the objective {objective['kind']!r} has no logq"
        raise SettingError(describe("ablation.logq", plan.logq, rule, "Leave it out."))
    return ("",)


def _baseline_tables(run: Run) -> dict[str, Any]:
    """Return the run without a second task, trained to the end of its epochs."""
    tables = config.plain_tables(run)
    tables.pop("self_supervision", None)
    tables["item"]["augmentations"] = []
    return tables
