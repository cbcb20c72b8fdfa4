"""Figures of the results page, drawn by matplotlib: curves over training, and final scores.

The same results give the same bytes. A variant without a finished or begun cell is left out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from trainer.report_plots import Point, smoothed
from trainer.report_tables import column_name
from trainer.results import SHOWN, CellResult, Results, over_seeds

FIXED = {"svg.hashsalt": "results", "font.size": 8}
CURVES: tuple[tuple[str, Callable[[CellResult], Sequence[Point]]], ...] = (
    ("held-out score", lambda cell: cell.heldout),
    ("training reward (smoothed)", lambda cell: smoothed(cell.reward)),
)


def draw(results: Results, folder: Path, stem: str) -> list[tuple[str, Path]]:
    """Writes the figures to `folder`; (what it shows, path) of each."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = (("curves", "Scores over training", _curves), ("scores", "Final scores", _scores))
    written = []
    with matplotlib.rc_context(FIXED):
        for name, text, plot in figures:
            path = folder / f"{stem}-{name}.svg"
            plot(results).savefig(path, metadata={"Date": None})
            written.append((text, path))
    return written


def mean_curve(curves: Sequence[Sequence[Point]]) -> list[Point]:
    """Mean over the curves at every x that all of them have."""
    tables = [dict(curve) for curve in curves if curve]
    if not tables:
        return []
    common = sorted(set.intersection(*(set(t) for t in tables)))
    return [(x, statistics.fmean(t[x] for t in tables)) for x in common]


def _curves(results: Results) -> Any:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, (label, of) in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        for k, variant in enumerate(results.ablation.variants):
            curves = [of(cell) for cell in results.of(variant.name)]
            for curve in curves:
                axes.plot(*_columns(curve), color=f"C{k % 10}", alpha=0.25, linewidth=0.7)
            mean = mean_curve(curves)
            axes.plot(*_columns(mean), color=f"C{k % 10}", label=variant.title if mean else None)
        axes.set_xlabel("iteration")
        axes.set_title(label)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    return figure


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
