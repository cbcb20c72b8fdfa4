"""Prompt sets: files of prompts, each with its reward and its share of the groups.

Reads GenEval's metadata (JSON lines with "include"), signs (JSON lines with "text"), and plain text
files whose target stands between quotes, as flow_grpo's OCR sets do. The order is a permutation per
epoch, keyed by the seed, so a cursor of a few integers resumes it. A line that is none of these is
an error with its number.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from trainer.config import PromptSet
from trainer.errors import PromptError
from trainer.rewards.groups import Prompt

OCR = "ocr"
QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|(?<!\w)\'([^\']+)\'(?!\w)')
JUDGED = ("tag", "include", "exclude")


def read_prompt_set(source: PromptSet) -> list[Prompt]:
    """All prompts of a file with the tags that are asked for, in its order."""
    try:
        lines = source.file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PromptError(f"cannot read the prompt file {source.file}: {error.strerror}") from error
    parse = _from_json if source.file.suffix in (".jsonl", ".json") else _from_text
    prompts = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompts.append(parse(line.strip(), source))
        except (ValueError, KeyError, TypeError) as error:
            raise PromptError(f"{source.file}:{number}: {error}") from error
    if not prompts:
        raise PromptError(f"{source.file} holds no prompts")
    if source.tags:
        known = sorted({prompt.tag for prompt in prompts})
        for tag in source.tags:
            if tag not in known:
                raise PromptError(
                    f"{source.file} holds no prompts tagged {tag!r}; its tags are: "
                    f"{', '.join(known)}"
                )
        prompts = [prompt for prompt in prompts if prompt.tag in source.tags]
    return prompts


def _from_json(line: str, source: PromptSet) -> Prompt:
    data = json.loads(line)
    if not isinstance(data, dict) or not isinstance(data.get("prompt"), str):
        raise ValueError(
            f'expected an object with a "prompt", such as {{"tag": "counting", "prompt": "...", '
            f'"include": [...]}} or {{"tag": "text", "prompt": "...", "text": "..."}}, got {line!r}'
        )
    target: dict[str, Any] | None = None
    if "text" in data:
        target = {"text": str(data["text"])}
    elif "include" in data:
        target = {key: data[key] for key in JUDGED if key in data}
    return _prompt(source, data["prompt"], str(data.get("tag", "")), target)


def _from_text(line: str, source: PromptSet) -> Prompt:
    target = None
    if source.reward == OCR:
        found = QUOTED.search(line)
        if found is None:
            raise ValueError(f"the text to be shown must stand between quotes, got {line!r}")
        target = {"text": next(group for group in found.groups() if group)}
    return _prompt(source, line, "", target)


def _prompt(source: PromptSet, text: str, tag: str, target: Mapping[str, Any] | None) -> Prompt:
    return Prompt(text, source.reward, tag, target, dict(source.options))


class PromptStream:
    """An endless, resumable mixture of prompt sets in the proportion of their shares.

    Within an epoch of a set no prompt repeats. Equal seeds give equal streams.
    """

    def __init__(self, sets: Sequence[PromptSet], seed: int, purpose: str = "train") -> None:
        if not sets:
            raise PromptError(
                "no prompts are configured; add [[prompts]] with file, reward and share"
            )
        self._key = f"{purpose}/{seed}"
        self._shares = [s.share for s in sets]
        self._pools = [read_prompt_set(s) for s in sets]
        self._taken = [0] * len(sets)
        self._orders: dict[int, tuple[int, list[int]]] = {}

    def take(self, count: int, room: Mapping[str, int] | None = None) -> list[Prompt]:
        """The next prompts; `room`: how many more of them at most may be for a reward.

        Sets whose reward has no more room are passed over and catch up once there is some again.
        """
        left, prompts = dict(room or {}), list[Prompt]()
        for _ in range(count):
            prompts.append(self._next({name for name, n in left.items() if n <= 0}))
            if prompts[-1].reward in left:
                left[prompts[-1].reward] -= 1
        return prompts

    @property
    def cursor(self) -> list[int]:
        """Prompts taken of each set so far."""
        return list(self._taken)

    def seek(self, cursor: Sequence[int]) -> None:
        """Continues after the given numbers of prompts."""
        if len(cursor) != len(self._taken):
            raise PromptError(
                f"the checkpoint counted {len(cursor)} prompt sets, the configuration has "
                f"{len(self._taken)}; resume with the [[prompts]] of the run"
            )
        self._taken = list(cursor)

    def _next(self, full: Collection[str]) -> Prompt:
        """From the set that is furthest behind its share and not full; ties go to the first."""
        behind = {
            which: (self._taken[which] + 1) / share
            for which, share in enumerate(self._shares)
            if self._pools[which][0].reward not in full
        }
        if not behind:
            raise PromptError(f"no set of prompts is for another reward than {sorted(full)}")
        which = min(behind, key=behind.__getitem__)
        epoch, position = divmod(self._taken[which], len(self._pools[which]))
        self._taken[which] += 1
        return self._pools[which][self._order(which, epoch)[position]]

    def _order(self, which: int, epoch: int) -> list[int]:
        known, order = self._orders.get(which, (-1, []))
        if known != epoch:
            order = list(range(len(self._pools[which])))
            random.Random(f"{self._key}/{which}/{epoch}").shuffle(order)
            self._orders[which] = (epoch, order)
        return order
