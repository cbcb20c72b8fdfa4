"""The held-out probe: a fixed small set of prompts and noise, scored while training goes on.

Its score picks the generator that is kept. Scoring happens in a thread; a probe is skipped while
the one before is still being scored. A probe that could not be scored says
so and changes nothing.
"""

from __future__ import annotations

import math
import statistics
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

from shared.client import build_request
from shared.errors import RewardError
from shared.schema import Job, ScoreRequest
from trainer.arithmetic.randomness import normals
from trainer.config import Config
from trainer.errors import ConfigError
from trainer.evaluation.evaluate import Judge, judged_by, per_request
from trainer.models.lora_files import Lora
from trainer.models.networks import Networks
from trainer.models.rollout import sampled
from trainer.models.texts import TextCache
from trainer.rewards.groups import Prompt
from trainer.rewards.inflight import Pixels, RewardTraits, request_fields, to_pixels
from trainer.rewards.prompts import PromptStream

JUDGE = "judge"  # the second opinion that needs no server
Scores = list[float | None]


class Scoring(Protocol):
    """The one call of `shared.client.RewardClient` that a probe needs."""

    def score(self, request: ScoreRequest, *, idempotency_key: str | None = None) -> Job: ...


@dataclass(frozen=True)
class Probe:
    """A measured generator: mean score in all and per reward, NaN if nothing could be scored.

    error: standard error of the score. gap: mean score minus mean second opinion, over the images
    that both judged; NaN without one. failure: why it could not be scored, if so.
    """

    iteration: int
    lora: Lora
    pixels: list[Pixels]
    score: float
    by_reward: dict[str, float] = field(default_factory=dict)
    error: float = 0.0
    gap: float = math.nan
    failure: str = ""

    def as_good_as(self, best: float | None) -> bool:
        """Whether the score is within one standard error of the best so far.

        The one-standard-error rule (Breiman et al. 1984, section 3.4.3): the highest of many noisy
        scores is mostly lucky, and a later generator has learned more.
        """
        return math.isfinite(self.score) and (best is None or self.score >= best - self.error)


class Heldout:
    """Measures `generator_ema` on the configured prompts, always from the same noise."""

    def __init__(
        self,
        config: Config,
        run_id: str,
        networks: Networks,
        texts: TextCache,
        source: Scoring,
        rewards: dict[str, RewardTraits],
        judge: Judge | None = None,
    ) -> None:
        if config.heldout.second_opinion == JUDGE and judge is None:
            raise ConfigError(
                f"heldout.second_opinion = {JUDGE!r}, and no judge was handed to train(); name a "
                "reward of the server, or leave it out"
            )
        self._config = config
        self._run_id = run_id
        self._networks = networks
        self._texts = texts
        self._source = source
        self._rewards = rewards
        self._judge = judge
        self._thread = ThreadPoolExecutor(1, "heldout")
        self._pending: Future[Probe] | None = None
        self._prompts: list[Prompt] = []
        if config.heldout.prompts:
            stream = PromptStream(config.heldout.prompts, 0, "heldout")
            self._prompts = sorted(stream.take(config.heldout.count), key=judged_by)

    @property
    def enabled(self) -> bool:
        """Whether the configuration asks for probes."""
        return bool(self._prompts) and self._config.heldout.every > 0

    def due(self, iteration: int) -> bool:
        """Whether a probe belongs before this iteration."""
        free = self._pending is None
        return self.enabled and free and iteration % self._config.heldout.every == 0

    def start(self, iteration: int) -> None:
        """Makes the images now and has them scored in the background."""
        backbone = self._networks.backbone
        keys = [("heldout", i, 0) for i in range(len(self._prompts))]
        noise = normals(backbone.latent_shape, keys).to(backbone.device)
        condition = self._texts.encode([p.text for p in self._prompts])
        velocity = self._networks.velocity("generator_ema")
        trajectory = sampled(velocity, noise, condition, self._config.rollout)
        pixels = to_pixels(backbone.decode(trajectory.final))
        lora = self._networks.lora("generator_ema")
        self._pending = self._thread.submit(self._measured, iteration, lora, pixels)

    def result(self, timeout_s: float = 0.0) -> Probe | None:
        """The finished probe, once; None while there is none."""
        if self._pending is None:
            return None
        if timeout_s == 0.0 and not self._pending.done():
            return None
        try:
            probe = self._pending.result(timeout_s)
        except TimeoutError:
            return None
        self._pending = None
        return probe

    def close(self) -> None:
        """Gives up an unfinished probe."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _measured(self, iteration: int, lora: Lora, pixels: list[Pixels]) -> Probe:
        try:
            return self._measure(iteration, lora, pixels)
        except RewardError as error:
            return Probe(iteration, lora, pixels, math.nan, failure=str(error))

    def _measure(self, iteration: int, lora: Lora, pixels: list[Pixels]) -> Probe:
        by_reward: dict[str, Scores] = {}
        second: Scores = []
        at = 0
        for (name, _), group in groupby(self._prompts, key=judged_by):
            prompts = list(group)
            for first in range(0, len(prompts), size := per_request(pixels[0])):
                part = prompts[first : first + size]
                images = pixels[at : at + len(part)]
                at += len(part)
                options = request_fields(part[0], self._rewards[name])
                scores = self._score(name, part, images, iteration, options)
                by_reward.setdefault(name, []).extend(scores)
                second.extend(self._second_opinion(part, images, iteration))
        every = [score for scores in by_reward.values() for score in scores]
        means = {name: _mean(scores) for name, scores in by_reward.items()}
        gap = _gap(every, second)
        return Probe(iteration, lora, pixels, _mean(every), means, _error(every), gap)

    def _second_opinion(
        self, prompts: list[Prompt], pixels: list[Pixels], iteration: int
    ) -> Scores:
        name = self._config.heldout.second_opinion
        if name is None:
            return [None] * len(prompts)
        if name == JUDGE and self._judge is not None:
            pairs = zip(prompts, pixels, strict=True)
            return [self._judge(image, prompt.target) for prompt, image in pairs]
        return self._score(name, prompts, pixels, iteration, {})

    def _score(
        self,
        name: str,
        prompts: list[Prompt],
        pixels: list[Pixels],
        iteration: int,
        options: dict[str, Any],
    ) -> Scores:
        targets = [None if p.target is None else dict(p.target) for p in prompts]
        request = build_request(
            name,
            [p.text for p in prompts],
            pixels,
            targets=targets if self._rewards[name].takes_target else None,
            run_id=f"{self._run_id}.heldout",
            step=iteration,
            **options,
        )
        return list(self._source.score(request).rewards)


def _gap(scores: Scores, second: Scores) -> float:
    """Mean of score minus second opinion, over the images that have both."""
    pairs = zip(scores, second, strict=True)
    return _mean([a - b for a, b in pairs if a is not None and b is not None])


def _error(scores: Scores) -> float:
    """Standard error of the mean; 0 for fewer than two scores."""
    known = [s for s in scores if s is not None]
    return statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else 0.0


def _mean(values: Scores) -> float:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan
