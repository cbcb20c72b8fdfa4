"""What an ablation has found so far: every cell's numbers, read from its run's folder.

Nothing is measured here, and a cell that has not been run has no numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.ablation import FAILURE, Ablation, Cell, State
from trainer.evaluation import (
    OVERALL,
    TRAINED,
    Evaluation,
    EvaluationError,
    differences,
    load,
    table,
)
from trainer.evaluation_set import TEXT
from trainer.gather import series
from trainer.intervals import Estimate, mean_of
from trainer.metrics import read_metrics
from trainer.report_plots import Point
from trainer.run_folder import EVALUATION

BASE = "base.json"  # teacher and start, measured once for the whole ablation
SHOWN = (OVERALL, TEXT)  # the columns of the page


@dataclass(frozen=True)
class CellResult:
    """One cell. Estimates by column, curves as (iteration, value); empty where there is nothing."""

    variant: str
    seed: int
    state: State
    failure: str = ""
    iterations: int = 0
    minutes: float = 0.0
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    against_first: Mapping[str, Estimate] = field(default_factory=dict)
    reward: Sequence[Point] = ()
    heldout: Sequence[Point] = ()


@dataclass(frozen=True)
class Results:
    """All cells, and what the models they started from score (by row name)."""

    ablation: Ablation
    cells: Sequence[CellResult]
    base: Evaluation | None = None

    def of(self, variant: str) -> list[CellResult]:
        """A variant's cells, by seed."""
        return [cell for cell in self.cells if cell.variant == variant]


def gather_results(ablation: Ablation) -> Results:
    """Everything there is, run or not.

    Raises:
        EvaluationError: an eval.json is damaged.
        CheckpointError: a folder holds a run of another configuration.
    """
    base = ablation.home / BASE
    cells = [_result(cell) for cell in ablation.cells]
    return Results(ablation, cells, load(base) if base.is_file() else None)


def over_seeds(
    cells: Sequence[CellResult], column: str, *, paired: bool = False
) -> Estimate | None:
    """Mean over the seeds that have this column; its interval is that of the images alone."""
    maps = [cell.against_first if paired else cell.scores for cell in cells]
    found = {str(k): m[column] for k, m in enumerate(maps) if column in m}
    return mean_of(found) if found else None


def _result(cell: Cell) -> CellResult:
    state, rows = cell.state(), read_metrics(cell.folder)
    evaluation = _evaluation(cell) if state == "done" else None
    failure = cell.folder / FAILURE
    first = Cell(cell.ablation, cell.ablation.variants[0], cell.seed)
    return CellResult(
        variant=cell.variant.name,
        seed=cell.seed,
        state=state,
        failure=failure.read_text(encoding="utf-8").strip() if state == "failed" else "",
        iterations=int(rows[-1]["iteration"]) if rows else 0,
        minutes=rows[-1]["clock_s"] / 60 if rows else 0.0,
        scores=table(evaluation).rows[TRAINED] if evaluation else {},
        against_first=_paired(evaluation, first) if evaluation and first != cell else {},
        reward=series(rows, "reward/mean"),
        heldout=[
            (r["heldout/iteration"], r["heldout/score"]) for r in rows if "heldout/score" in r
        ],
    )


def _evaluation(cell: Cell) -> Evaluation:
    evaluation = load(cell.folder / EVALUATION)
    if TRAINED not in evaluation.rows:
        raise EvaluationError(
            f"{cell.folder / EVALUATION} measures no trained generator; delete it and run the "
            "ablation again"
        )
    return evaluation


def _paired(evaluation: Evaluation, first: Cell) -> dict[str, Estimate]:
    """Differences to the first variant with the same seed, image by image."""
    if first.state() != "done":
        return {}
    other = _evaluation(first)
    evaluation.joined(other)  # refuses other weights, prompts or noise
    return differences(
        evaluation.rows[TRAINED].scores, other.rows[TRAINED].scores, evaluation.prompt_counts
    )
