"""The reward server as the reward function other trainers call: TRL's, and flow_grpo's or DGPO's.

A missing reward is ``None`` where the trainer knows such a thing, and otherwise an error or NaN, as
the caller chooses; it is never a number that was made up. Knows neither torch nor any trainer:
tensors are taken by what they can do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np

from shared.client import RewardClient
from shared.errors import RewardError
from shared.images import Pixels
from shared.request import build_request
from shared.schema import MAX_ITEMS, Job, Json

TargetOf = Callable[[str, Mapping[str, Any]], Json | None]
"""From a prompt and its metadata to what the reward compares the image with."""
TIMEOUT_S: Final = 600.0


class RewardMissing(RewardError):
    """Items without a reward, in a trainer that has no word for that."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        items = [item for job in jobs for item in job.data if item.reward is None]
        causes = dict.fromkeys(item.error.message for item in items if item.error is not None)
        super().__init__(
            f"{len(items)} images have no reward ({'; '.join(list(causes)[:3])}); "
            "pass on_missing='nan' to get NaN for them, and leave those out of the group's mean"
        )


def quoted_text(prompt: str, metadata: Mapping[str, Any]) -> Json:
    """Target of ``ocr``: what stands between the prompt's first quotes, as in flow_grpo's prompts.

    Raises:
        ValueError: the prompt quotes nothing.
    """
    found = re.search(r'"([^"]+)"', prompt)
    if found is None:
        raise ValueError(f"prompt {prompt!r} quotes no text; say what to read (target_of=)")
    return {"text": found[1]}


def geneval(prompt: str, metadata: Mapping[str, Any]) -> Json:
    """Target of ``counting``: the clauses of GenEval's metadata.

    Raises:
        ValueError: the metadata has no ``include``.
    """
    if "include" not in metadata:
        raise ValueError(f"metadata of prompt {prompt!r} has no 'include', only {sorted(metadata)}")
    return {key: metadata[key] for key in ("include", "exclude") if key in metadata}


def no_target(prompt: str, metadata: Mapping[str, Any]) -> None:
    """Rewards that look at prompt and image only."""
    return


TARGETS: Final[Mapping[str, TargetOf]] = {"ocr": quoted_text, "counting": geneval}


def trl_reward(
    client: RewardClient,
    reward: str,
    *,
    images: str = "images",
    metadata: str = "metadata",
    target_of: TargetOf | None = None,
    timeout_s: float = TIMEOUT_S,
    **fields: Any,
) -> Callable[..., list[float | None]]:
    """A reward function for TRL's trainers, which leave samples with ``None`` out of the group.

    TRL calls it with ``prompts``, ``completions`` and the data set's columns as keywords.

    Args:
        client: of the reward server.
        reward: name of the reward.
        images: keyword under which one image per prompt comes; without it ``completions`` are.
        metadata: keyword under which one mapping per prompt comes, if there is such a column.
        target_of: what each image is compared with; by default as the reward's prompts say it.
        timeout_s: how long one call may take, in seconds.
        **fields: the other fields of ``ScoreRequest`` (run_id, votes, ...).

    Returns:
        A function that returns one reward per prompt, and raises ``RewardError``.
    """

    def function(
        prompts: Sequence[Any], completions: Sequence[Any] | None = None, **columns: Any
    ) -> list[float | None]:
        pictures = columns.get(images, completions)
        if pictures is None:
            given = sorted(columns)
            raise ValueError(f"no images: neither {images!r} nor completions, only {given}")
        texts = [_text(prompt) for prompt in prompts]
        facts = columns.get(metadata) or [{}] * len(texts)
        jobs = _score(client, reward, pictures, texts, facts, target_of, timeout_s, fields)
        return [one for job in jobs for one in job.rewards]

    function.__name__ = reward
    return function


def flow_grpo_reward(
    client: RewardClient,
    reward: str,
    *,
    on_missing: Literal["raise", "nan"] = "raise",
    target_of: TargetOf | None = None,
    timeout_s: float = TIMEOUT_S,
    **fields: Any,
) -> Callable[..., tuple[list[float], dict[str, Any]]]:
    """A reward function ``fn(images, prompts, metadata)`` as flow_grpo and DGPO call it.

    Images are float tensors or arrays (N, 3, H, W) in [0, 1], or uint8 (N, H, W, 3). Other
    arguments as ``trl_reward``.

    Returns:
        A function that returns one reward per image and ``{"jobs": ids}``; it raises
        ``RewardMissing`` for images without a reward, or gives NaN.
    """

    def function(
        images: Any, prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> tuple[list[float], dict[str, Any]]:
        facts = metadata or [{}] * len(prompts)
        jobs = _score(client, reward, images, prompts, facts, target_of, timeout_s, fields)
        rewards = [one for job in jobs for one in job.rewards]
        if on_missing == "raise" and None in rewards:
            raise RewardMissing(jobs)
        known = [math.nan if one is None else one for one in rewards]
        return known, {"jobs": [job.id for job in jobs]}

    function.__name__ = reward
    return function


def _score(
    client: RewardClient,
    reward: str,
    images: Any,
    prompts: Sequence[str],
    metadata: Sequence[Mapping[str, Any]],
    target_of: TargetOf | None,
    timeout_s: float,
    fields: Mapping[str, Any],
) -> list[Job]:
    aim = target_of or TARGETS.get(reward, no_target)
    targets = [aim(prompt, facts) for prompt, facts in zip(prompts, metadata, strict=True)]
    pixels = as_pixels(images)
    starts = range(0, len(pixels), MAX_ITEMS)
    requests = [
        build_request(
            reward,
            prompts[i : i + MAX_ITEMS],
            pixels[i : i + MAX_ITEMS],
            targets=targets[i : i + MAX_ITEMS],
            **fields,
        )
        for i in starts
    ]
    return [client.score(request, timeout_s=timeout_s) for request in requests]


def as_pixels(images: Any) -> list[Pixels | bytes]:
    """Images of any usual kind as RGB uint8 arrays (H, W, 3); files as bytes stay as they are.

    Takes a batch or a sequence of: tensors and arrays, float in [0, 1] or uint8, channels first
    or last; PIL images; bytes of image files.

    Raises:
        TypeError: neither of these.
    """
    return [_one(image) for image in images]


def _one(image: Any) -> Pixels | bytes:
    if isinstance(image, bytes):
        return image
    if hasattr(image, "convert"):  # PIL
        return np.asarray(image.convert("RGB"), dtype=np.uint8)
    if hasattr(image, "detach"):  # a tensor, of any device and any float type
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[2] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise TypeError(f"an image of shape {pixels.shape}; expected (3, H, W) or (H, W, 3)")
    if np.issubdtype(pixels.dtype, np.floating):
        pixels = np.round(pixels * 255.0).clip(0, 255)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _text(prompt: Any) -> str:
    """A prompt as TRL gives it: a text, or a conversation whose last message is the prompt."""
    return prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
