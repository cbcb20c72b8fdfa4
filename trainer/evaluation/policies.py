"""The models an evaluation compares, on one backbone: teacher, start, trained generator, phi.

Knows how each is sampled and what it costs; never trains and never scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.config import RolloutConfig
from trainer.evaluation.evaluate import Policy
from trainer.evaluation.results import START, SURROGATE, TEACHER, TRAINED
from trainer.models.backbones import Backbone, Conditioning
from trainer.models.networks import Networks, Source
from trainer.models.rollout import sample_guided, sampled

MANY_STEPS = 40  # with guidance 80 evaluations, the field's usual budget
LABELS = {TEACHER: "teacher", START: "start", TRAINED: "TDM-R1", SURROGATE: "surrogate"}


def few_step(name: str, source: Source, networks: Networks, sampling: RolloutConfig) -> Policy:
    """A role as K-step generator without guidance, sampled as it is trained: K evaluations."""
    backbone = networks.backbone

    @torch.no_grad()
    def sample(noise: Tensor, prompts: Sequence[str]) -> Tensor:
        start, condition = noise.to(backbone.device), _encode(backbone, prompts)
        return backbone.decode(sampled(networks.velocity(source), start, condition, sampling).final)

    return Policy(name, LABELS[name], sampling.k_steps, backbone.latent_shape, sample)


def many_step(
    name: str,
    source: Source,
    networks: Networks,
    *,
    shift: float,
    guidance: float,
    steps: int = MANY_STEPS,
) -> Policy:
    """A role with classifier-free guidance: two evaluations a step."""
    backbone = networks.backbone

    @torch.no_grad()
    def sample(noise: Tensor, prompts: Sequence[str]) -> Tensor:
        latents, _ = sample_guided(
            networks.velocity(source),
            noise.to(backbone.device),
            _encode(backbone, prompts),
            backbone.encode_unconditional(),
            steps=steps,
            shift=shift,
            guidance=guidance,
            rule=backbone.guidance,
        )
        return backbone.decode(latents)

    nfe = steps * (backbone.guidance.evaluations if guidance != 1 else 1)
    return Policy(name, LABELS[name], nfe, backbone.latent_shape, sample)


def _encode(backbone: Backbone, prompts: Sequence[str]) -> Conditioning:
    """One row per prompt; prompts that occur twice are encoded once."""
    distinct = sorted(set(prompts))
    return backbone.encode(distinct).rows([distinct.index(p) for p in prompts])
