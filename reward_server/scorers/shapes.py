"""Detects flat-coloured shapes on a plain background with classical vision.

Judges the embedded world without a network: what stands out from the background is cut out, its
colour is named against a palette and its outline is compared with templates. What matches no
template or colour well, or two of them about equally, is called unknown: a detector that guesses
kindly would be paid for blobs by a trainer that optimises against it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from reward_server.scorers.geneval import UNKNOWN, DetectedObject
from shared.images import Pixels

SHAPES = ("circle", "square", "triangle", "cross", "ring")
PALETTE = {
    "red": (220, 35, 35),
    "green": (30, 165, 60),
    "blue": (45, 85, 235),
    "yellow": (240, 205, 40),
    "pink": (245, 110, 190),
    "cyan": (50, 200, 215),
    "orange": (240, 135, 20),
    "purple": (130, 50, 180),
    "brown": (105, 68, 40),
    "white": (248, 248, 248),
    "black": (12, 12, 12),
    "gray": (130, 130, 130),
}

WORK_SIDE = 128  # pictures are analysed with their longer side at this many pixels
CONTRAST = 45.0  # RGB distance from the background that makes a pixel foreground
SAME_COLOR = 36.0  # largest difference of a channel between pixels of one plain colour
SPECK_AREA = 4.0  # smaller spots are noise; in units of (side / 32) squared
COLOR_RADIUS = 60.0  # farther than this from every palette colour, a colour has no name
COLOR_MARGIN = 0.75  # the best colour must be this much nearer than the second
FAINTEST = 0.75  # thin strokes mix with the background: least share of their own colour
MIXED_SHARE = 0.2  # an object with this share of off-colour pixels is no flat shape
MIN_OVERLAP = {"circle": 0.96, "square": 0.95, "triangle": 0.93, "cross": 0.92, "ring": 0.90}
MAX_RATIO = 0.5  # its misfit may be at most this share of the misfit of every other shape
SIZE_RANGE = 1.6  # a template's area may differ from the outline's by this factor

CANVAS = 24  # side of the canvas outlines are compared on
CANVAS_FINE = 4  # drawn this much finer first, so that edges keep their fractions
NORMAL_SIDE = 10.0  # square root of every outline's area on that canvas
TEMPLATE_RADII = (3.3, 4.0, 5.0, 6.5, 9.0, 14.0)  # in pixels of the picture
TEMPLATE_ZOOM = 4.0  # working pixels per pixel
BLUNTEST = 0.2  # most blur of a template, in radii
TEMPLATE_BLURS = (0.0, 0.8, 1.6)  # standard deviations in the same pixels

Plane = NDArray[np.float32]
Number = TypeVar("Number", np.uint8, np.float32)


@dataclass(frozen=True, slots=True)
class _Cutout:
    """One connected piece of foreground, in working pixels."""

    mask: NDArray[np.bool_]
    x: int
    y: int
    area: int
    center: tuple[float, float]


class ShapeDetector:
    """The detector behind ``options.backend = "shapes"`` of the counting reward."""

    classes = SHAPES
    colors = tuple(PALETTE)

    def detect(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        return [detect(image) for image in images]


def detect(image: Pixels) -> list[DetectedObject]:
    """Find the shapes of a picture: uint8 RGB (H, W, 3), sides of 8 px or more.

    Boxes are in pixels of ``image``. Shapes or colours that cannot be named are ``unknown``.
    """
    longer = max(image.shape[:2])
    if longer > WORK_SIDE:
        image = _resize(image, WORK_SIDE / longer, cv2.INTER_AREA)
    background = _background(image)
    difference = image.astype(np.float32) - background
    contrast = np.sqrt(np.square(difference).sum(axis=2, dtype=np.float32))
    zoom = WORK_SIDE / max(image.shape[:2])
    plane = _resize(contrast, zoom, cv2.INTER_CUBIC)
    colors = _resize(image, zoom, cv2.INTER_LINEAR)
    scale = longer / WORK_SIDE
    cutouts = _cut_out(plane)
    if not cutouts:
        return []
    found = []
    for cutout, (name, confidence) in zip(cutouts, _name_shapes(cutouts, zoom), strict=True):
        color, flat = _name_color(cutout, plane, colors, background)
        box = _box(cutout, scale)
        found.append(DetectedObject(name if flat else UNKNOWN, color, box, round(confidence, 3)))
    return found


def _resize(image: NDArray[Number], factor: float, how: int) -> NDArray[Number]:
    return np.asarray(
        cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), dtype=image.dtype
    )


def _background(image: Pixels) -> Plane:
    """The dominant colour: of a grid of pixels, the one most others resemble, then their mean."""
    step = max(1, min(image.shape[:2]) // 16)
    sample = image[::step, ::step].reshape(-1, 3).astype(np.float32)
    candidates = sample[:: max(1, len(sample) // 40)]
    apart = np.abs(candidates[:, None] - sample[None]).max(axis=2)
    color = candidates[int((apart < SAME_COLOR).sum(axis=1).argmax())]
    for _ in range(2):
        near = np.abs(sample - color).max(axis=1) < SAME_COLOR
        color = sample[near].mean(axis=0, dtype=np.float32)
    return np.asarray(color, np.float32)


def _cut_out(plane: Plane) -> list[_Cutout]:
    """Pieces of foreground, outlined at half of each object's own contrast.

    Thresholding at half contrast keeps outlines in place under blur and parts neighbours whose
    soft edges touch.
    """
    number, labels, stats, _ = cv2.connectedComponentsWithStats(
        (plane > CONTRAST).astype(np.uint8), connectivity=4
    )
    half = np.full(number, np.inf, dtype=np.float32)
    for label in range(1, number):
        x, y, w, h, area = stats[label]
        if area >= _speck():
            inside = plane[y : y + h, x : x + w][labels[y : y + h, x : x + w] == label]
            k = int(0.9 * inside.size)
            half[label] = max(CONTRAST, 0.5 * float(np.partition(inside, k)[k]))
    solid = (plane > half[labels]).astype(np.uint8)
    number, labels, stats, centers = cv2.connectedComponentsWithStats(solid, connectivity=4)
    pieces = []
    for label in range(1, number):
        x, y, w, h, area = (int(v) for v in stats[label])
        if area >= _speck():
            mask = labels[y : y + h, x : x + w] == label
            cx, cy = centers[label]
            pieces.append(_Cutout(mask, x, y, area, (cx - x, cy - y)))
    return pieces


def _speck() -> float:
    return SPECK_AREA * (WORK_SIDE / 32) ** 2


def _box(cutout: _Cutout, scale: float) -> tuple[float, float, float, float]:
    height, width = cutout.mask.shape
    edges = (cutout.x, cutout.y, cutout.x + width, cutout.y + height)
    x0, y0, x1, y1 = (round(float(edge) * scale, 2) for edge in edges)
    return (x0, y0, x1, y1)


def _name_color(
    cutout: _Cutout, plane: Plane, colors: Pixels, background: Plane
) -> tuple[str, bool]:
    """Name of an object's colour, and whether it is of one colour at all."""
    height, width = cutout.mask.shape
    window = np.s_[cutout.y : cutout.y + height, cutout.x : cutout.x + width]
    pixels = colors[window][cutout.mask].astype(np.float32)
    contrast = plane[window][cutout.mask]
    k = int(0.7 * contrast.size)
    core = pixels[contrast >= np.partition(contrast, k)[k]]
    color = np.median(core, axis=0)
    return _nearest(color, background), _is_flat(pixels, color, background)


