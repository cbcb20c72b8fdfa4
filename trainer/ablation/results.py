"""What an ablation has found so far: every cell's numbers, from its run's folder or kept apart.

Nothing is measured here, and a cell that has not been run has no numbers. What is kept is enough to
draw the page again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.ablation.kept import (
    Curves,
    KeptCell,
    keep_base,
    keep_cell,
    read_base,
)
from trainer.ablation.matrix import FAILURE, Ablation, Cell, Claim, State
from trainer.evaluation.intervals import Estimate, mean_of
from trainer.evaluation.prompts import TEXT
from trainer.evaluation.results import (
    OVERALL,
    TRAINED,
    Evaluation,
    EvaluationError,
    differences,
    load,
    save,
    table,
)
from trainer.report.gather import series
from trainer.run.folder import EVALUATION, read_config
from trainer.run.health import CONTRAST, DIVERSITY, ROUGHNESS
from trainer.run.log import read_metrics

BASE = "base.json"  # teacher and start, measured once for the whole ablation
SHOWN = (OVERALL, TEXT)  # the columns of the page
# What tells whether the surrogate knows something and the generator follows it.
SYMPTOMS = ("surrogate/ranking_accuracy", "force/ratio", "force/cosine")
# What tells whether the pictures stay pictures, and differ, while the reward is chased.
PICTURES = (CONTRAST, ROUGHNESS, DIVERSITY)


@dataclass(frozen=True)
class CellResult:
    """One cell: its estimates by column and its curves, empty where there is nothing."""

    variant: str
    seed: int
    state: State
    failure: str = ""
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    against_first: Mapping[str, Estimate] = field(default_factory=dict)
    curves: Curves = field(default_factory=Curves)


@dataclass(frozen=True)
class ClaimResult:
    """What became of a claimed order: the paired differences above - below in OVERALL by seed."""

    claim: Claim
    by_seed: Mapping[int, float]


@dataclass(frozen=True)
class Results:
    """All cells, and what the models they started from score (by row name)."""

    ablation: Ablation
    cells: Sequence[CellResult]
    base: Evaluation | None = None
    claims: Sequence[ClaimResult] = ()

    def of(self, variant: str) -> list[CellResult]:
        """A variant's cells, by seed."""
        return [cell for cell in self.cells if cell.variant == variant]

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags of the evaluated prompts, in their order; none before anything is measured."""
        columns = (name for cell in self.cells for name in cell.scores)
        return tuple(dict.fromkeys(name for name in columns if name not in SHOWN))


def gather_results(ablation: Ablation) -> Results:
    """Everything there is, run or not.

    Raises:
        EvaluationError: an eval.json is damaged.
        CheckpointError: a folder holds a run of another configuration.
    """
    cells = [_result(cell) for cell in ablation.cells]
    claims = [_claimed(ablation, claim) for claim in ablation.claims]
    return Results(ablation, cells, base_of(ablation), claims)


def base_file(ablation: Ablation) -> Path:
    """Where teacher and start are measured, once, if they are not kept apart from the runs."""
    return ablation.home / BASE


def base_of(ablation: Ablation) -> Evaluation | None:
    """Teacher and start; None before they are measured."""
    if ablation.kept is not None:
        return read_base(ablation.kept)
    file = base_file(ablation)
    return load(file) if file.is_file() else None


def save_base(ablation: Ablation, evaluation: Evaluation) -> None:
    """Remember teacher and start."""
    if ablation.kept is not None:
        keep_base(ablation.kept, evaluation)
    else:
        save(evaluation, base_file(ablation))


def keep(cell: Cell) -> None:
    """Puts the numbers of a finished cell where they are kept."""
    if cell.ablation.kept is not None:
        config, evaluation = read_config(cell.folder), load(cell.folder / EVALUATION)
        kept = KeptCell(config, evaluation, curves_of(read_metrics(cell.folder)))
        keep_cell(cell.ablation.kept, cell.name, kept)


def curves_of(rows: Sequence[Mapping[str, float]]) -> Curves:
    """The curves of a run's record."""
    heldout = [(r["heldout/iteration"], r["heldout/score"]) for r in rows if "heldout/score" in r]
    minutes = {row["iteration"]: row["clock_s"] / 60 for row in rows}
    return Curves(
        iterations=int(rows[-1]["iteration"]) if rows else 0,
        minutes=rows[-1]["clock_s"] / 60 if rows else 0.0,
        reward=series(rows, "reward/mean"),
        heldout=heldout,
        clock=[(x, minutes[x]) for x, _ in heldout if x in minutes],
        signs={
            name: [(x, y) for x, y in series(rows, name) if math.isfinite(y)]
            for name in (*SYMPTOMS, *PICTURES)
        },
    )


