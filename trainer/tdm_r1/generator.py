"""The generator's step (Eq. 10/11): its own x0 prediction is pulled by teacher, fake score and phi.

Where to, `trainer.tdm_r1.directions` says, without gradient. Fresh rollouts only; no denoising or
reward loss reaches the generator.
"""

from __future__ import annotations

import torch

from trainer.models.networks import Source
from trainer.models.rollout import taken
from trainer.tdm_r1 import losses
from trainer.tdm_r1.directions import Seen, phi_t_min, pull
from trainer.tdm_r1.passes import in_parts
from trainer.tdm_r1.state import Batch, Metrics, TrainState

PHI_ROLE = "generator.phi"


def update_generator(
    state: TrainState,
    fresh: Batch,
    iteration: int,
    progress: float,
    *,
    rewarded: bool,
    teacher: Source = "teacher",
) -> Metrics:
    """One generator update and its EMA. `rewarded` False leaves phi out.

    teacher: the role whose guided prediction g_kl leads to. Gradients that a caller accumulated on
    the generator before are part of the step. The forces are those of the first draw.
    """
    config = state.config.generator
    draws = state.draws(fresh, iteration, "generator", config.t_range)
    total, forces = draws[0].t.new_zeros(()), list[losses.Force]()
    for nth, draw in enumerate(draws):
        again = None
        if rewarded and config.form == "mixture":
            role, lowest = f"{PHI_ROLE}.{nth}", phi_t_min(state)
            again = state.second_look(draw, fresh, iteration, role, lowest)
        loss, force = _gradient(state, fresh, Seen(draw, again, rewarded, teacher), 1 / len(draws))
        total, forces = total + loss, [*forces, force]
    norm = state.step("generator", progress)
    state.networks.average("generator_ema", "generator", _decay(state, iteration))
    metrics = {
        "loss/generator": state.processes.totals(float(total))[0],
        "grad_norm/generator": norm,
        "force/kl": forces[0].kl,
    }
    if rewarded:
        metrics["force/reward"] = forces[0].reward
        metrics["force/factor"] = forces[0].factor
        metrics["force/ratio"] = forces[0].ratio
        metrics["force/cosine"] = forces[0].cosine
    return metrics


def _gradient(
    state: TrainState, fresh: Batch, seen: Seen, share: float
) -> tuple[torch.Tensor, losses.Force]:
    """Adds `share` of one draw's gradient; (that share of its loss, its forces)."""
    condition = fresh.condition.repeat(fresh.size)
    network, step = state.networks.velocity("generator"), seen.draw.step

    def passed(part: slice) -> torch.Tensor:
        return network(step.x_u[part], step.u[part], condition.rows(part))

    with in_parts(passed, state.micro_batches(fresh.samples)) as v:
        stochastic = state.config.rollout.mode == "stochastic"
        x0, x_s = taken(step, v, stochastic=stochastic)
        found = pull(state, seen, x0.detach(), x_s.detach(), condition)
        loss = losses.generator_loss(x0, found.direction, found.n)
        loss = loss * (share / state.processes.count)
        torch.autograd.backward(loss)
    return loss.detach(), found.force


def _decay(state: TrainState, iteration: int) -> float:
    """Of the generator's average; with a ramp it forgets its start at once."""
    config, updates = state.config.generator, iteration - state.config.generator.frozen
    return min(config.ema, (1 + updates) / (10 + updates)) if config.ema_ramp else config.ema
