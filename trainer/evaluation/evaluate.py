"""Measures models on held-out prompts: same noise for all, scored over HTTP, every score kept.

The server's scorers give the numbers (counting in strict mode, OCR); a judge, if one is handed in,
looks at the same pictures. A failed score is missing, never zero.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from shared.client import RewardClient, build_request
from shared.schema import MAX_BODY_BYTES, MAX_ITEMS, Job
from trainer.evaluation.prompts import EvalImage, Prompts, fingerprint, images
from trainer.evaluation.results import Evaluation, EvaluationError, Row
from trainer.rewards.groups import Prompt
from trainer.rewards.inflight import Pixels, to_pixels

Sample = Callable[[Tensor, Sequence[str]], Tensor]
Progress = Callable[[int], None]
# A second opinion of pixels and target, without a server: 1, 0, or None for what it cannot judge.
Judge = Callable[[Pixels, Mapping[str, Any] | None], float | None]

# Signs are in capitals, and a lone C, O or S is a capital or not by its size alone.
OPTIONS = {"counting": {"mode": "strict"}, "ocr": {"case": "insensitive"}}
TIMEOUT_S = 600.0
PNG_FRAME = 4096  # bytes at most of a PNG, and of an item around it, that are no pixels
PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Policy:
    """A model as evaluation sees it: noise and prompts in, images in [0, 1] out.

    `sample` maps noise (batch, channels, height, width) and as many prompts to RGB images
    (batch, 3, height, width).
    """

    name: str
    label: str
    nfe: int
    latent_shape: tuple[int, ...]
    sample: Sample


@dataclass(frozen=True)
class EvaluationSettings:
    """How much is measured, from which noise, and under which name the server counts it."""

    images_per_tag: int = 250
    signs: int = 500
    seed: int = 0
    batch: int = 50
    run_id: str = "evaluation"


@dataclass
class Gallery:
    """Pictures kept for the report: the first `per_tag` of each tag, never the best."""

    per_tag: int = 3
    pictures: dict[tuple[str, str, int], Pixels] = field(default_factory=dict)

    def keep(self, policy: str, image: EvalImage, pixels: Pixels) -> None:
        """Remember an image if it is among the first of its tag."""
        if image.index < self.per_tag:
            self.pictures[policy, image.prompt.tag, image.index] = pixels


def evaluate(
    policies: Sequence[Policy],
    prompts: Prompts,
    client: RewardClient,
    settings: EvaluationSettings,
    weights: dict[str, str],
    gallery: Gallery,
    progress: Progress = lambda count: None,
    judge: Judge | None = None,
) -> Evaluation:
    """Measure every policy on the same prompts and noise; `progress` is told of finished images.

    judge: looks at the same pictures; its verdicts are kept beside the scores.

    Raises:
        RewardError: the server is unreachable, refuses the key, or lacks a reward.
        EvaluationError: not one image of a tag could be scored.
    """
    scorers = _required_scorers(prompts, client)
    chosen = images(prompts, settings.images_per_tag, settings.signs)
    rows = {
        policy.name: _measure(policy, chosen, client, settings, gallery, progress, judge)
        for policy in policies
    }
    return Evaluation(
        seed=settings.seed,
        prompts_sha256=fingerprint(prompts),
        prompt_counts={tag: len(pool) for tag, pool in prompts.items()},
        weights=weights,
        scorers=scorers,
        versions=versions(),
        rows=rows,
    )


def versions() -> dict[str, str]:
    """Python and the packages that decide the pixels."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _required_scorers(prompts: Prompts, client: RewardClient) -> dict[str, str]:
    """The models behind the rewards the prompts need, as the server names them."""
    known = {reward.name: reward.model for reward in client.info().rewards}
    needed = sorted({p.reward for pool in prompts.values() for p in pool})
    missing = [name for name in needed if name not in known]
    if missing:
        raise EvaluationError(
            f"the reward server has no reward {', '.join(missing)} (it has: "
            f"{', '.join(sorted(known)) or 'none'}), which the evaluation prompts need"
        )
    return {name: known[name] for name in needed}


