"""The prompts of the embedded world: GenEval's six tags over shapes, and visual text.

A prompt carries the metadata a reward needs (GenEval's `include` list, or the sign's text), in the
field's own JSONL shape. A hash reserves 15 % of the combinations and of the sign words for
evaluation and 5 % for choosing checkpoints: `split` says where a prompt belongs, and reinforcement
learning sees "train" alone.
Pretraining sees both, with a share of its captions wrong on purpose (`wrong_caption`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trainer.tiny.scenes import (
    BACKGROUNDS,
    CELL,
    COLORS,
    FONTS,
    PANELS,
    RELATIONS,
    SHAPES,
    SIZES,
    Scene,
    Shape,
    Sign,
)

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
NUMBERS = ("one", "two", "three", "four", "five", "six")
PREFIXES = (
    "",
    "a photo of ",
    "an icon of ",
    "a view of ",
    "a print of ",
    "draw ",
    "show ",
    "paint ",
)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_CHARACTERS = 28  # blanks not counted
JITTER = 0.5  # of positions, in units of scenes.SIDE
HELDOUT_PERCENT = 15
VALIDATION_PERCENT = 5


@dataclass(frozen=True)
class Wanted:
    """One clause of a prompt: `count` shapes of a colour and a size (None: any)."""

    shape: str
    color: str | None = None
    count: int = 1
    size: str | None = None


@dataclass(frozen=True)
class Prompt:
    """A caption together with what it asks for."""

    tag: str
    wanted: tuple[Wanted, ...] = ()
    relation: str | None = None  # of the first object to the second
    background: str | None = None
    word: str | None = None
    prefix: str = ""

    @property
    def caption(self) -> str:
        if self.word is not None:
            return f"A sign that says '{self.word}'"
        joint = f" {self.relation} " if self.relation else " and "
        body = joint.join(_noun_phrase(w) for w in self.wanted)
        ground = f" on {self.background}" if self.background else ""
        return f"{self.prefix}{body}{ground}"

    @property
    def combination(self) -> str:
        """What the hold-out hash sees: the meaning, not the wording."""
        if self.word is not None:
            return f"sign {self.word}"
        return f"{self.tag} {dataclasses.replace(self, prefix='').caption}"

    @property
    def metadata(self) -> dict[str, Any]:
        """One line of a prompt file: GenEval's metadata, or the text of a sign."""
        if self.word is not None:
            return {"tag": "text", "prompt": self.caption, "text": self.word}
        include: list[dict[str, Any]] = []
        for wanted in self.wanted:
            clause: dict[str, Any] = {"class": wanted.shape, "count": wanted.count}
            if wanted.color:
                clause["color"] = wanted.color
            include.append(clause)
        if self.relation:
            # GenEval places the later clause relative to the earlier one.
            include = [include[1], {**include[0], "position": [self.relation, 0]}]
        return {"tag": self.tag, "include": include, "prompt": self.caption}


def _noun_phrase(wanted: Wanted) -> str:
    words = [wanted.size, wanted.color, wanted.shape]
    if wanted.count > 1:
        words[-1] = plural(wanted.shape)
    number = "a" if wanted.count == 1 else NUMBERS[wanted.count - 1]
    return " ".join(word for word in (number, *words) if word)


def plural(shape: str) -> str:
    """The shape's name for more than one of it."""
    return shape + ("es" if shape == "cross" else "s")


def caption_words() -> list[str]:
    """Every word of a caption in lower case, but for what signs say."""
    phrases = ["a sign that says", "and", "on", *PREFIXES, *NUMBERS, *RELATIONS]
    phrases += [*SHAPES, *map(plural, SHAPES), *COLORS, *SIZES, *BACKGROUNDS]
    return sorted({word for phrase in phrases for word in phrase.split()})


