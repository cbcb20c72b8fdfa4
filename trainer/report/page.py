"""The report of a run: one self-contained HTML page, and its table on the terminal.

Presents what was measured and recorded, with intervals, and computes nothing else. A part without
data says so; it is never filled in.
"""

from __future__ import annotations

import base64
import string
from collections.abc import Mapping
from html import escape
from pathlib import Path

from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import OVERALL, START, SURROGATE, TEACHER, TRAINED
from trainer.evaluation.shots import Shot
from trainer.report.charts import Level, Line, interval_chart, line_chart, share_bar, smoothed
from trainer.report.data import Report
from trainer.report.tables import (
    column_name,
    differences_table,
    estimates_table,
    ordered,
    row_name,
    signed,
    signed_range,
    verdict,
)

TEMPLATE = Path(__file__).with_name("template.html")
SHOT_LABELS = {TEACHER: "teacher", START: "before", TRAINED: "after", SURROGATE: "surrogate"}
METHOD = (
    "Prompts whose combinations and words training never saw; every model draws the same prompts "
    "from the same noise. Composition: share of pictures that show exactly what was asked (Wilson "
    "interval); overall is the mean of the tags. OCR: mean text similarity (interval robust to "
    "clustering by prompt)."
)


def write(report: Report, path: Path) -> Path:
    """Write the page and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The page as HTML; everything in it is inline."""
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(f"TDM-R1 on {report.model}"),
        eyebrow=escape(f"Run {report.name} · {report.date} · {report.device}"),
        lead=_lead(report),
        tiles=_tiles(report),
        gallery=_gallery(report),
        results=_results(report),
        training=_training(report),
        second=_second(report),
        server=_server(report),
        time=_time(report),
        details=_details(report),
        footer="Intervals are 95 %. Nothing on this page is loaded from elsewhere.",
    )


def _lead(report: Report) -> str:
    trained_for = f"{report.iterations} iterations in {report.minutes:.1f} minutes"
    table = report.table
    if table is None or TRAINED not in table.rows or OVERALL not in table.rows[TRAINED]:
        return escape(f"{trained_for}. No held-out evaluation was made for this run.")
    after = table.rows[TRAINED][OVERALL]
    text = f"After {trained_for}, the few-step model does what the prompt asks in <b>"
    text += f"{100 * after.value:.0f} %</b> of pictures for held-out prompts"
    if (TRAINED, START) in table.differences:
        text += f", against {100 * table.rows[START][OVERALL].value:.0f} % when training began"
    if (TRAINED, TEACHER) in table.differences:
        ratio = _nfe_ratio(report)
        text += f" and {100 * table.rows[TEACHER][OVERALL].value:.0f} % for its teacher"
        text += f", which needs {ratio:g} times as many network evaluations" if ratio > 1 else ""
    return text + "."


def _nfe_ratio(report: Report) -> float:
    if report.evaluation is None:
        return 0.0
    rows = report.evaluation.rows
    return rows[TEACHER].nfe / rows[TRAINED].nfe


def _tiles(report: Report) -> str:
    tiles: list[str] = []
    table = report.table
    if table is not None:
        differences = table.differences
        for pair, column, text in (
            ((TRAINED, START), OVERALL, "overall, against the start"),
            ((TRAINED, TEACHER), OVERALL, "overall, against the teacher"),
            ((TRAINED, START), TEXT, "OCR, against the start"),
        ):
            cell = differences.get(pair, {}).get(column)
            if cell is not None:
                tiles.append(
                    _tile(
                        signed(cell.value), f"{text}<br>95 %: {signed_range(cell)}", verdict(cell)
                    )
                )
    items = sum(stats.items for stats in report.stats.values())
    if items:
        requests = sum(stats.requests for stats in report.stats.values())
        tiles.append(
            _tile(f"{items:,}", f"images scored by the server<br>in {requests:,} requests")
        )
    tiles.append(_tile(f"{report.minutes:.1f} min", f"of training<br>on {escape(report.device)}"))
    return "".join(tiles)


def _tile(number: str, text: str, style: str = "") -> str:
    return f'<div class="tile"><b class="{style}">{number}</b><span>{text}</span></div>'


def _gallery(report: Report) -> str:
    if not report.shots:
        return ""
    cards: dict[tuple[str, int], dict[str, Shot]] = {}
    for shot in report.shots:
        cards.setdefault((shot.tag, shot.index), {})[shot.policy] = shot
    body = "".join(_card(shots, report) for shots in cards.values())
    return (
        "<h2>Before and after, from the same noise</h2>"
        '<p class="soft">The first held-out prompts of every tag, not the best. Each row of '
        "pictures starts from one noise; ✓ and ✗ are the reward server's strict verdicts.</p>"
        f'<div class="gallery">{body}</div>'
    )


def _card(shots: Mapping[str, Shot], report: Report) -> str:
    first = next(iter(shots.values()))
    pictures = "".join(_shot(shots[name], report) for name in ordered(shots))
    return (
        f'<div class="card"><p>{escape(first.prompt)}<small class="soft">'
        f'{escape(column_name(first.tag))}</small></p><div class="shots">{pictures}</div></div>'
    )


