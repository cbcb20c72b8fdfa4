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

import cv2
import numpy as np

from reward_server.scorers.geneval import UNKNOWN, DetectedObject
from reward_server.scorers.outlines import SHAPES, Outline, Plane, name_outlines, resize
from shared.images import Pixels

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
SAME_COLOR = 45.0  # largest RGB distance between pixels of one plain colour
SPECK_AREA = 4.0  # smaller spots are noise; in units of (side / 32) squared
COLOR_RADIUS = 60.0  # farther than this from every palette colour, a colour has no name
COLOR_MARGIN = 0.75  # the best colour must be this much nearer than the second
FAINTEST = 0.75  # thin strokes mix with the background: least share of their own colour
EDGE = 1.2  # width of an object's soft edge, in 1/32 of the side
SPOT = 50.0  # RGB distance from an object's own colour that makes a pixel inside it a spot
SPOT_SHARE = 0.1  # an object with this share of spots inside is no flat shape
MIXED_SHARE = 0.2  # an object with this share of off-colour pixels is no flat shape


@dataclass(frozen=True, slots=True)
class _Cutout:
    """One connected piece of foreground and the corner of its box, in working pixels."""

    outline: Outline
    x: int
    y: int


class ShapeDetector:
    """The detector behind the ``shapes`` backend of the counting reward."""

    classes = tuple(SHAPES)
    colors = tuple(PALETTE)

    def detect(self, images: Sequence[Pixels]) -> list[list[DetectedObject]]:
        return [detect(image) for image in images]


def detect(image: Pixels) -> list[DetectedObject]:
    """Find the shapes of a picture: uint8 RGB (H, W, 3), sides of 8 px or more.

    Boxes are in pixels of ``image``. Shapes or colours that cannot be named are ``unknown``.
    """
    longer = max(image.shape[:2])
    if longer > WORK_SIDE:
        image = resize(image, WORK_SIDE / longer, cv2.INTER_AREA)
    background = background_color(image)
    difference = image.astype(np.float32) - background
    contrast = _length(difference)
    zoom = WORK_SIDE / max(image.shape[:2])
    plane = resize(contrast, zoom, cv2.INTER_CUBIC)
    colors = resize(image, zoom, cv2.INTER_LINEAR)
    scale = longer / WORK_SIDE
    cutouts = _cut_out(plane)
    if not cutouts:
        return []
    names = name_outlines([cutout.outline for cutout in cutouts], zoom)
    found = []
    for cutout, (name, confidence) in zip(cutouts, names, strict=True):
        color, flat = _name_color(cutout, plane, colors, background)
        box = _box(cutout, scale)
        found.append(DetectedObject(name if flat else UNKNOWN, color, box, round(confidence, 3)))
    return found


def background_color(image: Pixels) -> Plane:
    """The dominant colour: of a grid of pixels, the one most others resemble, then their mean."""
    step = max(1, min(image.shape[:2]) // 16)
    sample = image[::step, ::step].reshape(-1, 3).astype(np.float32)
    candidates = sample[:: max(1, len(sample) // 40)]
    apart = _length(candidates[:, None] - sample[None])
    color = candidates[int((apart < SAME_COLOR).sum(axis=1).argmax())]
    for _ in range(2):
        color = sample[_length(sample - color) < SAME_COLOR].mean(axis=0, dtype=np.float32)
    return np.asarray(color, np.float32)


def _length(vectors: Plane) -> Plane:
    """Euclidean length along the last axis."""
    lengths: Plane = np.sqrt(np.einsum("...i,...i->...", vectors, vectors))
    return lengths


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
            outline = Outline(mask, area, (float(cx) - x, float(cy) - y))
            pieces.append(_Cutout(outline, x, y))
    return pieces


def _speck() -> float:
    return SPECK_AREA * (WORK_SIDE / 32) ** 2


def _box(cutout: _Cutout, scale: float) -> tuple[float, float, float, float]:
    height, width = cutout.outline.mask.shape
    edges = (cutout.x, cutout.y, cutout.x + width, cutout.y + height)
    x0, y0, x1, y1 = (round(float(edge) * scale, 2) for edge in edges)
    return (x0, y0, x1, y1)


def _name_color(
    cutout: _Cutout, plane: Plane, colors: Pixels, background: Plane
) -> tuple[str, bool]:
    """Name of an object's colour, and whether it is of one colour at all."""
    height, width = cutout.outline.mask.shape
    window = np.s_[cutout.y : cutout.y + height, cutout.x : cutout.x + width]
    pixels = colors[window][cutout.outline.mask].astype(np.float32)
    contrast = plane[window][cutout.outline.mask]
    k = int(0.7 * contrast.size)
    core = pixels[contrast >= np.partition(contrast, k)[k]]
    color = np.median(core, axis=0)
    flat = _is_flat(pixels, color, background)
    plain = flat and _is_plain(cutout.outline, colors[window].astype(np.float32))
    return nearest_color(color, background), plain


def _is_flat(pixels: Plane, color: Plane, background: Plane) -> bool:
    """Every pixel lies between the object's colour and the background's, but for a few."""
    axis = color - background
    share = np.clip((pixels - background) @ axis / max(float(axis @ axis), 1.0), 0.35, 1.0)
    off = _length(background + share[:, None] * axis - pixels)
    return float((off > COLOR_RADIUS).mean()) < MIXED_SHARE


def _is_plain(outline: Outline, pixels: Plane) -> bool:
    """No spot in the middle: a disc with an off-colour centre is neither a circle nor a ring."""
    depth = round(EDGE * WORK_SIDE / 32)
    padded = np.pad(outline.mask, 1).astype(np.uint8)
    inner = cv2.erode(padded, np.ones((2 * depth + 1, 2 * depth + 1), np.uint8))[1:-1, 1:-1] > 0
    if not inner.any():
        return True
    inside = pixels[inner]
    off = _length(inside - np.median(inside, axis=0).astype(np.float32))
    return float((off > SPOT).mean()) < SPOT_SHARE


def nearest_color(color: Plane, background: Plane) -> str:
    """Palette name of an RGB colour that may be mixed with some background; often ``unknown``."""
    names, palette = _palette()
    axis = palette - background
    share = ((color - background) * axis).sum(axis=1) / np.maximum((axis * axis).sum(axis=1), 1.0)
    mixed = background + np.clip(share, FAINTEST, 1.0)[:, None] * axis
    distance = _length(mixed - color)
    best, second = np.argsort(distance)[:2]
    clear = distance[best] <= min(COLOR_RADIUS, COLOR_MARGIN * distance[second])
    return names[best] if clear else UNKNOWN


@functools.cache
def _palette() -> tuple[tuple[str, ...], Plane]:
    return tuple(PALETTE), np.array(list(PALETTE.values()), dtype=np.float32)
