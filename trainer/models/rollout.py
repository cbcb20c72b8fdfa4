"""Sampling: K-step rollouts that keep their trajectory, and many-step guided sampling.

Both say how many network evaluations an image took (NFE). What the network said in
each step is stored with the states, since x0 and noise cannot be rebuilt exactly afterwards.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch

from trainer.arithmetic.flow import (
    interpolate,
    second_order_x0,
    stretch,
    time_grid,
    velocity_to_noise,
    velocity_to_x0,
)
from trainer.arithmetic.randomness import normals
from trainer.arithmetic.shapes import Latents, PerStep
from trainer.arithmetic.trajectory import Step, Trajectory
from trainer.config import RolloutConfig, Solver
from trainer.models.backbones.base import Conditioning, Guidance, Network

Velocity = Network


@torch.no_grad()
def rollout(
    velocity: Velocity,
    noise: Latents,
    condition: Conditioning,
    times: tuple[float, ...],
    fresh_noise: PerStep | None = None,
    *,
    solver: Solver = "euler",
) -> Trajectory:
    """K Euler (= DDIM) steps from `noise`, or K stochastic ones with `fresh_noise` (one per step).

    Deterministic: x_s = (1 - s) x0_j + s eps_j with the network's own eps_j. Stochastic: the fresh
    noise takes the place of eps_j, in the state and in what is stored. dpmsolver++: steps of second
    order, the first and the last of first order, as diffusers takes them.
    """
    batch = noise.shape[0]
    states, x0s, epss = [noise], list[Latents](), list[Latents]()
    for j, (u, s) in enumerate(pairwise(times)):
        t = noise.new_full((batch,), u)
        v = velocity(states[-1], t, condition)
        x0 = velocity_to_x0(states[-1], v, t)
        eps = velocity_to_noise(states[-1], v, t) if fresh_noise is None else fresh_noise[j]
        if solver == "dpmsolver++" and j > 0 and s > 0:
            predicted = second_order_x0(x0, x0s[-1], (times[j - 1], u, s))
            states.append(s / u * states[-1] + (1 - s / u) * predicted)
            eps = (states[-1] - (1 - s) * x0) / s
        else:
            states.append(interpolate(x0, eps, noise.new_full((batch,), s)))
        x0s.append(x0)
        epss.append(eps)
    steps = len(times) - 1
    return Trajectory(times, torch.stack(states), torch.stack(x0s), torch.stack(epss), nfe=steps)


def own_fresh_noise(noise: Latents, config: RolloutConfig) -> PerStep | None:
    """What the configured sampler adds to each step, from the start alone; None: nothing.

    The same start gives the same image, whatever else is in the batch, as it does without.
    """
    if config.mode == "deterministic":
        return None
    starts = [hashlib.blake2b(row.cpu().numpy().tobytes()).hexdigest() for row in noise]
    steps = [
        normals(noise.shape[1:], [(start, "fresh", j) for start in starts])
        for j in range(config.k_steps)
    ]
    return torch.stack(steps).to(noise.device)


def sampled(
    velocity: Velocity, noise: Latents, condition: Conditioning, config: RolloutConfig
) -> Trajectory:
    """A rollout by the configured grid and sampler in which an image follows from its start."""
    fresh = own_fresh_noise(noise, config)
    return rollout(velocity, noise, condition, config.times, fresh, solver=config.solver)


@torch.no_grad()
def sample_guided(
    velocity: Velocity,
    noise: Latents,
    condition: Conditioning,
    uncondition: Conditioning | None,
    *,
    steps: int,
    shift: float,
    guidance: float,
    rule: Guidance,
) -> tuple[Latents, int]:
    """Many-step Euler sampling with guidance by the backbone's rule; (latents, NFE per image).

    Guidance 1 or no `uncondition` costs one evaluation per step, otherwise what the rule takes: 40
    steps with classifier-free guidance are 80 NFE.
    """
    guided = uncondition is not None and guidance != 1.0
    times = time_grid(steps, shift)
    x, nfe = noise, 0
    for u, s in pairwise(times):
        t = noise.new_full((noise.shape[0],), u)
        if guided and uncondition is not None:
            v = rule.guided(velocity, x, t, condition, uncondition, guidance)
        else:
            v = velocity(x, t, condition)
        x = x + (s - u) * v
        nfe += rule.evaluations if guided else 1
    return x, nfe


def recompute_step(
    velocity: Velocity, step: Step, condition: Conditioning, *, stochastic: bool
) -> tuple[Latents, Latents]:
    """(x0, x_s) of a stored step under the current weights, with gradient, from the stored x_u."""
    return taken(step, velocity(step.x_u, step.u, condition), stochastic=stochastic)


def taken(step: Step, v: Latents, *, stochastic: bool) -> tuple[Latents, Latents]:
    """(x0, x_s) of the step from x_u with velocity v: an Euler step, whatever solver made x_s."""
    x0 = velocity_to_x0(step.x_u, v, step.u)
    eps = step.eps if stochastic else velocity_to_noise(step.x_u, v, step.u)
    s = stretch(step.s, x0)
    return x0, (1 - s) * x0 + s * eps
