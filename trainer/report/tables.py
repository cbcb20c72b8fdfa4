"""Names and numbers of the report's tables, and the table for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table as RichTable

from trainer.evaluation.intervals import Estimate
from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import (
    OVERALL,
    START,
    SURROGATE,
    TEACHER,
    TRAINED,
    Evaluation,
    Table,
)

COLUMN_NAMES = {
    "single_object": "single object",
    "two_object": "two objects",
    "color_attr": "attribute binding",
    "colors": "colours",
    OVERALL: "overall",
    TEXT: "OCR",
}
ROW_ORDER = (TEACHER, START, TRAINED, SURROGATE)


def column_name(column: str) -> str:
    """A tag as people write it."""
    return COLUMN_NAMES.get(column, column)


def row_name(table_row: str, evaluation: Evaluation) -> str:
    """A row's label with its number of network evaluations."""
    row = evaluation.rows[table_row]
    return f"{row.label}, {row.nfe} NFE"


def ordered(names: Mapping[str, object]) -> list[str]:
    return [name for name in ROW_ORDER if name in names]


def verdict(cell: Estimate) -> str:
    return "up" if cell.low > 0 else "down" if cell.high < 0 else ""


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def signed_range(cell: Estimate) -> str:
    return f"{signed(cell.low)}, {signed(cell.high)}"


PAIR_NAMES = {
    (TRAINED, START): "after − before",
    (TRAINED, TEACHER): "after − teacher",
    (START, TEACHER): "before − teacher",
}


def terminal_table(table: Table, evaluation: Evaluation) -> RichTable:
    """The page's table turned on its side, so that it fits 80 columns: one row per tag."""
    result = RichTable(title="Held-out results, 95 % intervals", title_justify="left")
    result.add_column("")
    names = ordered(table.rows)
    for name in names:
        row = evaluation.rows[name]
        result.add_column(f"{row.label}\n{row.nfe} NFE", justify="right", no_wrap=True)
    for pair in table.differences:
        result.add_column(PAIR_NAMES[pair].replace(" − ", "\n− "), justify="right", no_wrap=True)
    for column in table.columns:
        cells = [_plain(table.rows[name].get(column)) for name in names]
        differences = [_plain_signed(cells_.get(column)) for cells_ in table.differences.values()]
        style = "bold" if column == OVERALL else ""
        result.add_row(column_name(column), *cells, *differences, style=style)
    return result


def _plain(cell: Estimate | None) -> str:
    return (
        "–" if cell is None else f"{cell.value:.3f}\n[dim]±{(cell.high - cell.low) / 2:.3f}[/dim]"
    )


def _plain_signed(cell: Estimate | None) -> str:
    if cell is None:
        return "–"
    colour = {"up": "green", "down": "red", "": "default"}[verdict(cell)]
    half = (cell.high - cell.low) / 2
    return f"[{colour}]{cell.value:+.3f}[/{colour}]\n[dim]±{half:.3f}[/dim]"
