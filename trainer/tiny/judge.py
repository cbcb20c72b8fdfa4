"""A second opinion on composition: analysis by synthesis against the renderer's own shapes.

Evaluation runs it beside the reward server's scorer, to tell a better picture from a better
exploitation of the reward. It therefore shares no code with that scorer: it explains the picture
as background plus rendered shapes at sub-pixel positions, one at a time, and whatever stays
unexplained makes the verdict negative. It never sees the reward and never trains anything.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from trainer.tiny.scenes import COLORS, SHAPES, SIDE, Scene, Shape, render

STEPS = 4  # template positions per pixel
PATCH = 27  # odd; holds the largest template and its margin
RADII = tuple(round(3.0 * 1.09**k, 3) for k in range(16))  # 3.0 .. 10.9
COARSE = range(0, len(RADII), 2)
SOFTNESS = (0.4, 0.9)  # blur of the templates in pixels: as rendered, as decoded from latents
CORE = 0.5  # coverage above which a pixel belongs to an object
MIN_FIT = 0.74  # intersection over union of picture and template
MIN_LEAD = 0.015  # by which the best shape must beat the second
MAX_LEFTOVER = 6.0  # unexplained pixels that are still a speck
MAX_OBJECTS = 9

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """One explained object; centre and radius in pixels; shape "unknown" when nothing fits."""

    shape: str
    color: str
    x: float
    y: float
    radius: float
    fit: float


@dataclass(frozen=True)
class _Bank:
    coverage: Array  # (shapes, softness, radii, STEPS (dy), STEPS (dx), PATCH, PATCH) in [0, 1]
    support: Array  # the same shape: the template and a margin of one pixel, 0 or 1
    filters: NDArray[np.complex64]  # (shapes * coarse radii, 2 * SIDE, SIDE + 1), conjugated


def judge(image: NDArray[np.uint8], metadata: Mapping[str, Any]) -> bool:
    """Whether a picture shows exactly what the metadata asks for, and nothing else.

    Args:
        image: uint8 RGB of shape (SIDE, SIDE, 3).
        metadata: GenEval's: `include` clauses of class, count, color and position
            (relative to an earlier clause).

    Raises:
        ValueError: on another image shape, or metadata without `include`.
    """
    include = metadata.get("include")
    if not include:
        raise ValueError(f"metadata without 'include' cannot be judged: {dict(metadata)!r}")
    return _satisfies(find(image), include)


def verdict(image: NDArray[np.uint8], metadata: Mapping[str, Any] | None) -> float | None:
    """The judge's 1 or 0; None for what it cannot judge: other pictures, other rewards."""
    if image.shape != (SIDE, SIDE, 3) or not metadata or not metadata.get("include"):
        return None
    return float(judge(image, metadata))


def find(image: NDArray[np.uint8]) -> list[Found]:
    """The objects of a picture; leftovers too big for a speck are objects of shape "unknown"."""
    if image.shape != (SIDE, SIDE, 3):
        raise ValueError(f"expected an image of shape {(SIDE, SIDE, 3)}, got {image.shape}")
    pixels = image.astype(np.float32)
    ring = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    offset = pixels - np.median(ring, axis=0)
    colors, coverage, labels = _coverage(offset, np.median(ring, axis=0))
    foreground = _strength(offset) * (coverage.max(axis=0) > 0.2)
    faint = foreground < CORE  # too pale to tell the colour: offered to every colour
    found: list[Found] = []
    for index, color in enumerate(colors):
        own = np.where((labels == index) | faint, coverage[index], 0)
        found += _explain(own.astype(np.float32), color, foreground)
    for component in _leftovers(foreground):
        y, x = component.mean(axis=1)
        found.append(Found("unknown", "unknown", float(x), float(y), 0.0, 0.0))
    return found


def _strength(offset: Array) -> Array:
    """Distance from the background, 1 at the distance of the least distinct colours."""
    return np.asarray(np.linalg.norm(offset, axis=2) / 110.0, dtype=np.float32)


