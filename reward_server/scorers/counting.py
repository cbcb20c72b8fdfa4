"""The counting reward: finds objects in an image and judges them against GenEval's metadata.

Detection is behind one seam, ``Detector``: classical vision for the embedded world's shapes today,
any detector that returns classes, colours and boxes tomorrow. A target the detector cannot judge,
such as a class it does not know, is an error with a message, never a reward of 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from reward_server.scorers import Failed, Outcome, Scored, ScorerItem
from reward_server.scorers.geneval import (
    DetectedObject,
    GenEvalTarget,
    Judgement,
    Match,
    judge,
)
from shared.images import Pixels
from shared.schema import Json

MIN_SIDE = 16
"""Pictures with a shorter side are refused: their shapes are a handful of pixels."""


class CountingOptions(BaseModel):
    """``mode``: partial credit in [0, 1] (soft) or pass/fail (strict); 1.0 means the same in both.

    ``match``: ``scene``, exactly the asked objects and nothing else; ``classes``, exact counts of
    the asked classes only; ``geneval``, the official at-least rule with ``exclude``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["soft", "strict"] = "soft"
    match: Match = "scene"
    backend: Literal["shapes"] = "shapes"


class Detector(Protocol):
    """Finds the objects of each picture; classes and colours it never names are refused."""

    @property
    def classes(self) -> Collection[str]: ...

    @property
    def colors(self) -> Collection[str]: ...

    def detect(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        """The objects of each picture, in order."""
        ...


class CountingScorer:
    """Scores images against GenEval metadata, as ``reward_server.scorers.Scorer`` describes."""

    name: ClassVar[str] = "counting"
    model: ClassVar[str] = "counting/shapes@1"
    target = GenEvalTarget
    options = CountingOptions

    def __init__(self) -> None:
        from reward_server.scorers.shapes import ShapeDetector

        self._detectors: dict[str, Detector] = {"shapes": ShapeDetector()}

    def score(self, batch: list[ScorerItem[GenEvalTarget, CountingOptions]]) -> list[Outcome]:
        """One outcome per item: a reward in [0, 1] with what was found, or why there is none."""
        return [self._score(item) for item in batch]

    def _score(self, item: ScorerItem[GenEvalTarget, CountingOptions]) -> Outcome:
        detector = self._detectors[item.options.backend]
        problem = _refusal(item, detector)
        if problem:
            return Failed(problem)
        objects = detector.detect([item.image])[0]
        judgement = judge(item.target, objects, item.options.match)
        reward = float(judgement.passed) if item.options.mode == "strict" else judgement.soft
        return Scored(reward, _detail(judgement, objects, item.options))


def _refusal(item: ScorerItem[GenEvalTarget, CountingOptions], detector: Detector) -> str | None:
    """Why the detector cannot judge this item, if so."""
    height, width = item.image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return f"image is {width}x{height} px; counting needs sides of {MIN_SIDE} px or more"
    backend = item.options.backend
    for i, clause in enumerate(item.target.include):
        if clause.name not in detector.classes:
            return _unknown(f"include[{i}].class", clause.name, detector.classes, backend)
        if clause.color is not None and clause.color not in detector.colors:
            return _unknown(f"include[{i}].color", clause.color, detector.colors, backend)
    for i, ban in enumerate(item.target.exclude):
        if ban.name not in detector.classes:
            return _unknown(f"exclude[{i}].class", ban.name, detector.classes, backend)
    return None


def _unknown(path: str, value: str, known: Collection[str], backend: str) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"{path} {value!r} is nothing the {backend!r} detector can see; {hint}"
        f"it knows: {', '.join(known)}"
    )


def _detail(
    judgement: Judgement, objects: Sequence[DetectedObject], options: CountingOptions
) -> Json:
    return {
        "passed": judgement.passed,
        "soft": round(judgement.soft, 6),
        "failures": [{"clause": f.clause, "reason": f.reason} for f in judgement.failures],
        "objects": [
            {
                "class": o.name,
                "color": o.color,
                "box": list(o.box),
                "confidence": o.confidence,
            }
            for o in objects
        ],
        "backend": options.backend,
        "match": options.match,
    }
