"""Gathers what a run recorded and what was measured into the data of its report."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import torch

from trainer.config import Config
from trainer.evaluation.evaluate import versions
from trainer.evaluation.results import Evaluation, load, table
from trainer.models.backbones.base import torch_device
from trainer.report.charts import Point
from trainer.report.data import Report
from trainer.run.folder import EVALUATION, read_config, read_shots, read_stats
from trainer.run.log import FILE_NAME, read_metrics

Rows = Sequence[Mapping[str, float]]
TIME = "time/"
TIME_NAMES = {
    "rollout": "rollout",
    "rewards": "waiting for rewards",
    "surrogate": "surrogate update",
    "fake": "fake score update",
    "generator": "generator update",
}
REST = "rest (probe, checkpoints, images)"


def gather(run: Path, notes: Sequence[str] = (), *, model: str = "") -> Report:
    """Everything the report of a run shows. model: its name; else that of the model's folder.

    Raises:
        RunFolderError: the folder holds no run.
        EvaluationError: its eval.json is damaged.
    """
    config = read_config(run)
    rows = read_metrics(run)
    evaluation = load(run / EVALUATION) if (run / EVALUATION).is_file() else None
    return Report(
        name=run.name,
        date=_date(run),
        model=model or config.model.path.name,
        device=_device(config),
        iterations=len(_updates(rows)),
        minutes=rows[-1]["clock_s"] / 60 if rows else 0.0,
        reward=series(rows, "reward/mean"),
        heldout=series(rows, "heldout/score"),
        ranking=series(rows, "surrogate/ranking_accuracy"),
        force=series(rows, "force/ratio"),
        cosine=series(rows, "force/cosine"),
        times=seconds_per_iteration(rows),
        evaluation=evaluation,
        table=table(evaluation) if evaluation else None,
        shots=read_shots(run, evaluation),
        stats=read_stats(run),
        config=json.dumps(config.model_dump(mode="json"), indent=1),
        versions=_versions(evaluation),
        notes=notes,
    )


def series(rows: Rows, name: str) -> list[Point]:
    """(iteration, value) where a metric was recorded."""
    return [(row["iteration"], row[name]) for row in rows if name in row]


def seconds_per_iteration(rows: Rows) -> dict[str, float]:
    """Mean seconds an iteration spends on each part, and on whatever was not timed.

    The first tenth is left out (at least one iteration): threads and caches are still cold there.
    """
    updates = _updates(rows)
    warm = updates[max(1, len(updates) // 10) :]
    if not warm:
        return {}
    names = sorted({name for row in warm for name in row if name.startswith(TIME)})
    means = {
        TIME_NAMES.get(name.removeprefix(TIME), name.removeprefix(TIME)): statistics.fmean(
            row.get(name, 0.0) for row in warm
        )
        for name in names
    }
    clocks = [row["clock_s"] for row in updates[len(updates) - len(warm) - 1 :]]
    rest = (clocks[-1] - clocks[0]) / len(warm) - sum(means.values())
    return {**means, REST: rest} if rest > 0 else means


def _updates(rows: Rows) -> Rows:
    """The rows of updates; the record also holds the probe made after the last one."""
    return [row for row in rows if any(name.startswith(TIME) for name in row)]


def _date(run: Path) -> str:
    record = run / FILE_NAME
    moment = record.stat().st_mtime if record.is_file() else run.stat().st_mtime
    return f"{datetime.fromtimestamp(moment).astimezone():%d %B %Y, %H:%M}"


def _device(config: Config) -> str:
    device = torch_device(config.compute)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = config.compute.threads or torch.get_num_threads()
    return f"{threads} CPU thread{'s' if threads > 1 else ''} ({platform.machine()})"


def _versions(evaluation: Evaluation | None) -> dict[str, str]:
    return evaluation.versions if evaluation else versions()
