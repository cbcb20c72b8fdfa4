"""Charts of the report as inline SVG: lines, intervals and shares, styled by the page's own CSS.

Pure functions from numbers to markup; a chart of nothing says so instead of drawing empty axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from trainer.evaluation.intervals import Estimate

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 14, 30
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve: its legend label, the CSS class that colours it, and (x, y) points."""

    label: str
    style: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal reference line."""

    label: str
    y: float


def smoothed(points: Sequence[Point], decay: float = 0.9) -> list[Point]:
    """Exponential moving average with the start-up bias removed (as TensorBoard draws it)."""
    total = weight = 0.0
    result: list[Point] = []
    for x, y in points:
        total, weight = decay * total + (1 - decay) * y, decay * weight + (1 - decay)
        result.append((x, total / weight))
    return result


def line_chart(
    title: str, lines: Sequence[Line], levels: Sequence[Level] = (), x_label: str = "iteration"
) -> str:
    """A figure with one or more curves on common axes; missing curves are left out."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return _figure(title, '<p class="empty">not recorded in this run</p>', "")
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points] + [level.y for level in levels]
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    x_span, y_span = (min(xs), max(xs)), (min(*ys, y_ticks[0]), max(*ys, y_ticks[-1]))
    parts = _axes(x_ticks, y_ticks, x_span, y_span, x_label)
    for level in levels:
        y = _y(level.y, y_span)
        parts.append(
            f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="note" x="{WIDTH - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
            f"{escape(level.label)}</text>"
        )
    parts += [_curve(line, x_span, y_span) for line in drawn]
    return _figure(title, _svg(WIDTH, HEIGHT, title, parts), _legend(drawn))


def interval_chart(
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, Estimate]]],
    columns: Sequence[tuple[str, str]],
) -> str:
    """Estimates with their 95 % intervals: one band per column, one mark per row.

    Args:
        rows: (label, CSS class, estimates by column key).
        columns: (key, label).
    """
    width, band, left = 1000, 14 * len(rows) + 14, 130
    height = TOP + band * len(columns) + BOTTOM
    lowest = min((c.low for _, _, cells in rows for c in cells.values()), default=0.0)
    grid = ticks(math.floor(lowest * 10) / 10, 1.0)
    scale = (width - left - RIGHT) / (grid[-1] - grid[0])
    parts = []
    for tick in grid:
        x = left + (tick - grid[0]) * scale
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>'
            f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>'
        )
    for c, (key, label) in enumerate(columns):
        top = TOP + c * band
        parts.append(
            f'<text class="name" x="{left - 10}" y="{top + band / 2 + 4:.1f}" '
            f'text-anchor="end">{escape(label)}</text>'
        )
        for r, (_, style, cells) in enumerate(rows):
            if key not in cells:
                continue
            cell, y = cells[key], top + 14 + 14 * r
            low, mid, high = (
                left + (v - grid[0]) * scale for v in (cell.low, cell.value, cell.high)
            )
            parts.append(
                f'<g class="{style}"><line class="whisker" x1="{low:.1f}" x2="{high:.1f}" '
                f'y1="{y}" y2="{y}"/><circle cx="{mid:.1f}" cy="{y}" r="4.5"/>'
                f"<title>{escape(rows[r][0])}, {escape(label)}: {cell.value:.3f} "
                f"[{cell.low:.3f}, {cell.high:.3f}], n = {cell.n}</title></g>"
            )
    legend = _legend([Line(label, style, ()) for label, style, _ in rows])
    return _figure(title, _svg(width, height, title, parts), legend)


def share_bar(title: str, seconds: Mapping[str, float]) -> str:
    """Where the time goes: one bar, split in proportion, with the seconds in the legend."""
    total = sum(seconds.values())
    if total <= 0:
        return _figure(title, '<p class="empty">not recorded in this run</p>', "")
    parts, items, x = [], [], 0.0
    for i, (name, value) in enumerate(sorted(seconds.items(), key=lambda kv: -kv[1])):
        width = value / total * 1000
        share = f"{escape(name)} {value:.2f} s ({100 * value / total:.0f} %)"
        parts.append(
            f'<rect class="share{i % 8}" x="{x:.1f}" y="0" width="{max(width - 2, 0.5):.1f}" '
            f'height="34"><title>{share}</title></rect>'
        )
        items.append(f'<li><span class="key share{i % 8}"></span>{share}</li>')
        x += width
    legend = f'<ul class="legend">{"".join(items)}</ul>'
    return _figure(title, _svg(1000, 34, title, parts, stretch=True), legend)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from at or below `low` to at or above `high`."""
    if high - low < 1e-12:
        low, high = low - 0.05, high + 0.05
    raw = (high - low) / count
    magnitude: float = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _axes(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_span: Point,
    y_span: Point,
    x_label: str,
) -> list[str]:
    parts = []
    for tick in y_ticks:
        y = _y(tick, y_span)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in x_ticks:
        if x_span[0] <= tick <= x_span[1]:
            x = _x(tick, x_span)
            parts.append(
                f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{tick:g}</text>'
            )
    parts.append(
        f'<text class="note" x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">'
        f"{escape(x_label)}</text>"
    )
    return parts


def _curve(line: Line, x_span: Point, y_span: Point) -> str:
    places = [(_x(x, x_span), _y(y, y_span)) for x, y in line.points]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = ""
    if line.dots or len(places) == 1:
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places)
    return f'<g class="{line.style}"><path class="curve" d="{path}"/>{dots}</g>'


def _x(value: float, span: Point) -> float:
    return LEFT + (value - span[0]) / ((span[1] - span[0]) or 1) * (WIDTH - LEFT - RIGHT)


def _y(value: float, span: Point) -> float:
    return HEIGHT - BOTTOM - (value - span[0]) / (span[1] - span[0]) * (HEIGHT - TOP - BOTTOM)


def _legend(lines: Sequence[Line]) -> str:
    items = (
        f'<li><span class="key {line.style}"></span>{escape(line.label)}</li>' for line in lines
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _svg(
    width: int, height: int, title: str, parts: Sequence[str], *, stretch: bool = False
) -> str:
    fit = ' preserveAspectRatio="none" style="height:34px"' if stretch else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}"{fit}>'
        f"{''.join(parts)}</svg>"
    )


def _figure(title: str, body: str, legend: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{body}{legend}</figure>"