def _is_flat(pixels: Plane, color: Plane, background: Plane) -> bool:
    """Every pixel lies between the object's colour and the background's, but for a few."""
    axis = color - background
    share = np.clip((pixels - background) @ axis / max(float(axis @ axis), 1.0), 0.35, 1.0)
    off = np.abs(background + share[:, None] * axis - pixels).max(axis=1)
    return float((off > COLOR_RADIUS).mean()) < MIXED_SHARE


def _nearest(color: Plane, background: Plane) -> str:
    names, palette = _palette()
    axis = palette - background
    share = ((color - background) * axis).sum(axis=1) / np.maximum((axis * axis).sum(axis=1), 1.0)
    mixed = background + np.clip(share, FAINTEST, 1.0)[:, None] * axis
    distance = np.sqrt(np.square(mixed - color).sum(axis=1))
    best, second = np.argsort(distance)[:2]
    clear = distance[best] <= min(COLOR_RADIUS, COLOR_MARGIN * distance[second])
    return names[best] if clear else UNKNOWN


@functools.cache
def _palette() -> tuple[tuple[str, ...], Plane]:
    return tuple(PALETTE), np.array(list(PALETTE.values()), dtype=np.float32)


def _name_shapes(cutouts: list[_Cutout], zoom: float) -> list[tuple[str, float]]:
    """The best matching shape of each and its overlap; ``unknown`` if poor or ambiguous.

    ``zoom``: working pixels per pixel of the picture.
    """
    named = []
    areas = np.array([c.area for c in cutouts], dtype=np.float32) / zoom**2
    for overlaps in _overlaps(np.stack([_normalised(c) for c in cutouts]), areas):
        second, best = np.argsort(overlaps)[-2:]
        name = SHAPES[best]
        fit, other = float(overlaps[best]), float(overlaps[second])
        clear = fit >= MIN_OVERLAP[name] and 1 - fit <= MAX_RATIO * (1 - other)
        named.append((name if clear else UNKNOWN, fit))
    return named


