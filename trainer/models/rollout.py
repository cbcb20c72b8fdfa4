"""Sampling: K-step rollouts that keep their trajectory, and many-step guided sampling.

Both say how many network evaluations an image took (NFE). Refuses to rebuild x0 or noise from the
states afterwards: what the network said during the rollout is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch

from trainer.arithmetic.flow import (
    interpolate,
    stretch,
    time_grid,
    velocity_to_noise,
    velocity_to_x0,
)
from trainer.arithmetic.randomness import normals
from trainer.arithmetic.shapes import Knots, Latents, PerSample, PerStep, Steps
from trainer.config import RolloutConfig
from trainer.models.backbones.base import Conditioning

Velocity = Callable[[Latents, PerSample, Conditioning], Latents]


@dataclass(frozen=True)
class Step:
    """One step of each sample's trajectory: from time u to time s, and what the network said."""

    u: PerSample
    s: PerSample
    x_u: Latents
    x_s: Latents
    x0: Latents
    eps: Latents

    def rows(self, index: slice) -> Step:
        """A selection of samples."""
        return Step(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True)
class Trajectory:
    """A rollout of `batch` samples in K steps on the grid `times` (K + 1 values, 1 to 0).

    states[j] is x at times[j] (states[0] the noise, states[K] the final latent); x0[j - 1] and
    eps[j - 1] are the network's data and noise predictions in step j = 1..K.
    """

    times: tuple[float, ...]
    states: Knots
    x0: PerStep
    eps: PerStep
    nfe: int

    @property
    def final(self) -> Latents:
        """The latents of the images, shape (batch, *dims)."""
        return self.states[-1]

    def step(self, j: Steps) -> Step:
        """Step j (1..K, one per sample) of each trajectory."""
        rows = torch.arange(j.shape[0], device=j.device)
        grid = torch.tensor(self.times, device=self.states.device, dtype=self.states.dtype)
        return Step(
            u=grid[j - 1],
            s=grid[j],
            x_u=self.states[j - 1, rows],
            x_s=self.states[j, rows],
            x0=self.x0[j - 1, rows],
            eps=self.eps[j - 1, rows],
        )

    def samples(self, index: slice) -> Trajectory:
        """A selection of samples, for example one group."""
        return Trajectory(
            self.times, self.states[:, index], self.x0[:, index], self.eps[:, index], self.nfe
        )

    def to(self, device: torch.device) -> Trajectory:
        """The same on another device."""
        states, x0, eps = self.states.to(device), self.x0.to(device), self.eps.to(device)
        return Trajectory(self.times, states, x0, eps, self.nfe)

    @staticmethod
    def cat(parts: list[Trajectory]) -> Trajectory:
        """Samples of all parts, in order; their grids must agree."""
        if len({p.times for p in parts}) != 1:
            raise ValueError("trajectories on different time grids cannot be joined")
        return Trajectory(
            parts[0].times,
            torch.cat([p.states for p in parts], 1),
            torch.cat([p.x0 for p in parts], 1),
            torch.cat([p.eps for p in parts], 1),
            parts[0].nfe,
        )


@torch.no_grad()
def rollout(
    velocity: Velocity,
    noise: Latents,
    condition: Conditioning,
    times: tuple[float, ...],
    fresh_noise: PerStep | None = None,
) -> Trajectory:
    """K Euler (= DDIM) steps from `noise`, or K stochastic ones with `fresh_noise` (one per step).

    Deterministic: x_s = (1 - s) x0_j + s eps_j with the network's own eps_j. Stochastic: the fresh
    noise takes the place of eps_j, in the state and in what is stored.
    """
    batch = noise.shape[0]
    states, x0s, epss = [noise], [], []
    for j, (u, s) in enumerate(pairwise(times)):
        t = noise.new_full((batch,), u)
        v = velocity(states[-1], t, condition)
        x0 = velocity_to_x0(states[-1], v, t)
        eps = velocity_to_noise(states[-1], v, t) if fresh_noise is None else fresh_noise[j]
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
    times = time_grid(config.k_steps, config.flow_shift)
    return rollout(velocity, noise, condition, times, own_fresh_noise(noise, config))


def guided_velocity(
    velocity: Velocity,
    x_t: Latents,
    t: PerSample,
    condition: Conditioning,
    uncondition: Conditioning,
    guidance: float,
) -> tuple[Latents, Latents]:
    """(guided v, conditional v) from ONE doubled batch; `uncondition` has one row.

    Guided v = v_uncond + guidance (v_cond - v_uncond), classifier-free guidance.
    """
    batch = x_t.shape[0]
    both = Conditioning.cat([condition, uncondition.expand(batch)])
    v_both = velocity(torch.cat([x_t, x_t]), torch.cat([t, t]), both)
    v_cond, v_uncond = v_both[:batch], v_both[batch:]
    return v_uncond + guidance * (v_cond - v_uncond), v_cond


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
) -> tuple[Latents, int]:
    """Many-step Euler sampling with classifier-free guidance; (latents, NFE per image).

    Guidance 1 or no `uncondition` costs one evaluation per step, otherwise two: 40 steps with
    guidance are 80 NFE.
    """
    guided = uncondition is not None and guidance != 1.0
    times = time_grid(steps, shift)
    x, nfe = noise, 0
    for u, s in pairwise(times):
        t = noise.new_full((noise.shape[0],), u)
        if guided and uncondition is not None:
            v, _ = guided_velocity(velocity, x, t, condition, uncondition, guidance)
        else:
            v = velocity(x, t, condition)
        x = x + (s - u) * v
        nfe += 2 if guided else 1
    return x, nfe


def recompute_step(
    velocity: Velocity, step: Step, condition: Conditioning, *, stochastic: bool
) -> tuple[Latents, Latents]:
    """(x0, x_s) of a stored step under the current weights, with gradient, from the stored x_u."""
    v = velocity(step.x_u, step.u, condition)
    x0 = velocity_to_x0(step.x_u, v, step.u)
    eps = step.eps if stochastic else velocity_to_noise(step.x_u, v, step.u)
    s = stretch(step.s, x0)
    return x0, (1 - s) * x0 + s * eps
