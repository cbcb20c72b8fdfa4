"""What is evaluated: held-out prompts, and one fixed noise per image, common to all models.

Image k of a tag shows prompt k mod P in its sample k div P, so the first 250 images of a tag are
the same whether 250 or 500 are asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.arithmetic.randomness import normal
from trainer.config import PromptSet
from trainer.errors import PromptError
from trainer.rewards.groups import Prompt
from trainer.rewards.prompts import OCR, read_prompt_set

TEXT = "text"
COUNTING, HUMAN = "counting", "human"


@dataclass(frozen=True)
class EvalImage:
    """Image `index` of a tag: its prompt, which of the tag's prompts that is, and the noise key."""

    prompt: Prompt
    prompt_index: int
    index: int

    def noise(self, shape: tuple[int, ...], seed: int) -> Tensor:
        """Standard normal noise of `shape` in fp32 on the CPU, the same for every model."""
        return normal(shape, seed, "evaluation", self.prompt.tag, self.index)


Prompts = Mapping[str, Sequence[Prompt]]


def images(prompts: Prompts, per_tag: int, signs: int) -> list[EvalImage]:
    """`per_tag` images of each composition tag and `signs` images of visual text, in order."""
    chosen: list[EvalImage] = []
    for tag, pool in prompts.items():
        for k in range(signs if tag == TEXT else per_tag):
            chosen.append(EvalImage(pool[k % len(pool)], k % len(pool), k))
    return chosen


def read_prompts(path: Path) -> dict[str, tuple[Prompt, ...]]:
    """Prompts of a JSONL file by tag: GenEval's metadata is counted, {"text": ...} is read (OCR).

    Raises:
        PromptError: a missing or empty file, or a line that is no such metadata.
    """
    prompts = []
    for prompt in read_prompt_set(PromptSet(file=path, reward=COUNTING)):
        if not prompt.target or not prompt.tag:
            raise PromptError(
                f'{path}: {prompt.text!r} needs a "tag", and "include" or "text" to be scored by'
            )
        prompts.append(replace(prompt, reward=OCR) if TEXT in prompt.target else prompt)
    return _by_tag(prompts)


def configured_prompts(sets: Sequence[PromptSet]) -> dict[str, tuple[Prompt, ...]]:
    """A run's held-out prompts by tag, each judged as in its probe.

    Prompts that people judge, or without a target or a tag, cannot be measured and are left out.
    """
    prompts = []
    machine = (one for one in sets if one.reward != HUMAN)
    for prompt in (prompt for one in machine for prompt in read_prompt_set(one)):
        tag = TEXT if prompt.target and TEXT in prompt.target else prompt.tag
        if prompt.target and tag:
            prompts.append(replace(prompt, tag=tag))
    if not prompts:
        names = ", ".join(str(one.file) for one in sets)
        raise PromptError(
            f"none of the held-out prompts ({names}) has a tag and a target that a machine can "
            "judge; give some that have with --prompts FILE (JSONL)"
        )
    return _by_tag(prompts)


def _by_tag(prompts: Iterable[Prompt]) -> dict[str, tuple[Prompt, ...]]:
    pools: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        pools.setdefault(prompt.tag, []).append(prompt)
    return {tag: tuple(pool) for tag, pool in pools.items()}


def fingerprint(prompts: Prompts) -> str:
    """sha256 over tags, prompts, targets and options, in order: equal means the same evaluation."""
    rows: Iterable[Any] = (
        [p.tag, p.text, p.reward, dict(p.target or {}), *([dict(p.options)] if p.options else [])]
        for pool in prompts.values()
        for p in pool
    )
    text = "\n".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()