def _shot(shot: Shot, report: Report) -> str:
    label = SHOT_LABELS[shot.policy]
    style, mark = "", ""
    if shot.score is not None:
        style = " pass" if shot.score >= 1 else " fail" if shot.tag != TEXT else ""
        text = f"{shot.score:.2f}" if shot.tag == TEXT else "✓" if shot.score >= 1 else "✗"
        mark = f" <b>{text}</b>"
    data = base64.b64encode(shot.png).decode()
    return (
        f'<div class="shot{style}"><img alt="{escape(shot.prompt)}, {label}" '
        f'src="data:image/png;base64,{data}"><span>{label}{mark}</span></div>'
    )


def _results(report: Report) -> str:
    table, evaluation = report.table, report.evaluation
    if table is None or evaluation is None:
        return ""
    names = ordered(table.rows)
    rows = [(row_name(n, evaluation), n, table.rows[n]) for n in names]
    columns = [(c, column_name(c)) for c in table.columns]
    chart = interval_chart("With 95 % intervals", rows, columns)
    parts = [
        "<h2>Held-out results</h2>",
        f'<p class="soft">{METHOD}</p>',
        f'<div class="box scroll">{estimates_table(table.columns, rows)}</div>',
        chart.replace("<figure>", '<figure class="wide">', 1),
    ]
    if table.differences:
        parts.append(
            f'<div class="box scroll">{differences_table(table.columns, table.differences)}</div>'
        )
    return "".join(parts)


def _training(report: Report) -> str:
    charts = [
        line_chart(
            "Training reward",
            [
                Line("batch mean", "faint", report.reward),
                Line("smoothed", "trained", smoothed(report.reward)),
            ],
        ),
        line_chart(
            "Held-out score during training",
            [Line("small fixed probe", "trained", report.heldout, dots=True)],
        ),
        line_chart(
            "Surrogate ranking accuracy on fresh groups",
            [
                Line("per iteration", "faint", report.ranking),
                Line("smoothed", "trained", smoothed(report.ranking)),
            ],
            [Level("chance", 0.5)],
        ),
        line_chart(
            "Reward force and its direction",
            [
                Line("|g_r| / |g_kl|", "trained", smoothed(report.force)),
                Line("cos(g_r, g_kl)", "start", smoothed(report.cosine)),
            ],
        ),
    ]
    return (
        "<h2>Training</h2>"
        '<p class="soft">Healthy runs keep the ranking accuracy above 0.55, the force below 0.8 '
        "and its cosine with the KL direction above −0.25.</p>"
        f'<div class="charts">{"".join(charts)}</div>'
    )


def _second(report: Report) -> str:
    table, evaluation = report.table, report.evaluation
    if table is None or evaluation is None or not table.agreement:
        return ""
    overall = table.agreement[OVERALL]
    columns = [column for column in table.columns if column != TEXT]
    rows = [(row_name(n, evaluation), n, table.second[n]) for n in ordered(table.second)]
    agreement = [("scorers agree", "second", table.agreement)]
    return (
        "<h2>A second opinion</h2>"
        "<p>A scorer that shares no code with the training reward (it explains each picture with "
        f"rendered shapes) gives the same verdict on <b>{100 * overall.value:.1f} %</b> of "
        f"{overall.n:,} pictures. A gain that only the first scorer saw would be a flaw of the "
        "reward, not a better picture.</p>"
        f'<div class="box scroll">{estimates_table(columns, [*rows, *agreement])}</div>'
        f'<div class="box scroll">{differences_table(columns, table.second_differences)}</div>'
    )


def _server(report: Report) -> str:
    if not report.stats:
        return ""
    body = ""
    for purpose, stats in report.stats.items():
        rewards = ", ".join(f"{k} {v.items:,}" for k, v in sorted(stats.by_reward.items()))
        states = ", ".join(f"{k} {v:,}" for k, v in sorted(stats.by_status.items()))
        body += (
            f"<tr><th>{escape(purpose)}</th><td>{stats.requests:,}</td><td>{stats.items:,}</td>"
            f"<td>{stats.bytes / 1e6:,.2f} MB</td><td>{escape(rewards)}</td>"
            f"<td>{escape(states)}</td></tr>"
        )
    head = "".join(
        f"<th>{t}</th>"
        for t in ("", "requests", "images", "received", "by reward", "how they ended")
    )
    return (
        "<h2>What the reward server counted</h2>"
        "<p class=\"soft\">The server's own books, not the trainer's.</p>"
        f'<div class="box scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _time(report: Report) -> str:
    total = sum(report.times.values())
    return (
        "<h2>Where the time goes</h2>"
        f'<p class="soft">{total:.2f} s per iteration on {escape(report.device)}. Rewards are '
        "waited for only when none has arrived.</p>"
        + share_bar("Seconds per iteration", report.times)
    )


def _details(report: Report) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    parts = [f"<h2>How to get this again</h2>{notes}"]
    if report.evaluation is not None:
        weights = "\n".join(f"{h}  {f}" for f, h in sorted(report.evaluation.weights.items()))
        scorers = "\n".join(f"{k}: {v}" for k, v in sorted(report.evaluation.scorers.items()))
        parts.append(_fold("Scorers", scorers) + _fold("Weights (sha256)", weights))
    versions = "\n".join(f"{k} {v}" for k, v in report.versions.items())
    parts.append(_fold("Versions", versions) + _fold("Configuration", report.config))
    return "".join(parts)


def _fold(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>" if text else ""
