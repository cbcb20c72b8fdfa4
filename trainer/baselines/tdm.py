"""TDM without reward: fake score and KL alone (the paper's control, and how students are made).

The surface is that of `TdmR1`, without surrogate and rewards.
"""

from __future__ import annotations

from trainer.tdm_r1.fake import update_fake
from trainer.tdm_r1.generator import update_generator
from trainer.tdm_r1.state import Batch, Metrics, ScoredBatch
from trainer.tdm_r1.update import FewStep, timed


class TdmOnly(FewStep):
    """Trajectory distribution matching (Eq. 2)."""

    def uses_rewards(self, iteration: int) -> bool:
        """Never."""
        return False

    def update(
        self, fresh: Batch | None, scored: ScoredBatch | None, iteration: int, progress: float
    ) -> Metrics:
        """One iteration on fresh rollouts."""
        if scored is not None or fresh is None:
            raise ValueError("tdm_only trains on fresh rollouts alone and uses no rewards")
        metrics: Metrics = {}
        with timed(metrics, "time/fake"):
            metrics |= update_fake(self.state, fresh, iteration, progress)
        if iteration >= self.state.config.generator.frozen:
            with timed(metrics, "time/generator"):
                metrics |= update_generator(self.state, fresh, iteration, progress, rewarded=False)
        return metrics