def split(prompt: Prompt) -> str:
    """ "heldout" or "validation" for a fixed share of the combinations, "train" for the rest."""
    digest = hashlib.sha256(prompt.combination.encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % 100
    if bucket < HELDOUT_PERCENT:
        return "heldout"
    return "validation" if bucket < HELDOUT_PERCENT + VALIDATION_PERCENT else "train"


def sample_tag(text_share: float, rng: random.Random) -> str:
    """ "text" for a share of the draws, else one of TAGS."""
    return "text" if rng.random() < text_share else rng.choice(TAGS)


def sample_prompt(tag: str, rng: random.Random) -> Prompt:
    """Draw a prompt of a tag, of at most MAX_CHARACTERS."""
    while True:
        prompt = _SAMPLERS[tag](rng)
        if len(prompt.caption.replace(" ", "")) <= MAX_CHARACTERS:
            return prompt


def _pair(rng: random.Random) -> list[str]:
    return rng.sample(SHAPES, 2)


def _background(rng: random.Random) -> str | None:
    return rng.choice((None, *BACKGROUNDS))


def _single(rng: random.Random) -> Prompt:
    wanted = Wanted(rng.choice(SHAPES), size=rng.choice((None, "small", "large")))
    return Prompt(
        "single_object", (wanted,), background=_background(rng), prefix=rng.choice(PREFIXES)
    )


def _two(rng: random.Random) -> Prompt:
    first, second = _pair(rng)
    return Prompt(
        "two_object",
        (Wanted(first, rng.choice((None, None, None, *COLORS))), Wanted(second)),
        background=_background(rng),
        prefix=rng.choice(PREFIXES),
    )


def _counting(rng: random.Random) -> Prompt:
    wanted = Wanted(rng.choice(SHAPES), rng.choice((None, *COLORS)), rng.randint(1, 6))
    return Prompt("counting", (wanted,), prefix=rng.choice(PREFIXES))


def _colors(rng: random.Random) -> Prompt:
    wanted = Wanted(
        rng.choice(SHAPES), rng.choice(list(COLORS)), size=rng.choice((None, "small", "large"))
    )
    return Prompt("colors", (wanted,), background=_background(rng), prefix=rng.choice(PREFIXES))


def _position(rng: random.Random) -> Prompt:
    first, second = _pair(rng)
    return Prompt(
        "position",
        (Wanted(first), Wanted(second)),
        relation=rng.choice(RELATIONS),
        background=_background(rng),
        prefix=rng.choice(PREFIXES),
    )


def _color_attr(rng: random.Random) -> Prompt:
    first, second = _pair(rng)
    colors = rng.sample(list(COLORS), 2)
    wanted = (Wanted(first, colors[0]), Wanted(second, colors[1]))
    return Prompt("color_attr", wanted, prefix=rng.choice(PREFIXES))


def _text(rng: random.Random) -> Prompt:
    return Prompt("text", word="".join(rng.choice(LETTERS) for _ in range(3)))


_SAMPLERS: dict[str, Callable[[random.Random], Prompt]] = {
    "single_object": _single,
    "two_object": _two,
    "counting": _counting,
    "colors": _colors,
    "position": _position,
    "color_attr": _color_attr,
    "text": _text,
}


def sample_scene(prompt: Prompt, rng: random.Random) -> Scene:
    """A picture that satisfies the prompt; everything left open is drawn at random."""
    background = prompt.background or rng.choice(list(BACKGROUNDS))
    if prompt.word is not None:
        panel = rng.randrange(len(PANELS))
        jitter = (rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
        return Scene(background, sign=Sign(prompt.word, rng.choice(FONTS), panel, *jitter))
    if prompt.tag == "counting":
        return Scene(background, _scattered(prompt.wanted[0], rng))
    if len(prompt.wanted) == 1:
        return Scene(background, _alone(prompt.wanted[0], rng))
    return Scene(background, _side_by_side(prompt, rng))


def _color(wanted: Wanted, rng: random.Random) -> str:
    return wanted.color or rng.choice(list(COLORS))


def _place(wanted: Wanted, color: str, cell: tuple[int, int], rng: random.Random) -> Shape:
    """A shape about the middle of a cell (column, row) of the 3 x 3 grid."""
    x, y = (CELL * (at + 0.5) + rng.uniform(-JITTER, JITTER) for at in cell)
    return Shape(wanted.shape, color, x, y, SIZES[wanted.size or "medium"])


def _alone(wanted: Wanted, rng: random.Random) -> tuple[Shape, ...]:
    cell = (rng.randrange(3), rng.randrange(3))
    return (_place(wanted, _color(wanted, rng), cell, rng),)


def _scattered(wanted: Wanted, rng: random.Random) -> tuple[Shape, ...]:
    """Equal shapes in distinct cells."""
    color = _color(wanted, rng)
    cells = rng.sample(range(9), wanted.count)
    return tuple(_place(wanted, color, (cell % 3, cell // 3), rng) for cell in cells)


_OFFSETS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def _side_by_side(prompt: Prompt, rng: random.Random) -> tuple[Shape, ...]:
    """Two shapes at opposite ends of a row or column; the first stands `relation` the second."""
    dx, dy = _OFFSETS[prompt.relation or rng.choice(RELATIONS)]
    lane = rng.randrange(3)
    first, second = prompt.wanted
    colors = [_color(first, rng), _color(second, rng)]
    if prompt.tag != "color_attr" and colors[0] == colors[1]:
        colors[1] = rng.choice([c for c in COLORS if c != colors[0]])
    shapes = []
    for wanted, color, sign in zip(prompt.wanted, colors, (1, -1), strict=True):
        cell = (1 + sign * dx, lane) if dx else (lane, 1 + sign * dy)
        shapes.append(_place(wanted, color, cell, rng))
    return tuple(shapes)


def wrong_caption(prompt: Prompt, rng: random.Random) -> Prompt:
    """The same picture mislabelled in what its tag is about, as a share of web captions is.

    The error is systematic (the next number, colour, shape or the mirrored relation): guidance
    averages uniform label noise away, but not a consistent confusion.
    """
    if prompt.word is not None:
        at = rng.randrange(len(prompt.word))
        other = rng.choice([c for c in LETTERS if c != prompt.word[at]])
        return dataclasses.replace(prompt, word=prompt.word[:at] + other + prompt.word[at + 1 :])
    first, *rest = prompt.wanted
    if prompt.tag == "counting":
        wanted = dataclasses.replace(first, count=first.count % 6 + 1)
        return dataclasses.replace(prompt, wanted=(wanted,))
    if prompt.tag == "colors":
        wanted = dataclasses.replace(first, color=_next(tuple(COLORS), first.color))
        return dataclasses.replace(prompt, wanted=(wanted,))
    if prompt.tag == "position":
        mirrored = RELATIONS[RELATIONS.index(str(prompt.relation)) ^ 1]
        return dataclasses.replace(prompt, relation=mirrored)
    if prompt.tag == "color_attr":
        swapped = (
            dataclasses.replace(first, color=rest[0].color),
            dataclasses.replace(rest[0], color=first.color),
        )
        return dataclasses.replace(prompt, wanted=swapped)
    shapes = [s for s in SHAPES if s not in {w.shape for w in rest}]
    wanted = dataclasses.replace(first, shape=_next(tuple(shapes), first.shape))
    return dataclasses.replace(prompt, wanted=(wanted, *rest))


def _next(values: tuple[str, ...], value: str | None) -> str:
    return values[(values.index(str(value)) + 1) % len(values)]
