"""The report of a run: one self-contained HTML page from `template.html`.

Presents what was measured and recorded, with intervals. A part without data says so; it is never
filled in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trainer.evaluation.intervals import Estimate
from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import OVERALL, START, SURROGATE, TEACHER, TRAINED, Evaluation
from trainer.evaluation.shots import Shot
from trainer.report.charts import Level, Line, interval_chart, line_chart, smoothed
from trainer.report.data import Report
from trainer.report.tables import (
    PAIR_NAMES,
    column_name,
    ordered,
    row_name,
    signed,
    signed_range,
    verdict,
)
from trainer.run.health import SYMPTOMS

TEMPLATE = "template.html"
SHOT_LABELS = {TEACHER: "teacher", START: "before", TRAINED: "after", SURROGATE: "surrogate"}
WATCHED = {
    "surrogate/ranking_accuracy": "the ranking accuracy",
    "force/ratio": "the force",
    "force/cosine": "its cosine with the KL direction",
}


@dataclass(frozen=True)
class Tile:
    """A number in large print; style: "up", "down" or neither."""

    number: str
    lines: tuple[str, str]
    style: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart with its legend of (colour, text); svg None: nothing was recorded."""

    title: str
    svg: str | None
    legend: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Rows:
    """A table: its first header, its columns, and (label, colour, cells) rows."""

    first: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Mapping[str, Estimate]]]


def write(report: Report, path: Path) -> Path:
    """Write the page and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The page as HTML; everything in it is inline."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "column": column_name,
        "signed": signed,
        "range": signed_range,
        "verdict": verdict,
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    return environment.get_template(TEMPLATE).render(
        report=report,
        evaluation=report.evaluation,
        lead=_lead(report),
        tiles=list(_tiles(report)),
        cards=_cards(report.shots),
        shot_labels=SHOT_LABELS,
        overall=OVERALL,
        text=TEXT,
        results=_results(report),
        training=_training(report),
        limits=_limits(),
        second=_second(report),
        shares=sorted(report.times.items(), key=lambda part: -part[1]),
    )


def _lead(report: Report) -> Markup:
    trained_for = f"{report.iterations} iterations in {report.minutes:.1f} minutes"
    table = report.table
    if table is None or TRAINED not in table.rows or OVERALL not in table.rows[TRAINED]:
        return Markup("{}. No held-out evaluation was made for this run.").format(trained_for)
    after = table.rows[TRAINED][OVERALL]
    text = f"After {trained_for}, the few-step model does what the prompt asks in <b>"
    text += f"{100 * after.value:.0f} %</b> of pictures for held-out prompts"
    if (TRAINED, START) in table.differences:
        text += f", against {100 * table.rows[START][OVERALL].value:.0f} % when training began"
    if (TRAINED, TEACHER) in table.differences:
        ratio = _nfe_ratio(report.evaluation)
        text += f" and {100 * table.rows[TEACHER][OVERALL].value:.0f} % for its teacher"
        text += f", which needs {ratio:g} times as many network evaluations" if ratio > 1 else ""
    return Markup(text + ".")


def _nfe_ratio(evaluation: Evaluation | None) -> float:
    if evaluation is None:
        return 0.0
    return evaluation.rows[TEACHER].nfe / evaluation.rows[TRAINED].nfe


def _tiles(report: Report) -> Iterator[Tile]:
    differences: Mapping[Any, Mapping[str, Estimate]] = (
        report.table.differences if report.table is not None else {}
    )
    for pair, column, text in (
        ((TRAINED, START), OVERALL, "overall, against the start"),
        ((TRAINED, TEACHER), OVERALL, "overall, against the teacher"),
        ((TRAINED, START), TEXT, "OCR, against the start"),
    ):
        cell = differences.get(pair, {}).get(column)
        if cell is not None:
            yield Tile(signed(cell.value), (text, f"95 %: {signed_range(cell)}"), verdict(cell))
    items = sum(stats.items for stats in report.stats.values())
    if items:
        requests = sum(stats.requests for stats in report.stats.values())
        yield Tile(f"{items:,}", ("images scored by the server", f"in {requests:,} requests"))
    yield Tile(f"{report.minutes:.1f} min", ("of training", f"on {report.device}"))


def _cards(shots: Sequence[Shot]) -> list[list[Shot]]:
    """The pictures of each prompt, in the order of the table's rows."""
    cards: dict[tuple[str, int], dict[str, Shot]] = {}
    for shot in shots:
        cards.setdefault((shot.tag, shot.index), {})[shot.policy] = shot
    return [[by_policy[name] for name in ordered(by_policy)] for by_policy in cards.values()]


def _results(report: Report) -> dict[str, Any] | None:
    table, evaluation = report.table, report.evaluation
    if table is None or evaluation is None:
        return None
    rows = [(row_name(n, evaluation), n, table.rows[n]) for n in ordered(table.rows)]
    columns = [(column, column_name(column)) for column in table.columns]
    title = "With 95 % intervals"
    chart = Figure(
        title, interval_chart(title, rows, columns), [(style, label) for label, style, _ in rows]
    )
    differences = [(PAIR_NAMES[pair], "", cells) for pair, cells in table.differences.items()]
    return {
        "estimates": Rows("model", table.columns, rows),
        "chart": chart,
        "differences": Rows("paired difference", table.columns, differences),
    }


def _second(report: Report) -> dict[str, Any] | None:
    table, evaluation = report.table, report.evaluation
    if table is None or evaluation is None or not table.agreement:
        return None
    columns = [column for column in table.columns if column != TEXT]
    rows = [(row_name(n, evaluation), n, table.second[n]) for n in ordered(table.second)]
    agreement = [("scorers agree", "second", table.agreement)]
    pairs = table.second_differences.items()
    return {
        "agreement": table.agreement[OVERALL],
        "estimates": Rows("model", columns, [*rows, *agreement]),
        "differences": Rows(
            "paired difference", columns, [(PAIR_NAMES[pair], "", cells) for pair, cells in pairs]
        ),
    }


def _training(report: Report) -> list[Figure]:
    trained = "trained"
    return [
        _figure(
            "Training reward",
            [
                Line("batch mean", trained, report.reward, faint=True),
                Line("smoothed", trained, smoothed(report.reward)),
            ],
        ),
        _figure(
            "Held-out score during training",
            [Line("small fixed probe", trained, report.heldout, dots=True)],
        ),
        _figure(
            "Surrogate ranking accuracy on fresh groups",
            [
                Line("per iteration", trained, report.ranking, faint=True),
                Line("smoothed", trained, smoothed(report.ranking)),
            ],
            [Level("chance", 0.5)],
        ),
        _figure(
            "Reward force and its direction",
            [
                Line("|g_r| / |g_kl|", trained, smoothed(report.force)),
                Line("cos(g_r, g_kl)", "start", smoothed(report.cosine)),
            ],
        ),
    ]


def _figure(title: str, lines: Sequence[Line], levels: Sequence[Level] = ()) -> Figure:
    legend = [
        (f"{line.style} faint" if line.faint else line.style, line.label)
        for line in lines
        if line.points
    ]
    return Figure(title, line_chart(title, lines, levels), legend)


def _limits() -> str:
    """When training warns, in words: the limits of `trainer.run.health`."""
    limits = {one.metric: one for one in SYMPTOMS}
    parts = [
        f"{words} {'falls below' if limits[metric].above else 'exceeds'} {limits[metric].limit:g}"
        for metric, words in WATCHED.items()
    ]
    return ", or ".join(parts).replace("-", "−")
