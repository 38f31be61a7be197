"""`recsys compare`: two releases on the same test cases, with a paired test."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from recsys.commands import ReleaseFolder


def command(
    first: ReleaseFolder,
    second: ReleaseFolder,
    slice_name: Annotated[str, typer.Option("--slice", help="all, head, torso, tail, cold, ...")] = "all",
) -> None:
    """Compare two releases that were judged on the same cases: differences, intervals, paired randomisation test."""
    from recsys.evaluation import report
    from recsys.evaluation.comparison import compare, render_comparison
    from recsys.export.release import find, open_release

    releases = [open_release(find(folder), verify=False) for folder in (first, second)]
    tables = [report.load(release.folder).case_values_of(report.OURS) for release in releases]
    names = (releases[0].name, releases[1].name)
    render_comparison(compare(tables[0], tables[1], names, slice=slice_name), Console())
