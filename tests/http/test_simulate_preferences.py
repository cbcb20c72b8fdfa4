"""Simulated tastes look at the picture alone, and leave a trainer something to learn."""

from __future__ import annotations

import random

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_server.simulation.clicker import Habits
from reward_server.simulation.tastes import (
    DEFAULT,
    PREFERENCES,
    likes_high,
    likes_light,
    likes_warm,
)
from shared.images import encode_png
from trainer.tiny.scenes import render
from trainer.tiny.world import TAGS, sample_prompt, sample_scene


def plain(color: tuple[int, int, int], side: int = 32) -> NDArray[np.uint8]:
    return np.full((side, side, 3), color, np.uint8)


def with_square(top: int, side: int = 32, size: int = 8) -> NDArray[np.uint8]:
    pixels = plain((130, 130, 130), side)
    pixels[top : top + size, 10 : 10 + size] = (220, 35, 35)
    return pixels


@pytest.mark.parametrize("side", [32, 64, 512])
def test_high_asks_where_the_objects_are_at_any_size(side: int) -> None:
    size = side // 4
    assert likes_high(with_square(side // 8, side, size))
    assert not likes_high(with_square(side // 2, side, size))


def test_high_dislikes_a_picture_without_objects() -> None:
    assert not likes_high(plain((245, 245, 245)))


def test_light_asks_for_the_background_and_not_for_the_objects() -> None:
    dark_with_light_object = plain((15, 15, 15))
    dark_with_light_object[6:26, 6:26] = 250
    assert not likes_light(dark_with_light_object)
    assert likes_light(255 - dark_with_light_object)


def test_warm_weighs_red_against_blue() -> None:
    assert likes_warm(plain((200, 90, 60)))
    assert not likes_warm(plain((60, 90, 200)))


def rates(name: str, groups: int = 40, images: int = 8) -> list[float]:
    """Share of liked pictures in groups of one prompt each, over all tags of the tiny world."""
    rng = random.Random(3)
    likes = PREFERENCES[name]
    return [
        float(np.mean([likes(render(sample_scene(prompt, rng))) for _ in range(images)]))
        for tag in (*TAGS, "text")
        for prompt in [sample_prompt(tag, rng) for _ in range(groups)]
    ]


def test_the_default_splits_pictures_of_the_same_prompt() -> None:
    by_prompt = rates(DEFAULT)
    assert 0.4 < np.mean(by_prompt) < 0.6
    undecided = np.mean([0 < rate < 1 for rate in by_prompt])
    assert undecided > 0.85  # knowing the prompt settles the answer for few prompts only


@pytest.mark.parametrize("name", sorted(PREFERENCES))
def test_no_preference_likes_nearly_all_or_nearly_none(name: str) -> None:
    assert 0.3 < np.mean(rates(name, groups=15)) < 0.7


def test_noise_is_the_share_of_random_clicks_and_repeats_itself() -> None:
    habits = Habits(likes_high, noise=0.2, rate=0, seed=7)
    files = [encode_png(with_square(1 + i % 8, size=3 + i % 5)) for i in range(8)]
    files += [encode_png(np.asarray(with_square(2) + np.uint8(i))) for i in range(240)]
    judged = [habits.judge(file, "ann") for file in files]
    assert judged == [habits.judge(file, "ann") for file in files]
    assert 0.14 < np.mean([noisy for _, noisy in judged]) < 0.26
    assert judged != [habits.judge(file, "bob") for file in files]


def test_without_noise_the_picture_decides() -> None:
    habits = Habits(likes_high, noise=0.0, rate=0, seed=7)
    assert habits.judge(encode_png(with_square(2)), "ann") == ("like", False)
    assert habits.judge(encode_png(with_square(22)), "ann") == ("dislike", False)


def test_a_picture_that_cannot_be_read_is_skipped_not_disliked() -> None:
    assert Habits(likes_high, 0.0, 0, 7).judge(b"not an image", "ann") == ("skip", False)
