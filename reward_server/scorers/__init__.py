"""Scorers: what turns an image into a reward. One file and one line in ``REGISTRY`` each.

A scorer class is looked at by the API process (names, target, options) and instantiated only in a
worker process, so heavy engines belong in ``__init__``, not at import. A scorer that cannot tell
returns ``Failed``, never a made-up number.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from pydantic import BaseModel

from reward_server.domain.outcomes import Failed, Outcome, Scored
from shared.images import Pixels

__all__ = [
    "REGISTRY",
    "Failed",
    "Outcome",
    "Scored",
    "Scorer",
    "ScorerItem",
    "UnknownScorer",
    "load",
]

REGISTRY: Final[Mapping[str, str]] = {
    "ocr": "reward_server.scorers.ocr:OcrScorer",
    "counting": "reward_server.scorers.counting:CountingScorer",
}
"""Reward name -> ``module:class``."""

TargetT = TypeVar("TargetT", bound=BaseModel)
OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True)
class ScorerItem(Generic[TargetT, OptionsT]):
    """One image to score: ``image`` is RGB uint8 (H, W, 3), target and options are validated."""

    prompt: str
    image: Pixels
    target: TargetT
    options: OptionsT


class Scorer(Protocol[TargetT, OptionsT]):
    """What a scorer class offers. ``__init__`` takes no arguments and may load an engine.

    A scorer of objects may also have ``classes``: every name it can be asked for, or None while it
    cannot tell. ``GET /info`` publishes them.
    """

    name: ClassVar[str]
    """Name of the reward, as in ``POST /score/{name}``."""
    model: ClassVar[str]
    """What did the scoring, with versions, e.g. ``ocr/PP-OCRv6@rapidocr-3.10.0``."""
    target: type[TargetT]
    """Pydantic model of an item's ``target``; a missing target is validated as ``{}``."""
    options: type[OptionsT]
    """Pydantic model of a request's ``options``; every field needs a default."""

    def score(self, batch: list[ScorerItem[TargetT, OptionsT]]) -> list[Outcome]:
        """One outcome per item, in order. An exception makes the worker try items one by one."""
        ...


class UnknownScorer(LookupError):
    """A registry entry that leads to no scorer class."""


def load(path: str) -> type[Scorer[Any, Any]]:
    """The scorer class behind a ``module:class`` path.

    Raises:
        UnknownScorer: no such module or class, or the class lacks part of the protocol.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UnknownScorer(f"scorer {path!r}: {error}; expected 'module:Class'") from error
    missing = [a for a in ("name", "model", "target", "options", "score") if not hasattr(found, a)]
    if missing:
        raise UnknownScorer(f"scorer {path!r} lacks {', '.join(missing)}; see Scorer")
    scorer: type[Scorer[Any, Any]] = found
    return scorer
