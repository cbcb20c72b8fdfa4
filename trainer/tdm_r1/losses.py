"""The three losses of TDM-R1, as pure functions of network outputs.

Signs are the derivation's, not the print's: Eq. 9 means -log sigmoid, and the generator moves along
+ (x0_teacher - x0_fake), since Eq. 11 as printed would ascend the KL. No denoising or reward loss
on the generator, ever. Pure functions of what networks have said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from trainer.arithmetic.flow import mean_dims, stretch
from trainer.arithmetic.shapes import (
    GroupFlags,
    GroupMask,
    GroupValues,
    Latents,
    PerGroup,
    PerSample,
    SampleMask,
)

MIN_NORMALISER = 1e-3


def denoising_distance(v: Latents, v_star: Latents, weight: PerSample) -> PerSample:
    """d = w mean_dims (v - v*)^2, per sample."""
    return weight * mean_dims((v - v_star).square())


def fake_loss(v_fake: Latents, v_star: Latents, weight: PerSample) -> Tensor:
    """Eq. 1: the denoising loss of the generator's own score, mean over samples."""
    return denoising_distance(v_fake, v_star, weight).mean()


def group_logits(
    d: GroupValues,
    d_ref: GroupValues,
    advantage: GroupValues,
    valid: GroupMask,
    beta: float,
) -> PerGroup:
    """S_g = (beta / G) sum_i A_i (d_i - d_i^ref), G the number of valid samples (Eq. 8/9)."""
    size = valid.sum(1).clamp_min(1)
    return beta * (advantage * (d - d_ref)).sum(1) / size


def preference_loss(
    logits: PerGroup, live: GroupFlags, beta: float, weight: PerGroup | float = 1.0
) -> Tensor:
    """mean over live groups of softplus(S_g) / beta = -log sigmoid(-S_g) / beta; 0 if none.

    weight: of each group in the sum, not in the number it is divided by.
    """
    per_group = weight * functional.softplus(logits) / beta
    return torch.where(live, per_group, 0.0).sum() / live.sum().clamp_min(1)


def clip_distance(
    d: GroupValues, d_old: GroupValues, advantage: GroupValues, clip: float
) -> GroupValues:
    """d without gradient where exp(-d + d_old) already left [1 - clip, 1 + clip] the right way."""
    ratio = (d_old - d).detach().exp()
    done = ((advantage > 0) & (ratio > 1 + clip)) | ((advantage <= 0) & (ratio < 1 - clip))
    return torch.where(done, d.detach(), d)


def stop_drift(
    d: GroupValues, d_ref: GroupValues, advantage: GroupValues, drifted: GroupFlags
) -> GroupValues:
    """d without gradient where a drifted group's sample is already told from the reference.

    That is d < d_ref for a positive advantage and d > d_ref for a negative one, as wanted.
    """
    right = torch.where(advantage > 0, d < d_ref, d > d_ref)
    return torch.where(right & drifted[:, None], d.detach(), d)


def anchor_loss(
    v: Latents, v_anchor: Latents, valid: SampleMask, weight: PerSample | float = 1.0
) -> Tensor:
    """mean (v_phi - v_anchor)^2 over the valid samples; 0 if there are none.

    weight: of each sample in the sum, not in the number it is divided by.
    """
    per_sample = weight * mean_dims((v - v_anchor).square())
    return torch.where(valid, per_sample, 0.0).sum() / valid.sum().clamp_min(1)


def normaliser(x0_generator: Latents, x0_teacher: Latents) -> PerSample:
    """n = mean_dims |x0_theta - x0_psi,cfg|, at least 1e-3, without gradient (TDM, DMD)."""
    return mean_dims((x0_generator - x0_teacher).detach().abs()).clamp_min(MIN_NORMALISER)


def generator_loss(x0_generator: Latents, direction: Latents, n: PerSample) -> Tensor:
    """mean 0.5 (x0_theta - stopgrad(x0_theta + direction / n))^2 (Eq. 10).

    Its gradient with respect to x0_theta is -direction / n over the number of elements.
    """
    goal = (x0_generator + direction / stretch(n, direction)).detach()
    return 0.5 * (x0_generator - goal).square().mean()


def mixture_direction(
    kl: Latents, cfg: Latents, reward: Latents, n: PerSample, n_reward: PerSample, share: float
) -> Latents:
    """(kl + (1 - share) cfg)/n + share reward/n_reward, of the authors' code (share 0.7).

    With kl = x0_T - x0_fake, cfg = x0_T^w - x0_T, reward = x0_phi^w - x0_T and one n at one x_t it
    is (1 - share) x0_T^w + share x0_phi^w - x0_fake, over n: distribution matching towards a
    mixture of guided teacher and guided phi (docs/algorithm.md).
    """
    return (kl + (1 - share) * cfg) / stretch(n, kl) + share * reward / stretch(n_reward, kl)


@dataclass(frozen=True)
class Force:
    """How hard the reward pulls against the KL, as RMS over the batch."""

    kl: float
    reward: float  # before its factor
    factor: float
    cosine: float

    @property
    def ratio(self) -> float:
        """|rho g_r| / |g_kl|."""
        return self.factor * self.reward / max(self.kl, 1e-12)


class Moments(NamedTuple):
    """Mean squares and mean product of two tensors: means, so that batches can be averaged."""

    kl: Tensor
    reward: Tensor
    product: Tensor

    @property
    def norms(self) -> tuple[float, float]:
        """RMS of g_kl and of g_r."""
        return float(self.kl.sqrt()), float(self.reward.sqrt())

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two taken as vectors; 0 if one of them is zero."""
        kl, reward = self.norms
        return float(self.product) / (kl * reward) if kl * reward > 0 else 0.0


def moments(kl: Latents, reward: Latents) -> Moments:
    """Second moments over everything."""
    return Moments(kl.square().mean(), reward.square().mean(), (kl * reward).mean())


def reward_factor(
    kl: float,
    reward: float,
    *,
    ratio: Literal["fixed", "norm"],
    rho: float,
    cap: float | None,
    floor: float,
) -> float:
    """The factor of g_r, from the RMS of g_kl and g_r (measured or smoothed).

    fixed: rho, lowered where needed so that |factor g_r| <= cap |g_kl|. norm: such that
    |factor g_r| = rho |g_kl|, with |g_r| counted as at least floor |g_kl|.
    """
    if ratio == "norm":
        return rho * kl / max(reward, floor * kl, 1e-12)
    if cap is not None and rho * reward > cap * kl:
        return cap * kl / reward
    return rho


def ranking_accuracy(score: GroupValues, rewards: GroupValues) -> tuple[float, int]:
    """(share of sample pairs of a group that `score` orders as the rewards do, number of pairs).

    Only pairs with different, present rewards count; a tie in the score counts half. NaN without
    any such pair.
    """
    better = rewards.unsqueeze(2) > rewards.unsqueeze(1)
    pairs = int(better.sum())
    if pairs == 0:
        return float("nan"), 0
    difference = score.unsqueeze(2) - score.unsqueeze(1)
    right = torch.where(difference > 0, 1.0, torch.where(difference < 0, 0.0, 0.5))
    return float(right[better].mean()), pairs
