"""The OCR reward reads as a person does: along the lines, at every resolution, and it says so when
it could not read a target at all.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

from reward_server.domain.outcomes import Failed, Outcome, Scored
from reward_server.scorers import ScorerItem
from reward_server.scorers.lines import reading_order
from reward_server.scorers.ocr import (
    OcrOptions,
    OcrScorer,
    OcrTarget,
    flow_grpo_reward,
    normalise,
    unreadable,
)
from shared.images import Pixels

FONT = f"{get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf"
Placed = tuple[str, int, int, int]  # text, x, y, size in pixels


@pytest.fixture(scope="module")
def scorer() -> OcrScorer:
    return OcrScorer()


def drawn(width: int, height: int, *words: Placed, turn: float = 0.0) -> Pixels:
    picture = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(picture)
    for text, x, y, size in words:
        pen.text((x, y), text, font=ImageFont.truetype(FONT, size), fill="black")
    turned = picture.rotate(turn, resample=Image.Resampling.BICUBIC, fillcolor="white")
    return np.asarray(turned)


def filling(side: int, text: str, share: float) -> Pixels:
    size = 10
    while ImageFont.truetype(FONT, size + 2).getlength(text) < share * side:
        size += 2
    picture = Image.new("RGB", (side, side), "white")
    font = ImageFont.truetype(FONT, size)
    ImageDraw.Draw(picture).text((side / 2, side / 2), text, font=font, fill="black", anchor="mm")
    return np.asarray(picture)


def outcome(scorer: OcrScorer, picture: Pixels, target: str, **options: object) -> Outcome:
    chosen = OcrOptions.model_validate(options)
    return scorer.score([ScorerItem("", picture, OcrTarget(text=target), chosen)])[0]


def reward(scorer: OcrScorer, picture: Pixels, target: str, **options: object) -> float:
    found = outcome(scorer, picture, target, **options)
    assert isinstance(found, Scored), found
    return found.reward


# Where HAPPY and DAY stand, on how large a picture.
LINES: dict[str, tuple[int, int, tuple[Placed, ...]]] = {
    "a word 12 px higher": (512, 256, (("HAPPY", 30, 110, 45), ("DAY", 320, 98, 45))),
    "a word 12 px lower": (512, 256, (("HAPPY", 30, 98, 45), ("DAY", 320, 110, 45))),
    "two blanks": (1024, 512, (("HAPPY  DAY", 100, 200, 100),)),
    "small, then large letters": (1024, 512, (("HAPPY", 80, 265, 50), ("DAY", 500, 200, 120))),
    "large, then small letters": (1024, 512, (("HAPPY", 60, 200, 120), ("DAY", 700, 265, 50))),
    "two lines": (512, 512, (("HAPPY", 60, 120, 60), ("DAY", 260, 250, 60))),
}


@pytest.mark.parametrize("name", LINES)
def test_words_are_read_in_the_order_of_their_lines(scorer: OcrScorer, name: str) -> None:
    width, height, words = LINES[name]
    assert reward(scorer, drawn(width, height, *words), "HAPPY DAY") == 1.0


@pytest.mark.parametrize("turn", [-10, -6, -2, 2, 4, 8, 10])
def test_lines_may_be_tilted(scorer: OcrScorer, turn: float) -> None:
    near = drawn(512, 256, ("HAPPY", 80, 110, 45), ("DAY", 320, 110, 45), turn=turn)
    far = drawn(1024, 1024, ("GRAND", 60, 470, 70), ("OPENING", 590, 470, 70), turn=turn)
    lines = drawn(512, 512, ("HELLO THERE", 60, 160, 50), ("BIG WORLD", 60, 260, 50), turn=turn)
    assert reward(scorer, near, "HAPPY DAY") == 1.0
    assert reward(scorer, far, "GRAND OPENING") == 1.0
    assert reward(scorer, lines, "HELLO THERE BIG WORLD") == 1.0


def boxes_on_an_arc(bend: float, words: int) -> list[np.ndarray]:
    """Boxes of 80 x 30 px whose middles lie on a parabola, each turned along it."""
    found = []
    for k in range(words):
        x = 120.0 * k
        middle = 60.0 * (words - 1)
        y, slope = bend * (x - middle) ** 2, 2 * bend * (x - middle)
        along = np.array([1.0, slope]) / np.hypot(1.0, slope)
        across = np.array([-along[1], along[0]])
        at = np.array([x, 500.0 + y])
        ends = [(-40, -15), (40, -15), (40, 15), (-40, 15)]
        found.append(np.array([at + a * along + b * across for a, b in ends]))
    return found


@given(st.floats(-0.0009, 0.0009), st.integers(2, 6), st.randoms())
def test_words_on_an_arc_are_one_line(bend: float, words: int, luck: object) -> None:
    boxes = boxes_on_an_arc(bend, words)
    mixed = list(range(words))
    luck.shuffle(mixed)  # type: ignore[attr-defined]
    assert [mixed[i] for i in reading_order([boxes[k] for k in mixed])] == list(range(words))


def test_no_boxes_have_no_order() -> None:
    assert reading_order([]) == []


@pytest.mark.parametrize("side", [64, 512, 1024, 2048])
def test_resolution_does_not_matter(scorer: OcrScorer, side: int) -> None:
    assert reward(scorer, filling(side, "STOP", 0.9), "STOP") == 1.0
    assert reward(scorer, filling(side, "OPEN 24", 0.6), "OPEN 24") == 1.0


@pytest.mark.parametrize(("side", "size"), [(1024, 20), (2048, 30), (4096, 40)])
def test_small_print_on_a_large_picture_is_read_once(
    scorer: OcrScorer, side: int, size: int
) -> None:
    picture = drawn(side, side, ("SMALL PRINT", side // 3, side // 2, size))
    assert reward(scorer, picture, "SMALL PRINT") == 1.0


def test_huge_and_small_letters_are_read_in_one_picture(scorer: OcrScorer) -> None:
    words = (("SALE", 200, 200, 600), ("everything must go", 220, 1300, 60))
    assert reward(scorer, drawn(2048, 2048, *words), "SALE everything must go") == 1.0


@pytest.mark.parametrize(
    ("width", "height", "size"), [(1000, 16, 12), (300, 16, 12), (800, 20, 14)]
)
def test_low_strips_are_read(scorer: OcrScorer, width: int, height: int, size: int) -> None:
    assert reward(scorer, drawn(width, height, ("HELLO", 10, 0, size)), "HELLO") == 1.0


@pytest.mark.parametrize(
    "target",
    ["HELLO\u200b", "\ufeffHELLO", "HE\u00adLLO", "\u202aHELLO\u202c", "HELLO\ufe0f", "HELLO\x00"],
)
def test_what_cannot_be_seen_does_not_count(scorer: OcrScorer, target: str) -> None:
    assert reward(scorer, drawn(512, 256, ("HELLO", 120, 90, 70)), target) == 1.0


@pytest.mark.parametrize("target", ["", "  ", "\u200b\u200d", "\ufe0f\u00ad", "\x00"])
def test_a_target_that_shows_nothing_is_empty(scorer: OcrScorer, target: str) -> None:
    found = outcome(scorer, drawn(64, 64), target)
    assert isinstance(found, Failed) and found.code == "empty_target"


def test_quotes_and_dashes_are_of_one_kind(scorer: OcrScorer) -> None:
    picture = drawn(768, 256, ("IT\u2019S ME", 120, 90, 70))
    for target in ("IT\u2019S ME", "IT'S ME", "IT\u2018S ME"):
        assert reward(scorer, picture, target) == 1.0
    assert normalise("a\u2014b \u201cc\u201d") == 'a-b "c"'


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ("ПРИВЕТ", "cyrillic capital letter pe"),
        ("שלום", "hebrew letter shin"),
        ("مرحبا", "arabic letter meem"),
        ("สวัสดี", "thai character so sua"),
        ("नमस्ते", "devanagari letter na"),
        ("안녕", "hangul syllable"),
        ("STOP ạ", "latin small letter a with dot below"),
        ("STOP a\u0323", "latin small letter a with dot below"),
    ],
)
def test_what_the_reader_has_no_letters_for_is_an_error_and_no_zero(
    scorer: OcrScorer, target: str, named: str
) -> None:
    found = outcome(scorer, drawn(64, 64), target)
    assert isinstance(found, Failed) and found.code == "unreadable_target"
    assert named in found.message and "REWARD_OCR_RECOGNISER" in found.message


@pytest.mark.parametrize("target", ["½ PRICE", "CAFÉ ñ", "ＳＡＬＥ", "開店 24", "…", "ﬁsh"])
def test_what_it_has_letters_for_is_scored(scorer: OcrScorer, target: str) -> None:
    assert isinstance(outcome(scorer, drawn(64, 64), target), Scored)


def test_characters_are_looked_at_as_they_stand_first() -> None:
    assert unreadable("½", frozenset("½")) == []
    assert unreadable("½", frozenset("12")) == ["'½' (vulgar fraction one half)"]


def test_faint_text_counts_unless_contrast_is_asked_for(scorer: OcrScorer) -> None:
    faint = drawn(512, 256, ("HELLO", 120, 90, 70)).copy()
    faint[faint < 128] = 247
    found = outcome(scorer, faint, "HELLO")
    assert isinstance(found, Scored)
    if found.reward > 0:
        assert isinstance(found.detail["contrast"], float) and found.detail["contrast"] < 0.05
    assert reward(scorer, faint, "HELLO", min_contrast=0.1) == 0.0
    dark = drawn(512, 256, ("HELLO", 120, 90, 70))
    assert reward(scorer, dark, "HELLO", min_contrast=0.5) == 1.0


def distance_of(one: str, other: str) -> int:
    """Levenshtein's distance by its recurrence."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


TEXTS = st.text("abAB 1é", max_size=8)


@given(st.lists(TEXTS, max_size=3), TEXTS.filter(str.strip))
def test_flow_grpos_formula_is_its_published_one(lines: list[str], target: str) -> None:
    got = "".join(line.replace(" ", "") for line in lines).lower()
    wanted = target.replace(" ", "").lower()
    d = 0 if got.find(wanted) >= 0 else distance_of(got, wanted)
    d = len(wanted) if d > len(wanted) else d
    assert flow_grpo_reward(lines, target) == (1 - d / len(wanted), d)


def test_formulas_differ_in_strays_case_and_blanks(scorer: OcrScorer) -> None:
    picture = drawn(512, 256, ("HELLO YOU", 60, 90, 60))
    assert reward(scorer, picture, "hello") == 0.0
    assert reward(scorer, picture, "hello", formula="flow_grpo") == 1.0
    assert reward(scorer, picture, "HELLO YOU") == reward(
        scorer, picture, "helloyou", formula="flow_grpo"
    )
