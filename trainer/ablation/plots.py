"""Figures of the results page, drawn by matplotlib: curves over training, final scores.

The same results give the same bytes. A variant without a finished or begun cell is left out.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from trainer.ablation.results import SHOWN, CellResult, Results, over_seeds
from trainer.report.charts import Point, smoothed
from trainer.report.tables import column_name
from trainer.run.health import CONTRAST, DIVERSITY, ROUGHNESS

FIXED = {"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 8}
Panel = tuple[str, Callable[[CellResult], Sequence[Point]]]
HELDOUT = "held-out score"
CURVES: tuple[Panel, ...] = (
    (HELDOUT, lambda cell: cell.curves.heldout),
    ("training reward (smoothed)", lambda cell: smoothed(cell.curves.reward)),
)
SIGN_CURVES: tuple[Panel, ...] = (
    ("ranking against the reference", lambda cell: _sign(cell, "surrogate/ranking_accuracy")),
    ("force |rho g_r| / |g_kl|", lambda cell: _sign(cell, "force/ratio")),
    ("cos(g_r, g_kl)", lambda cell: _sign(cell, "force/cosine")),
)
PICTURE_CURVES: tuple[Panel, ...] = (
    ("contrast of the latents", lambda cell: _sign(cell, CONTRAST)),
    ("roughness", lambda cell: _sign(cell, ROUGHNESS)),
    ("diversity within a prompt", lambda cell: _sign(cell, DIVERSITY)),
)


def draw(results: Results, folder: Path, stem: str) -> list[tuple[str, Path]]:
    """Writes the figures to `folder`; (what it shows, path) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = (
        ("curves", "Scores over training", partial(_curves, panels=CURVES)),
        (
            "signs",
            "Surrogate and force over training, smoothed",
            partial(_curves, panels=SIGN_CURVES),
        ),
        ("time", "Held-out score against the clock", _against_the_clock),
        (
            "pictures",
            "Statistics of the pictures over training, smoothed",
            partial(_curves, panels=PICTURE_CURVES),
        ),
        ("scores", "Final scores", _scores),
    )
    written = []
    with matplotlib.rc_context(FIXED):
        for name, text, plot in figures:
            path = folder / f"{stem}-{name}.svg"
            path.write_text(_svg(plot(results)), encoding="utf-8")
            written.append((text, path))
    return written


def _svg(figure: Figure) -> str:
    """The figure with coordinates to a tenth of a point, which nobody sees and halves the file."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = re.sub(r' d="[^"]*"', _rounded, drawn.getvalue())
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)


def _rounded(path: re.Match[str]) -> str:
    return re.sub(r"(\d\.\d)\d+", r"\1", path[0])


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean over the curves at every x that all of them have."""
    tables = [dict(curve) for curve in curves if curve]
    if not tables:
        return []
    common = sorted(set.intersection(*(set(t) for t in tables)))
    return [(x, statistics.fmean(t[x] for t in tables)) for x in common]


def _sign(cell: CellResult, name: str) -> Sequence[Point]:
    return smoothed(cell.curves.signs.get(name, ()))


def _curves(results: Results, panels: Sequence[Panel]) -> Any:
    """One panel each, one colour a variant: its mean over seeds, and every seed thinly."""
    figure, named = Figure(figsize=(10, 3.2), layout="constrained"), dict[str, Any]()
    for axes, (label, of) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for k, variant in enumerate(results.ablation.variants):
            curves = [of(cell) for cell in results.of(variant.name)]
            named |= _lines(axes, k, variant.title, curves, mean_curve(curves))
        axes.set_xlabel("iteration")
        axes.set_title(label)
    return _with_legend(figure, named)


def _against_the_clock(results: Results) -> Any:
    """Held-out scores by minutes of training; a mean stands at the mean time of its probes."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes, named = figure.subplots(), dict[str, Any]()
    for k, variant in enumerate(results.ablation.variants):
        cells = results.of(variant.name)
        curves = [timed(cell.curves.clock, cell.curves.heldout) for cell in cells]
        mean = timed(
            mean_curve([c.curves.clock for c in cells]),
            mean_curve([c.curves.heldout for c in cells]),
        )
        named |= _lines(axes, k, variant.title, curves, mean)
    axes.set_xlabel("minutes")
    axes.set_title(HELDOUT)
    return _with_legend(figure, named)


def _lines(
    axes: Any, k: int, title: str, curves: Sequence[Sequence[Point]], mean: Sequence[Point]
) -> dict[str, Any]:
    """Variant k: every seed thinly, and its mean; what the legend names, if there is a mean."""
    color = f"C{k % 10}"
    for curve in curves:
        axes.plot(*_columns(curve), color=color, alpha=0.25, linewidth=0.7)
    return {title: axes.plot(*_columns(mean), color=color)[0]} if mean else {}


def _with_legend(figure: Figure, named: dict[str, Any]) -> Figure:
    if named:
        figure.legend(named.values(), named, loc="outside right upper", frameon=False)
    return figure


def timed(clock: Sequence[Point], scores: Sequence[Point]) -> list[Point]:
    """Both by iteration; (minutes, score) where both are known."""
    minutes = dict(clock)
    return [(minutes[x], score) for x, score in scores if x in minutes]


def _scores(results: Results) -> Any:
    figure = Figure(figsize=(9, 0.8 + 0.4 * len(results.ablation.variants)), layout="constrained")
    titles = [variant.title for variant in results.ablation.variants]
    every = figure.subplots(1, len(SHOWN), sharey=True)
    for axes, column in zip(every, SHOWN, strict=True):
        for k, variant in enumerate(results.ablation.variants):
            cells = results.of(variant.name)
            mean = over_seeds(cells, column)
            if mean is None:
                continue
            axes.plot([mean.low, mean.high], [k, k], color=f"C{k % 10}")
            axes.plot([mean.value], [k], "o", color=f"C{k % 10}")
            seeds = [cell.scores[column].value for cell in cells if column in cell.scores]
            axes.plot(seeds, [k] * len(seeds), "|", color="black")
        axes.set_title(f"{column_name(column)}: mean, 95 % interval, seeds")
        axes.set_yticks(range(len(titles)), titles)
    every[0].invert_yaxis()
    return figure


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]
