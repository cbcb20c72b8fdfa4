"""Writes the embedded world's prompt files: `python -m trainer.tiny.prompt_files`.

The files are in the tree so that one can read what training sees; a test holds them to the world.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from trainer.tiny.world import TAGS, sample_prompt, split

FOLDER = Path(__file__).parent / "prompts"
TRAIN = {
    "single_object": 300,
    "two_object": 800,
    "counting": 1000,
    "colors": 600,
    "position": 700,
    "color_attr": 1000,
}
"""Prompts of each tag; a run draws from all alike, so a tag with much left to learn has more."""
PER_TAG = {"train": TRAIN, "validation": dict.fromkeys(TAGS, 40)}
DRAWS = 20_000  # a tag with fewer prompts than wanted gives all it has
SIGNS = {"train": 1500, "validation": 60}


def prompt_lines(kind: str, which: str) -> list[str]:
    """The JSONL lines of one file; kind "composition" or "signs", which "train" or "validation"."""
    rng = random.Random(f"prompts {kind} {which}")
    tags = TAGS if kind == "composition" else ("text",)
    lines: list[str] = []
    for tag in tags:
        wanted = PER_TAG[which][tag] if kind == "composition" else SIGNS[which]
        chosen: dict[str, str] = {}
        for prompt in (sample_prompt(tag, rng) for _ in range(DRAWS)):
            if len(chosen) < wanted and split(prompt) == which:
                chosen.setdefault(prompt.caption, json.dumps(prompt.metadata))
        lines.extend(chosen.values())
    rng.shuffle(lines)
    return lines


def path_of(kind: str, which: str) -> Path:
    """Where a prompt file lives in the tree."""
    return FOLDER / f"{kind}.{which}.jsonl"


def main() -> None:
    """Write all four files."""
    FOLDER.mkdir(exist_ok=True)
    for kind in ("composition", "signs"):
        for which in PER_TAG:
            path_of(kind, which).write_text("\n".join(prompt_lines(kind, which)) + "\n")


if __name__ == "__main__":
    main()
