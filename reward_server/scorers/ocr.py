"""Rewards legible text: how much of the target the reader reads back.

Reward = max(1 - edit_distance / len(target), 0) (TDM-R1, appendix B, after Flow-GRPO). The reader
is PP-OCRv6 through rapidocr, offline, on one thread. An empty target is an error, never a 0 or 1.
"""

from __future__ import annotations

import unicodedata
from importlib.metadata import version
from typing import Any, ClassVar, Final, Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rapidfuzz.distance import Levenshtein

from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import ScorerItem
from shared.images import Pixels

READABLE_PX: Final = 160
"""Smaller pictures are enlarged to this side: below it letters melt for the detector, above it time
grows and nothing is won (signs of 32 px: 13 ms of one core, against 24 ms at 320 px)."""

ENGINE: Final[dict[str, Any]] = {
    "Global.use_cls": False,
    "Global.log_level": "warning",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "Det.limit_side_len": READABLE_PX,
    "Det.limit_type": "min",
    "Rec.rec_img_shape": [3, 48, 96],
}
"""Upright text needs no direction classifier; short words need no 320 px wide recogniser input."""


class OcrTarget(BaseModel):
    """``{"text": "Hi"}``: what the picture should say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str = Field(max_length=2000)


class OcrOptions(BaseModel):
    """``case``: whether upper and lower case must match."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    case: Literal["sensitive", "insensitive"] = "sensitive"


class OcrScorer:
    """Reads pictures one by one; loading takes about a second."""

    name: ClassVar[str] = "ocr"
    model: ClassVar[str] = f"ocr/PP-OCRv6@rapidocr-{version('rapidocr')}"
    target = OcrTarget
    options = OcrOptions

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)
        self._engine = RapidOCR(params=ENGINE)

    def score(self, batch: list[ScorerItem[OcrTarget, OcrOptions]]) -> list[Outcome]:
        """One outcome per item; ``detail`` has the text read and its edit distance."""
        return [self._score_one(item) for item in batch]

    def read(self, image: Pixels) -> str:
        """All text in a picture (RGB uint8, H x W x 3), in reading order, words one blank apart."""
        short = min(image.shape[:2])
        if short < READABLE_PX:
            scale = READABLE_PX / short
            image = np.asarray(
                cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC),
                dtype=np.uint8,
            )
        found = self._engine(np.ascontiguousarray(image[:, :, ::-1]), use_cls=False)
        return " ".join(found.txts or ())

    def _score_one(self, item: ScorerItem[OcrTarget, OcrOptions]) -> Outcome:
        sensitive = item.options.case == "sensitive"
        wanted = normalise(item.target.text, sensitive)
        if not wanted:
            return Failed("target.text is empty: nothing to compare with", "empty_target")
        text = self.read(item.image)
        return text_reward(text, wanted, normalise(text, sensitive))


def text_reward(text: str, wanted: str, got: str) -> Scored:
    """Reward of reading ``got`` where ``wanted`` should be; ``text`` is the raw reading."""
    distance = Levenshtein.distance(got, wanted)
    reward = max(1.0 - distance / len(wanted), 0.0)
    return Scored(reward, {"text": text, "distance": distance})


def normalise(text: str, case_sensitive: bool = True) -> str:
    """NFKC, runs of blanks as one, no blanks at the ends; lower case unless case matters."""
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return text if case_sensitive else text.casefold()
