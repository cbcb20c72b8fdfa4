"""The fake score's step (Eq. 1): denoise the generator's own fresh samples.

Always on rollouts of the current generator, which need no reward.
"""

from __future__ import annotations

import torch

from trainer.tdm_r1 import losses
from trainer.tdm_r1.state import Batch, Metrics, TrainState


def update_fake(state: TrainState, fresh: Batch, iteration: int, progress: float) -> Metrics:
    """All fake-score updates of one iteration, each with its own (j, t, noise) per sample.

    Does nothing while the score is frozen.
    """
    metrics: Metrics = {}
    if iteration < state.config.fake.frozen:
        return metrics
    condition = fresh.condition.repeat(fresh.size)
    velocity = state.networks.velocity("fake")
    for update in range(state.config.fake.updates):
        role = f"fake.{update}"
        draw = state.draw(fresh, iteration, role, state.config.fake.t_range, shared=False)
        noised = state.target(draw)
        total = noised.t.new_zeros(())
        for rows in state.micro_batches(fresh.samples):
            v = velocity(noised.x_t[rows], noised.t[rows], condition.rows(rows))
            loss = losses.fake_loss(v, noised.v_star[rows], noised.weight[rows])
            loss = loss * (v.shape[0] / fresh.samples / state.processes.count)
            torch.autograd.backward(loss)
            total += loss.detach()
        norm = state.step("fake", progress)
        metrics = {"loss/fake": state.processes.totals(float(total))[0], "grad_norm/fake": norm}
    return metrics
