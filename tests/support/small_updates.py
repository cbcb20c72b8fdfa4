"""What an update does, written for one sample at a time: slow, obvious, and right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.arithmetic.randomness import integer, normal, uniform
from trainer.models.networks import Source
from trainer.tdm_r1.state import Batch, ScoredBatch, TrainState

ITERATION = 3
NOISY = ("surrogate.0", "direct_rl")  # whose times are `surrogate.t_min` or later
REWARDS = [[0.1, 0.9, 0.4, 0.2], [1.0, 0.0, math.nan, 0.7]]


def scored(batch: Batch, rewards: list[list[float]] | Tensor = REWARDS) -> ScoredBatch:
    """A batch with its rewards, all of one name."""
    values = torch.as_tensor(rewards, dtype=torch.float32)
    return ScoredBatch(batch, values, ("a",) * len(values))


class OneSample:
    """A sample on its own: what is drawn for it, and what a role says about it."""

    def __init__(self, state: TrainState, batch: Batch, at: int, role: str, i: int) -> None:
        key = (0, ITERATION, batch.keys[at // batch.size], i, role)
        times = batch.trajectory.times
        j = integer(1, len(times) - 1, *key, "j")
        self.u, self.s = times[j - 1], times[j]
        low, share = self.s + state.config.target.t_min_gap, uniform(*key, "t")
        if role in NOISY:
            low = max(low, state.config.surrogate.t_min)
        self.t = low + share * (state.config.target.t_max - low)
        self.e = normal(state.backbone.latent_shape, *key, "e")
        self.x_u = batch.trajectory.states[j - 1, at]
        self.x_s = batch.trajectory.states[j, at]
        self.x0, self.eps = batch.trajectory.x0[j - 1, at], batch.trajectory.eps[j - 1, at]
        group = at // batch.size
        self._state, self._condition = state, batch.condition.rows(slice(group, group + 1))

    def renoised(self, x_s: Tensor) -> Tensor:
        """x_t from x_s."""
        a = (1 - self.t) / (1 - self.s)
        return a * x_s + math.sqrt(self.t**2 - a**2 * self.s**2) * self.e

    def target(self) -> tuple[Tensor, float]:
        """(v*, weight) of the mixed target."""
        a = (1 - self.t) / (1 - self.s)
        b = math.sqrt(self.t**2 - a**2 * self.s**2)
        mix = (a * self.s * self.eps + b * self.e) / self.t
        ratio = math.exp(-float(mix.square().mean()) / 2 + float(self.e.square().mean()) / 2)
        weight = min((1 - self.t) ** 2, 5 * self.t**2) * min(max(ratio, 0.2), 5.0)
        return mix - self.x0, weight

    def says(self, role: Source, x: Tensor, t: float, *, prompt: bool = True) -> Tensor:
        """A role's velocity, without the prompt if told so."""
        condition = self._condition if prompt else self._state.uncondition
        v = self._state.networks.velocity(role)(x[None], torch.tensor([t]), condition)
        return v[0]


def naive_preference(
    state: TrainState,
    batch: Batch,
    rewards: list[list[float]],
    role: Source,
    draw: str,
    kl: float = 0.0,
    weight: float | None = None,
) -> Tensor:
    """Eq. 9 with `role` as phi against the role "reference", with a KL to it: sample by sample."""
    beta = state.config.surrogate.beta
    total, anchor, counted = torch.zeros(()), torch.zeros(()), 0
    for g, of_group in enumerate(rewards):
        valid = [i for i, r in enumerate(of_group) if not math.isnan(r)]
        mean = sum(of_group[i] for i in valid) / len(valid)
        std = math.sqrt(sum((of_group[i] - mean) ** 2 for i in valid) / len(valid))
        s_g = torch.zeros(())
        for i in valid:
            one = OneSample(state, batch, batch.size * g + i, draw, 0)
            v_star, w = one.target()
            w = w if weight is None else torch.tensor(weight)
            x_t = one.renoised(one.x_s)
            v = one.says(role, x_t, one.t)
            v_ref = one.says("reference", x_t, one.t).detach()
            d = w * (v - v_star).square().mean()
            d_ref = w * (v_ref - v_star).square().mean()
            s_g = s_g + (of_group[i] - mean) / std * (d - d_ref) * beta / len(valid)
            anchor = anchor + (v - v_ref).square().mean()
            counted += 1
        total = total + torch.log1p(s_g.exp()) / beta / len(rewards)
    return total + kl * anchor / counted
