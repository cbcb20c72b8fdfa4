"""Names outlines: compares a silhouette with templates of the known shapes and of their impostors.

Templates are drawn at several sizes, places on the pixel grid and sharpnesses and cut out the way
the detector cuts out objects, because a tiny cross is as blunt as a diamond while a large diamond
is no cross. A name is given only when one shape fits well and everything else clearly worse.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from reward_server.scorers.geneval import UNKNOWN

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]
Number = TypeVar("Number", np.uint8, np.float32)

CANVAS = 24  # side of the canvas outlines are compared on
CANVAS_FINE = 4  # drawn this much finer first, so that edges keep their fractions
NORMAL_SIDE = 10.0  # square root of every outline's area on that canvas

RADII = (3.3, 4.0, 5.0, 6.5, 9.0, 14.0)  # of templates, in pixels
DECOY_RADII = (5.0, 6.5, 9.0, 14.0)  # smaller ones cannot be told from the shapes
DECOY_BLURS = (0.0, 0.8)
SHIFTS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))  # of their centres, in pixels
BLURS = (0.0, 0.8, 1.2, 1.6)  # standard deviations in pixels
BLUNTEST = 0.25  # most blur of a template, in radii
ZOOM = 4.0  # working pixels per pixel
SIZE_RANGE = 1.6  # a template's area may differ from the outline's by this factor

MIN_OVERLAP = {"circle": 0.975, "square": 0.965, "triangle": 0.93, "cross": 0.94, "ring": 0.80}
MAX_RATIO = 0.5  # its misfit may be at most this share of the misfit of every other shape
MAX_DECOY_RATIO = 1.0  # and this share of the misfit of every impostor


@dataclass(frozen=True, slots=True)
class Outline:
    """A silhouette: its pixels, their number and their centre of mass (x, y), in mask pixels."""

    mask: Mask
    area: int
    center: tuple[float, float]


def name_outlines(outlines: Sequence[Outline], zoom: float) -> list[tuple[str, float]]:
    """The name of each outline, ``unknown`` if poor or ambiguous, and its overlap in [0, 1].

    ``zoom``: mask pixels per pixel of the picture; outlines must not be empty.
    """
    canvases = np.stack([_normalised(outline) for outline in outlines])
    areas = np.array([o.area for o in outlines], dtype=np.float32) / zoom**2
    named = []
    for overlaps in _overlaps(canvases, areas):
        shapes, decoys = overlaps[: len(SHAPES)], overlaps[len(SHAPES) :]
        second, best = np.argsort(shapes)[-2:]
        name, misfit = tuple(SHAPES)[best], 1.0 - float(shapes[best])
        clear = (
            1.0 - misfit >= MIN_OVERLAP[name]
            and misfit <= MAX_RATIO * (1.0 - float(shapes[second]))
            and misfit <= MAX_DECOY_RATIO * (1.0 - float(decoys.max()))
        )
        named.append((name if clear else UNKNOWN, 1.0 - misfit))
    return named


def resize(image: NDArray[Number], factor: float, how: int) -> NDArray[Number]:
    """``cv2.resize`` by a factor, keeping the type."""
    return np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), dtype=image.dtype
    )


def _overlaps(canvases: Plane, areas: Plane) -> Plane:
    """Best overlap (Tanimoto: soft intersection over union) with each kind: (outlines, kinds)."""
    bank = _bank()
    flat = canvases.reshape(len(canvases), -1)
    both = flat @ bank.templates.T
    overlap = both / (np.square(flat).sum(axis=1)[:, None] + bank.energies - both)
    sizes = np.minimum(areas[:, None], bank.largest)
    overlap[np.maximum(sizes / bank.areas, bank.areas / sizes) > SIZE_RANGE] = 0
    best: Plane = np.maximum.reduceat(overlap, bank.starts, axis=1)
    return best


def _normalised(outline: Outline) -> Plane:
    """The outline with its centre of mass and area moved to the canvas's norm."""
    side = CANVAS * CANVAS_FINE
    factor = NORMAL_SIDE * CANVAS_FINE / outline.area**0.5
    middle = (side - 1) / 2
    cx, cy = outline.center
    matrix = np.array(
        [[factor, 0, middle - factor * cx], [0, factor, middle - factor * cy]], dtype=np.float32
    )
    mask = outline.mask.astype(np.float32)
    fine = cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(fine, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA), np.float32)


