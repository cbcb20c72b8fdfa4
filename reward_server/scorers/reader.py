"""Reads text in pictures: PP-OCRv6 through rapidocr, offline, on one thread.

The detector is asked at a size of its own choice, whatever the picture's resolution: letters of
1/80 of that size are found, and so are those that fill it. They are recognised at full resolution.
What is small on a large picture gets a second look at the part where it stands.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic_settings import BaseSettings, SettingsConfigDict

from reward_server.scorers import UnknownScorer
from reward_server.scorers.lines import Corners, reading_order
from shared.images import Pixels

SIDE: Final = 640
"""Longest side for the detector: 90 ms of one core, letters of 8 px to 600 px are found."""
LEAST: Final = 160
"""Shortest side, unless that makes the other too long: below it letters melt (13 ms at 32 px)."""
WIDE: Final = 1280
"""Longest side of a picture that is enlarged because of its shortest side."""
STRIP: Final = 48
"""Height below which a picture gets a margin: the detector wants to see above and below letters."""
GAIN: Final = 1.3
"""How much larger a part must be seen for a second look to pay."""
WEAK: Final = 14
"""Height in the detector's pixels below which a box of the first look may be seen better."""
CERTAIN: Final = 0.5
"""Confidence of the recogniser from which on its reading counts."""

ENGINE: Final[dict[str, Any]] = {
    "Global.use_cls": False,
    "Global.log_level": "error",
    "EngineConfig.onnxruntime.intra_op_num_threads": 1,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
    "Det.limit_side_len": 32,
    "Det.limit_type": "min",
    "Rec.rec_img_shape": [3, 48, 96],
}
"""The detector takes pictures as they come; short words need no 320 px wide recogniser input."""


class Recogniser(BaseSettings):
    """``REWARD_OCR_RECOGNISER``: another recognition model of rapidocr's, an .onnx file.

    ``REWARD_OCR_DICTIONARY``: its characters, a line each, if the model does not carry them.
    """

    model_config = SettingsConfigDict(env_prefix="REWARD_OCR_", frozen=True, extra="ignore")

    recogniser: Path | None = None
    dictionary: Path | None = None

    def parameters(self) -> dict[str, Any]:
        """As rapidocr takes them.

        Raises:
            UnknownScorer: a file is not there.
        """
        named = {"Rec.model_path": self.recogniser, "Rec.rec_keys_path": self.dictionary}
        for path in named.values():
            if path is not None and not path.is_file():
                raise UnknownScorer(f"ocr: there is no file {path} (REWARD_OCR_*)")
        return {key: str(path) for key, path in named.items() if path is not None}


@dataclass(frozen=True)
class Words:
    """What stands in one box: its text, how sure the recogniser is, and light against dark."""

    text: str
    confidence: float
    contrast: float
    corners: Corners


