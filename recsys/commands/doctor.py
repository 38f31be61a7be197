"""`recsys doctor`: what is installed, whether it fits together, and the line to run where it does not."""

from __future__ import annotations

import os
import platform
import sys

import typer
from rich.console import Console
from rich.table import Table

from recsys import stack

SHOWN = (
    "twintower-recsys", "tensorflow", "tf-keras", "tensorflow-recommenders", "scann", "numpy", "pyarrow", "polars",
    "grpcio", "protobuf", "implicit", "ir-measures",
)  # fmt: skip
CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni")


def command() -> None:
    """Report Python, processor, versions and the TensorFlow / ScaNN pair; exit with 1 where something is broken."""
    console = Console()
    flags = stack.cpu_flags()
    table = Table(show_header=False)
    table.add_row("Python", f"{platform.python_version()} ({sys.executable})")
    table.add_row("system", f"{platform.system()} {platform.machine()}")
    table.add_row("processor flags", ", ".join(flag for flag in CPU_FLAGS if flag in flags) or "none of note")
    for name in SHOWN:
        table.add_row(name, stack.installed(name) or "not installed")
    flag = os.environ.get(stack.KERAS_FLAG)
    table.add_row(stack.KERAS_FLAG, f"{flag}" if flag is not None else "not set (recsys sets it to 1)")
    console.print(table)
    found = stack.problems(training=stack.installed("implicit") is not None)
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        found.append(stack.Problem(f"Python {platform.python_version()} is not supported.", "use Python 3.11"))
    elif sys.version_info[:2] != (3, 11):
        console.print("Python 3.11 is what the tests run on; this version is untested.", style="yellow")
    if not found:
        found = stack.import_problems()
    for problem in found:
        console.print(f"broken: {problem.what}\n   run: {problem.repair}", style="red", markup=False, soft_wrap=True)
    if found:
        raise typer.Exit(1)
    console.print(f"ScaNN searches with {stack.scann_kernels()}")
    console.print("everything fits", style="green")
