"""Writes prompts for models of photographs: `python -m trainer.photos.prompt_files --out FOLDER`.

They are of GenEval's kind (arXiv:2310.11513): about COCO's classes in GenEval's words
(`objects.txt`), and every line is metadata that the counting reward judges. A model is measured on
GenEval's own prompts, so none of them belongs into training: `--without FILE` leaves out whatever
asks for the same as a line of a file. Those in the tree were written without GenEval's 553 prompts.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "prompts"
CLASSES: Final = tuple((Path(__file__).parent / "objects.txt").read_text().splitlines())
COLORS: Final = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
)
"""GenEval's."""
RELATIONS: Final = ("left of", "right of", "above", "below")
NUMBERS: Final = {2: "two", 3: "three", 4: "four"}
PLURALS: Final = {
    "person": "people",
    "knife": "knives",
    "sheep": "sheep",
    "computer mouse": "computer mice",
}
PAIRS: Final = ("skis", "scissors")

TRAIN: Final = {
    "two_object": 300,
    "counting": 200,
    "colors": 300,
    "position": 600,
    "color_attr": 600,
}
"""Prompts of each tag, fewer where there are not so many. There is no single object: GenEval asks
for all of COCO's."""
VALIDATION: Final = dict.fromkeys(TRAIN, 20)
DRAWS: Final = 20_000

Metadata = dict[str, Any]


def counted(name: str, count: int = 1, color: str | None = None) -> str:
    """`count` objects in words: "a red cup", "two pairs of scissors", "three people"."""
    noun = name if count == 1 or name in PAIRS else _plural(name)
    words = [color, noun] if color else [noun]
    if name in PAIRS:
        words = ["pair" if count == 1 else "pairs", "of", *words]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article if count == 1 else NUMBERS[count], *words])


def _plural(name: str) -> str:
    if name in PLURALS:
        return PLURALS[name]
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def sample(tag: str, rng: random.Random) -> Metadata:
    """A line of metadata of one tag, with its prompt."""
    first, second = rng.sample(CLASSES, 2)
    if tag == "counting":
        count = rng.choice(list(NUMBERS))
        return {
            "tag": tag,
            "include": [{"class": first, "count": count}],
            "exclude": [{"class": first, "count": count + 1}],
            "prompt": f"a photo of {counted(first, count)}",
        }
    if tag == "position":
        relation = rng.choice(RELATIONS)
        placed = {**_one(second), "position": [relation, 0]}
        words = f"{counted(second)} {relation} {counted(first)}"
        return {"tag": tag, "include": [_one(first), placed], "prompt": f"a photo of {words}"}
    names = [first] if tag == "colors" else [first, second]
    colors = rng.sample(COLORS, 2) if tag in ("colors", "color_attr") else [None, None]
    asked = list(zip(names, colors, strict=False))
    words = " and ".join(counted(name, 1, color) for name, color in asked)
    include = [_one(name, color) for name, color in asked]
    return {"tag": tag, "include": include, "prompt": f"a photo of {words}"}


def _one(name: str, color: str | None = None) -> Metadata:
    return {"class": name, "count": 1} | ({"color": color} if color else {})


def sensible(metadata: Mapping[str, Any]) -> bool:
    """Whether no person is given a colour, nor an orange."""
    asked = metadata["include"]
    return not any("color" in one and one["class"] in ("person", "orange") for one in asked)


def asks(metadata: Mapping[str, Any]) -> Hashable:
    """What a prompt asks for: the same for two prompts that the same pictures answer."""
    include = metadata["include"]
    if any("position" in clause for clause in include):
        return tuple(_clause(clause) for clause in include)
    return frozenset(_clause(clause) for clause in include)


def _clause(clause: Mapping[str, Any]) -> Hashable:
    where = tuple(clause.get("position", ()))
    return clause["class"], clause["count"], clause.get("color"), where


def draw(
    wanted: Mapping[str, int], rng: random.Random, taken: Collection[Hashable]
) -> list[Metadata]:
    """So many prompts of each tag, mixed; no two ask for the same, none for what is `taken`."""
    chosen: list[Metadata] = []
    for tag, count in wanted.items():
        of_tag: dict[Hashable, Metadata] = {}
        for metadata in filter(sensible, (sample(tag, rng) for _ in range(DRAWS))):
            if len(of_tag) < count and asks(metadata) not in taken:
                of_tag.setdefault(asks(metadata), metadata)
        chosen += of_tag.values()
    rng.shuffle(chosen)
    return chosen


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description="Prompts for photographs, as GenEval's metadata.")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--without", type=Path, nargs="*", default=[], metavar="FILE")
    args = parser.parse_args()
    kept_out = {asks(line) for line in chain.from_iterable(map(_lines, args.without))}
    args.out.mkdir(parents=True, exist_ok=True)
    for which, wanted in (("validation", VALIDATION), ("train", TRAIN)):
        chosen = draw(wanted, random.Random(f"photos {which}"), kept_out)
        kept_out |= {asks(metadata) for metadata in chosen}
        text = "".join(f"{json.dumps(metadata)}\n" for metadata in chosen)
        (args.out / f"photos.{which}.jsonl").write_text(text)


def _lines(path: Path) -> Iterator[Metadata]:
    return (json.loads(line) for line in path.read_text().splitlines() if line.strip())


if __name__ == "__main__":
    main()
