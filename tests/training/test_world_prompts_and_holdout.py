"""The embedded world says what it shows: prompts, metadata, wrong captions, and the hold-out."""

from __future__ import annotations

import json
import random

import pytest

from trainer.pretraining.tokenizer import MAX_TOKENS, build_tokenizer
from trainer.tiny.prompt_files import path_of, prompt_lines
from trainer.tiny.scenes import render
from trainer.tiny.world import (
    TAGS,
    Prompt,
    Wanted,
    caption_words,
    sample_prompt,
    sample_scene,
    split,
    wrong_caption,
)

EVERY_TAG = (*TAGS, "text")


def draw(tag: str, count: int) -> list[Prompt]:
    rng = random.Random(tag)
    return [sample_prompt(tag, rng) for _ in range(count)]


@pytest.mark.parametrize("tag", EVERY_TAG)
def test_every_tag_offers_a_hundred_prompts_in_training_and_held_out(tag: str) -> None:
    captions: dict[str, set[str]] = {"train": set(), "heldout": set(), "validation": set()}
    for prompt in draw(tag, 12_000):
        captions[split(prompt)].add(prompt.caption)
    assert len(captions["train"]) >= 100
    assert len(captions["heldout"]) >= 100


def test_the_holdout_goes_by_meaning_not_by_wording() -> None:
    wanted = (Wanted("circle", count=3),)
    wordings = [Prompt("counting", wanted, prefix=prefix) for prefix in ("", "a photo of ")]
    assert len({split(p) for p in wordings}) == 1
    shares = [split(p) == "heldout" for tag in EVERY_TAG for p in draw(tag, 2000)]
    assert 0.10 < sum(shares) / len(shares) < 0.20


@pytest.mark.parametrize("kind", ["composition", "signs"])
@pytest.mark.parametrize("which", ["train", "validation"])
def test_prompt_files_in_the_tree_are_the_worlds_own(kind: str, which: str) -> None:
    assert path_of(kind, which).read_text().splitlines() == prompt_lines(kind, which)


def test_position_metadata_places_the_first_object_relative_to_the_second() -> None:
    prompt = Prompt("position", (Wanted("circle"), Wanted("square")), relation="left of")
    assert prompt.caption == "a circle left of a square"
    circle = prompt.metadata["include"][1]
    assert circle == {"class": "circle", "count": 1, "position": ["left of", 0]}
    assert prompt.metadata["include"][0]["class"] == "square"


@pytest.mark.parametrize("tag", EVERY_TAG)
def test_a_wrong_caption_changes_what_the_tag_is_about(tag: str) -> None:
    rng = random.Random(1)
    for prompt in draw(tag, 50):
        wrong = wrong_caption(prompt, rng)
        assert wrong.tag == tag
        assert wrong.metadata != prompt.metadata


@pytest.mark.parametrize("tag", EVERY_TAG)
def test_captions_fit_the_tokenizer_and_stay_distinct(tag: str) -> None:
    tokenizer = build_tokenizer()
    captions = {prompt.caption for prompt in draw(tag, 500)}
    encoded = [tuple(tokenizer(caption).input_ids) for caption in captions]
    assert max(map(len, encoded)) <= MAX_TOKENS
    assert len(set(encoded)) == len(captions)


def test_a_captions_words_are_tokens_and_anything_else_is_spelled() -> None:
    tokenizer = build_tokenizer()
    assert all(len(tokenizer.tokenize(word)) == 1 for word in caption_words())
    assert tokenizer.tokenize("six RED crosses") == ["six</w>", "red</w>", "crosses</w>"]
    assert tokenizer.tokenize("'KBQ'") == ["'</w>", "k", "b", "q</w>", "'</w>"]
    assert tokenizer.tokenize("hello") == ["h", "e", "l", "l", "o</w>"]


def test_scenes_render_alike_for_equal_seeds_and_scale_with_the_size() -> None:
    for tag in EVERY_TAG:
        prompt = draw(tag, 1)[0]
        scenes = [sample_scene(prompt, random.Random(3)) for _ in range(2)]
        assert scenes[0] == scenes[1]
        assert (render(scenes[0]) == render(scenes[1])).all()
        assert render(scenes[0], size=64).shape == (64, 64, 3)


def test_prompt_files_hold_the_fields_own_metadata() -> None:
    line = json.loads(path_of("signs", "train").read_text().splitlines()[0])
    assert line["prompt"] == f"A sign that says '{line['text']}'"
