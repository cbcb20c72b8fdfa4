"""The fake score's step (Eq. 1): denoise the generator's own fresh samples.

`fake.anchor` keeps it near the teacher, as the authors' code does. Always on rollouts of the
current generator, which need no reward.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.models.backbones import Conditioning
from trainer.tdm_r1 import losses
from trainer.tdm_r1.state import Batch, Draw, Metrics, TrainState
from trainer.tdm_r1.targets import Noised


def update_fake(state: TrainState, fresh: Batch, iteration: int, progress: float) -> Metrics:
    """All fake-score updates of one iteration, each with its own draws per sample.

    Does nothing while the score is frozen.
    """
    metrics: Metrics = {}
    if iteration < state.config.fake.frozen:
        return metrics
    condition = fresh.condition.repeat(fresh.size)
    velocity = state.networks.velocity("fake")
    for update in range(state.config.fake.updates):
        role = f"fake.{update}"
        draws = state.draws(fresh, iteration, role, state.config.fake.t_range)
        total = draws[0].t.new_zeros(())
        for draw in draws:
            noised = state.target(_retaken(state, draw))
            for rows in state.micro_batches(fresh.samples):
                seen = noised.x_t[rows], noised.t[rows], condition.rows(rows)
                v = velocity(*seen)
                loss = losses.fake_loss(v, noised.v_star[rows], _weights(state, noised, rows))
                if state.config.fake.anchor > 0:
                    loss = loss + state.config.fake.anchor * _apart(state, v, *seen)
                loss = loss * (v.shape[0] / fresh.samples / state.processes.count / len(draws))
                torch.autograd.backward(loss)
                total += loss.detach()
        norm = state.step("fake", progress)
        metrics = {"loss/fake": state.processes.totals(float(total))[0], "grad_norm/fake": norm}
    return metrics


def _retaken(state: TrainState, draw: Draw) -> Draw:
    """The draw of a step as the generator takes it: of first order, whatever the rollout took."""
    euler = state.config.rollout.solver == "euler"
    return draw if euler else replace(draw, step=draw.step.replayed())


def _weights(state: TrainState, noised: Noised, rows: slice) -> PerSample:
    weight = noised.weight[rows]
    return torch.ones_like(weight) if state.config.fake.weighting == "flow" else weight


def _apart(
    state: TrainState, v: Latents, x_t: Latents, t: PerSample, condition: Conditioning
) -> Tensor:
    """mean (v_fake - v_teacher)^2, the teacher without guidance."""
    with torch.no_grad():
        teacher = state.networks.velocity("teacher")(x_t, t, condition)
    return (v - teacher).square().mean()
