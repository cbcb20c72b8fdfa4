"""TDM with a direct RL loss (Figs. 4 and 5): Eq. 9 on the generator itself, no surrogate.

The denoising preference loss of DGPO (arXiv 2510.08425) is added to TDM's loss, `generator.rho`
times. The paper finds it inferior and blurry: a denoising loss and a reverse KL want different
things of few steps. It is here to be measured, not to be used.
"""

from __future__ import annotations

import torch

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.models.backbones import Conditioning
from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, Metrics, ScoredBatch
from trainer.tdm_r1.surrogate import (
    GroupAdvantages,
    References,
    group_advantages,
    preference_gradient,
)
from trainer.tdm_r1.update import FewStep, timed


class DirectRl(FewStep):
    """The generator is the policy; the reference is its start (static) or its average (ema)."""

    def update(
        self, fresh: Batch | None, scored: ScoredBatch | None, iteration: int, progress: float
    ) -> Metrics:
        """One iteration: fake score, then one generator step on both losses.

        fresh None: groups that came too late for the generator, which are counted and not used.
        """
        metrics: Metrics = {}
        if fresh is None:
            return metrics
        state, config = self.state, self.state.config.generator
        said = None if scored is None else group_advantages(state, scored)
        if said is not None:
            metrics |= said.metrics
        with timed(metrics, "time/fake"):
            metrics |= update_fake(state, fresh, iteration, progress)
        if iteration < config.frozen:
            return metrics
        with timed(metrics, "time/generator"):
            rewarded = iteration >= config.warmup and config.rho > 0
            if rewarded and scored is not None and said is not None and said.live > 0:
                metrics |= self._preference(scored, said, iteration)
            metrics |= update_generator(state, fresh, iteration, progress, rewarded=False)
        if state.config.reference.kind == "ema":
            state.networks.average("reference", "generator", state.config.reference.decay)
        return metrics

    def _preference(self, scored: ScoredBatch, said: GroupAdvantages, iteration: int) -> Metrics:
        """Leaves rho times the gradient of Eq. 9 on the generator, for the step that follows."""
        state = self.state
        when = state.config.surrogate
        draw = state.draw(
            scored.batch, iteration, "direct_rl", when.t_range, shared=True, t_min=when.t_min
        )
        metrics = preference_gradient(
            state,
            "generator",
            scored,
            said,
            draw,
            self._reference,
            factor=state.config.generator.rho,
        )
        metrics["loss/direct_rl"] = metrics.pop("loss/surrogate")
        return metrics

    @torch.no_grad()
    def _reference(self, x_t: Latents, t: PerSample, condition: Conditioning) -> References:
        """Nothing ties the policy but TDM's KL: no anchor."""
        return References(self.state.networks.velocity("reference")(x_t, t, condition), None)
