"""The second scorer: agrees with the truth of real renderings and gives blobs no credit."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from trainer.tiny.judge import find, judge
from trainer.tiny.scenes import Scene, Shape, render
from trainer.tiny.world import TAGS, sample_prompt, sample_scene, wrong_caption

PER_TAG = 60


def _pictures(
    tag: str, seed: int
) -> list[tuple[NDArray[np.uint8], dict[str, Any], dict[str, Any]]]:
    """Pictures of a tag with the right metadata and with a wrong caption's metadata."""
    rng = random.Random(f"{tag} {seed}")
    rows = []
    for _ in range(PER_TAG):
        prompt = sample_prompt(tag, rng)
        picture = render(sample_scene(prompt, rng))
        rows.append((picture, prompt.metadata, wrong_caption(prompt, rng).metadata))
    return rows


@pytest.mark.parametrize("tag", TAGS)
def test_verdicts_agree_with_the_truth_of_renderings(tag: str) -> None:
    rows = _pictures(tag, seed=1)
    right = sum(judge(image, truth) for image, truth, _ in rows)
    fooled = sum(judge(image, lie) for image, _, lie in rows)
    assert right / len(rows) >= 0.98
    assert fooled == 0


@pytest.mark.parametrize("tag", TAGS)
def test_a_little_blur_and_noise_change_few_verdicts(tag: str) -> None:
    noise = np.random.default_rng(2)
    verdicts = Counter[bool]()
    for image, truth, _ in _pictures(tag, seed=3):
        soft = ndimage.gaussian_filter(image.astype(np.float64), (0.7, 0.7, 0))
        noisy = np.clip(soft + noise.normal(0, 6, soft.shape), 0, 255).astype(np.uint8)
        verdicts[judge(noisy, truth)] += 1
    assert verdicts[True] / PER_TAG >= 0.95


def test_objects_are_found_where_they_are() -> None:
    scene = Scene(
        "navy", (Shape("ring", "yellow", 9.3, 10.0, 5.6), Shape("cross", "pink", 23.0, 21.6, 5.6))
    )
    found = {o.shape: o for o in find(render(scene))}
    assert set(found) == {"ring", "cross"}
    for shape in scene.shapes:
        seen = found[shape.name]
        assert seen.color == shape.color
        assert (seen.x, seen.y) == pytest.approx((shape.x, shape.y), abs=0.6)
        assert seen.radius == pytest.approx(shape.radius, rel=0.12)


def test_one_object_too_many_fails() -> None:
    one = Shape("circle", "red", 9, 16, 4)
    extra = Shape("square", "blue", 24, 16, 4)
    wanted = {"include": [{"class": "circle", "count": 1}]}
    assert judge(render(Scene("white", (one,))), wanted)
    assert not judge(render(Scene("white", (one, extra))), wanted)


def test_an_ambiguous_blob_is_unknown_and_fails() -> None:
    image = render(Scene("gray", (Shape("circle", "green", 9, 9, 4),)))
    blob = image.copy()
    blob[18:29, 14:30] = (220, 35, 35)
    blob[18:23, 14:21] = (130, 130, 130)
    shapes = sorted(o.shape for o in find(blob))
    assert "circle" in shapes and "unknown" in shapes
    assert not judge(blob, {"include": [{"class": "circle", "count": 1}]})


def test_a_picture_without_objects_satisfies_nothing() -> None:
    assert find(render(Scene("black"))) == []
    assert not judge(render(Scene("black")), {"include": [{"class": "ring", "count": 1}]})


@pytest.mark.parametrize(
    ("relation", "expected"),
    [("left of", True), ("right of", False), ("above", False), ("below", False)],
)
def test_positions_are_read_relative_to_the_earlier_clause(relation: str, expected: bool) -> None:
    scene = Scene(
        "white",
        (Shape("circle", "red", 8, 15, 5.6), Shape("square", "blue", 24, 17, 5.6)),
    )
    include = [
        {"class": "square", "count": 1},
        {"class": "circle", "count": 1, "position": [relation, 0]},
    ]
    assert judge(render(scene), {"include": include}) is expected


def test_colours_are_bound_to_their_objects() -> None:
    scene = Scene(
        "black", (Shape("circle", "red", 8, 16, 5.6), Shape("square", "blue", 24, 16, 5.6))
    )
    swapped = [{"class": "circle", "color": "blue"}, {"class": "square", "color": "red"}]
    right = [{"class": "circle", "color": "red"}, {"class": "square", "color": "blue"}]
    assert judge(render(scene), {"include": right})
    assert not judge(render(scene), {"include": swapped})


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="include"):
        judge(np.zeros((32, 32, 3), np.uint8), {"tag": "text", "text": "AB"})
    with pytest.raises(ValueError, match="64, 64, 3"):
        find(np.zeros((64, 64, 3), np.uint8))
