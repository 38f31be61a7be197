"""`recsys release`: list, show, verify and promote releases of a folder; move those of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from recsys.commands import Ca, Certificate, Key, ReleaseFolder, TokenFile, UseTls, connected

if TYPE_CHECKING:
    from recsys.evaluation.index_quality import Certificate
    from recsys.export.release import Release
    from twintower.types import ReleaseSet

app = typer.Typer(help="List, show, verify and promote releases; move those of a server.", no_args_is_help=True)

Target = Annotated[str, typer.Argument(metavar="SERVER", help="host:port of the server.")]
Label = Annotated[str, typer.Option(help="The label that is meant.")]
ASK_S = 10.0


@app.command("list")
def list_releases(releases: Annotated[Path, typer.Argument(metavar="FOLDER")] = Path("releases")) -> None:
    """List the releases of a folder with their labels, oldest first."""
    from recsys.errors import ReleaseError
    from recsys.export.release import open_release, published, read_labels
    from twintower.errors import MissingError

    if not releases.is_dir():
        raise MissingError(f"{releases}: no such folder. Write a release with `recsys train`.")
    labels: dict[str, list[str]] = {}
    for label, name in read_labels(releases).items():
        labels.setdefault((releases / name).resolve().name, []).append(label)
    table = Table()
    for column in ("release", "labels", "created", "items", "dim", "index", "quality"):
        table.add_column(column, overflow="fold")
    rows = []
    for folder in dict.fromkeys(published(releases).values()):
        name = folder.name
        try:
            release = open_release(folder, verify=False)
        except ReleaseError as error:
            rows.append(("", name, " ".join(labels.get(name, [])), f"unusable: {error}", "", "", "", ""))
            continue
        facts = release.facts
        quality = next((f"{metric} {value:.4f}" for metric, value in facts.metrics.items()), "")
        rows.append(
            (release.manifest.created, name, " ".join(labels.get(name, [])), release.manifest.created,
             f"{facts.item_count:,}", str(facts.dim), facts.index, quality)
        )  # fmt: skip
    for row in sorted(rows):
        table.add_row(*row[1:])
    Console().print(table)


@app.command()
def show(folder: ReleaseFolder) -> None:
    """Print what a release is, how it was judged and what its index was certified for."""
    from recsys.export.release import find, open_release

    show_release(open_release(find(folder), verify=False), Console())


@app.command()
def keygen(
    private: Annotated[Path, typer.Argument(metavar="FILE", help="Gets the private key; the public key gets .pub.")],
) -> None:
    """Make a pair of keys to sign releases with: FILE signs, FILE.pub is what servers need."""
    from recsys.export.signature import write_keys

    public = private.with_name(f"{private.name}.pub")
    write_keys(private, public)
    Console().print(f"{private}: sign with it, and keep it secret\n{public}: give it to servers", soft_wrap=True)


@app.command()
def sign(
    folder: ReleaseFolder,
    key: Annotated[Path, typer.Option(help="PEM file with an Ed25519 private key.")],
) -> None:
    """Check every part's SHA-256 and sign the release; its fingerprint stays as it is."""
    from recsys.export import signature
    from recsys.export.release import MANIFEST, find, open_release

    release = open_release(find(folder))
    made = signature.sign(release.folder / MANIFEST, key)
    Console().print(f"{release.name}: signed with key {made.key}", soft_wrap=True)


@app.command()
def verify(
    folder: ReleaseFolder,
    keys: Annotated[
        list[Path], typer.Option("--key", help="A public key that must have signed the release; repeatable.")
    ] = [],  # noqa: B006
) -> None:
    """Check the signature (with --key) and every part's SHA-256, open the release and replay its golden queries."""
    from recsys.export.release import find
    from recsys.retrieval import Retriever

    retriever = Retriever.load(find(folder), signed_by=keys)
    retriever.warm()
    parts = retriever.release.manifest.parts
    size = sum(part.size_bytes for part in parts.values())
    Console().print(
        f"{retriever.release.name}: {len(parts)} parts, {size / 1e6:.1f} MB, all checksums right; golden queries "
        f"answered as written{'; signed' if keys else ''}",
        soft_wrap=True,
    )


@app.command()
def promote(
    release: Annotated[list[Path], typer.Argument(metavar="RELEASE", help="The release that gets the label.")],
    label: Annotated[str, typer.Option(help="The label to give, such as stable or canary.")] = "stable",
    metric: Annotated[
        str,
        typer.Option(help="The test metric that must not fall. Default: the run file's first that both releases have."),
    ] = "",
    max_drop: Annotated[float, typer.Option(min=0, max=1, help="Largest accepted relative fall, 0..1.")] = 0.02,
    force: Annotated[bool, typer.Option("--force", help="Promote in spite of the gate; recorded.")] = False,
) -> None:
    """Give a label to a release, unless it is worse than the one that has it now, or than a simple baseline."""
    from recsys.evaluation import report
    from recsys.evaluation.verdict import objections
    from recsys.export.release import open_release
    from recsys.export.release import promote as give_label

    candidate = open_release(_only_release(release))
    against = objections(report.load(candidate.folder))
    said = give_label(candidate, label, metric=metric, max_drop_rate=max_drop, force=force, objections=against)
    Console().print(said, markup=False, soft_wrap=True)


