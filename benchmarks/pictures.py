"""Score requests whose answers the client knows beforehand, because it drew the pictures itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from reward_server.scorers.ocr import OcrScorer
from reward_server.scorers.shapes import PALETTE, detect
from shared.images import Pixels, decode, encode_png
from shared.request import build_request
from shared.schema import Json, ScoreRequest
from tests.support.server_setup import picture, sign

LETTERS: Final = "ABCDEFGHKLMNPRSTUVXYZ"
"""Letters that no reader takes for another one."""
MOST_SHAPES: Final = 6
MOST_VOTES: Final = 3
POOL: Final = 64
"""Different pictures of one kind; every item is scored anew, the server remembers no picture."""
DAMAGED_SHARE: Final = 0.005
"""Items whose file is no image: they must end without a reward."""


@dataclass(frozen=True)
class Known:
    """One item and the only reward a server may give it; without ``truth`` it must give none."""

    prompt: str
    image: bytes
    target: Json | None
    truth: float | None


@dataclass(frozen=True)
class Group:
    """One score request under one idempotency key. What people click is known only later."""

    key: str
    reward: str
    items: list[Known]
    votes: int = 1
    options: Json = field(default_factory=dict)

    def request(self, run_id: str) -> ScoreRequest:
        """The group on the wire."""
        return build_request(
            self.reward,
            [one.prompt for one in self.items],
            [one.image for one in self.items],
            targets=[one.target for one in self.items],
            run_id=run_id,
            group_id=self.key,
            votes=self.votes,
            options=self.options or None,
        )


def words(rng: random.Random, size: int = POOL, side: int = 48) -> list[tuple[str, bytes]]:
    """Words and their pictures of ``side`` px; those the engine does not read are left out."""
    engine, pool = OcrScorer(), dict[str, bytes]()
    for _ in range(4 * size):
        word = "".join(rng.sample(LETTERS, 3))
        drawn = sign(word, side)
        if engine.read(drawn) == word:
            pool[word] = encode_png(drawn)
        if len(pool) == size:
            return list(pool.items())
    raise RuntimeError(f"the OCR engine read only {len(pool)} of {4 * size} words")


def shapes_pool(rng: random.Random, size: int = POOL) -> list[tuple[str, int, bytes]]:
    """Class, number drawn and picture; pictures the detector miscounts are left out."""
    pool: list[tuple[str, int, bytes]] = []
    for _ in range(4 * size):
        name, number = rng.choice(("circle", "square")), rng.randint(1, MOST_SHAPES)
        file = encode_png(_draw(name, number, rng))
        if [one.name for one in detect(decode(file))] == [name] * number:
            pool.append((name, number, file))
        if len(pool) == size:
            return pool
    raise RuntimeError(f"the detector counted only {len(pool)} of {4 * size} pictures")


def _draw(name: str, number: int, rng: random.Random, side: int = 64, fine: int = 4) -> Pixels:
    image = Image.new("RGB", (side * fine, side * fine), PALETTE["white"])
    draw = ImageDraw.Draw(image)
    color = PALETTE[rng.choice(("red", "blue", "green", "black"))]
    cells = [(x, y) for x in range(3) for y in range(2)]
    for x, y in rng.sample(cells, number):
        center = np.array([(x + 0.5) * side / 3, (y + 0.5) * side / 2]) * fine
        radius = side * fine / 8
        box = [*(center - radius), *(center + radius)]
        (draw.ellipse if name == "circle" else draw.rectangle)(box, fill=color)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), dtype=np.uint8)


def groups(rng: random.Random, ocr: int, counting: int, human: int) -> Iterator[Group]:
    """So many items of each reward, in groups of every size up to 64, well mixed."""
    signs, shapes = words(rng), shapes_pool(rng)
    makers: dict[str, Callable[[str, int], Group]] = {
        "ocr": lambda key, n: Group(key, "ocr", [_read_item(rng, key, i, signs) for i in range(n)]),
        "counting": lambda key, n: _counting(rng, key, n, shapes),
        "human": lambda key, n: _human(rng, key, n),
    }
    left = {"ocr": ocr, "counting": counting, "human": human}
    number = 0
    while any(left.values()):
        reward = rng.choices(list(left), list(left.values()))[0]
        n = min(rng.choice((1, 8, 24, 24, 24, 64)), left[reward])
        left[reward] -= n
        yield makers[reward](f"{reward}-{number}", n)
        number += 1


def _prompt(key: str, index: int) -> str:
    """Names the item: all that people see of it besides the picture."""
    return f"item {key}/{index}"


def _damaged(rng: random.Random) -> bytes | None:
    return b"no image at all" if rng.random() < DAMAGED_SHARE else None


def _read_item(rng: random.Random, key: str, index: int, pool: list[tuple[str, bytes]]) -> Known:
    """The target has the word's first letters, and digits in place of the others."""
    word, file = rng.choice(pool)
    wrong = rng.choice((0, 0, 1, 2, 3))
    target = word[: len(word) - wrong] + "7" * wrong
    bad = _damaged(rng)
    truth = None if bad else max(1 - wrong / len(target), 0.0)
    return Known(_prompt(key, index), bad or file, {"text": target}, truth)


def _counting(rng: random.Random, key: str, n: int, pool: list[tuple[str, int, bytes]]) -> Group:
    strict = rng.random() < 0.5
    items = []
    for index in range(n):
        name, drawn, file = rng.choice(pool)
        asked = rng.choice((drawn, rng.randint(1, MOST_SHAPES)))
        bad = _damaged(rng)
        soft = max(0.0, 1 - abs(drawn - asked) / asked)
        truth = None if bad else float(drawn == asked) if strict else soft
        target: Json = {"include": [{"class": name, "count": asked}]}
        items.append(Known(_prompt(key, index), bad or file, target, truth))
    return Group(key, "counting", items, options={"mode": "strict" if strict else "soft"})


def _human(rng: random.Random, key: str, n: int) -> Group:
    items = [Known(_prompt(key, i), picture(rng.getrandbits(60)), None, None) for i in range(n)]
    return Group(key, "human", items, votes=rng.choice((1, 1, 1, 2, MOST_VOTES)))