class Reader:
    """Loading takes about a second; one picture at a time."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        cv2.setNumThreads(1)
        engine = RapidOCR(params=ENGINE | Recogniser().parameters())
        blank = np.full((64, 64, 3), 255, np.uint8)
        engine(blank, use_det=False, use_cls=False)  # loads the recogniser,
        engine(blank, use_det=True, use_cls=False)  # and the detector
        self._detect, self._recognise = engine.text_det, engine.text_rec

    @functools.cached_property
    def characters(self) -> frozenset[str]:
        """All that the recogniser can read."""
        known: list[str] = self._recognise.postprocess_op.character
        return frozenset(known)

    def read(self, image: Pixels) -> list[Words]:
        """All words in a picture (RGB uint8, H x W x 3), in reading order."""
        picture = np.ascontiguousarray(image[:, :, ::-1])
        if min(picture.shape[:2]) < STRIP:
            margin = (STRIP - min(picture.shape[:2])) // 2 + 1
            picture = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
        boxes = self._boxes(picture)
        found = self._texts(picture, boxes)
        return [found[i] for i in reading_order([words.corners for words in found])]

    def _boxes(self, picture: Pixels) -> list[Corners]:
        """Where text stands, by one look at all of the picture and one at what is small in it."""
        scale = _scale(*picture.shape[:2])
        boxes = self._look(picture, scale)
        if scale > 1 / GAIN:
            return boxes
        strong = [box for box in boxes if scale * _height(box) >= WEAK]
        part = _busy_part(picture, strong)
        if part is None:
            return boxes
        rows, columns = part
        closer = min(SIDE / max(rows.stop - rows.start, columns.stop - columns.start), 1.0)
        if closer < GAIN * scale:
            return boxes
        corner = np.array([columns.start, rows.start], np.float64)
        again = [box + corner for box in self._look(picture[rows, columns], closer)]
        fresh = [box for box in again if not any(_same_place(one, box) for one in strong)]
        weak = [box for box in boxes if scale * _height(box) < WEAK]
        kept = [box for box in weak if not any(_same_place(one, box) for one in fresh)]
        return [*strong, *kept, *fresh]

    def _look(self, picture: Pixels, scale: float) -> list[Corners]:
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        seen = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
        found = self._detect(seen).boxes
        return [] if found is None else [np.asarray(box, np.float64) / scale for box in found]

    def _texts(self, picture: Pixels, boxes: list[Corners]) -> list[Words]:
        from rapidocr.ch_ppocr_rec import TextRecInput

        if not boxes:
            return []
        crops = [_upright(picture, box) for box in boxes]
        read = self._recognise(TextRecInput(img=crops))
        rows = [*zip(read.txts or (), read.scores, crops, boxes, strict=True)]
        for i, (_, sure, crop, box) in enumerate(rows):
            bent = _straightened(crop) if sure < CERTAIN else None
            if bent is not None:
                again = self._recognise(TextRecInput(img=[bent]))
                rows[i] = ((again.txts or ("",))[0], again.scores[0], bent, box)
        return [
            Words(text, float(sure), _contrast(crop), box)
            for text, sure, crop, box in rows
            if text.strip() and sure >= CERTAIN
        ]


def _scale(height: int, width: int) -> float:
    """To SIDE for large pictures, up to LEAST for small ones."""
    long, short = max(height, width), min(height, width)
    if long > SIDE:
        return max(SIDE / long, min(LEAST / short, WIDE / long, 1.0))
    return max(1.0, min(LEAST / short, WIDE / long))


def _height(box: Corners) -> float:
    """The shorter side of a box."""
    return float(min(np.hypot(*(box[3] - box[0])), np.hypot(*(box[1] - box[0]))))


def _same_place(one: Corners, other: Corners) -> bool:
    """Whether two boxes, set upright, share half of the smaller one."""
    low = np.maximum(one.min(0), other.min(0))
    common = np.clip(np.minimum(one.max(0), other.max(0)) - low, 0, None)
    smaller = min(np.prod(box.max(0) - box.min(0)) for box in (one, other))
    return bool(np.prod(common) > 0.5 * smaller)


def _busy_part(picture: Pixels, known: list[Corners]) -> tuple[slice, slice] | None:
    """Rows and columns outside of which nothing small stands; None if nothing small is there.

    Small: edges that the boxes known already do not account for.
    """
    height, width = picture.shape[:2]
    shrink = min(1.0, 2 * SIDE / max(height, width))
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    # The darkest and the lightest of a neighbourhood: thin strokes survive the shrinking.
    span = max(3, round(1 / shrink) | 1)
    kernel = np.ones((span, span), np.uint8)
    edges = cv2.subtract(cv2.dilate(grey, kernel), cv2.erode(grey, kernel))
    small = cv2.resize(edges, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_NEAREST) > 48
    for box in known:
        (left, top), (right, bottom) = box.min(0) * shrink, box.max(0) * shrink
        edge = 0.1 * (bottom - top) + 2
        above, below = max(0, int(top - edge)), int(bottom + edge) + 1
        small[above:below, max(0, int(left - edge)) : int(right + edge) + 1] = False
    rows, columns = np.flatnonzero(small.any(1)), np.flatnonzero(small.any(0))
    if len(rows) == 0:
        return None
    around = 24 / shrink
    return (
        slice(max(0, int(rows[0] / shrink - around)), int((rows[-1] + 1) / shrink + around)),
        slice(max(0, int(columns[0] / shrink - around)), int((columns[-1] + 1) / shrink + around)),
    )


def _upright(picture: Pixels, box: Corners) -> Pixels:
    """The picture in a box, straightened; a box much higher than wide is read from below."""
    width = max(1, round(max(np.hypot(*(box[1] - box[0])), np.hypot(*(box[2] - box[3])))))
    height = max(1, round(max(np.hypot(*(box[3] - box[0])), np.hypot(*(box[2] - box[1])))))
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turn = cv2.getPerspectiveTransform(box.astype(np.float32), target)
    crop = cv2.warpPerspective(
        picture, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(np.rot90(crop)) if height >= 1.5 * width else crop


def _straightened(crop: Pixels) -> Pixels | None:
    """Text along an arc, laid out straight; None for what is no line of ink.

    The middle of the ink in each column is fitted by a parabola, and the crop is sampled again
    along it and across it.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32)
    ink = np.abs(grey - np.median(grey))
    ink[ink < 0.5 * ink.max()] = 0
    weight = ink.sum(0)
    columns = np.flatnonzero(weight > 0)
    if len(columns) < 16:
        return None
    middle = (ink * np.arange(len(ink))[:, None]).sum(0)[columns] / weight[columns]
    bend = np.poly1d(np.polyfit(columns, middle, 2, w=np.sqrt(weight[columns])))
    rows, at = np.nonzero(ink)
    half = (
        1.3 * float(np.percentile(np.abs(rows - bend(at)) / np.hypot(1, bend.deriv()(at)), 95)) + 2
    )
    x = np.arange(columns[0], columns[-1] + 1, dtype=np.float32)
    slope = bend.deriv()(x)
    length = np.hypot(1.0, slope)
    across = np.arange(-half, half + 1, dtype=np.float32)[:, None]
    steps = np.interp(np.arange(float(length.sum())), np.cumsum(length), np.arange(len(x))).astype(
        np.float32
    )
    bent_x = np.interp(steps, np.arange(len(x)), x)
    run = np.interp(steps, np.arange(len(x)), slope)
    norm = np.hypot(1.0, run)
    straight: Pixels = cv2.remap(
        crop,
        (bent_x - across * run / norm).astype(np.float32),
        (bend(bent_x) + across / norm).astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return straight


def _contrast(crop: NDArray[np.uint8]) -> float:
    """Between the lightest and the darkest twentieth of a crop, in [0, 1]."""
    low, high = np.percentile(crop.mean(2), (5, 95))
    return float(high - low) / 255