@dataclass(frozen=True, slots=True)
class _Bank:
    """Every template; those of one kind stand together from ``starts[kind]`` on."""

    templates: Plane  # (templates, CANVAS ** 2)
    energies: Plane  # (templates,), sums of squares
    areas: Plane  # (templates,), in pixels
    largest: Plane  # (templates,), the area of the largest template of the same kind
    starts: NDArray[np.int64]  # (kinds,)


@functools.cache
def _bank() -> _Bank:
    rows: list[Plane] = []
    areas: list[float] = []
    starts: list[int] = []
    kinds: list[tuple[Inside, tuple[float, ...], tuple[float, ...]]]
    kinds = [(inside, RADII, BLURS) for inside in SHAPES.values()]
    kinds += [(inside, DECOY_RADII, DECOY_BLURS) for inside in DECOYS.values()]
    for inside, radii, blurs in kinds:
        starts.append(len(rows))
        for radius in radii:
            for shift in SHIFTS:
                for blur in sorted({min(blur, BLUNTEST * radius) for blur in blurs}):
                    outline = _cut_out(inside, radius, shift, blur)
                    rows.append(_normalised(outline).ravel())
                    areas.append(outline.area / ZOOM**2)
    templates = np.stack(rows)
    sizes = np.array(areas, dtype=np.float32)
    largest = np.maximum.reduceat(sizes, starts)
    counts = np.diff([*starts, len(rows)])
    return _Bank(
        templates,
        np.square(templates).sum(axis=1),
        sizes,
        np.repeat(largest, counts),
        np.array(starts),
    )


def _cut_out(inside: Inside, radius: float, shift: tuple[float, float], blur: float) -> Outline:
    """A shape as a picture shows it (each pixel's coverage), blurred, enlarged and thresholded."""
    fine, side = 8, 2 * int(1.5 * radius) + 6
    axis = (np.arange(side * fine) + 0.5) / fine - side / 2
    x, y = np.meshgrid((axis - shift[0]) / radius, (axis - shift[1]) / radius)
    plane = inside(x, y).reshape(side, fine, side, fine).mean(axis=(1, 3)).astype(np.float32)
    if blur:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), blur), np.float32)
    plane = resize(plane, ZOOM, cv2.INTER_CUBIC)
    mask = plane > 0.5 * min(1.0, float(plane.max()))
    ys, xs = np.nonzero(mask)
    return Outline(mask, int(mask.sum()), (float(xs.mean()), float(ys.mean())))


# --- shapes of radius 1 around (0, 0), y pointing down -------------------------------------------

Coordinates = NDArray[np.float64]
Inside = Callable[[Coordinates, Coordinates], Mask]


def _ring(hole: float) -> Inside:
    return lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x, y) > hole)


def _square(x: Coordinates, y: Coordinates) -> Mask:
    return _reach(x, y) <= 0.9


def _plus(arm: float) -> Inside:
    return lambda x, y: (_reach(x, y) <= 1) & (np.minimum(abs(x), abs(y)) <= arm)


def _wedge(top: float) -> Inside:
    """An upright triangle cut off to a trapezium whose top is this share of its base."""
    return lambda x, y: (
        (abs(y + 0.05) <= 0.95) & (abs(x) <= 1.1 * (top + (1 - top) * (y + 1) / 1.9))
    )


def _polygon(corners: int) -> Inside:
    step = 2 * np.pi / corners

    def inside(x: Coordinates, y: Coordinates) -> Mask:
        angle = (np.arctan2(x, -y) + step / 2) % step - step / 2
        inner: Mask = np.hypot(x, y) * np.cos(abs(angle) - step / 2) <= np.cos(step / 2)
        return inner

    return inside


def _reach(x: Coordinates, y: Coordinates) -> Coordinates:
    return np.maximum(abs(x), abs(y))


SHAPES: dict[str, Inside] = {
    "circle": _ring(-1.0),
    "square": _square,
    "triangle": _wedge(0.0),
    "cross": _plus(0.34),
    "ring": _ring(0.52),
}
DECOYS: dict[str, Inside] = {
    "plus with fat arms": _plus(0.6),
    "plus with thin arms": _plus(0.15),
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
    "pentagon": _polygon(5),
    "rounded square": lambda x, y: x**4 + y**4 <= 1,
    "trapezium": _wedge(0.3),
    "square ring": lambda x, y: (_reach(x, y) <= 0.9) & (_reach(x, y) > 0.47),
    "disc with a dot": _ring(0.25),
}
"""Impostors: outlines that a picture drifts through when it is bent towards a shape's reward."""
