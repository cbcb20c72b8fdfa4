"""The results page of an ablation, as Markdown. Pure: numbers in, text out.

A cell that has not been run is said to be so; no number stands without its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.ablation.results import SHOWN, CellResult, Order, Results, order, over_seeds
from trainer.evaluation.intervals import Estimate
from trainer.evaluation.results import OVERALL, START, TEACHER
from trainer.evaluation.results import table as estimates
from trainer.report.tables import column_name

NOT_RUN = "not yet run"
ONE_SEED = "needs a second seed"
VERDICTS = {"above": "held", "below": "refuted", "open": "open"}
STATES = {"missing": NOT_RUN, "begun": "not finished", "failed": "failed", "done": "done"}


def markdown(results: Results, figures: Sequence[tuple[str, str]], command: str) -> str:
    """The page.

    figures: (what it shows, path as the page refers to it). command: what rewrites the page.
    """
    ablation = results.ablation
    done = sum(cell.state == "done" for cell in results.cells)
    parts = [
        f"# {ablation.title}",
        f"{done} of {len(results.cells)} cells are done. This page is written by `{command}`; "
        "the same command goes on where it stopped.",
        _setting(results),
        "## By variant",
        _by_variant(results),
        "Means over the seeds done, with 95 % intervals over held-out images; how much seeds "
        "differ stands below. Differences are paired, image by image and seed by seed, with the "
        "first variant. The order over seeds is the mean of those differences by seed and twice "
        "its standard error: 'above' or 'below' if the mean exceeds that error, else 'open'.",
        "## By tag",
        _by_tag(results),
        *_claims(results),
        *[f"![{text}]({path})" for text, path in figures],
        "## By seed",
        _by_seed(results),
        "Minutes are those of the machine that ran the cell, with whatever else it had to do.",
        *_failures(results.cells),
    ]
    return "\n\n".join(parts) + "\n"


def _setting(results: Results) -> str:
    ablation = results.ablation
    common = "".join(f" `{value}`" for value in ablation.set)
    lines = [
        f"Every cell is `{ablation.base}`{' with' + common if common else ''}, and:",
        "",
        *[
            f"- **{v.title}**: {' '.join(f'`{value}`' for value in v.set) or 'nothing else'}"
            for v in ablation.variants
        ],
    ]
    return "\n".join(lines)


def _by_variant(results: Results) -> str:
    heads = [column_name(column) for column in SHOWN]
    rows = [["variant", *heads, *[f"{head}, difference" for head in heads]]]
    rows[0] += [f"{heads[0]}, order over seeds", "seeds"]
    rows += [[*row, "", "", "", ""] for row in _base_rows(results, SHOWN)]
    for variant in results.ablation.variants:
        cells_of = results.of(variant.name)
        total = len(cells_of)
        done = sum(cell.state == "done" for cell in cells_of)
        if not done:
            rows.append([variant.title, NOT_RUN, NOT_RUN, "", "", "", f"0 of {total}"])
            continue
        scores = [_cell(over_seeds(cells_of, column)) for column in SHOWN]
        paired = [_cell(over_seeds(cells_of, c, paired=True), signed=True) for c in SHOWN]
        place = _order(order([c.against_first[OVERALL].value for c in cells_of if c.against_first]))
        rows.append([variant.title, *scores, *paired, place, f"{done} of {total}"])
    return _table(rows)


def _base_rows(results: Results, columns: Sequence[str]) -> list[list[str]]:
    """Teacher and start, as far as they have been measured."""
    if results.base is None:
        return []
    measured, labels = estimates(results.base).rows, results.base.rows
    return [
        [f"{labels[n].label} ({labels[n].nfe} NFE)", *[_cell(measured[n].get(c)) for c in columns]]
        for n in (TEACHER, START)
        if n in measured
    ]


def _by_tag(results: Results) -> str:
    """The shape of the paper's Table 1: a row for each model, a column for each tag."""
    tags = results.tags
    rows = [["variant", *[column_name(tag) for tag in tags]], *_base_rows(results, tags)]
    for variant in results.ablation.variants:
        cells = [over_seeds(results.of(variant.name), tag) for tag in tags]
        if any(cells):
            rows.append([variant.title, *map(_cell, cells)])
    return _table(rows)


def _order(found: Order | None) -> str:
    return "" if found is None else f"{found}: {found.verdict}"


def _claims(results: Results) -> list[str]:
    """What became of the claimed orders."""
    if not results.claims:
        return []
    titles = {v.name: v.title for v in results.ablation.variants}
    rows = [["claimed order", "difference by seed", "mean", "verdict"]]
    for found in results.claims:
        by_seed = list(found.by_seed.values())
        place, text = order(by_seed), f"{titles[found.claim.above]} > {titles[found.claim.below]}"
        mean = "" if place is None else str(place)
        too_few = ONE_SEED if by_seed else NOT_RUN
        verdict = too_few if place is None else VERDICTS[place.verdict]
        rows.append([text, ", ".join(f"{d:+.3f}" for d in by_seed), mean, verdict])
    explained = (
        "Overall, paired image by image; the mean over the seeds and twice its standard error. "
        "Held or refuted where the mean exceeds that, else open."
    )
    return ["## Claimed orders", _table(rows), explained]


def _by_seed(results: Results) -> str:
    heads = [column_name(column) for column in SHOWN]
    rows = [["variant", "seed", "state", *heads, "best held-out", "iterations", "minutes"]]
    titles = {v.name: v.title for v in results.ablation.variants}
    for cell in results.cells:
        begun = cell.state != "missing"
        best = max((score for _, score in cell.curves.heldout), default=None)
        rows.append(
            [
                titles[cell.variant],
                str(cell.seed),
                STATES[cell.state],
                *[_number(cell.scores, column) for column in SHOWN],
                "" if best is None else f"{best:.3f}",
                str(cell.curves.iterations) if begun else "",
                f"{cell.curves.minutes:.1f}" if begun else "",
            ]
        )
    return _table(rows)


def _failures(cells: Sequence[CellResult]) -> list[str]:
    failed = [cell for cell in cells if cell.state == "failed"]
    if not failed:
        return []
    lines = [f"- {cell.variant}, seed {cell.seed}: {cell.failure}" for cell in failed]
    return ["## Cells that stopped by themselves", "\n".join(lines)]


def _number(scores: Mapping[str, Estimate], column: str) -> str:
    return f"{scores[column].value:.3f}" if column in scores else ""


def _cell(estimate: Estimate | None, *, signed: bool = False) -> str:
    if estimate is None:
        return ""
    sign = "+" if signed else ""
    low, high = f"{estimate.low:{sign}.3f}", f"{estimate.high:{sign}.3f}"
    return f"{estimate.value:{sign}.3f} ({low} to {high})"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
