"""What a run left in its folder, read for evaluation, report and export.

Knows the names of the files and nothing of training; never writes what training wrote.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from shared.schema.ops import RunStats
from trainer.config import Config
from trainer.errors import TrainerError
from trainer.evaluation.results import Evaluation
from trainer.evaluation.shots import Shot
from trainer.models.lora_files import Lora, read_lora
from trainer.run.state import BEST, CONFIG, LAST, PHI

EVALUATION, GALLERY, STATS, REPORT = "eval.json", "gallery.json", "server.json", "report.html"


class RunFolderError(TrainerError):
    """A folder that holds no run, or not yet what is asked of it."""


def read_config(run: Path) -> Config:
    """The configuration a run was trained with.

    Raises:
        RunFolderError: the folder holds no run, or one of another version.
    """
    try:
        return Config.model_validate_json((run / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        known = sorted(p.parent.name for p in run.parent.glob(f"*/{CONFIG}"))
        runs = f"; runs in {run.parent}: {', '.join(known)}" if known else ""
        raise RunFolderError(f"{run} holds no run ({CONFIG} is missing){runs}") from error
    except ValidationError as error:
        raise RunFolderError(f"{run / CONFIG} is of another version: {error}") from error


def trained_lora(run: Path, *, last: bool = False) -> Lora:
    """The newest generator as good as the best in the probe, or the last one without a probe.

    ``last``: the last one in any case; of a run that collapsed the one it went back to.

    Raises:
        RunFolderError: the run has not saved a generator yet.
    """
    for name in (LAST,) if last else (BEST, LAST):
        if (run / name).is_dir():
            return read_lora(run / name, own=True)
    raise RunFolderError(
        f"{run} holds no trained generator yet; train on with: "
        f"python -m trainer train --config ... --resume"
    )


def surrogate_lora(run: Path) -> Lora:
    """phi as it was at the end (or at the latest checkpoint).

    Raises:
        RunFolderError: the run has saved none; some methods have none.
    """
    if not (run / PHI).is_dir():
        method = read_config(run).method
        raise RunFolderError(
            f"{run} holds no surrogate (method = {method!r}); leave out --surrogate, or train "
            "with a method that has one until its first checkpoint"
        )
    return read_lora(run / PHI, own=True)


def save_shots(run: Path, shots: Sequence[Shot]) -> None:
    """Keep the pictures of an evaluation for the report."""
    rows = [
        {
            "policy": s.policy,
            "tag": s.tag,
            "index": s.index,
            "prompt": s.prompt,
            "png": base64.b64encode(s.png).decode(),
        }
        for s in shots
    ]
    (run / GALLERY).write_text(json.dumps(rows, indent=0), encoding="utf-8")


def read_shots(run: Path, evaluation: Evaluation | None) -> list[Shot]:
    """The pictures kept, with the server's scores where the evaluation has them."""
    file = run / GALLERY
    if not file.is_file():
        return []
    rows = json.loads(file.read_text(encoding="utf-8"))
    shots = [Shot(**{**row, "png": base64.b64decode(row["png"])}) for row in rows]
    return [replace(shot, score=_score(shot, evaluation)) for shot in shots]


def _score(shot: Shot, evaluation: Evaluation | None) -> float | None:
    row = evaluation.rows.get(shot.policy) if evaluation else None
    scores = row.scores.get(shot.tag, []) if row else []
    return scores[shot.index] if shot.index < len(scores) else None


def save_stats(run: Path, stats: Mapping[str, RunStats]) -> None:
    """Keep the server's own counts, by purpose; the server may be gone when the report is read."""
    text = {purpose: counted.model_dump() for purpose, counted in stats.items()}
    (run / STATS).write_text(json.dumps(text, indent=1), encoding="utf-8")


def read_stats(run: Path) -> dict[str, RunStats]:
    """The server's counts by purpose; empty if none were kept."""
    file = run / STATS
    if not file.is_file():
        return {}
    stored = json.loads(file.read_text(encoding="utf-8"))
    return {purpose: RunStats.model_validate(counted) for purpose, counted in stored.items()}
