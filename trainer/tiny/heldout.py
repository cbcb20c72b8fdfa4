"""What the embedded world keeps for evaluation, handed to a trainer that does not know it."""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.config import Config, PromptSet
from trainer.evaluation.prompts import COUNTING, TEXT, Prompts, configured_prompts
from trainer.rewards.groups import Prompt
from trainer.rewards.prompts import OCR
from trainer.tiny.prompt_files import FOLDER
from trainer.tiny.scenes import SHAPES
from trainer.tiny.world import TAGS, sample_prompt, split

COLUMNS = (*TAGS, TEXT)
MAX_PROMPTS = 500  # distinct prompts per tag, where the world has as many
PATIENCE = 4000  # draws without a new prompt after which a tag counts as exhausted
WEIGHTS = ("trainer", "tiny", "weights")


def heldout_prompts(sets: Sequence[PromptSet]) -> Prompts:
    """What a run is measured on: all that the embedded world keeps apart, or the configured sets.

    Raises:
        PromptError: none of the configured prompts can be judged by a machine.
    """
    if all(FOLDER in one.file.resolve().parents for one in sets):
        return embedded_prompts()
    return configured_prompts(sets)


@functools.cache
def embedded_prompts() -> Prompts:
    """The held-out prompts of the embedded world by tag, in an order that never changes.

    Those its hash reserves: neither training nor the choice of a checkpoint ever sees them.
    """
    return {tag: tuple(map(_from_metadata, _heldout(tag))) for tag in COLUMNS}


def _heldout(tag: str) -> list[dict[str, Any]]:
    rng = random.Random(f"evaluation {tag}")
    seen: dict[str, dict[str, Any]] = {}
    idle = 0
    while len(seen) < MAX_PROMPTS and idle < PATIENCE:
        prompt = sample_prompt(tag, rng)
        idle += 1
        if split(prompt) == "heldout" and prompt.caption not in seen:
            seen[prompt.caption] = prompt.metadata
            idle = 0
    return list(seen.values())


def _from_metadata(metadata: Mapping[str, Any]) -> Prompt:
    tag, text = str(metadata["tag"]), str(metadata["prompt"])
    if tag == TEXT:
        return Prompt(text, OCR, tag, {TEXT: metadata[TEXT]})
    return Prompt(text, COUNTING, tag, {"include": metadata["include"]})


def has_only_shapes(prompt: Prompt) -> bool:
    """Whether a prompt asks for the embedded world's shapes alone, if for any objects."""
    return all(one.get("class") in SHAPES for one in (prompt.target or {}).get("include", ()))


def model_name(config: Config) -> str:
    """What the report calls the model."""
    embedded = config.model.path.parts[-len(WEIGHTS) :] == WEIGHTS
    return "the embedded model" if embedded else config.model.path.name
