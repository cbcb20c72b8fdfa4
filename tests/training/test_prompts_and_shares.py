"""Prompt sets: the field's formats, exact shares, no repeats within an epoch, resumable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.config import PromptSet
from trainer.errors import PromptError
from trainer.rewards.prompts import PromptStream, read_prompt_set

GENEVAL = {
    "tag": "position",
    "include": [
        {"class": "cup", "count": 1},
        {"class": "dog", "count": 1, "position": ["left of", 0]},
    ],
    "exclude": [{"class": "cat", "count": 1}],
    "prompt": "a photo of a dog left of a cup",
}


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def numbered(path: Path, count: int) -> Path:
    return written(path, *(json.dumps({"prompt": f"{path.stem} {i}"}) for i in range(count)))


def test_geneval_metadata_becomes_the_target(tmp_path: Path) -> None:
    file = written(tmp_path / "a.jsonl", json.dumps(GENEVAL), "")
    (prompt,) = read_prompt_set(PromptSet(file=file, reward="counting", options={"mode": "soft"}))
    assert (prompt.text, prompt.tag, prompt.reward) == (GENEVAL["prompt"], "position", "counting")
    assert prompt.target == {key: GENEVAL[key] for key in ("tag", "include", "exclude")}
    assert prompt.options == {"mode": "soft"}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('A shop with "Fresh Bread" on its sign', "Fresh Bread"),
        ("A sign that says “Café 7”", "Café 7"),
        ("A sign that says 'KBQ'", "KBQ"),
        ("The baker's sign says 'Open'", "Open"),
        ("The baker's \"Don't\" sign", "Don't"),
    ],
)
def test_text_files_carry_the_target_between_quotes(tmp_path: Path, line: str, text: str) -> None:
    (prompt,) = read_prompt_set(PromptSet(file=written(tmp_path / "a.txt", line), reward="ocr"))
    assert prompt.target == {"text": text}
    assert prompt.text == line


def test_other_rewards_take_plain_lines(tmp_path: Path) -> None:
    file = written(tmp_path / "a.txt", "a red bus", "a dog")
    prompts = read_prompt_set(PromptSet(file=file, reward="human"))
    assert [(p.text, p.target) for p in prompts] == [("a red bus", None), ("a dog", None)]


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("a.txt", "a sign without a text", "must stand between quotes"),
        ("a.jsonl", "not json", r"a\.jsonl:1"),
        ("a.jsonl", '{"include": []}', 'expected an object with a "prompt"'),
        ("a.jsonl", "", "holds no prompts"),
    ],
)
def test_unreadable_lines_are_named(tmp_path: Path, name: str, line: str, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        read_prompt_set(PromptSet(file=written(tmp_path / name, line), reward="ocr"))
    with pytest.raises(PromptError, match="cannot read"):
        read_prompt_set(PromptSet(file=tmp_path / "absent.txt", reward="ocr"))


def test_shares_are_exact_and_epochs_do_not_repeat(tmp_path: Path) -> None:
    sets = [
        PromptSet(file=numbered(tmp_path / "big.jsonl", 30), reward="counting", share=3),
        PromptSet(file=numbered(tmp_path / "small.jsonl", 7), reward="ocr", share=1),
    ]
    taken = PromptStream(sets, seed=0).take(40)
    by_reward = {name: [p.text for p in taken if p.reward == name] for name in ("counting", "ocr")}
    assert {name: len(texts) for name, texts in by_reward.items()} == {"counting": 30, "ocr": 10}
    assert len(set(by_reward["counting"])) == 30
    assert len(set(by_reward["ocr"][:7])) == 7
    for start in range(0, 40, 8):
        assert sum(p.reward == "ocr" for p in taken[start : start + 8]) == 2


def test_a_files_tags_can_have_shares_of_their_own(tmp_path: Path) -> None:
    tags = ["a"] * 9 + ["b"] + ["c"] * 5
    lines = (json.dumps({"prompt": f"{tag} {i}", "tag": tag}) for i, tag in enumerate(tags))
    file = written(tmp_path / "all.jsonl", *lines)
    sets = [PromptSet(file=file, reward="human", tags=(tag,)) for tag in ("a", "b")]
    assert [p.tag for p in PromptStream(sets, 0).take(8)].count("b") == 4
    both = PromptSet(file=file, reward="human", tags=("a", "b"))
    assert {prompt.tag for prompt in read_prompt_set(both)} == {"a", "b"}
    with pytest.raises(PromptError, match=r"no prompts tagged 'd'; its tags are: a, b, c"):
        read_prompt_set(PromptSet(file=file, reward="human", tags=("a", "d")))


def test_a_stream_continues_at_its_cursor(tmp_path: Path) -> None:
    sets = [PromptSet(file=numbered(tmp_path / "a.jsonl", 5), reward="human")]
    stream = PromptStream(sets, seed=3)
    stream.take(7)
    cursor, expected = stream.cursor, stream.take(20)
    other = PromptStream(sets, seed=3)
    other.seek(cursor)
    assert other.take(20) == expected
    assert PromptStream(sets, seed=4).take(20) != expected
    with pytest.raises(PromptError, match="counted 2 prompt sets"):
        other.seek([1, 2])


def test_no_prompts_are_an_error_with_a_remedy() -> None:
    with pytest.raises(PromptError, match=r"add \[\[prompts\]\]"):
        PromptStream([], seed=0)