def _overlaps(canvases: Plane, areas: Plane) -> Plane:
    """Best overlap (Tanimoto: soft intersection over union) with each shape: (pieces, shapes).

    Only templates of about an outline's own size count: a tiny cross is as blunt as a diamond, but
    a large diamond is no cross.
    """
    templates, sizes = _templates()
    flat = canvases.reshape(len(canvases), -1)
    both = flat @ templates.T
    own = np.square(flat).sum(axis=1)[:, None] + np.square(templates).sum(axis=1)
    overlap = both / (own - both)
    areas = np.clip(areas, sizes.min(), TEMPLATE_RADII[-1] ** 2 * 2)[:, None]
    overlap[np.maximum(areas / sizes, sizes / areas) > SIZE_RANGE] = 0
    best: Plane = overlap.reshape(len(flat), len(SHAPES), -1).max(axis=2)
    return best


def _normalised(cutout: _Cutout) -> Plane:
    """The outline with its centre of mass and area moved to the canvas's norm."""
    side = CANVAS * CANVAS_FINE
    factor = NORMAL_SIDE * CANVAS_FINE / cutout.area**0.5
    middle = (side - 1) / 2
    cx, cy = cutout.center
    matrix = np.array(
        [[factor, 0, middle - factor * cx], [0, factor, middle - factor * cy]], dtype=np.float32
    )
    mask = cutout.mask.astype(np.float32)
    fine = cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(fine, (CANVAS, CANVAS), interpolation=cv2.INTER_AREA), np.float32)


@functools.cache
def _templates() -> tuple[Plane, Plane]:
    """Outlines as this detector itself would cut them out, and their areas in picture pixels.

    Shapes (shapes x looks, CANVAS ** 2) and (shapes x looks,).

    Small shapes lose their corners to the pixel grid and to blur; drawing the templates at several
    radii, places on the grid and sharpnesses, and cutting them out with the same steps, gives them
    the same looks.
    """
    rows, areas = [], []
    for name in SHAPES:
        for radius in TEMPLATE_RADII:
            for shift in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)):
                for blur in TEMPLATE_BLURS:
                    blur = min(blur, BLUNTEST * radius)
                    cutout = _cut_out_template(name, radius, shift, blur)
                    rows.append(_normalised(cutout).ravel())
                    areas.append(cutout.area / TEMPLATE_ZOOM**2)
    return np.stack(rows), np.array(areas, dtype=np.float32)


def _cut_out_template(name: str, radius: float, shift: tuple[float, float], blur: float) -> _Cutout:
    plane = _draw(name, 2 * int(1.5 * radius) + 6, radius, shift)
    if blur:
        plane = np.asarray(cv2.GaussianBlur(plane, (0, 0), blur), np.float32)
    plane = _resize(plane, TEMPLATE_ZOOM, cv2.INTER_CUBIC)
    mask = plane > 0.5 * min(1.0, float(plane.max()))
    ys, xs = np.nonzero(mask)
    center = (float(xs.mean()), float(ys.mean()))
    return _Cutout(mask, 0, 0, int(mask.sum()), center)


def _draw(name: str, side: int, radius: float, shift: tuple[float, float]) -> Plane:
    """Coverage of each pixel by a shape near the middle of a (side, side) picture."""
    fine = 8
    axis = ((np.arange(side * fine) + 0.5) / fine - side / 2) / radius
    x, y = np.meshgrid(axis - shift[0] / radius, axis - shift[1] / radius)
    distance = np.hypot(x, y)
    if name == "circle":
        inside = distance <= 1
    elif name == "ring":
        inside = (distance <= 1) & (distance > 0.52)
    elif name == "square":
        inside = np.maximum(abs(x), abs(y)) <= 0.9
    elif name == "triangle":
        inside = (y <= 0.9) & (abs(x) <= 1.1 * (y + 1) / 1.9)
    elif name == "cross":
        inside = (np.maximum(abs(x), abs(y)) <= 1) & (np.minimum(abs(x), abs(y)) <= 0.34)
    else:
        raise ValueError(f"unknown shape {name!r}; known: {', '.join(SHAPES)}")
    coverage: Plane = inside.reshape(side, fine, side, fine).mean(axis=(1, 3)).astype(np.float32)
    return coverage
