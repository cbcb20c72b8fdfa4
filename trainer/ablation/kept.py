"""The numbers of a matrix's finished cells, kept in one file that goes with the tree.

The first line holds the configuration's defaults as they were when the file was begun; then follow
teacher and start once, and a line for each cell: what its configuration sets otherwise, its
evaluation, and curves of at most POINTS points. Lines are only added, and the latest of a name
counts, so that cells may end at the same time in several processes. A key that has gone from the
configuration since matters only to the cells that set it.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from trainer.config import Config
from trainer.evaluation.results import Evaluation, EvaluationError
from trainer.report.charts import Point

POINTS = 100
DEFAULTS, BASE = "defaults", "base"  # lines that are no cells
Json = dict[str, Any]


@dataclass(frozen=True)
class Curves:
    """What a cell's record says: (iteration, value), and minutes into training at its probes."""

    iterations: int = 0
    minutes: float = 0.0
    reward: Sequence[Point] = ()
    heldout: Sequence[Point] = ()
    clock: Sequence[Point] = ()
    signs: Mapping[str, Sequence[Point]] = field(default_factory=dict)

    def thinned(self) -> Curves:
        """The same with at most POINTS points a curve; the probes are few and stay."""
        signs = {name: thinned(curve) for name, curve in self.signs.items() if curve}
        return replace(self, reward=thinned(self.reward), signs=signs)


@dataclass(frozen=True)
class KeptCell:
    """What is kept of one cell."""

    config: Config
    evaluation: Evaluation
    curves: Curves


def thinned(curve: Sequence[Point]) -> list[Point]:
    """At most POINTS points, each the mean of a span of iterations, at the span's end.

    Curves of one length have the same spans, so that means over seeds can be taken.
    """
    if not curve:
        return []
    last = curve[-1][0]
    size = max(1, math.ceil((last + 1) / POINTS))
    spans: dict[int, list[float]] = {}
    for x, y in curve:
        spans.setdefault(int(x // size), []).append(y)
    return [
        (min((number + 1) * size - 1, last), float(f"{fmean(values):.4g}"))
        for number, values in spans.items()
    ]


def read_cell(file: Path, name: str) -> KeptCell | None:
    """A cell by its name; None if it is not there.

    Raises:
        EvaluationError: its line does not say what it should, or sets a key that is no more.
    """
    lines = _lines(file)
    if name not in lines:
        return None
    line = lines[name]
    known = _common(lines[DEFAULTS]["config"], Config().model_dump(mode="json"))
    try:
        config = Config.model_validate(_merged(known, line["config"]))
        evaluation = Evaluation.model_validate(line["evaluation"])
        curves = Curves(**line["curves"])
    except (ValidationError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file}, {name!r}: {error}; remove its line, or run it") from error
    return KeptCell(config, evaluation, curves)


def read_base(file: Path) -> Evaluation | None:
    """Teacher and start; None if they are not there."""
    line = _lines(file).get(BASE)
    return None if line is None else Evaluation.model_validate(line["evaluation"])


def keep_base(file: Path, evaluation: Evaluation) -> None:
    """Add teacher and start."""
    _add(file, {"name": BASE, "evaluation": evaluation.model_dump(mode="json")})


def keep_cell(file: Path, name: str, cell: KeptCell) -> None:
    """Add a cell, in place of an earlier one of its name."""
    _begin(file)
    defaults = _lines(file)[DEFAULTS]["config"]
    _add(
        file,
        {
            "name": name,
            "config": _differing(cell.config.model_dump(mode="json"), defaults),
            "evaluation": cell.evaluation.model_dump(mode="json"),
            "curves": asdict(cell.curves.thinned()),
        },
    )


def _begin(file: Path) -> None:
    if not file.is_file():
        _append(file, {"name": DEFAULTS, "config": Config().model_dump(mode="json")})


def _add(file: Path, line: Json) -> None:
    _begin(file)
    _append(file, line)


def _append(file: Path, line: Json) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(line, separators=(",", ":"), ensure_ascii=False)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text + "\n")  # one write, which no other process's can part


def _lines(file: Path) -> dict[str, Json]:
    if not file.is_file():
        return {}
    stat = file.stat()
    return _parsed(file, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4)
def _parsed(file: Path, _changed: int, _size: int) -> dict[str, Json]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        return {line["name"]: line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationError(f"{file} is no file of kept cells: {error!r}") from error


def _differing(tree: Json, defaults: Json) -> Json:
    """The part of a tree that is not as in the defaults."""
    parts: Json = {}
    for key, value in tree.items():
        default = defaults.get(key)
        if isinstance(value, dict) and isinstance(default, dict):
            if part := _differing(value, default):
                parts[key] = part
        elif value != default:
            parts[key] = value
    return parts


def _merged(defaults: Json, own: Json) -> Json:
    both = (defaults.keys() | own.keys()) - {""}
    return {
        key: _merged(defaults.get(key) or {}, own[key])
        if isinstance(own.get(key), dict) and isinstance(defaults.get(key), dict)
        else own.get(key, defaults.get(key))
        for key in both
    }


def _common(then: Json, now: Json) -> Json:
    """The defaults of then for the keys of now; a key that is newer has its default of now."""
    return {
        key: _common(then[key], value)
        if isinstance(value, dict) and isinstance(then.get(key), dict)
        else then.get(key, value)
        for key, value in now.items()
    }
