"""The two rules of guidance: a second prediction without the prompt, or a scale the model is told.

A scale of 1 is always the model without guidance.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.models.backbones.base import Conditioning, Network

Combine = Callable[[Latents, Latents, float], Latents]


def extrapolated(conditional: Latents, unconditional: Latents, scale: float) -> Latents:
    """v_uncond + scale (v_cond - v_uncond) (Ho and Salimans 2022, arXiv:2207.12598)."""
    return unconditional + scale * (conditional - unconditional)


class ClassifierFree:
    """Two evaluations in one doubled batch; `combine` makes the guided v of the two."""

    evaluations = 2

    def __init__(self, combine: Combine = extrapolated) -> None:
        self._combine = combine

    def guided(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> Latents:
        """The guided v."""
        return self.both(network, x_t, t, condition, uncondition, scale)[0]

    def both(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> tuple[Latents, Latents]:
        """(guided v, conditional v)."""
        batch = len(x_t)
        pair = Conditioning.cat([condition, uncondition.expand(batch)])
        v = network(torch.cat([x_t, x_t]), torch.cat([t, t]), pair)
        return self._combine(v[:batch], v[batch:], scale), v[:batch]


class Embedded:
    """A model distilled from its guided self, which is told the scale (FLUX.1-dev).

    Conditioning carries it per row under the name "guidance"; `uncondition` is not looked at.
    """

    evaluations = 1

    def guided(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> Latents:
        """The v of the model told `scale`."""
        return network(x_t, t, _told(condition, scale))

    def both(
        self,
        network: Network,
        x_t: Latents,
        t: PerSample,
        condition: Conditioning,
        uncondition: Conditioning,
        scale: float,
    ) -> tuple[Latents, Latents]:
        """(v of the model told `scale`, v of the model told what `condition` says)."""
        batch = len(x_t)
        pair = Conditioning.cat([_told(condition, scale), condition])
        v = network(torch.cat([x_t, x_t]), torch.cat([t, t]), pair)
        return v[:batch], v[batch:]


def _told(condition: Conditioning, scale: float) -> Conditioning:
    return condition.replaced(guidance=torch.full_like(condition["guidance"], scale))
