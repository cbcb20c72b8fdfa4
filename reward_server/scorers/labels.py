"""What the classes of a detector are called: by its own label list, by GenEval, by anybody else."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Final

UNNAMED: Final = "N/A"
"""What label lists say at numbers that are no class."""
SYNONYMS: Final = (
    ("mouse", "computer mouse"),
    ("remote", "tv remote", "remote control"),
    ("keyboard", "computer keyboard"),
    ("couch", "sofa"),
    ("airplane", "aeroplane"),
    ("motorcycle", "motorbike"),
    ("potted plant", "pottedplant"),
    ("dining table", "diningtable"),
    ("tv", "tvmonitor", "tv monitor", "television"),
    ("hair drier", "hair dryer"),
    ("donut", "doughnut"),
    ("cell phone", "mobile phone"),
)
"""Names of one class: COCO's first, then GenEval's, VOC's and those of other label lists."""


def spoken(classes: Collection[str]) -> dict[str, str]:
    """Every name that a model of these classes is asked by, and the class it means.

    Blanks and case do not matter: a label list may say ``DiningTable``.
    """
    words = {name.lower().replace("_", " "): name for name in classes}
    for plain, name in list(words.items()):
        for same in SYNONYMS:
            if plain in same:
                words = dict.fromkeys(same, name) | words
    return words | {name: name for name in classes}


def words_of(model: str) -> tuple[str, ...] | None:
    """Every name by which a model's classes can be asked for, without loading it.

    None while its ``config.json`` is not on this machine, or names no classes.
    """
    name, revision = hub_or_folder(model)
    file = Path(name) / "config.json"
    if not file.is_file():
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(name, "config.json", revision=revision)
        except HFValidationError:
            return None
        if not isinstance(cached, str):
            return None
        file = Path(cached)
    labels = json.loads(file.read_text()).get("id2label")
    if not labels:
        return None
    return tuple(sorted(spoken({str(one) for one in labels.values()} - {UNNAMED})))


def hub_or_folder(model: str) -> tuple[str, str]:
    """A folder, or `owner/name[@revision]` on the hub, as the libraries take it."""
    name, _, revision = (model, "", "") if Path(model).exists() else model.partition("@")
    return name, revision or "main"