def over_seeds(
    cells: Sequence[CellResult], column: str, *, paired: bool = False
) -> Estimate | None:
    """Mean over the seeds that have this column; its interval is that of the images alone."""
    maps = [cell.against_first if paired else cell.scores for cell in cells]
    found = {str(k): m[column] for k, m in enumerate(maps) if column in m}
    return mean_of(found) if found else None


@dataclass(frozen=True)
class Order:
    """The mean of the paired differences over the seeds, and twice its standard error."""

    difference: float
    error: float

    def __str__(self) -> str:
        return f"{self.difference:+.3f} +-{self.error:.3f}"

    @property
    def verdict(self) -> str:
        """Where the one stands against the other, in a word."""
        if abs(self.difference) <= self.error:
            return "open"
        return "above" if self.difference > 0 else "below"


def order(differences: Sequence[float]) -> Order | None:
    """The order by the seeds' own spread; None below two seeds."""
    if len(differences) < 2:
        return None
    error = 2 * statistics.stdev(differences) / len(differences) ** 0.5
    return Order(statistics.fmean(differences), error)


def _claimed(ablation: Ablation, claim: Claim) -> ClaimResult:
    above, below = (
        {cell.seed: cell for cell in ablation.cells if cell.variant.name == name}
        for name in (claim.above, claim.below)
    )
    done = [s for s in sorted(above.keys() & below.keys()) if above[s].state() == "done"]
    pairs = {seed: _paired(_evaluation(above[seed]), below[seed]) for seed in done}
    return ClaimResult(claim, {seed: p[OVERALL].value for seed, p in pairs.items() if p})


def _result(cell: Cell) -> CellResult:
    state, kept = cell.state(), cell.kept()
    curves = kept.curves if kept is not None else curves_of(read_metrics(cell.folder))
    evaluation = _evaluation(cell) if state == "done" else None
    failure = cell.folder / FAILURE
    first = Cell(cell.ablation, cell.ablation.variants[0], cell.seed)
    return CellResult(
        variant=cell.variant.name,
        seed=cell.seed,
        state=state,
        failure=failure.read_text(encoding="utf-8").strip() if state == "failed" else "",
        scores=table(evaluation).rows[TRAINED] if evaluation else {},
        against_first=_paired(evaluation, first) if evaluation and first != cell else {},
        curves=curves,
    )


def _evaluation(cell: Cell) -> Evaluation:
    kept = cell.kept()
    evaluation = kept.evaluation if kept is not None else load(cell.folder / EVALUATION)
    if TRAINED not in evaluation.rows:
        raise EvaluationError(
            f"the evaluation of cell {cell.name} measures no trained generator; delete it "
            f"({cell.folder / EVALUATION}) and run the ablation again"
        )
    return evaluation


def _paired(evaluation: Evaluation, other_cell: Cell) -> dict[str, Estimate]:
    """Differences to another variant with the same seed, image by image; none if it is not done."""
    if other_cell.state() != "done":
        return {}
    other = _evaluation(other_cell)
    evaluation.joined(other)  # refuses other weights, prompts or noise
    return differences(
        evaluation.rows[TRAINED].scores, other.rows[TRAINED].scores, evaluation.prompt_counts
    )
