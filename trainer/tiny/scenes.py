"""Renders scenes of the embedded world: coloured shapes on plain backgrounds, and signs.

A `Scene` is what is really in the picture; a `Prompt` (see `world.py`) is what the caption asks
for. Keeping them apart is what lets pretraining mislabel a share of its captions, as the web does.
This module draws and nothing else: it reads no files but the fonts matplotlib ships.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLORS = {
    "red": (220, 35, 35),
    "green": (30, 165, 60),
    "blue": (45, 85, 235),
    "yellow": (240, 205, 40),
    "pink": (245, 110, 190),
    "cyan": (50, 200, 215),
}
BACKGROUNDS = {
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "gray": (130, 130, 130),
    "navy": (20, 25, 75),
    "brown": (100, 65, 40),
}
SIDE = 36  # units per side of a picture; its natural size in pixels
CELL = SIDE // 3  # objects stand in the cells of a 3 x 3 grid
LETTER_PITCH = 10  # letters any further apart are read as words of their own
SIZES = {"small": 3.9, "medium": 4.5, "large": 5.3}  # radius in units
FONTS = ("DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSerif-Bold")
PANELS = ((250, 250, 245), (250, 225, 90), (35, 70, 160))
RELATIONS = ("left of", "right of", "above", "below")
SUPERSAMPLING = 8


@dataclass(frozen=True)
class Shape:
    """One object; centre and radius in units of 1/SIDE of the picture's side."""

    name: str
    color: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Sign:
    """A panel with dark or light letters."""

    text: str
    font: str
    panel: int
    dx: float
    dy: float


@dataclass(frozen=True)
class Scene:
    """What a picture really shows."""

    background: str
    shapes: tuple[Shape, ...] = ()
    sign: Sign | None = None


def render(scene: Scene, size: int = SIDE) -> NDArray[np.uint8]:
    """Draw a scene; returns uint8 RGB of shape (size, size, 3)."""
    side = size * SUPERSAMPLING
    image = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    draw = ImageDraw.Draw(image)
    for shape in scene.shapes:
        _draw_shape(draw, shape, side / SIDE, scene.background)
    if scene.sign is not None:
        _draw_sign(draw, scene.sign, side / SIDE)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Shape, unit: float, background: str) -> None:
    x, y, r = shape.x * unit, shape.y * unit, shape.radius * unit
    color = COLORS[shape.color]
    if shape.name == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
    elif shape.name == "ring":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        inner = 0.52 * r
        draw.ellipse((x - inner, y - inner, x + inner, y + inner), fill=BACKGROUNDS[background])
    elif shape.name == "square":
        half = 0.9 * r
        draw.rectangle((x - half, y - half, x + half, y + half), fill=color)
    elif shape.name == "triangle":
        half = 1.1 * r
        draw.polygon([(x, y - r), (x - half, y + 0.9 * r), (x + half, y + 0.9 * r)], fill=color)
    elif shape.name == "cross":
        arm = 0.34 * r
        draw.rectangle((x - r, y - arm, x + r, y + arm), fill=color)
        draw.rectangle((x - arm, y - r, x + arm, y + r), fill=color)
    else:
        raise ValueError(f"unknown shape {shape.name!r}; known: {', '.join(SHAPES)}")


@functools.cache
def _font(name: str, pixels: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), pixels)


def _draw_sign(draw: ImageDraw.ImageDraw, sign: Sign, unit: float) -> None:
    y = (SIDE / 2 + sign.dy) * unit
    panel = PANELS[sign.panel]
    light = sum(panel) > 380
    ink = (15, 15, 20) if light else (250, 250, 250)
    draw.rectangle((0.5 * unit, y - 6.5 * unit, (SIDE - 0.5) * unit, y + 6.5 * unit), fill=panel)
    for place, letter in enumerate(sign.text):
        x = (SIDE / 2 + LETTER_PITCH * (place - (len(sign.text) - 1) / 2) + sign.dx) * unit
        font = _fitted_font(sign.font, letter, 9.5 * unit, 9.5 * unit)
        draw.text((x, y), letter, font=font, fill=ink, anchor="mm")


def _fitted_font(name: str, text: str, width: float, height: float) -> ImageFont.FreeTypeFont:
    """The largest size at which `text` stays inside width x height (in supersampled pixels)."""
    probe = _font(name, 200)
    left, top, right, bottom = probe.getbbox(text)
    scale = min(width / (right - left), height / (bottom - top))
    return _font(name, max(8, math.floor(200 * scale)))
