"""Flow-matching arithmetic: time grids, x0 / noise / velocity, re-noising from an inner time.

Pure functions on tensors. x_t = (1 - t) x0 + t eps with t in [0, 1] (0 = data, 1 = noise); networks
predict the velocity v = eps - x0.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from trainer.arithmetic.shapes import Latents, PerSample

Time = TypeVar("Time", float, Tensor)


def shift_time(t: Time, shift: float) -> Time:
    """Moves t in [0, 1] towards the noise: shift t / (1 + (shift - 1) t) (SD3, Eq. 23)."""
    return shift * t / (1.0 + (shift - 1.0) * t)


def unshift_time(t: Time, shift: float) -> Time:
    """The inverse of `shift_time`."""
    return t / (shift - (shift - 1.0) * t)


def time_grid(steps: int, shift: float, start: float = 1.0) -> tuple[float, ...]:
    """`steps + 1` times from the noise to 0 (data); 4 steps, shift 2: 1, .857, .667, .4, 0.

    start: the first time before the shift.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(f"a time grid needs steps >= 1 and shift > 0, got {steps} and {shift}")
    return tuple(shift_time(start * (1.0 - j / steps), shift) for j in range(steps + 1))


def stretch(per_sample: Tensor, like: Tensor) -> Tensor:
    """Shape (batch,) to (batch, 1, 1, ...) so that it broadcasts over `like`."""
    return per_sample.view(-1, *([1] * (like.ndim - 1)))


def mean_dims(x: Latents) -> PerSample:
    """Mean over everything but the batch."""
    return x.flatten(1).mean(1)


def interpolate(x0: Latents, eps: Latents, t: PerSample) -> Latents:
    """x_t = (1 - t) x0 + t eps."""
    t_ = stretch(t, x0)
    return (1 - t_) * x0 + t_ * eps


def velocity_to_x0(x_t: Latents, v: Latents, t: PerSample) -> Latents:
    """x0_hat = x_t - t v."""
    return x_t - stretch(t, x_t) * v


def velocity_to_noise(x_t: Latents, v: Latents, t: PerSample) -> Latents:
    """eps_hat = x_t + (1 - t) v."""
    return x_t + (1 - stretch(t, x_t)) * v


def second_order_x0(x0: Latents, before: Latents, times: tuple[float, float, float]) -> Latents:
    """The data prediction with which a first-order step is one of DPM-Solver++ 2M (midpoint).

    x0 + (h / 2 h_0) (x0 - before), with h_0 and h the differences of log((1 - t)/t) from the time
    of `before` to that of x0 and from there to the step's end (Lu et al. 2022, arXiv:2211.01095,
    Algorithm 2; diffusers' `DPMSolverMultistepScheduler`). times: these three, above 0.
    """
    first, second, third = (math.log1p(-t) - math.log(t) for t in times)
    return x0 + (third - second) / (2 * (second - first)) * (x0 - before)


def renoise_scales(s: PerSample, t: PerSample) -> tuple[PerSample, PerSample]:
    """(a, b) of x_t = a x_s + b e, the forward process started at s instead of 0; needs s <= t.

    a = (1 - t)/(1 - s), b = sqrt(t^2 - a^2 s^2).
    """
    a = (1 - t) / (1 - s)
    return a, torch.sqrt((t * t - a * a * s * s).clamp_min(0.0))


def renoise(x_s: Latents, e: Latents, s: PerSample, t: PerSample) -> Latents:
    """Draws x_t from q(x_t | x_s) with the given standard normal e."""
    a, b = renoise_scales(s, t)
    return stretch(a, x_s) * x_s + stretch(b, x_s) * e


def mixed_noise(eps: Latents, e: Latents, s: PerSample, t: PerSample) -> Latents:
    """eps_mix with x_t = (1 - t) x0 + t eps_mix, for x_s = (1 - s) x0 + s eps re-noised by e.

    eps_mix = (a s eps + b e)/t; equals e when s = 0.
    """
    a, b = renoise_scales(s, t)
    return (stretch(a * s / t, e) * eps) + (stretch(b / t, e) * e)
