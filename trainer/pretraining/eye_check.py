"""`python -m trainer.pretraining.eye_check`: 100 generated pictures for a person to judge.

Writes `pictures.png` (10 x 10 pictures), `verdicts.jsonl` (a line for each, its `eye` still null)
and enlarged sheets with their captions to look at. A person sets each `eye` to true or false, by
looking alone; a test then holds the scorers to those verdicts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from shared.images import Pixels
from trainer.config import load_config
from trainer.evaluation.evaluate import generate
from trainer.evaluation.measure import Plan, build_policies, load_roles
from trainer.evaluation.prompts import EvalImage, images
from trainer.evaluation.results import START, TEACHER
from trainer.tiny.heldout import embedded_prompts

FOLDER = Path("tests/evaluation/eye")
PER_TAG, SIGNS = 7, 8  # of each of the two models: 6 * 7 + 8 = 50
COLUMNS, PER_SHEET = 10, 25
OFFSET = 5000  # the noise of no evaluated picture


def main() -> None:
    """Generate the pictures of teacher and start, and what is to be filled in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("trainer/configs/tiny.toml"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    prompts = embedded_prompts()
    plan = Plan(load_config(args.config), (TEACHER, START), prompts)
    policies = build_policies(plan, load_roles(plan))
    chosen = images(prompts, PER_TAG, SIGNS)
    lines, pictures = [], []
    for name in plan.rows:
        pictures += generate(policies[name], chosen, OFFSET)
        lines += [_line(name, image) for image in chosen]
    args.out.mkdir(parents=True, exist_ok=True)
    _grid(pictures).save(args.out / "pictures.png")
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (args.out / "verdicts.jsonl").write_text(text, encoding="utf-8")
    for first in range(0, len(lines), PER_SHEET):
        part = slice(first, first + PER_SHEET)
        sheet = args.out / f"look-{first}.png"
        _sheet(first, pictures[part], [str(line["prompt"]) for line in lines[part]]).savefig(sheet)


def _line(model: str, image: EvalImage) -> dict[str, object]:
    prompt = image.prompt
    return {
        "model": model,
        "reward": prompt.reward,
        "prompt": prompt.text,
        "target": prompt.target,
        "eye": None,
    }


def _grid(pictures: Sequence[Pixels]) -> Image.Image:
    rows = [
        np.concatenate(pictures[start : start + COLUMNS], axis=1)
        for start in range(0, len(pictures), COLUMNS)
    ]
    return Image.fromarray(np.concatenate(rows))


def _sheet(first: int, pictures: Sequence[Pixels], captions: Sequence[str]) -> Figure:
    figure = Figure(figsize=(15, 16), layout="constrained")
    axes = figure.subplots(5, 5).flat
    for index, (axis, pixels, caption) in enumerate(zip(axes, pictures, captions, strict=True)):
        axis.imshow(pixels, interpolation="nearest")
        axis.set_title(f"{first + index}: {caption}", fontsize=9)
        axis.set_axis_off()
    return figure


if __name__ == "__main__":
    main()
