"""One iteration of TDM-R1, in the order of Alg. 1: surrogate, fake score, generator.

phi trains on the scored batch however late it is; fake score and generator train on fresh rollouts
of the current generator. Called by `trainer.loop.iterate` once per iteration.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.arithmetic.shapes import Latents, PerStep
from trainer.arithmetic.trajectory import Trajectory
from trainer.models.backbones import Conditioning
from trainer.models.rollout import rollout
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, Metrics, ScoredBatch, TrainState
from trainer.tdm_r1.surrogate import update_surrogate


class FewStep(ABC):
    """The surface of all methods: rewards are wanted, the few-step generator makes the samples."""

    def __init__(self, state: TrainState) -> None:
        self.state = state

    def uses_rewards(self, iteration: int) -> bool:
        """Whether this iteration trains on scored groups."""
        return True

    def sample(
        self,
        noise: Latents,
        condition: Conditioning,
        fresh_noise: PerStep | None,
        iteration: int,
    ) -> Trajectory:
        """The rollouts this iteration trains on; fresh_noise: of the stochastic sampler."""
        config = self.state.config.rollout
        velocity = self.state.networks.velocity("generator")
        return rollout(velocity, noise, condition, config.times, fresh_noise, solver=config.solver)

    @abstractmethod
    def update(
        self, fresh: Batch | None, scored: ScoredBatch | None, iteration: int, progress: float
    ) -> Metrics:
        """One iteration on fresh rollouts and scored groups; returns its metrics."""


class TdmR1(FewStep):
    """The method of the paper."""

    def update(
        self, fresh: Batch | None, scored: ScoredBatch | None, iteration: int, progress: float
    ) -> Metrics:
        """One iteration; returns its metrics.

        fresh None: phi alone (groups that came too late for the generator). scored None: fake score
        and KL alone (nothing scored yet). progress: share of the run behind us, for the schedule.
        """
        metrics: Metrics = {}
        if scored is not None:
            with timed(metrics, "time/surrogate"):
                metrics |= update_surrogate(self.state, scored, iteration, progress)
        if fresh is not None:
            with timed(metrics, "time/fake"):
                metrics |= update_fake(self.state, fresh, iteration, progress)
        generator = self.state.config.generator
        if fresh is not None and iteration >= generator.frozen:
            rewarded = scored is not None and iteration >= generator.warmup and generator.rho > 0
            with timed(metrics, "time/generator"):
                metrics |= update_generator(
                    self.state, fresh, iteration, progress, rewarded=rewarded
                )
        return metrics


@contextmanager
def timed(metrics: Metrics, name: str) -> Iterator[None]:
    """Seconds spent inside the block, added to metrics[name]."""
    start = time.perf_counter()
    yield
    metrics[name] = metrics.get(name, 0.0) + time.perf_counter() - start
