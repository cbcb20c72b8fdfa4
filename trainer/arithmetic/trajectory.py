"""What a rollout leaves behind: its states, and what the network said in each step."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from trainer.arithmetic.flow import interpolate, stretch
from trainer.arithmetic.shapes import Knots, Latents, PerSample, PerStep, Steps


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

    def replayed(self) -> Step:
        """The same prediction taken as one Euler step from x_u, whatever solver made x_s."""
        eps = (self.x_u - stretch(1 - self.u, self.x_u) * self.x0) / stretch(self.u, self.x_u)
        return replace(self, x_s=interpolate(self.x0, eps, self.s), eps=eps)


@dataclass(frozen=True)
class Trajectory:
    """A rollout of `batch` samples in K steps on the grid `times` (K + 1 values, 1 to 0).

    states[j] is x at times[j] (states[0] the noise, states[K] the final latent); x0[j - 1] and
    eps[j - 1] are the network's data and noise predictions in step j = 1..K. A solver of second
    order ends a step elsewhere, and eps is then the noise with x_s = (1 - s) x0 + s eps.
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
