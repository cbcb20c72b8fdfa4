"""The reward agrees with a person: 100 generated pictures, judged once by looking at them.

`tests/evaluation/eye/verdicts.jsonl` holds that person's verdicts;
`python -m trainer.pretraining.eye_check` makes new pictures to judge.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np
from PIL import Image

from reward_server.scorers.geneval import judge
from reward_server.scorers.metadata import GenEvalTarget
from reward_server.scorers.ocr import OcrScorer, normalise
from reward_server.scorers.shapes import detect
from shared.images import Pixels
from trainer.pretraining.eye_check import COLUMNS, FOLDER
from trainer.tiny.scenes import SIDE


def pictures_and_verdicts() -> list[tuple[Pixels, dict[str, Any]]]:
    grid = np.asarray(Image.open(FOLDER / "pictures.png").convert("RGB"))
    rows = [json.loads(line) for line in (FOLDER / "verdicts.jsonl").read_text().splitlines()]
    cells = [(i // COLUMNS * SIDE, i % COLUMNS * SIDE) for i in range(len(rows))]
    pictures = [grid[y : y + SIDE, x : x + SIDE] for y, x in cells]
    return list(zip(pictures, rows, strict=True))


def passes(picture: Pixels, row: dict[str, Any], reader: OcrScorer) -> bool:
    if row["reward"] == "ocr":
        wanted = normalise(row["target"]["text"], case_sensitive=False)
        return normalise(reader.read(picture), case_sensitive=False) == wanted
    return judge(GenEvalTarget.model_validate(row["target"]), detect(picture)).passed


def test_the_strict_verdict_is_that_of_a_person_in_95_of_100_pictures() -> None:
    judged = pictures_and_verdicts()
    assert len(judged) == 100
    eye = Counter(row["eye"] for _, row in judged)
    assert min(eye[True], eye[False]) >= 20  # a scorer that always says the same would fail
    reader = OcrScorer()
    parted = [row for picture, row in judged if passes(picture, row, reader) is not row["eye"]]
    assert len(parted) <= 5, parted
