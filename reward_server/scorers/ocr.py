"""Rewards legible text: how much of the target the reader reads back.

Two formulas. ``paper``: max(1 - edit_distance / len(target), 0) (TDM-R1, appendix B, after
Flow-GRPO). ``flow_grpo``: what the code published with Flow-GRPO does (``flow_grpo/ocr.py``), for
runs that want to be compared with the paper's Table 2. A target that says nothing, or that the
reader could not read if it were there, is an error, never a 0.
"""

from __future__ import annotations

import unicodedata
from importlib.metadata import version
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from rapidfuzz.distance import Levenshtein

from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import ScorerItem
from reward_server.scorers.reader import Reader, Words
from shared.images import Pixels
from shared.schema import Json

SAME: Final = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u02bb\u0060\u00b4", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2043", "-")
)
"""Quotes and dashes that differ in typography alone."""
INVISIBLE: Final = {"Cf", "Cc", "Cn", "Co", "Cs"}
"""Unicode categories without a shape: zero-width and bidi marks, soft hyphens, controls."""
SELECTORS: Final = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))
"""Variation selectors, which change the look of what stands before them."""


class OcrTarget(BaseModel):
    """``{"text": "Hi"}``: what the picture should say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    text: str = Field(max_length=2000)


class OcrOptions(BaseModel):
    """``case``: whether upper and lower case must match, for the paper's formula.

    ``formula``: see the module. ``min_contrast``: words whose light and dark differ by less, as a
    share of black to white, count as not there; what a person hardly sees is read at 0.03.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    case: Literal["sensitive", "insensitive"] = "sensitive"
    formula: Literal["paper", "flow_grpo"] = "paper"
    min_contrast: float = Field(default=0.0, ge=0, le=1)


class OcrScorer:
    """Reads pictures one by one."""

    name: ClassVar[str] = "ocr"
    model: ClassVar[str] = f"ocr/PP-OCRv6@rapidocr-{version('rapidocr')}"
    target = OcrTarget
    options = OcrOptions

    def __init__(self) -> None:
        self._reader = Reader()

    def score(self, batch: list[ScorerItem[OcrTarget, OcrOptions]]) -> list[Outcome]:
        """One outcome per item.

        ``detail``: the text read, its edit distance, and of the words read the least confidence and
        contrast.
        """
        return [self._score_one(item) for item in batch]

    def read(self, image: Pixels) -> str:
        """All text in a picture (RGB uint8, H x W x 3), in reading order, words one blank apart."""
        return " ".join(words.text for words in self._reader.read(image))

    def _score_one(self, item: ScorerItem[OcrTarget, OcrOptions]) -> Outcome:
        options, target = item.options, item.target.text
        if not normalise(target):
            return Failed("target.text is empty: nothing to compare with", "empty_target")
        if unknown := unreadable(target, self._reader.characters):
            return Failed(
                f"the reader has no {', '.join(unknown)}, so it could never read the target; give "
                "it a recogniser for this script with REWARD_OCR_RECOGNISER=FILE.onnx",
                "unreadable_target",
            )
        words = [w for w in self._reader.read(item.image) if w.contrast >= options.min_contrast]
        return _rewarded(words, target, options)


def _rewarded(words: list[Words], target: str, options: OcrOptions) -> Scored:
    texts = [one.text for one in words]
    if options.formula == "flow_grpo":
        reward, distance = flow_grpo_reward(texts, target)
    else:
        reward, distance = paper_reward(" ".join(texts), target, options.case == "sensitive")
    detail: Json = {"text": " ".join(texts), "distance": distance}
    if words:
        detail["confidence"] = round(min(one.confidence for one in words), 3)
        detail["contrast"] = round(min(one.contrast for one in words), 3)
    return Scored(reward, detail)


def paper_reward(text: str, target: str, case_sensitive: bool = True) -> tuple[float, int]:
    """max(1 - d / len(target), 0) and the edit distance d, after `normalise` of both.

    TDM-R1, appendix B.
    """
    wanted, got = normalise(target, case_sensitive), normalise(text, case_sensitive)
    distance = Levenshtein.distance(got, wanted)
    return max(1.0 - distance / len(wanted), 0.0), distance


def flow_grpo_reward(texts: list[str], target: str) -> tuple[float, int]:
    """Reward and edit distance as the code published with Flow-GRPO counts them.

    Lines are joined without a blank, blanks are dropped, case is ignored, a target that occurs
    anywhere in what was read has distance 0, and no distance exceeds the target's length
    (``flow_grpo/ocr.py``, ``OcrScorer``). A target of blanks alone is not scored.
    """
    got = "".join(texts).replace(" ", "").lower()
    wanted = target.replace(" ", "").lower()
    distance = 0 if wanted in got else min(Levenshtein.distance(got, wanted), len(wanted))
    return 1.0 - distance / len(wanted), distance


def normalise(text: str, case_sensitive: bool = True) -> str:
    """What counts of a text: NFKC without what cannot be seen, one kind of quotes and dashes.

    Runs of blanks are one, none at the ends; lower case unless case matters.
    """
    plain = unicodedata.normalize("NFKC", visible(text)).translate(SAME)
    plain = " ".join(plain.split())
    return plain if case_sensitive else plain.casefold()


def visible(text: str) -> str:
    """The text without characters that have no shape of their own; white space stays."""
    return "".join(c for c in text if c.isspace() or not _is_invisible(c))


def _is_invisible(character: str) -> bool:
    code = ord(character)
    return unicodedata.category(character) in INVISIBLE or any(code in one for one in SELECTORS)


def unreadable(target: str, characters: frozenset[str]) -> list[str]:
    """What of a target the reader's alphabet lacks, with its names, each once.

    A character counts as readable as it stands, or if its compatibility form (NFKC) or its plain
    quote or dash is.
    """
    missing: dict[str, str] = {}
    for character in unicodedata.normalize("NFC", visible(target)):
        if not character.isspace() and not _readable(character, characters):
            name = unicodedata.name(character, "unnamed").lower()
            missing[character] = f"{character!r} ({name})"
    return list(missing.values())


def _readable(character: str, characters: frozenset[str]) -> bool:
    forms = {character, character.translate(SAME), unicodedata.normalize("NFKC", character)}
    return any(all(c in characters or c.isspace() for c in form) for form in forms)
