"""What a report shows, gathered from a run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.schema.ops import RunStats
from trainer.evaluation.results import Evaluation, Table
from trainer.evaluation.shots import Shot
from trainer.report.charts import Point


@dataclass(frozen=True)
class Report:
    """Everything the page shows. Series are (iteration, value); times are seconds per iteration."""

    name: str
    date: str
    model: str
    device: str
    iterations: int
    minutes: float
    reward: Sequence[Point] = ()
    heldout: Sequence[Point] = ()
    ranking: Sequence[Point] = ()
    force: Sequence[Point] = ()
    cosine: Sequence[Point] = ()
    times: Mapping[str, float] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    table: Table | None = None
    shots: Sequence[Shot] = ()
    stats: Mapping[str, RunStats] = field(default_factory=dict)
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
