"""`recsys query`: ask a running server as an application would."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from recsys.commands import Ca, Certificate, Key, TokenFile, UseTls, connected

if TYPE_CHECKING:
    from twintower.client import Client
    from twintower.types import Exclusions, Explanation, Filter, FilterType, Ranking, Reformulation

SILENT_S = 2.0
"""How long it waits without a word, and for a server that nothing says is starting."""
START_S = 60.0
"""How long it waits for a server that is starting."""
FEATURE = re.compile(r'("(?:[^"\\]|\\.)*"|[^"=][^=]*)=(.*)', re.DOTALL)
CONDITION = re.compile(r'\s*("(?:[^"\\]|\\.)*"|.+?)\s*(!=|>=|<=|=|>|<)\s*(.+?)\s*', re.DOTALL)


def command(
    target: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:50051",
    port_file: Annotated[Path | None, typer.Option(help="Read the port from this file; waits for it.")] = None,
    wait_s: Annotated[
        float | None, typer.Option(help="Seconds to wait for the server; default: 2, with --port-file 60.")
    ] = None,
    entity: Annotated[str | None, typer.Option(help="Id of a user, or of an item in an item-to-item release.")] = None,
    feature: Annotated[list[str] | None, typer.Option(help="NAME=VALUE; several values as a JSON list.")] = None,
    history: Annotated[str, typer.Option(help="Item ids met before, oldest first; see --items.")] = "",
    history_age_days: Annotated[str, typer.Option(help="Days since each item of --history was met, with commas.")] = "",
    items: Annotated[
        str, typer.Option(help="Item ids that were met, such as a basket, with commas, or a JSON list.")
    ] = "",
    similar: Annotated[bool, typer.Option("--similar", help="Find items that are like --items instead.")] = False,
    vector: Annotated[str, typer.Option(help="Numbers with commas.")] = "",
    exclude: Annotated[str, typer.Option(help="Item ids to leave out; see --items.")] = "",
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="COLUMN=VALUE, also with != >= > <= <, on the items; several values with commas, or as a JSON list. "
            'A name that holds a sign or spaces: "COLUMN"=VALUE.'
        ),
    ] = None,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out what the entity has met.")] = False,
    repeats: Annotated[
        str, typer.Option(help="Items that the entity has met: allow, only (nothing else) or exclude.")
    ] = "allow",
    crowding: Annotated[str, typer.Option(help="COLUMN:N, at most N items of one value of that column.")] = "",
    mmr: Annotated[float, typer.Option(help="0 ranks by score alone, 1 by distance to the items above.")] = 0.0,
    k: Annotated[int, typer.Option("-k", help="Places.")] = 10,
    release: Annotated[str, typer.Option(help="Only this release will do: name or fingerprint.")] = "",
    like: Annotated[str, typer.Option(help="Feedback: item ids that somebody said yes to; see --items.")] = "",
    dislike: Annotated[str, typer.Option(help="Feedback: item ids that somebody said no to.")] = "",
    click: Annotated[str, typer.Option(help="Feedback: item ids that were shown and chosen.")] = "",
    skip: Annotated[str, typer.Option(help="Feedback: item ids that were shown and passed over.")] = "",
    pseudo: Annotated[bool, typer.Option("--pseudo", help="Feedback: take first results as relevant.")] = False,
    depth: Annotated[int | None, typer.Option(help="How many items of feedback count; default: 10.")] = None,
    reformulator: Annotated[str, typer.Option(help="What moves the query by feedback; empty: the default.")] = "",
    guard: Annotated[
        bool | None, typer.Option("--guard/--no-guard", help="Let the guard keep the original query; default: yes.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what the feedback did.")] = False,
    include_feedback_items: Annotated[
        bool,
        typer.Option("--include-feedback-items", help="Do not leave out items of the feedback; disliked ones last."),
    ] = False,
    tls: UseTls = False,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
    token_file: TokenFile = None,
) -> None:
    """Print the nearest items of one query (entity, features and history, items, or vector), also after feedback."""
    import numpy as np

    from twintower.errors import SettingError, describe, verbatim
    from twintower.types import Diversity, FeedbackItem, FeedbackKind, Query

    numbers = np.array(_numbers(vector, "--vector"), np.float32) if vector else None
    query = Query(
        entity_id=entity,
        features=dict(_feature(each) for each in feature) if feature else None,
        history=_ids(history, "--history"),
        history_age_days=_numbers(history_age_days, "--history-age-days"),
        item_ids=_ids(items, "--items"),
        similar=similar,
        vector=numbers,
        excluded_ids=_ids(exclude, "--exclude"),
        exclude_seen=exclude_seen,
        repeats=repeats,
    )
    exclude_seen = query.exclude_seen
    said = {
        FeedbackKind.LIKED: _ids(like, "--like"),
        FeedbackKind.DISLIKED: _ids(dislike, "--dislike"),
        FeedbackKind.CLICKED: _ids(click, "--click"),
        FeedbackKind.SKIPPED: _ids(skip, "--skip"),
    }
    mentions = [FeedbackItem(item_id, kind) for kind, ids in said.items() for item_id in ids]
    moves = bool(mentions or pseudo or reformulator or explain)
    for option, given in (
        ("--depth", depth is not None),
        ("--guard" if guard else "--no-guard", guard is not None),
        ("--include-feedback-items", include_feedback_items),
    ):
        if given and not moves:
            advice = f"Add --like, --dislike, --click, --skip or --pseudo, or leave {option} out."
            raise SettingError(describe(option, verbatim("no feedback"), "some for it to act on", advice))
    field, most = _crowding(crowding)
    diversity = Diversity(field, most, mmr)
    wait_s = (SILENT_S if port_file is None else START_S) if wait_s is None else wait_s
    target = target if port_file is None else f"127.0.0.1:{_port(port_file, wait_s)}"
    with connected(target, 10.0, tls, ca, certificate, key, token_file) as client:
        _await(client, wait_s)
        if where:
            query = replace(query, filter=_filter(where, client.release().filter_fields))
        if not moves:
            ranking = client.nearest_items(query, k, release_pin=release, include_metadata=True, diversity=diversity)
            print_ranking(ranking, Console())
            print_exclusions(ranking.exclusions, exclude_seen, Console())
            return
        answer = client.reformulate(
            query,
            k,
            mentions,
            pseudo=pseudo,
            depth=10 if depth is None else depth,
            reformulator=reformulator,
            guarded=guard is not False,
            release_pin=release,
            include_metadata=True,
            include_explanation=explain,
            include_feedback_items=include_feedback_items,
            diversity=diversity,
        )
        print_reformulation(answer, Console())
        print_exclusions(answer.ranking.exclusions, exclude_seen, Console())


def print_ranking(ranking: Ranking, console: Console, title: str = "", columns: int = 5) -> None:
    """Print an answer as a table with the items' display columns.

    Args:
        ranking: as the client returned it, with metadata.
        console: where to.
        title: what was asked; may be empty.
        columns: display columns to show, the first ones.
    """
    from serving import display

    origin = ranking.origin.value if ranking.origin else "unknown"
    missing = f"; unknown ids: {', '.join(ranking.missing_ids)}" if ranking.missing_ids else ""
    plan = f", {ranking.plan.value} of {ranking.candidate_count:,}" if ranking.plan else ""
    ended = "; no further item may be shown" if ranking.exhausted else ""
    caption = f"from {origin}{plan}{missing}{ended}; {ranking.release.name}"
    table = Table(title=title, title_justify="left", caption=caption)
    names = display.ordered(ranking.metadata[0] if ranking.metadata else ())[:columns]
    numbers = ["", "score"] if ranking.own_scores is None else ["", "score", "own"]
    for name in ("", "item", *numbers[1:], *names):
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for place, (item_id, score, shown) in enumerate(
        zip(ranking.item_ids, ranking.scores, ranking.metadata, strict=True), 1
    ):
        cells = [display.text(shown.get(name)) for name in names]
        if ranking.own_scores is not None:
            cells.insert(0, f"{ranking.own_scores[place - 1]:.4f}" if ranking.own_scores[place - 1] else "")
        table.add_row(str(place), item_id, f"{score:.4f}", *cells)
    console.print(table)


def print_exclusions(exclusions: Exclusions | None, exclude_seen: bool, console: Console) -> None:
    """Print how many items were left out and where they are known from.

    Args:
        exclusions: of the answer; None prints nothing.
        exclude_seen: whether the query asked for what the entity has met to be left out.
        console: where to.
    """
    if exclusions is None:
        return
    sources = (
        (exclusions.release_count, "that the release stores for the entity"),
        (exclusions.request_count, "of the request"),
        (exclusions.event_count, "that events report"),
        (exclusions.excluded_id_count, "excluded by id"),
    )
    found = ", ".join(f"{count:,} {source}" for count, source in sources if count)
    items = "1 item" if exclusions.total_count == 1 else f"{exclusions.total_count:,} items"
    console.print(f"Left out: {items}{f' ({found})' if found else ''}.", highlight=False)
    if exclude_seen and not exclusions.release_knows_entity:
        console.print("The release stores nothing that this entity has met.")


def print_reformulation(answer: Reformulation, console: Console) -> None:
    """Print an answer after feedback: its table, how far the query moved, and what the feedback did where it says so.

    Args:
        answer: as the client returned it, with metadata.
        console: where to.
    """
    print_ranking(answer.ranking, console)
    kept = "; the guard kept the original query" if answer.fell_back else ""
    console.print(f"{answer.reformulator}: drift {answer.drift:.4f}, confidence {answer.confidence:.4f}{kept}")
    if answer.ignored_kinds:
        kinds = ", ".join(kind.name.lower() for kind in answer.ignored_kinds)
        console.print(f"{answer.reformulator} ignores feedback of these kinds: {kinds}")
    if answer.missing_ids:
        console.print(f"unknown feedback: {', '.join(answer.missing_ids)}")
    if answer.explanation is not None:
        _print_explanation(answer.explanation, console)


def _print_explanation(explanation: Explanation, console: Console) -> None:
    table = Table(title="feedback", title_justify="left")
    table.add_column("item", overflow="fold")
    table.add_column("weight", justify="right")
    for item_id, weight in zip(explanation.item_ids, explanation.item_weights, strict=True):
        table.add_row(item_id, f"{weight:+.4f}")
    console.print(table)
    for what, ids in (("entered", explanation.entered_ids), ("left", explanation.left_ids)):
        console.print(f"{what}: {', '.join(ids) or 'none'}")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str, option: str) -> list[float]:
    from twintower.errors import SettingError, describe

    try:
        return [float(each) for each in _listed(text)]
    except ValueError:
        raise SettingError(describe(option, text, "numbers with commas between them")) from None


def _ids(text: str, option: str) -> tuple[str, ...]:
    """Return ids as they are in a JSON list of strings, or those between commas.

    Raises:
        SettingError: a JSON list of something else.
    """
    from twintower.errors import SettingError, describe

    try:
        listed = json.loads(text)
    except ValueError:
        return _listed(text)
    if not isinstance(listed, list):
        return _listed(text)
    if not all(isinstance(each, str) for each in listed):
        raise SettingError(describe(option, text, 'a JSON list of strings, such as ["7", "a, b"]'))
    return tuple(listed)


def _feature(text: str) -> tuple[str, Any]:
    from twintower.errors import SettingError, describe
    from twintower.filters import plain_name

    matched = FEATURE.fullmatch(text)
    if matched is None:
        raise SettingError(describe("--feature", text, 'NAME=VALUE, or "NAME"=VALUE for a name with = or quotes'))
    name, value = plain_name(matched[1]), matched[2]
    try:
        parsed = json.loads(value)
    except ValueError:
        return name, value
    # The column decides whether text is a number: `007` and `5.0` stay what they are where it holds text.
    return name, value if isinstance(parsed, (bool, int, float)) else parsed


def _filter(conditions: Sequence[str], fields: Mapping[str, FilterType]) -> Filter:
    """Return what `--where` says, its values as the served columns hold them."""
    from twintower.errors import RequestError, SettingError, describe, unknown
    from twintower.filters import parse_filter, plain_name

    pairs = []
    for text in conditions:
        matched = CONDITION.fullmatch(text)
        if matched is None:
            raise SettingError(describe("--where", text, "COLUMN=VALUE, or != >= > <= < instead of ="))
        given, sign, value = matched.groups()
        name = plain_name(given)
        if name not in fields:
            raise SettingError(f"--where: {unknown('column to filter by', name, fields)}")
        values = [_value(each, fields[name], text) for each in _parts(value)]
        several = sign in ("=", "!=") or len(values) > 1
        pairs.append((f"{given} {sign}", values if several else values[0]))
    try:
        return parse_filter(pairs)
    except RequestError as error:
        raise SettingError(f"--where: {error}") from None


def _parts(text: str) -> Sequence[Any]:
    try:
        listed = json.loads(text, parse_float=Decimal)
    except ValueError:
        listed = None
    return listed if isinstance(listed, list) else _listed(text)


def _value(value: Any, kind: FilterType, text: str) -> Any:
    """Return one value as a column of this kind holds it."""
    from twintower.errors import SettingError, describe
    from twintower.types import FilterType

    if kind in (FilterType.STRING, FilterType.STRINGS, FilterType.TIME) or not isinstance(value, str):
        return value
    if kind is FilterType.BOOL:
        if value.lower() not in ("true", "false"):
            raise SettingError(describe("--where", text, "true or false"))
        return value.lower() == "true"
    for read in (int, Decimal):
        try:
            number = read(value)
        except (ValueError, InvalidOperation):
            continue
        return float(number) if isinstance(number, Decimal) and number.is_infinite() else number
    raise SettingError(describe("--where", text, "a number"))


def _crowding(text: str) -> tuple[str | None, int | None]:
    from twintower.errors import SettingError, describe

    name, _, most = text.rpartition(":")
    if text and (not name or not most.isdecimal()):
        raise SettingError(describe("--crowding", text, "COLUMN:N, such as genre:2"))
    return (name, int(most)) if text else (None, None)


def _await(client: Client, wait_s: float) -> None:
    """Wait until a server is ready, and say so and why where it takes long."""
    from twintower.errors import UnavailableError

    try:
        client.wait_until_ready(min(SILENT_S, wait_s))
    except UnavailableError as error:
        if wait_s <= SILENT_S:
            raise
        typer.echo(f"waiting at most {wait_s:g} s: {error}", err=True)
        client.wait_until_ready(wait_s - SILENT_S)


def _port(file: Path, wait_s: float) -> int:
    from twintower.errors import MissingError, SettingError, describe

    started, told = time.monotonic(), False
    while not file.is_file():
        waited_s = time.monotonic() - started
        if waited_s > wait_s:
            raise MissingError(f"{file}: no such file after {wait_s:g} s. Is the server running with --port-file?")
        if waited_s > SILENT_S and not told:
            typer.echo(f"waiting for {file}, at most {wait_s:g} s", err=True)
            told = True
        time.sleep(0.1)
    text = file.read_text(encoding="utf-8", errors="replace").strip()
    if not text.isdigit():
        raise SettingError(describe("--port-file", text, f"a port number in {file}"))
    return int(text)
