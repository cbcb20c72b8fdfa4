"""The counting reward: finds objects in an image and judges them against GenEval's metadata.

Detection is behind one seam, ``Detector``: classical vision for the embedded world's shapes here, a
neural detector for photos in ``detector.py``. A target the detector cannot judge,
such as a class it does not know, is an error with a message, never a reward of 0.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, model_validator

from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import ScorerItem
from reward_server.scorers.geneval import DetectedObject, Judgement, Match, judge
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.published import counted, server_verdict
from shared.images import Pixels
from shared.schema import Json

MOST_NAMED = 100
"""Known classes an error lists."""
MIN_SIDE = 16
"""Pictures with a shorter side are refused: their shapes are a handful of pixels."""


class JudgeOptions(BaseModel):
    """``mode``: partial credit in [0, 1] (soft) or pass/fail (strict); 1.0 means the same in both.

    ``match``: ``scene``, exactly the asked objects and nothing else; ``classes``, exact counts of
    the asked classes only; ``geneval``, the official at-least rule with ``exclude``.

    ``profile``: judge as published, down to which detections count (``published.py``), and leave
    ``match`` alone. ``geneval``: the evaluator's verdict (strict), or our partial credit under its
    rule (soft). ``flow_grpo``: the published reward servers' strict reward, or their score (soft),
    which is at most 1 and negative where there is far too much.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["soft", "strict"] = "soft"
    match: Match = "scene"
    profile: Literal["geneval", "flow_grpo"] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.profile and "match" in self.model_fields_set and self.match != "geneval":
            raise ValueError(
                f"profile {self.profile!r} has its own rule; leave match {self.match!r} out"
            )
        return self


class CountingOptions(JudgeOptions):
    """``backend``: what this server counts with; naming another one is refused."""

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
    backend: ClassVar[str] = "shapes"
    target = GenEvalTarget
    options: type[JudgeOptions] = CountingOptions

    def __init__(self) -> None:
        self._detector = self._load()

    def _load(self) -> Detector:
        from reward_server.scorers.shapes import ShapeDetector

        return ShapeDetector()

    def score(self, batch: list[ScorerItem[GenEvalTarget, JudgeOptions]]) -> list[Outcome]:
        """One outcome per item: a reward in [0, 1] with what was found, or why there is none."""
        items = [replace(item, target=self._named(item.target)) for item in batch]
        problems = [_refusal(item, self._detector, self.backend) for item in items]
        ready = [item for item, problem in zip(items, problems, strict=True) if problem is None]
        found = iter(self._detector.detect([item.image for item in ready]))
        return [
            self._judge(item, next(found)) if problem is None else Failed(problem)
            for item, problem in zip(items, problems, strict=True)
        ]

    def _named(self, target: GenEvalTarget) -> GenEvalTarget:
        """The target in the detector's own words."""
        return target

    def _least(self, target: GenEvalTarget) -> float:
        """Confidence above which an object counts."""
        return -math.inf

    def _things(self, found: list[DetectedObject], target: GenEvalTarget) -> list[DetectedObject]:
        """The detections that are things in the picture, where no profile says which."""
        return found

    def _judge(
        self, item: ScorerItem[GenEvalTarget, JudgeOptions], objects: list[DetectedObject]
    ) -> Outcome:
        target, options = item.target, item.options
        strict = options.mode == "strict"
        about: Json = {"backend": self.backend}
        if options.profile is None:
            objects = self._things(objects, target)
            judgement = judge(target, objects, options.match)
            about |= {"match": options.match}
        else:
            objects = counted(objects, self._least(target))
            judgement = judge(target, objects, "geneval")
            server = server_verdict(target, objects)
            about |= {
                "profile": options.profile,
                "correct": judgement.passed,
                "strict_correct": server.strict,
                "score": server.score,
            }
            if options.profile == "flow_grpo":
                judgement = Judgement(server.strict, server.score, server.failures)
        reward = float(judgement.passed) if strict else judgement.soft
        return Scored(reward, _detail(judgement, objects) | about)


def _refusal(
    item: ScorerItem[GenEvalTarget, JudgeOptions], detector: Detector, backend: str
) -> str | None:
    """Why the detector cannot judge this item, if so."""
    height, width = item.image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return f"image is {width}x{height} px; counting needs sides of {MIN_SIDE} px or more"
    shared = item.options.profile or item.options.match == "geneval"
    if not shared and (problem := item.target.contradiction(sum)):
        return problem
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
    near = difflib.get_close_matches(value, known, n=3)
    hint = f"did you mean {' or '.join(repr(name) for name in near)}? " if near else ""
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    names = ", ".join(list(known)[:MOST_NAMED]) + more
    return f"{path} {value!r} is nothing the {backend!r} detector can see; {hint}it knows: {names}"


def _detail(judgement: Judgement, objects: Sequence[DetectedObject]) -> Json:
    return {
        "passed": judgement.passed,
        "soft": round(judgement.soft, 6),
        "failures": [{"clause": f.clause, "reason": f.reason} for f in judgement.failures],
        "objects": [
            {
                "class": o.name,
                "color": o.color,
                "box": [round(edge, 2) for edge in o.box],
                "confidence": round(o.confidence, 4),
            }
            for o in objects
        ],
    }