def _coverage(offset: Array, ground: Array) -> tuple[list[str], Array, NDArray[np.int64]]:
    """Each colour's share of each pixel (colours, SIDE, SIDE), and the colour that fits best."""
    names = list(COLORS)
    directions = np.array([COLORS[n] for n in names], dtype=np.float32) - ground
    lengths = (directions**2).sum(axis=1)[:, None, None] + 1e-6
    share = np.einsum("yxc,kc->kyx", offset, directions) / lengths
    share = np.clip(share, 0, 1)
    fitted = share[..., None] * directions[:, None, None, :]
    residual = np.linalg.norm(offset[None] - fitted, axis=3)
    return names, share.astype(np.float32), residual.argmin(axis=0)


def _explain(coverage: Array, color: str, foreground: Array) -> list[Found]:
    """Explain one colour's coverage object by object; erases what it explains from both maps."""
    found: list[Found] = []
    while len(found) < MAX_OBJECTS and (coverage > CORE).sum() > MAX_LEFTOVER:
        best, lead, support = _fit(coverage, *_coarse_peak(coverage))
        if best.fit < MIN_FIT or lead < MIN_LEAD:
            break  # what is left stays in the foreground, as an unknown object
        found.append(Found(best.shape, color, best.x, best.y, best.radius, best.fit))
        coverage[support] = 0
        foreground[support] = 0
    return found


def _coarse_peak(coverage: Array) -> tuple[int, int, int]:
    """Radius index and whole-pixel position of the best response of the matched filters."""
    spectrum = fft.rfft2(coverage, (2 * SIDE, 2 * SIDE))
    response = fft.irfft2(spectrum * bank().filters, (2 * SIDE, 2 * SIDE))[:, :SIDE, :SIDE]
    k, y, x = np.unravel_index(int(response.argmax()), response.shape)
    return list(COARSE)[int(k) % len(COARSE)], int(y), int(x)


def _fit(
    coverage: Array, radius: int, y: int, x: int
) -> tuple[Found, float, tuple[slice | NDArray[np.int64], ...]]:
    """Refine a peak over shapes, radii and quarter pixels.

    Returns the best object (colour left empty), its lead over the best other shape, and the
    index of the pixels it explains.
    """
    half = PATCH // 2 + 2
    padded = np.pad(coverage, half)
    best = [_best_of_shape(padded, shape, radius, y, x) for shape in range(len(SHAPES))]
    order = sorted(range(len(SHAPES)), key=lambda s: best[s][0], reverse=True)
    fit, (softness, r, dy, dx) = best[order[0]]
    support = bank().support[order[0], softness, r, dy % STEPS, dx % STEPS]
    rows, columns = np.nonzero(support)
    rows = rows + y + dy // STEPS - PATCH // 2
    columns = columns + x + dx // STEPS - PATCH // 2
    inside = (rows >= 0) & (rows < SIDE) & (columns >= 0) & (columns < SIDE)
    where = (x + 0.5 + dx / STEPS, y + 0.5 + dy / STEPS)
    found = Found(SHAPES[order[0]], "", *where, RADII[r], fit)
    return found, fit - best[order[1]][0], (rows[inside], columns[inside])


def _best_of_shape(
    padded: Array, shape: int, radius: int, y: int, x: int
) -> tuple[float, tuple[int, int, int, int]]:
    """The best fit of a shape near a peak, rough then fine, as (softness, radius, dy, dx)."""
    near = range(max(0, radius - 2), min(len(RADII), radius + 3))
    rough = itertools.product(range(len(SOFTNESS)), near, range(-4, 5, 2), range(-4, 5, 2))
    first = _best(padded, shape, y, x, list(rough))
    b, r, dy, dx = first[1]
    finer = [n for n in (r - 1, r, r + 1) if 0 <= n < len(RADII)]
    close = itertools.product((b,), finer, range(dy - 1, dy + 2), range(dx - 1, dx + 2))
    return max(first, _best(padded, shape, y, x, list(close)))