def _measure(
    policy: Policy,
    chosen: Sequence[EvalImage],
    client: RewardClient,
    settings: EvaluationSettings,
    gallery: Gallery,
    progress: Progress,
    judge: Judge | None,
) -> Row:
    started = time.monotonic()
    scores: dict[str, list[float | None]] = {}
    second: dict[str, list[float | None]] = {}
    waiting: list[tuple[str, Future[Job]]] = []
    with ThreadPoolExecutor(max_workers=2) as sender:
        for batch in batches(chosen, settings.batch):
            tag = batch[0].prompt.tag
            pictures = generate(policy, batch, settings.seed)
            for start in range(0, len(batch), size := per_request(pictures[0])):
                part = slice(start, start + size)
                sent = (client, policy, batch[part], pictures[part], settings)
                waiting.append((tag, sender.submit(_score, *sent)))
            verdicts = [
                judge(pixels, image.prompt.target) if judge is not None else None
                for image, pixels in zip(batch, pictures, strict=True)
            ]
            if any(v is not None for v in verdicts):
                second.setdefault(tag, []).extend(verdicts)
            for image, pixels in zip(batch, pictures, strict=True):
                gallery.keep(policy.name, image, pixels)
            progress(len(batch))
            _raise_early(waiting)
        for tag, future in waiting:
            scores.setdefault(tag, []).extend(future.result().rewards)
    for tag, values in scores.items():
        if all(value is None for value in values):
            raise EvaluationError(
                f"the server scored none of the {len(values)} images of tag {tag!r} for "
                f"{policy.label}; look for the reason in its log"
            )
    seconds = round(time.monotonic() - started, 1)
    return Row(label=policy.label, nfe=policy.nfe, scores=scores, second=second, seconds=seconds)


def _raise_early(waiting: Sequence[tuple[str, Future[Job]]]) -> None:
    """A server that is gone is noticed now, not after everything was generated."""
    for _, future in waiting:
        if future.done():
            future.result()


def batches(chosen: Sequence[EvalImage], size: int) -> Iterator[list[EvalImage]]:
    """Batches of at most `size` images, each of one tag and judged alike."""
    for _, run in groupby(chosen, key=lambda image: (image.prompt.tag, *judged_by(image.prompt))):
        of_tag = list(run)
        for start in range(0, len(of_tag), size):
            yield of_tag[start : start + size]


def judged_by(prompt: Prompt) -> tuple[str, str]:
    """Reward and options of a prompt: prompts that agree in both may share a request."""
    return prompt.reward, repr(sorted(prompt.options.items()))


def per_request(pixels: Pixels) -> int:
    """How many pictures of this size fit into one request, however badly they compress."""
    encoded = 4 * (pixels.nbytes + PNG_FRAME) // 3
    return max(1, min(MAX_ITEMS, MAX_BODY_BYTES // encoded))


def generate(policy: Policy, batch: Sequence[EvalImage], seed: int) -> list[Pixels]:
    """RGB pictures (height, width, 3) of a batch, from each image's own noise."""
    noise = torch.stack([image.noise(policy.latent_shape, seed) for image in batch])
    return to_pixels(policy.sample(noise, [image.prompt.text for image in batch]))


def _score(
    client: RewardClient,
    policy: Policy,
    batch: Sequence[EvalImage],
    pictures: Sequence[Pixels],
    settings: EvaluationSettings,
) -> Job:
    first = batch[0]
    reward, tag = first.prompt.reward, first.prompt.tag
    request = build_request(
        reward,
        [image.prompt.text for image in batch],
        list(pictures),
        targets=[dict(image.prompt.target or {}) for image in batch],
        run_id=settings.run_id,
        group_id=f"{policy.name}/{tag}/{first.index}",
        options=dict(first.prompt.options) or OPTIONS.get(reward),
    )
    return client.score(request, timeout_s=TIMEOUT_S)
