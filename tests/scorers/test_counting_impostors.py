"""What is no shape earns no reward: a detector that guesses kindly would be exploited by training.

Impostors are drawn at the size of a picture's objects; each is one unknown object, never a shape.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reward_server.scorers.geneval import UNKNOWN, judge
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.outlines import SHAPES
from reward_server.scorers.shapes import detect
from trainer.tiny.scenes import Scene, Shape, Sign, render

Grid = NDArray[np.float64]
Silhouette = Callable[[Grid, Grid], NDArray[np.bool_]]
"""Inside or not, at x and y in radii from the centre, y pointing down."""

FINE = 8


def _paint(
    inside: Silhouette, radius: float, ink: tuple[int, int, int] = (240, 205, 40)
) -> NDArray[np.uint8]:
    axis = ((np.arange(32 * FINE) + 0.5) / FINE - 16) / radius
    mask = inside(*np.meshgrid(axis, axis))
    coverage = mask.reshape(32, FINE, 32, FINE).mean(axis=(1, 3))[..., None]
    picture = coverage * np.array(ink) + (1 - coverage) * np.array((20, 25, 75))
    return np.asarray(picture, np.uint8)


def _far(x: Grid, y: Grid) -> Grid:
    return np.maximum(abs(x), abs(y))


IMPOSTORS: dict[str, Silhouette] = {
    "ellipse": lambda x, y: np.hypot(x, 1.4 * y) <= 1,
    "bar": lambda x, y: _far(x, 1.5 * y) <= 0.9,
    "diamond": lambda x, y: abs(x) + abs(y) <= 1,
    "rounded square": lambda x, y: x**4 + y**4 <= 1,
    "plus with fat arms": lambda x, y: (_far(x, y) <= 1) & (np.minimum(abs(x), abs(y)) <= 0.6),
    "half disc": lambda x, y: (np.hypot(x, y) <= 1) & (y < 0),
    "three quarters of a disc": lambda x, y: (np.hypot(x, y) <= 1) & ((x > 0) | (y > 0)),
    "open ring": lambda x, y: (abs(np.hypot(x, y) - 0.76) <= 0.24) & ~((abs(y) < 0.4) & (x > 0)),
    "square ring": lambda x, y: (_far(x, y) <= 0.9) & (_far(x, y) > 0.45),
    "disc with a dot": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x, y) > 0.25),
    "tee": lambda x, y: (
        ((abs(x) <= 1) & (abs(y + 0.66) <= 0.34)) | ((abs(x) <= 0.34) & (y**2 <= 1))
    ),
    "trapezium": lambda x, y: (abs(y) <= 0.9) & (abs(x) <= 0.75 + 0.35 * y),
    "two discs joined": lambda x, y: np.hypot(abs(x) - 0.6, y) <= 0.65,
    "disc on a triangle": lambda x, y: (
        ((abs(y) <= 0.9) & (abs(x) <= 0.58 * (y + 0.9))) | (np.hypot(x, y) <= 0.75)
    ),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_impostors_are_unknown(name: str) -> None:
    for radius in (6.0, 7.5, 9.0):
        found = detect(_paint(IMPOSTORS[name], radius))
        assert [o.name for o in found] == [UNKNOWN], (name, radius, found)


def test_the_real_shapes_drawn_the_same_way_are_named() -> None:
    real: dict[str, Silhouette] = {
        "circle": lambda x, y: np.hypot(x, y) <= 1,
        "square": lambda x, y: _far(x, y) <= 0.9,
        "ring": lambda x, y: abs(np.hypot(x, y) - 0.76) <= 0.24,
        "cross": lambda x, y: (_far(x, y) <= 1) & (np.minimum(abs(x), abs(y)) <= 0.34),
        "triangle": lambda x, y: (abs(y) <= 0.95) & (abs(x) <= 0.58 * (y + 0.95)),
    }
    assert set(real) == set(SHAPES)
    for name, inside in real.items():
        for radius in (4.0, 6.0, 7.5, 9.0):
            assert [o.name for o in detect(_paint(inside, radius))] == [name]


def test_random_blobs_are_unknown() -> None:
    noise = np.random.default_rng(3)
    rows, columns = np.mgrid[0:32, 0:32] - 15.5
    bump = 2.2 * np.exp(-(rows**2 + columns**2) / 120)
    seen = named = 0
    for _ in range(150):
        rough = cv2.GaussianBlur(noise.normal(size=(32, 32)), (0, 0), noise.uniform(1.8, 3.0))
        height = cv2.resize(bump + 0.7 * rough / rough.std(), (256, 256), interpolation=2)
        found = detect(_paint(lambda x, y, h=height: h > 1.5, 1.0))  # type: ignore[misc]
        seen += len(found)
        named += sum(o.name != UNKNOWN for o in found)
    assert seen > 150
    assert named <= 0.02 * seen


def test_a_shape_of_two_colours_is_unknown() -> None:
    image = render(Scene("black", (Shape("square", "red", 16, 16, 8),))).copy()
    image[:, 16:][image[:, 16:, 0] > 100] = (45, 85, 235)
    (found,) = detect(image)
    assert found.name == UNKNOWN


@pytest.mark.parametrize(
    ("ink", "near"),
    [((160, 120, 40), "yellow"), ((150, 60, 110), "pink"), ((20, 110, 150), "cyan")],
)
def test_colours_between_the_named_ones_have_no_name(ink: tuple[int, int, int], near: str) -> None:
    (found,) = detect(_paint(IMPOSTORS["ellipse"], 8, ink))
    assert found.color != near


def test_an_unknown_object_fails_a_picture_that_is_otherwise_right() -> None:
    image = render(Scene("navy", (Shape("circle", "yellow", 7, 7, 5),))).copy()
    image[16:32, 16:32] = _paint(IMPOSTORS["diamond"], 6)[8:24, 8:24]
    target = GenEvalTarget.model_validate({"include": [{"class": "circle", "count": 1}]})
    judgement = judge(target, detect(image))
    assert not judgement.passed
    assert judgement.soft < 1
    assert "not asked for: yellow unknown" in judgement.failures[0].reason


def test_a_sign_is_not_a_picture_of_shapes() -> None:
    for word in ("OX", "TAO", "DO"):
        found = detect(render(Scene("white", sign=Sign(word, "DejaVuSans-Bold", 2, 0, 0))))
        assert all(o.name == UNKNOWN for o in found)


@pytest.mark.parametrize("kind", ["noise", "gradient", "checkerboard"])
def test_pictures_without_a_plain_background_pass_nothing(kind: str) -> None:
    noise = np.random.default_rng(0)
    rows, columns = np.mgrid[0:32, 0:32]
    pictures = {
        "noise": noise.integers(0, 256, (32, 32, 3)),
        "gradient": np.stack([rows * 8, columns * 8, 255 - rows * 8], axis=2),
        "checkerboard": np.repeat(255 * ((rows // 4 + columns // 4) % 2)[..., None], 3, axis=2),
    }
    objects = detect(pictures[kind].astype(np.uint8))
    for shape in SHAPES:
        target = GenEvalTarget.model_validate({"include": [{"class": shape, "count": 1}]})
        assert not judge(target, objects).passed
