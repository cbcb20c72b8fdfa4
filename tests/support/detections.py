"""Made-up detections for lines of metadata: what a detector may say, awkward cases included."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from reward_server.scorers.geneval import DetectedObject

COLORS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"]
CLASSES = ["dog", "cat", "car", "chair", "banana", "tv"]
CONFIDENCES = (0.2, 0.3, 0.31, 0.5, 0.5, 0.9, 0.90001, 0.95, 0.95, 0.99)
"""Both thresholds themselves, and equal ones."""
SIDE = 512
NUDGES = {
    "left of": (-150, 0),
    "right of": (150, 0),
    "above": (0, -150),
    "below": (0, 150),
}
T = TypeVar("T")


def detections(metadata: Mapping[str, Any], seed: int) -> list[DetectedObject]:
    """Objects near what ``metadata`` asks: often right, in number, colour and place.

    Uses nothing but ``random()``, whose values Python promises not to change.
    """
    rng = random.Random(seed)
    found: list[DetectedObject] = []
    for clause in metadata["include"]:
        number = max(0, clause["count"] + _one(rng, (-1, 0, 0, 0, 0, 0, 1, 4)))
        crowd = rng.random() < 0.03
        for _ in range(20 if crowd else number):
            right = clause.get("color") and rng.random() < 0.85
            color = clause["color"] if right else _one(rng, COLORS)
            confidence = rng.random() if crowd else _one(rng, CONFIDENCES[rng.random() < 0.7 :])
            if not crowd and rng.random() < 0.6:
                confidence = 0.91 + 0.08 * rng.random()
            nudge = NUDGES[clause["position"][0]] if clause.get("position") else (0, 0)
            found.append(_object(rng, clause["class"], color, confidence, nudge))
    for _ in range(_one(rng, (0, 0, 1, 2))):
        found.append(_object(rng, _one(rng, CLASSES), _one(rng, COLORS), rng.random(), (0, 0)))
    if found and rng.random() < 0.2:  # two names for one box
        twin = _one(rng, found)
        found.append(DetectedObject(_one(rng, CLASSES), twin.color, twin.box, 0.95))
    return sorted(found, key=lambda _: rng.random())


def _object(
    rng: random.Random, name: str, color: str, confidence: float, nudge: tuple[int, int]
) -> DetectedObject:
    width, height = (20 + 120 * rng.random() for _ in range(2))
    x, y = (SIDE / 2 - 80 + 100 * rng.random() + push for push in nudge)
    return DetectedObject(name, color, (x, y, x + width, y + height), confidence)


def _one(rng: random.Random, values: Sequence[T]) -> T:
    return values[int(rng.random() * len(values))]
