"""Charts as inline SVG: readable without scripts, on paper and to screen readers. All texts are escaped here."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#6a51a3")
"""Distinct to color-blind readers (Okabe and Ito 2008), two added."""
GRAY = "#8a8f98"
WIDTH = 720
LABEL_WIDTH = 150
ROW_HEIGHT = 22
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_ids = count()


def text(value: object, limit: int = 0) -> str:
    """Return a value as text for HTML and SVG: escaped, without characters that neither may hold.

    Args:
        value: anything.
        limit: characters that are kept; 0 keeps all.
    """
    plain = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if limit and len(plain) > limit:
        plain = plain[: limit - 1] + "…"
    return html.escape(plain, quote=True)


@dataclass(frozen=True)
class Interval:
    """One number of a dot plot.

    Attributes:
        label: its row.
        value: the number.
        low: lower bound of its interval.
        high: upper bound.
        color: of the dot.
    """

    label: str
    value: float
    low: float
    high: float
    color: str = GRAY


def dot_plot(title: str, description: str, unit: str, rows: Sequence[Interval], *, signed: bool = False) -> str:
    """Return numbers with intervals, one below the other.

    Args:
        title: what is shown.
        description: the same for those who cannot see it.
        unit: of the horizontal axis.
        rows: from top to bottom, at least one.
        signed: the numbers are differences: mark zero and print signs.
    """
    ends = [end for row in rows for end in (row.low, row.high, row.value)]
    axis = _Axis(min(0.0, *ends), max(0.0, *ends), LABEL_WIDTH, WIDTH - 70)
    bottom = 8 + ROW_HEIGHT * len(rows)
    parts = [axis.grid(8, bottom), axis.labels(bottom, unit)]
    if signed:
        parts.append(f'<line x1="{axis(0)}" x2="{axis(0)}" y1="8" y2="{bottom}" stroke="#333"/>')
    for place, row in enumerate(rows):
        y = 8 + ROW_HEIGHT * (place + 0.5)
        shown = f"{row.value:+.4f}" if signed else f"{row.value:.4f}"
        said = f"{row.label}: {shown}, interval {row.low:.4f} to {row.high:.4f}"
        parts.append(
            f"<g><title>{text(said)}</title>"
            f'<text x="{LABEL_WIDTH - 10}" y="{y + 4}" text-anchor="end">{text(row.label, 24)}</text>'
            f'<line x1="{axis(row.low)}" x2="{axis(row.high)}" y1="{y}" y2="{y}" stroke="{row.color}" '
            'stroke-width="3" stroke-linecap="round" opacity=".55"/>'
            f'<circle cx="{axis(row.value)}" cy="{y}" r="5" fill="{row.color}"/>'
            f'<text x="{WIDTH - 60}" y="{y + 4}" class="number">{shown}</text></g>'
        )
    return _figure(title, description, bottom + 42, parts)


def curve(
    title: str,
    description: str,
    units: tuple[str, str],
    points: Sequence[tuple[float, float, str]],
    marks: Mapping[str, float],
) -> str:
    """Return a rising curve with named vertical marks.

    Args:
        title: what is shown.
        description: the same for those who cannot see it.
        units: of the horizontal and of the vertical axis.
        points: horizontal and vertical position and what is said of the point, by horizontal position.
        marks: horizontal positions by what stands there.
    """
    top, bottom = 12, 230
    across = _Axis(0, max(*(x for x, _, _ in points), *marks.values(), 0), 64, WIDTH - 24)
    up = _Axis(min(y for _, y, _ in points), 1, bottom, top)
    parts = [across.grid(top, bottom), across.labels(bottom, units[0]), up.rows(64, WIDTH - 24, units[1])]
    path = " ".join(f"{across(x)},{up(y)}" for x, y, _ in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="{COLORS[0]}" stroke-width="2"/>')
    for x, y, said in points:
        parts.append(
            f'<circle cx="{across(x)}" cy="{up(y)}" r="4" fill="{COLORS[0]}"><title>{text(said)}</title></circle>'
        )
    for place, (name, x) in enumerate(marks.items()):
        anchor = "end" if across(x) > WIDTH / 2 else "start"
        shift, y = (-6 if anchor == "end" else 6), bottom - 10 - 18 * place
        parts.append(
            f'<line x1="{across(x)}" x2="{across(x)}" y1="{top}" y2="{bottom}" stroke="{COLORS[1]}" '
            f'stroke-dasharray="4 3"/><text x="{across(x) + shift}" y="{y}" text-anchor="{anchor}">{text(name)}</text>'
        )
    return _figure(title, description, bottom + 42, parts)


def scatter(
    title: str, description: str, points: Sequence[tuple[float, float, int, str]], groups: Sequence[tuple[str, str]]
) -> str:
    """Return points of several groups on a square map without axes, with a legend.

    Args:
        title: what is shown.
        description: the same for those who cannot see it.
        points: position within 0..1 twice, the group's index and what is said of the point.
        groups: names and colors; the last is drawn first.
    """
    size, legend = WIDTH - 190, WIDTH - 170
    parts = [f'<rect x="4" y="4" width="{size}" height="{size}" fill="none" stroke="#d6d9de"/>']
    for x, y, group, said in sorted(points, key=lambda point: -point[2]):
        parts.append(
            f'<circle cx="{4 + 10 + x * (size - 20):.1f}" cy="{4 + 10 + y * (size - 20):.1f}" r="3.4" '
            f'fill="{groups[group][1]}" opacity=".75"><title>{text(said, 120)}</title></circle>'
        )
    for place, (name, color) in enumerate(groups):
        y = 24 + 22 * place
        parts.append(
            f'<circle cx="{legend + 6}" cy="{y - 4}" r="5" fill="{color}"/>'
            f'<text x="{legend + 18}" y="{y}">{text(name, 22)}</text>'
        )
    return _figure(title, description, size + 8, parts)


class _Axis:
    """A linear axis from the values that it must hold to pixels."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        span = (high - low) or abs(high) or 1.0
        raw = span / 5
        magnitude = 10.0 ** math.floor(math.log10(raw))
        self._step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= raw)
        self._low = math.floor(low / self._step + 1e-9) * self._step
        self._high = max(math.ceil(high / self._step - 1e-9) * self._step, self._low + self._step)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._start + share * (self._end - self._start), 1)

    def _ticks(self) -> Iterable[tuple[float, str]]:
        digits = next(places for places in count() if math.isclose(round(self._step, places), self._step))
        for number in range(round((self._high - self._low) / self._step) + 1):
            value = self._low + number * self._step
            yield self(value), f"{0.0 if abs(value) < self._step / 1e6 else value:,.{digits}f}"

    def grid(self, top: float, bottom: float) -> str:
        """Return vertical lines at the ticks."""
        lines = (f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" class="grid"/>' for x, _ in self._ticks())
        return "".join(lines)

    def labels(self, bottom: float, unit: str) -> str:
        """Return the numbers below the ticks, and the unit below them."""
        numbers = (f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{shown}</text>' for x, shown in self._ticks())
        middle = (self._start + self._end) / 2
        return "".join(numbers) + f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{text(unit)}</text>'

    def rows(self, left: float, right: float, unit: str) -> str:
        """Return horizontal lines with their numbers, and the unit beside them."""
        lines = (
            f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" class="grid"/>'
            f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{shown}</text>'
            for y, shown in self._ticks()
        )
        middle = (self._start + self._end) / 2
        turned = f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{text(unit)}</text>'
        return "".join(lines) + turned


def _figure(title: str, description: str, height: float, parts: Sequence[str]) -> str:
    name = f"chart{next(_ids)}"
    return (
        f'<figure><figcaption>{text(title)}</figcaption><svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {WIDTH} {height:.0f}" aria-labelledby="{name}-title {name}-text">'
        f'<title id="{name}-title">{text(title)}</title><desc id="{name}-text">{text(description)}</desc>'
        f"{''.join(parts)}</svg></figure>"
    )
