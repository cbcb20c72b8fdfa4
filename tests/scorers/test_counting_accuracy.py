"""The counting detector reads the embedded world's pictures exactly, also when they are not crisp.

Pictures come from the world's own renderer, which shares no code with the detector. A wrong caption
is judged too: a scorer that passes everything would fail here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from reward_server.scorers.geneval import judge
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.shapes import detect
from trainer.tiny.scenes import BACKGROUNDS, COLORS, SHAPES, SIDE, Scene, Shape, render
from trainer.tiny.world import TAGS, sample_prompt, sample_scene, wrong_caption

Pixels = NDArray[np.uint8]
Degradation = Callable[[Pixels, np.random.Generator], Pixels]
PICTURES = 120


def _blurred(image: Pixels, noise: np.random.Generator) -> Pixels:
    sigma = 0.7 * len(image) / 32
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def _noisy(image: Pixels, noise: np.random.Generator) -> Pixels:
    return np.asarray(np.clip(image + noise.normal(0, 10, image.shape), 0, 255), np.uint8)


def _compressed(image: Pixels, noise: np.random.Generator) -> Pixels:
    options = [cv2.IMWRITE_JPEG_QUALITY, 75, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, options)[1], 1), np.uint8)


def _tinted(image: Pixels, noise: np.random.Generator) -> Pixels:
    gains, offsets = noise.uniform(0.94, 1.06, 3), noise.normal(0, 4, 3)
    return np.asarray(np.clip(image * gains + offsets, 0, 255), np.uint8)


def _through_a_bottleneck(image: Pixels, noise: np.random.Generator) -> Pixels:
    """Keep two thirds of the spatial frequencies, as a small autoencoder does; it rings too."""
    side = len(image)
    keep = np.add.outer(np.arange(side), np.arange(side)) < 1.15 * side
    channels = [cv2.idct(cv2.dct(c.astype(np.float32)) * keep) for c in np.moveaxis(image, 2, 0)]
    return np.asarray(np.clip(np.stack(channels, axis=2), 0, 255), np.uint8)


def _untouched(image: Pixels, noise: np.random.Generator) -> Pixels:
    return image


DEGRADATIONS = (_untouched, _blurred, _noisy, _compressed, _tinted, _through_a_bottleneck)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("degrade", DEGRADATIONS, ids=lambda f: f.__name__.strip("_"))
def test_right_pictures_pass_and_wrong_captions_fail(tag: str, degrade: Degradation) -> None:
    rng, noise = random.Random(f"{tag} {degrade.__name__}"), np.random.default_rng(7)
    passed = fooled = 0
    for _ in range(PICTURES):
        prompt = sample_prompt(tag, rng)
        objects = detect(degrade(render(sample_scene(prompt, rng)), noise))
        wrong = wrong_caption(prompt, rng)
        passed += judge(GenEvalTarget.model_validate(prompt.metadata), objects).passed
        fooled += judge(GenEvalTarget.model_validate(wrong.metadata), objects).passed
    assert passed >= 0.99 * PICTURES
    assert fooled == 0


@pytest.mark.parametrize("size", [32, 40, 64, 128, 256])
def test_every_picture_size_is_read(size: int) -> None:
    rng = random.Random(size)
    for _ in range(60):
        prompt = sample_prompt(rng.choice(TAGS), rng)
        image = render(sample_scene(prompt, rng), size)
        judgement = judge(GenEvalTarget.model_validate(prompt.metadata), detect(image))
        assert judgement.passed, (prompt, judgement.failures)


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("color", COLORS)
def test_every_shape_and_colour_is_named_on_every_background(background: str, color: str) -> None:
    places = [(6.0, 6.0), (25.3, 6.4), (6.5, 25.5), (25.0, 25.2), (15.7, 15.6)]
    shapes = tuple(
        Shape(name, color, x, y, 4.5) for name, (x, y) in zip(SHAPES, places, strict=True)
    )
    found = detect(render(Scene(background, shapes)))
    assert sorted((o.name, o.color) for o in found) == sorted((s, color) for s in SHAPES)


def test_boxes_are_in_pixels_of_the_picture() -> None:
    scene = Scene("black", (Shape("square", "pink", 20, 8, 5),))
    for size in (SIDE, 64, 256):
        (found,) = detect(render(scene, size))
        unit = size / SIDE
        expected = np.array([15.5, 3.5, 24.5, 12.5]) * unit
        assert np.abs(np.array(found.box) - expected).max() <= 0.35 * unit


@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_pictures_need_not_be_square(shape: str) -> None:
    image = np.concatenate(
        [
            render(Scene("gray", (Shape("ring", "blue", 16, 16, 6),))),
            render(Scene("gray", (Shape("cross", "red", 16, 16, 6),))),
        ],
        axis=1 if shape == "wide" else 0,
    )
    assert {(o.name, o.color) for o in detect(image)} == {("ring", "blue"), ("cross", "red")}


def test_an_empty_picture_has_no_objects() -> None:
    assert detect(render(Scene("navy"))) == []
    assert detect(_noisy(render(Scene("navy")), np.random.default_rng(7))) == []


def test_specks_are_ignored() -> None:
    image = render(Scene("white", (Shape("circle", "green", 16, 16, 6),))).copy()
    image[3, 3] = image[28, 5] = (200, 0, 0)
    assert [o.name for o in detect(image)] == ["circle"]
