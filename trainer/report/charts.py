"""Charts of the report as inline SVG, drawn by matplotlib and coloured by the page's own CSS.

A chart of nothing is None: the page says so instead of showing empty axes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from trainer.evaluation.intervals import Estimate

Point = tuple[float, float]

# matplotlib wants colours, the page has variables that differ by day and night: every stand-in is
# replaced by its variable in the finished SVG.
STAND_IN = {
    name: f"#00{number:04x}"
    for number, name in enumerate(("teacher", "start", "trained", "s2", "soft", "line", "ink"), 1)
}
STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "report",  # the same numbers give the same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": STAND_IN["soft"],
    "axes.labelcolor": STAND_IN["soft"],
    "xtick.color": STAND_IN["soft"],
    "ytick.color": STAND_IN["soft"],
    "grid.color": STAND_IN["line"],
}
SECOND = "second"  # a row's style whose colour has another name in the page


@dataclass(frozen=True)
class Line:
    """A curve: its legend label, the page's name for its colour, and (x, y) points."""

    label: str
    style: str
    points: Sequence[Point]
    dots: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line that curves are read against."""

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


def line_chart(title: str, lines: Sequence[Line], levels: Sequence[Level] = ()) -> str | None:
    """Curves over the iterations on common axes; missing curves are left out."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8, 2.4), layout="constrained")
        axes = _axes(figure)
        axes.grid(axis="y")
        for line in drawn:
            x, y = zip(*line.points, strict=True)
            marker = "o" if line.dots or len(line.points) == 1 else ""
            alpha, width = (0.28, 1.0) if line.faint else (1.0, 1.8)
            (curve,) = axes.plot(x, y, color=STAND_IN[line.style], alpha=alpha, linewidth=width)
            curve.set(marker=marker, markersize=4)
        for level in levels:
            axes.axhline(level.y, color=STAND_IN["soft"], linestyle="--", linewidth=0.8)
            place = (axes.get_xlim()[1], level.y)
            axes.annotate(level.label, place, ha="right", va="bottom", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("iteration", fontsize=8, loc="right")
        return _svg(figure, title)


def interval_chart(
    title: str,
    rows: Sequence[tuple[str, str, Mapping[str, Estimate]]],
    columns: Sequence[tuple[str, str]],
) -> str:
    """Estimates with their 95 % intervals: one band per column, one mark per row.

    Args:
        rows: (label, the page's name for its colour, estimates by column key).
        columns: (key, label).
    """
    with matplotlib.rc_context(STYLE):
        height = 0.5 + len(columns) * (0.14 * len(rows) + 0.18)
        figure = Figure(figsize=(10.5, height), layout="constrained")
        axes = _axes(figure)
        axes.grid(axis="x")
        for number, (_, style, cells) in enumerate(rows):
            places = [(c, cells[key]) for c, (key, _) in enumerate(columns) if key in cells]
            colour = STAND_IN["s2" if style == SECOND else style]
            shift = 0.7 * ((number + 0.5) / len(rows) - 0.5)
            y = [place + shift for place, _ in places]
            middles = [cell.value for _, cell in places]
            lows, highs = [cell.low for _, cell in places], [cell.high for _, cell in places]
            axes.hlines(y, lows, highs, color=colour, linewidth=2.5, alpha=0.4, clip_on=False)
            axes.plot(middles, y, "o", color=colour, markersize=5, clip_on=False)
        axes.set_yticks(range(len(columns)), [label for _, label in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        axes.tick_params(axis="y", labelcolor=STAND_IN["ink"])
        return _svg(figure, title)


def _axes(figure: Figure) -> Axes:
    axes = figure.subplots()
    axes.spines[:].set_visible(False)
    axes.patch.set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    return axes


def _svg(figure: Figure, title: str) -> str:
    for axes in figure.axes:
        for artist in axes.get_children():
            artist.set_clip_on(False)
        for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
            line.set_clip_on(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    text = drawn.getvalue()
    for name, colour in STAND_IN.items():
        text = text.replace(colour, f"var(--{name})")
    return text[text.index("<svg") :].replace(
        "<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1
    )
