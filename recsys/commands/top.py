"""`recsys top`: watch a running server in the terminal."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

if TYPE_CHECKING:
    from serving.telemetry.reading import Change

CALLS = "recsys_rpc_duration_seconds"


def command(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="host:port of the server's metrics, or a URL.")],
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print what happened between, and end.")] = False,
) -> None:
    """Show calls, latencies, failures, recall and memory of a server, as its metrics tell them."""
    from serving.telemetry.reading import Change, read
    from twintower.errors import UnavailableError

    console, before = Console(), read(address)
    if once:
        time.sleep(every_s)
        console.print(_shown(Change(before, read(address))))
        return
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                time.sleep(every_s)
                try:
                    after = read(address)
                except UnavailableError as error:  # it may come back
                    live.update(str(error), refresh=True)
                    continue
                live.update(_shown(Change(before, after)), refresh=True)
                before = after
        except KeyboardInterrupt:
            return


def _shown(change: Change) -> Group:
    return Group(_server(change), _rpcs(change), _codes(change), _releases(change))


def _server(change: Change) -> Table:
    now = change.after
    unready = [
        service for service in now.labels("recsys_ready", "service") if not now.total("recsys_ready", service=service)
    ]
    table = Table("", "", show_header=False, title="server", title_justify="left")
    table.add_row("ready", f"no: {', '.join(unready)}" if unready else "yes")
    table.add_row("calls in flight", f"{now.total('recsys_rpcs_in_flight'):.0f}")
    table.add_row("calls that wait", f"{now.total('recsys_queue_depth_calls'):.0f}")
    table.add_row("queries searched together", _number(change.mean("recsys_batch_queries"), ".1f"))
    table.add_row("feedback items a move", _number(change.mean("recsys_feedback_items"), ".1f"))
    table.add_row("memory", f"{now.total('process_resident_memory_bytes') / 1e6:,.0f} MB")
    table.add_row("cores busy", f"{change.per_s('process_cpu_seconds_total'):.2f}")
    table.add_row("log lines dropped", f"{now.total('recsys_log_lines_dropped_total'):.0f}")
    return table


def _rpcs(change: Change) -> Table:
    table = Table(title="calls", title_justify="left")
    for name in ("rpc", "calls/s", "failed/s", "p50 ms", "p99 ms"):
        table.add_column(name, justify="left" if name == "rpc" else "right")
    for rpc in change.after.labels(f"{CALLS}_count", "rpc"):
        rate = change.per_s(f"{CALLS}_count", rpc=rpc)
        failed = rate - change.per_s(f"{CALLS}_count", rpc=rpc, code="OK")
        median, slow = (change.quantile(CALLS, share, rpc=rpc) * 1000 for share in (0.5, 0.99))
        table.add_row(rpc, f"{rate:,.1f}", f"{failed:,.1f}", _number(median, ".2f"), _number(slow, ".2f"))
    return table


def _codes(change: Change) -> Table:
    table = Table(title="codes", title_justify="left")
    table.add_column("code")
    table.add_column("calls/s", justify="right")
    table.add_column("since start", justify="right")
    for code in change.after.labels(f"{CALLS}_count", "code"):
        total = change.after.total(f"{CALLS}_count", code=code)
        table.add_row(code, f"{change.per_s(f'{CALLS}_count', code=code):,.1f}", f"{total:,.0f}")
    return table


def _releases(change: Change) -> Table:
    table = Table(title="releases", title_justify="left")
    for name in ("release", "index", "items", "calls/s", "recall", "since start", "certified"):
        table.add_column(name, justify="left" if name in ("release", "index") else "right")
    held = change.after.values.get("recsys_release_info", {})
    for labels in (dict(has) for has, loaded in held.items() if loaded):
        release = labels["release"]
        samples = change.after.total("recsys_live_recall_count", release=release)
        recall = change.after.total("recsys_live_recall_sum", release=release) / samples if samples else math.nan
        table.add_row(
            labels["name"],
            labels["index"],
            f"{change.after.total('recsys_release_items', release=release):,.0f}",
            f"{change.per_s(f'{CALLS}_count', release=release):,.1f}",
            _number(change.mean("recsys_live_recall", release=release), ".4f"),
            _number(recall, ".4f"),
            f"{change.after.total('recsys_release_certified_recall', release=release):.4f}",
        )
    return table


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:,{form}}"
