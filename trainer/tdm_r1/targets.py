"""Denoising targets at re-noised times, and the time ranges they are drawn from.

Pure. A sample's state x_s = (1 - s) x0 + s eps of the student's trajectory is re-noised to t >= s;
two targets are known, equal at s = 0: `mixed` (TDM's published code: bounded, biased for s > 0) and
`bridge` (Eq. 9 read literally: unbiased, singular as t -> s).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trainer.arithmetic.flow import (
    mean_dims,
    mixed_noise,
    renoise,
    renoise_scales,
    shift_time,
    stretch,
    unshift_time,
)
from trainer.arithmetic.shapes import Latents, PerSample
from trainer.arithmetic.trajectory import Step

TargetKind = Literal["mixed", "bridge"]
MAX_SNR = 5.0
IMPORTANCE_RANGE = (0.2, 5.0)


@dataclass(frozen=True)
class Noised:
    """x_t with the velocity v* a denoiser should predict there, and the loss weight w."""

    t: PerSample
    x_t: Latents
    v_star: Latents
    weight: PerSample


def noised_target(step: Step, e: Latents, t: PerSample, kind: TargetKind) -> Noised:
    """Re-noises step.x_s to t with noise e and gives the target of the chosen kind."""
    x_t = renoise(step.x_s, e, step.s, t)
    if kind == "bridge":
        return Noised(t, x_t, bridge_velocity(step, e, t), bridge_weight(step.s, t))
    eps_mix = mixed_noise(step.eps, e, step.s, t)
    weight = mixed_weight(t) * importance(eps_mix, e)
    return Noised(t, x_t, eps_mix - step.x0, weight)


def mixed_weight(t: PerSample) -> PerSample:
    """x0 loss with min-SNR 5: t^2 min(SNR, 5) = min((1 - t)^2, 5 t^2) on a velocity error."""
    return ((1 - t) ** 2).minimum(MAX_SNR * t**2)


def importance(eps_mix: Latents, e: Latents) -> PerSample:
    """exp(-mean eps_mix^2 / 2) / exp(-mean e^2 / 2) per sample, clamped to [0.2, 5]."""
    log_ratio = 0.5 * (mean_dims(e.square()) - mean_dims(eps_mix.square()))
    return log_ratio.exp().clamp(*IMPORTANCE_RANGE)


def bridge_velocity(step: Step, e: Latents, t: PerSample) -> Latents:
    """v* = e (t + (1 - t) s^2/(1 - s)^2)/b - x_s/(1 - s), the stable form."""
    s = step.s
    _, b = renoise_scales(s, t)
    factor = (t + (1 - t) * (s / (1 - s)) ** 2) / b
    return stretch(factor, e) * e - step.x_s / stretch(1 - s, e)


def bridge_weight(s: PerSample, t: PerSample) -> PerSample:
    """w = ((1 - t) b / t)^2, which cancels the growth of v* as t -> s."""
    _, b = renoise_scales(s, t)
    return ((1 - t) * b / t) ** 2


def draw_time(
    share: PerSample,
    u: PerSample,
    s: PerSample,
    *,
    segment: bool,
    gap: float,
    t_max: float,
    t_min: float = 0.0,
    shift: float | None = None,
) -> PerSample:
    """t = lo + share (hi - lo) for share in [0, 1); hi = t_max, or u in a segment.

    lo = s + gap, but at least t_min. shift: the same in the coordinate that this shift leads to t,
    so that noisy times are more frequent; the gap is then kept there, above max(s, t_min).
    """
    high = u.clamp_max(t_max) if segment else u.new_full(u.shape, t_max)
    if shift is None:
        low = (s + gap).clamp_min(t_min)
        return low + share * (high - low)
    low = unshift_time(s.clamp_min(t_min), shift) + gap
    return shift_time(low + share * (unshift_time(high, shift) - low), shift)
