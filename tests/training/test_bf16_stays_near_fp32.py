"""In bf16 every direction stays within bounds of fp32, and is nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support.fakes import build_sd3_folder
from tests.support.tiny_pipelines import FAMILIES, SIDE, TEXT, written
from trainer.arithmetic.flow import velocity_to_x0
from trainer.arithmetic.randomness import normal, normals
from trainer.config import load_config
from trainer.models.backbones import load_backbone
from trainer.models.networks import build_networks

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "sd3": build_sd3_folder,
    **{one.name: (lambda folder, one=one: written(one, folder)) for one in FAMILIES},  # type: ignore[misc]
}
SAMPLES = 4


@dataclass(frozen=True)
class Directions:
    """What the generator is pulled by, at one x_t."""

    kl: Tensor
    reward: Tensor
    guided: Tensor


@torch.no_grad()
def directions(folder: Path, dtype: str, away: float) -> Directions:
    """Of roles that differ by `away` from their starts."""
    size = [] if folder.name == "sd3" else [f"model.resolution={SIDE}"]
    fixed = [f"model.path={folder}", f"model.max_sequence_length={TEXT}", "lora.rank=2"]
    # As on a GPU: adapters beside the base, and all passes in batches of one shape.
    compute = [f"compute.dtype={dtype}", "compute.fold_adapters=never", "compute.micro_batch=4"]
    config = load_config(None, [*fixed, *size, *compute])
    backbone = load_backbone(config.model, config.compute)
    networks = build_networks(backbone, config)
    for role in networks.specs:
        for k, parameter in enumerate(networks.parameters(role)):
            parameter.data.add_(away * normal(parameter.shape, "away", role, k))
    condition = backbone.encode(["a red star", "a blue star"]).repeat(SAMPLES // 2)
    x, t = normals(backbone.latent_shape, [(i,) for i in range(SAMPLES)]), torch.full((4,), 0.8)
    teacher, uncondition = networks.velocity("teacher"), backbone.encode_unconditional()
    guided, plain = backbone.guidance.both(teacher, x, t, condition, uncondition, 4.0)
    fake, phi = (networks.velocity(role)(x, t, condition) for role in ("fake", "surrogate"))
    x0, x0_plain, x0_fake, x0_phi = (velocity_to_x0(x, v, t) for v in (guided, plain, fake, phi))
    return Directions(x0 - x0_fake, x0_phi - x0_plain, x0)


def size(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


@pytest.mark.parametrize("name", BUILDERS)
def test_directions_in_bf16(name: str, tmp_path: Path) -> None:
    folder = BUILDERS[name](tmp_path / name)
    exact, rounded = (directions(folder, dtype, 0.2) for dtype in ("fp32", "bf16"))
    scale = size(exact.guided)
    for field in ("kl", "reward", "guided"):
        error = size(getattr(exact, field) - getattr(rounded, field))
        assert 0 < error < 0.03 * scale, (field, error, scale)
    cosine = torch.nn.functional.cosine_similarity(
        exact.reward.flatten(), rounded.reward.flatten(), 0
    )
    assert cosine > 0.95
    start = directions(folder, "bf16", 0.0)
    assert start.reward.abs().max() == 0, "phi is its reference, and rounding says otherwise"
