"""In which order a person reads boxes of text: line by line along the text's slope. Pure.

Two boxes are neighbours on a line if, seen across the direction in which the text runs, they
overlap by half the smaller one's height. So a line may be tilted or run along an arc, its words may
be far apart, and small and large letters may share a baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
"""(4, 2): top left, top right, bottom right, bottom left, in pixels."""

OVERLAP = 0.5  # of the smaller height, from which on two boxes share a line
LONG = 1.5  # times as wide as high, from which on a box says which way its text runs
STEEP = 0.5  # slope above which a box is no part of a line (27 degrees)


@dataclass(frozen=True)
class _Box:
    left: NDArray[np.float64]  # upper and lower end of the left edge, (2, 2)
    right: NDArray[np.float64]
    width: float
    height: float
    slope: float | None  # dy / dx; None where the box is too short to tell


def reading_order(boxes: Sequence[Corners]) -> list[int]:
    """Indices of the boxes as they are read: lines from top to bottom, each from left to right."""
    if not boxes:
        return []
    seen = [_box(np.asarray(corners, np.float64)) for corners in boxes]
    slope = _common_slope(seen)
    after = _neighbours(seen, slope)
    starts = set(range(len(seen))) - set(after.values())
    lines = [_line(start, after) for start in starts]
    lines.sort(key=lambda line: float(np.mean([_depth(seen[i], slope) for i in line])))
    return [i for line in lines for i in line]


def _box(corners: Corners) -> _Box:
    top_left, top_right, bottom_right, bottom_left = corners
    along = (top_right + bottom_right - top_left - bottom_left) / 2
    width = float(np.hypot(*along))
    height = float(np.hypot(*(bottom_left + bottom_right - top_left - top_right)) / 2)
    slope = along[1] / along[0] if along[0] > 0 and width > LONG * height else None
    return _Box(
        np.stack([top_left, bottom_left]),
        np.stack([top_right, bottom_right]),
        width,
        max(height, 1e-6),
        slope if slope is not None and abs(slope) < STEEP else None,
    )


def _common_slope(boxes: Sequence[_Box]) -> float:
    """The median slope of the boxes that have one, the wide ones counting more; else 0."""
    known = sorted((b.slope, b.width) for b in boxes if b.slope is not None)
    if not known:
        return 0.0
    half, passed = sum(width for _, width in known) / 2, 0.0
    for slope, width in known:
        passed += width
        if passed >= half:
            return float(slope)
    return 0.0


def _neighbours(boxes: Sequence[_Box], slope: float) -> dict[int, int]:
    """Box -> the next one to its right on its line; nobody has two on one side."""
    pairs = [
        (gap, i, j)
        for i, one in enumerate(boxes)
        for j, other in enumerate(boxes)
        if i != j and (gap := _gap(one, other, slope)) is not None
    ]
    after: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in after and j not in taken:
            after[i] = j
            taken.add(j)
    return after


def _gap(one: _Box, other: _Box, common: float) -> float | None:
    """Distance from one box to another at its right on the same line; None: it is not there."""
    slopes = [b.slope for b in (one, other) if b.slope is not None]
    slope = sum(slopes) / len(slopes) if slopes else common
    along = np.array([1.0, slope]) / np.hypot(1.0, slope)
    across = np.array([-along[1], along[0]])
    gap = float((other.left.mean(0) - one.right.mean(0)) @ along)
    smaller = min(one.height, other.height)
    if gap < -smaller:
        return None
    (top, bottom), (other_top, other_bottom) = one.right @ across, other.left @ across
    overlap = min(bottom, other_bottom) - max(top, other_top)
    return gap if overlap >= OVERLAP * smaller else None


def _line(start: int, after: dict[int, int]) -> list[int]:
    line = [start]
    while line[-1] in after:
        line.append(after[line[-1]])
    return line


def _depth(box: _Box, slope: float) -> float:
    """How far down the page a box stands, across the slope of the text."""
    x, y = (box.left.mean(0) + box.right.mean(0)) / 2
    return float(y - slope * x)