def _best(
    padded: Array, shape: int, y: int, x: int, candidates: Sequence[tuple[int, int, int, int]]
) -> tuple[float, tuple[int, int, int, int]]:
    """The candidate (softness, radius, dy, dx) with the largest soft intersection over union."""
    b, r, dy, dx = np.array(candidates).T
    shifts = np.lib.stride_tricks.sliding_window_view(
        padded[y : y + PATCH + 4, x : x + PATCH + 4], (PATCH, PATCH)
    )
    patches = shifts[dy // STEPS + 2, dx // STEPS + 2]
    index = (shape, b, r, dy % STEPS, dx % STEPS)
    coverage, support = bank().coverage[index], bank().support[index]
    seen = patches * support
    meet = np.minimum(seen, coverage).sum(axis=(1, 2))
    join = np.maximum(seen, coverage).sum(axis=(1, 2))
    fits = meet / join
    at = int(fits.argmax())
    return float(fits[at]), candidates[at]


def _leftovers(foreground: Array) -> list[NDArray[np.int64]]:
    labels, count = ndimage.label(foreground > CORE)
    components = [np.array(np.nonzero(labels == k + 1)) for k in range(count)]
    return [c for c in components if c.shape[1] > MAX_LEFTOVER]


@functools.cache
def bank() -> _Bank:
    """Every template, rendered once by the world's own renderer."""
    shape = (len(SHAPES), len(SOFTNESS), len(RADII), STEPS, STEPS, PATCH, PATCH)
    coverage = np.zeros(shape, np.float32)
    middle = PATCH // 2
    for s, r, j, i in np.ndindex(len(SHAPES), *shape[2:5]):
        where = (middle + i / STEPS + 0.5, middle + j / STEPS + 0.5)
        scene = Scene("black", (Shape(SHAPES[s], "red", *where, RADII[r]),))
        red = render(scene, SIDE)[:PATCH, :PATCH, 0].astype(np.float32)
        sharp = (red - 15) / (COLORS["red"][0] - 15)
        for b, softness in enumerate(SOFTNESS):
            coverage[s, b, r, j, i] = ndimage.gaussian_filter(sharp, softness)
    support = np.stack(
        [ndimage.maximum_filter(t, 3) for t in (coverage > 0.05).reshape(-1, PATCH, PATCH)]
    )
    return _Bank(coverage, support.reshape(shape).astype(np.float32), _filters(coverage))


def _filters(coverage: Array) -> NDArray[np.complex64]:
    """Matched filters: the mean over the template minus the mean over the ring around it."""
    spectra = []
    for s, r in itertools.product(range(len(SHAPES)), COARSE):
        template = coverage[s, 0, r, 0, 0]
        outside = np.clip(ndimage.maximum_filter(template, 5) - template, 0, 1)
        kernel = template / template.sum() - outside / outside.sum()
        canvas = np.zeros((2 * SIDE, 2 * SIDE), np.float32)
        canvas[:PATCH, :PATCH] = kernel
        centred = np.roll(canvas, (-(PATCH // 2), -(PATCH // 2)), axis=(0, 1))
        spectra.append(np.conj(fft.rfft2(centred)))
    return np.asarray(spectra, dtype=np.complex64)


def _satisfies(objects: Sequence[Found], include: Sequence[Mapping[str, Any]]) -> bool:
    """Exactly the objects asked for: clauses share no object and none is left over."""
    counts = [int(clause.get("count", 1)) for clause in include]
    if sum(counts) != len(objects):
        return False
    free = list(objects)
    groups: list[list[Found]] = [[] for _ in include]
    # A clause that names a colour chooses first: the others can do with what it leaves.
    for i in sorted(range(len(include)), key=lambda i: "color" not in include[i]):
        groups[i] = [found for found in free if _matches(found, include[i])][: counts[i]]
        free = [found for found in free if found not in groups[i]]
        if len(groups[i]) < counts[i]:
            return False
    return all(
        _placed(group, clause, groups) for group, clause in zip(groups, include, strict=True)
    )


def _matches(found: Found, clause: Mapping[str, Any]) -> bool:
    return bool(found.shape == clause["class"] and clause.get("color", found.color) == found.color)


def _placed(group: list[Found], clause: Mapping[str, Any], groups: list[list[Found]]) -> bool:
    """Whether every object lies within 60 degrees of the direction asked for (GenEval's cone)."""
    if "position" not in clause:
        return True
    relation, anchor = clause["position"]
    dx, dy = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}[relation]
    for one, other in itertools.product(group, groups[anchor]):
        x, y = one.x - other.x, one.y - other.y
        if x * dx + y * dy <= 0.5 * float(np.hypot(x, y)):
            return False
    return True
