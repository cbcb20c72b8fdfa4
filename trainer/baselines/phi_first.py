"""Two baselines that train phi before the generator: a frozen surrogate, and a better teacher.

Phase one is DGPO (arXiv 2510.08425): phi is a many-step policy, rewarded on its own samples, by the
loss of Eq. 9 at clean states. Phase two trains the generator without any further reward. Groups
that are still awaited when phase one ends are not used.
"""

from __future__ import annotations

from abc import abstractmethod

import torch

from trainer.arithmetic.shapes import Latents, PerStep
from trainer.arithmetic.trajectory import Trajectory
from trainer.models.backbones import Conditioning
from trainer.models.rollout import sample_guided
from trainer.tdm_r1.directions import smoothed_phi
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, Metrics, ScoredBatch
from trainer.tdm_r1.surrogate import update_surrogate
from trainer.tdm_r1.update import FewStep, timed


class PhiFirst(FewStep):
    """phi for `dgpo.iterations`, then the generator; subclasses say what phi is to it."""

    def uses_rewards(self, iteration: int) -> bool:
        """In phase one only."""
        return iteration < self.state.config.dgpo.iterations

    def sample(
        self,
        noise: Latents,
        condition: Conditioning,
        fresh_noise: PerStep | None,
        iteration: int,
    ) -> Trajectory:
        """Phase one: phi's own guided samples, as one step from noise to data."""
        if not self.uses_rewards(iteration):
            return super().sample(noise, condition, fresh_noise, iteration)
        state = self.state
        latents, nfe = sample_guided(
            state.networks.velocity("surrogate"),
            noise,
            condition,
            state.uncondition,
            steps=state.config.dgpo.steps,
            shift=state.config.rollout.flow_shift,
            guidance=state.config.generator.teacher_cfg,
            rule=state.backbone.guidance,
        )
        # The only state DGPO looks at is the clean one (s = 0), where eps does not count.
        return Trajectory(
            (1.0, 0.0), torch.stack([noise, latents]), latents[None], noise[None], nfe
        )

    def update(
        self, fresh: Batch | None, scored: ScoredBatch | None, iteration: int, progress: float
    ) -> Metrics:
        """One iteration of phase one (scored groups alone) or two (fresh rollouts alone)."""
        metrics: Metrics = {}
        if self.uses_rewards(iteration):
            if scored is not None:
                with timed(metrics, "time/surrogate"):
                    metrics |= update_surrogate(self.state, scored, iteration, progress)
            return metrics
        if fresh is None:
            raise ValueError("after dgpo.iterations the generator needs fresh rollouts")
        with timed(metrics, "time/fake"):
            metrics |= update_fake(self.state, fresh, iteration, progress)
        since = iteration - self.state.config.dgpo.iterations
        if since >= self.state.config.generator.frozen:
            with timed(metrics, "time/generator"):
                metrics |= self._generator(fresh, iteration, progress, since)
        return metrics

    @abstractmethod
    def _generator(self, fresh: Batch, iteration: int, progress: float, since: int) -> Metrics:
        """The generator's step, `since` iterations into phase two."""


class FrozenSurrogate(PhiFirst):
    """TDM-R1 with a surrogate that does not learn from the generator (Fig. 8)."""

    def _generator(self, fresh: Batch, iteration: int, progress: float, since: int) -> Metrics:
        config = self.state.config.generator
        rewarded = since >= config.warmup and config.rho > 0
        return update_generator(self.state, fresh, iteration, progress, rewarded=rewarded)


class DgpoThenDistil(PhiFirst):
    """TDM towards phi instead of the pretrained teacher (Fig. 9)."""

    def _generator(self, fresh: Batch, iteration: int, progress: float, since: int) -> Metrics:
        phi = smoothed_phi(self.state)
        return update_generator(self.state, fresh, iteration, progress, rewarded=False, teacher=phi)