def _only_release(paths: list[Path]) -> Path:
    """Return the one release among paths, some of which may be patterns that the shell left as they are.

    Raises:
        SettingError: several releases, which are listed with the time at which each was written.
    """
    from recsys.export.release import is_release, published_at
    from twintower.errors import SettingError, describe, verbatim

    found = [path for given in paths for path in (sorted(given.parent.glob(given.name)) or [given])]
    releases = [path for path in found if is_release(path)]
    if len(releases) > 1:
        dated = sorted((published_at(path), str(path)) for path in releases)
        listed = "".join(f"\n  {path} (written {time})" for time, path in dated)
        got = verbatim(f"{len(releases)} releases")
        raise SettingError(describe("RELEASE", got, "one", f"Name one of these, oldest first:{listed}"))
    return (releases or found)[0]


@app.command()
def held(
    target: Target = "127.0.0.1:50051",
    tls: UseTls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """List the releases that a running server holds, and those that it refused."""
    with connected(target, ASK_S, tls, ca, certificate, key, token_file) as client:
        _print_held(client.releases())


@app.command()
def reload(
    target: Target = "127.0.0.1:50051",
    release: Annotated[str, typer.Option(help="Name or fingerprint; empty: what the server's folder says.")] = "",
    label: Label = "stable",
    tls: UseTls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Let a running server load a release and answer from it; a damaged one is refused."""
    with connected(target, ASK_S, tls, ca, certificate, key, token_file) as client:
        _print_held(client.reload_release(release, label=label))


@app.command("roll-back")
def roll_back(
    target: Target = "127.0.0.1:50051",
    label: Label = "stable",
    tls: UseTls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Let a running server answer from the release before, until the next `reload`."""
    with connected(target, ASK_S, tls, ca, certificate, key, token_file) as client:
        _print_held(client.roll_back_release(label=label))


def _print_held(held: ReleaseSet) -> None:
    table = Table()
    for column in ("release", "labels", "loaded", ""):
        table.add_column(column, overflow="fold")
    for each in held.releases:
        told = "rolled back" if each.rolled_back else "" if each.labels else "of an arm, or kept to roll back to"
        table.add_row(each.name, " ".join(each.labels), each.loaded.isoformat(timespec="seconds"), told)
    for refused in held.refused:
        table.add_row(refused.name, f"not {refused.label}", refused.time.isoformat(timespec="seconds"), refused.reason)
    Console().print(table)


def index_in_words(certificate: Certificate) -> str:
    """Return what an index was certified for, in one line."""
    return (
        f"{certificate.kind}: recall@{certificate.k} {certificate.recall:.4f}, at least {certificate.recall_low:.4f} "
        f"with {certificate.confidence:.0%} confidence ({certificate.queries} queries); "
        f"{certificate.query_us:.0f} us a query, exact search {certificate.exact_query_us:.0f} us"
    )


def show_release(release: Release, console: Console) -> None:
    """Print a release's facts, evaluation and index certificate."""
    from recsys.evaluation import report
    from recsys.evaluation.index_quality import CERTIFICATE, Certificate
    from recsys.evaluation.report_page import fitted_on_in_words
    from recsys.retrieval.reformulation import Reformulators

    facts, manifest = release.facts, release.manifest
    table = Table(title=f"release {release.name}", title_justify="left", show_header=False)
    if facts.notice:
        table.add_row("data", facts.notice)
    table.add_row("fingerprint", release.fingerprint)
    table.add_row("created", manifest.created + (f", from {manifest.parent[:12]}" if manifest.parent else ""))
    table.add_row("fitted on", fitted_on_in_words(facts))
    table.add_row("catalog", f"{facts.item_count:,} items, {facts.dim} dimensions")
    table.add_row("queries", f"{facts.query_entity}; {facts.query_count:,} known by id")
    certificate = Certificate.read(release.folder / CERTIFICATE)
    table.add_row("index", index_in_words(certificate))
    if certificate.note:
        table.add_row("", certificate.note)
    reformulators = Reformulators.load(release.folder)
    table.add_row("reformulators", f"{', '.join(reformulators.names)}; default: {reformulators.default}")
    console.print(table)
    report.render(report.load(release.folder), console)
