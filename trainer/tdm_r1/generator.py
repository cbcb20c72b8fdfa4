"""The generator's step (Eq. 10/11): along g_kl + rho g_r, through its own x0 prediction.

g_kl = x0_teacher,cfg - x0_fake and g_r = x0_phi - x0_ref at the re-noised x_t, both without
gradient: differences of scores up to one positive factor. Fresh rollouts only; no denoising or
reward loss reaches the generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trainer.arithmetic.flow import stretch, velocity_to_x0
from trainer.arithmetic.shapes import Latents, SampleMask
from trainer.models.backbones import Conditioning
from trainer.models.networks import Role, Source
from trainer.models.rollout import recompute_step
from trainer.tdm_r1 import losses
from trainer.tdm_r1.state import Batch, Draw, Metrics, TrainState
from trainer.tdm_r1.surrogate import reference_velocity

NORM_DECAY = 0.98  # smoothing of |g_kl| and |g_r| for generator.ratio = "norm_ema"


@dataclass(frozen=True)
class Directions:
    """Where the KL and the reward want x0 to go; teacher: its guided x0 (for the normaliser)."""

    kl: Latents
    reward: Latents | None
    teacher: Latents


def update_generator(
    state: TrainState,
    fresh: Batch,
    iteration: int,
    progress: float,
    *,
    rewarded: bool,
    teacher: Source = "teacher",
) -> Metrics:
    """One generator update and its EMA. `rewarded` False leaves g_r out.

    teacher: the role whose guided prediction g_kl leads to. Gradients that a caller accumulated on
    the generator before are part of the step.
    """
    config = state.config.generator
    draw = state.draw(fresh, iteration, "generator", config.t_range, shared=False)
    condition = fresh.condition.repeat(fresh.size)
    if state.config.compute.micro_batch is None:
        x0, x_s = _student(state, draw, condition)
        directions = _directions(state, draw, x_s.detach(), condition, rewarded, teacher)
        direction, force = _combine(state, directions)
        loss = losses.generator_loss(x0, direction, losses.normaliser(x0, directions.teacher))
        loss = loss / state.processes.count
        torch.autograd.backward(loss)
        total = float(loss.detach())
    else:
        total, force = _in_micro_batches(state, fresh, draw, condition, rewarded, teacher)
    norm = state.step("generator", progress)
    state.networks.average("generator_ema", "generator", config.ema)
    total = state.processes.totals(total)[0]
    metrics = {"loss/generator": total, "grad_norm/generator": norm, "force/kl": force.kl}
    if rewarded:
        metrics["force/reward"] = force.reward
        metrics["force/factor"] = force.factor
        metrics["force/ratio"] = force.ratio
        metrics["force/cosine"] = force.cosine
    return metrics


def _in_micro_batches(
    state: TrainState,
    fresh: Batch,
    draw: Draw,
    condition: Conditioning,
    rewarded: bool,
    teacher: Source,
) -> tuple[float, losses.Force]:
    """The same gradient with less memory: directions of the whole batch first, at no gradient."""
    with torch.no_grad():
        x0, x_s = _student(state, draw, condition)
    directions = _directions(state, draw, x_s, condition, rewarded, teacher)
    direction, force = _combine(state, directions)
    n, total = losses.normaliser(x0, directions.teacher), draw.t.new_zeros(())
    for rows in state.micro_batches(fresh.samples):
        x0, _ = _student(state, draw.rows(rows), condition.rows(rows))
        loss = losses.generator_loss(x0, direction[rows], n[rows])
        loss = loss * (x0.shape[0] / fresh.samples / state.processes.count)
        torch.autograd.backward(loss)
        total += loss.detach()  # one look at the device for all of them
    return float(total), force


def _student(state: TrainState, draw: Draw, condition: Conditioning) -> tuple[Latents, Latents]:
    """x0 and x_s of the drawn step, recomputed from the stored (detached) x_u."""
    stochastic = state.config.rollout.mode == "stochastic"
    velocity = state.networks.velocity("generator")
    return recompute_step(velocity, draw.step, condition, stochastic=stochastic)


def smoothed_phi(state: TrainState) -> Role:
    """phi as the generator meets it."""
    return "surrogate_ema" if state.config.surrogate.ema > 0 else "surrogate"


@torch.no_grad()
def _directions(
    state: TrainState,
    draw: Draw,
    x_s: Latents,
    condition: Conditioning,
    rewarded: bool,
    teacher: Source,
) -> Directions:
    """g_kl and g_r at x_t; cond and uncond teacher in one batch, shared with a static reference."""
    config, networks = state.config, state.networks
    x_t, t = draw.renoised(x_s), draw.t
    guided, unguided = state.backbone.guidance.both(
        networks.velocity(teacher),
        x_t,
        t,
        condition,
        state.uncondition,
        config.generator.teacher_cfg,
    )
    fake = networks.velocity("fake")(x_t, t, condition)
    x0_teacher = velocity_to_x0(x_t, guided, t)
    kl = x0_teacher - velocity_to_x0(x_t, fake, t)
    reward = None
    if rewarded:
        phi = networks.velocity(smoothed_phi(state))(x_t, t, condition)
        known = unguided if teacher == "teacher" else None
        reference = reference_velocity(state, x_t, t, condition, teacher=known)
        reward = velocity_to_x0(x_t, phi, t) - velocity_to_x0(x_t, reference, t)
        reward = reward * stretch(_undecided(state, draw), reward)
    return Directions(kl, reward, x0_teacher)


def _undecided(state: TrainState, draw: Draw) -> SampleMask:
    """Mask of the samples that phi pulls: step start u >= t_min and t >= t_min.

    A step that begins below `surrogate.t_min` cannot change any more what phi speaks of; pulled
    all the same, it paints half-changed objects.
    """
    t_min = state.config.surrogate.t_min
    return (draw.step.u >= t_min) & (draw.t >= t_min)


def _combine(state: TrainState, directions: Directions) -> tuple[Latents, losses.Force]:
    """g_kl + factor g_r, the factor by `generator.ratio` from the norms over all processes."""
    config, reward = state.config.generator, directions.reward
    pulled = torch.zeros_like(directions.kl) if reward is None else reward
    sums = state.processes.sum(torch.stack(losses.moments(directions.kl, pulled)))
    moments = losses.Moments(*(sums / state.processes.count))
    kl, pull = moments.norms
    if reward is None:
        return directions.kl, losses.Force(kl, 0.0, 0.0, 0.0)
    wanted_kl, wanted_pull = kl, pull
    if config.ratio == "norm_ema":
        state.norms.update(kl, pull, NORM_DECAY)
        wanted_kl, wanted_pull = state.norms.kl, state.norms.reward
    factor = losses.reward_factor(
        wanted_kl,
        wanted_pull,
        ratio="fixed" if config.ratio == "fixed" else "norm",
        rho=config.rho,
        cap=config.ratio_cap,
        floor=config.norm_floor,
    )
    return directions.kl + factor * reward, losses.Force(kl, pull, factor, moments.cosine)
