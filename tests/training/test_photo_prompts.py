"""Promise: prompts for photographs are GenEval's metadata, in English, and none is in two files."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.shapes import PALETTE
from trainer.config import load_config
from trainer.photos.prompt_files import (
    CLASSES,
    COLORS,
    FOLDER,
    TRAIN,
    VALIDATION,
    Metadata,
    asks,
    counted,
    draw,
    sample,
)
from trainer.rewards.prompts import read_prompt_set


def lines(folder: Path, which: str) -> list[Metadata]:
    text = (folder / f"photos.{which}.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("dog", 1, None), "a dog"),
        (("umbrella", 1, None), "an umbrella"),
        (("umbrella", 1, "green"), "a green umbrella"),
        (("cup", 1, "orange"), "an orange cup"),
        (("bench", 3, None), "three benches"),
        (("person", 2, None), "two people"),
        (("sheep", 4, None), "four sheep"),
        (("wine glass", 2, None), "two wine glasses"),
        (("toothbrush", 2, None), "two toothbrushes"),
        (("scissors", 1, None), "a pair of scissors"),
        (("scissors", 2, None), "two pairs of scissors"),
        (("skis", 1, "pink"), "a pair of pink skis"),
    ],
)
def test_objects_are_counted_in_english(asked: tuple[str, int, str | None], words: str) -> None:
    assert counted(*asked) == words


@pytest.mark.parametrize("which", ["train", "validation"])
def test_every_line_can_be_judged_and_says_what_it_asks_for(which: str) -> None:
    for line in lines(FOLDER, which):
        target = GenEvalTarget.model_validate(line)
        assert {clause.name for clause in target.include} <= set(CLASSES)
        assert all(clause.color in (None, *COLORS) for clause in target.include)
        for clause in target.include:
            assert counted(clause.name, clause.count, clause.color) in line["prompt"]
            assert clause.position is None or f" {clause.position[0]} " in line["prompt"]
        if line["tag"] == "counting":
            assert target.exclude[0].count == target.include[0].count + 1
    assert set(COLORS) <= set(PALETTE)
    assert len(set(CLASSES)) == 80


def test_what_a_position_is_relative_to_comes_first() -> None:
    line = sample("position", random.Random(1))
    first, second = line["include"]
    relation = second["position"][0]
    assert second["position"] == [relation, 0] and "position" not in first
    words = f"{counted(second['class'])} {relation} {counted(first['class'])}"
    assert line["prompt"] == f"a photo of {words}"


def test_no_two_prompts_ask_for_the_same() -> None:
    train, validation = (lines(FOLDER, which) for which in ("train", "validation"))
    assert len({asks(line) for line in train + validation}) == len(train) + len(validation)
    assert Counter(line["tag"] for line in validation) == VALIDATION
    assert Counter(line["tag"] for line in train).keys() == TRAIN.keys()
    drawn = draw({"counting": 9999}, random.Random(0), taken=())
    assert len(drawn) == 80 * 3
    taken = {asks(line) for line in drawn[1:]}
    assert draw({"counting": 9999}, random.Random(1), taken) == drawn[:1]


def test_the_order_of_two_objects_makes_no_other_prompt() -> None:
    cup, dog = {"class": "cup", "count": 1}, {"class": "dog", "count": 1}
    assert asks({"include": [cup, dog]}) == asks({"include": [dog, cup]})
    left, right = ({**dog, "position": [f"{side} of", 0]} for side in ("left", "right"))
    assert asks({"include": [cup, left]}) != asks({"include": [cup, right]})
    assert asks({"include": [cup, left]}) != asks({"include": [cup, dog]})


def test_files_are_written_without_what_another_file_asks_for(tmp_path: Path) -> None:
    write = [sys.executable, "-m", "trainer.photos.prompt_files", "--out"]
    subprocess.run([*write, str(tmp_path / "all")], check=True)
    every = lines(tmp_path / "all", "train")
    (tmp_path / "own.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in every[:50]))
    without = ["--without", str(tmp_path / "own.jsonl")]
    subprocess.run([*write, str(tmp_path / "rest"), *without], check=True)
    rest = lines(tmp_path / "rest", "train") + lines(tmp_path / "rest", "validation")
    kept = {asks(line) for line in rest}
    assert kept and not kept & {asks(line) for line in every[:50]}


def test_the_configuration_for_photographs_reads_them() -> None:
    config = load_config(Path("trainer/configs/sd35-medium.toml"))
    for source in (*config.prompts, *config.heldout.prompts):
        for prompt in read_prompt_set(source):
            assert GenEvalTarget.model_validate(prompt.target).tag == prompt.tag
