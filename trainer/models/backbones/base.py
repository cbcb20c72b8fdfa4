"""What the trainer asks of a text-to-image model: encode, velocity, decode, a place for adapters.

Everything architecture-specific (text encoders, latent scaling, time conventions) stays behind this
protocol. Roles are adapters, attached and chosen by `trainer.models.networks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trainer.arithmetic.shapes import Images, LatentImages, PerSample, Pooled, Tokens
from trainer.config import ComputeConfig, ModelConfig


@dataclass(frozen=True)
class Conditioning:
    """Encoded prompts: tokens (batch, length, width) and pooled (batch, width)."""

    tokens: Tokens
    pooled: Pooled

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def repeat(self, times: int) -> Conditioning:
        """Each row `times` times in a row: prompts to the samples of their groups."""
        return Conditioning(
            self.tokens.repeat_interleave(times, 0), self.pooled.repeat_interleave(times, 0)
        )

    def expand(self, batch: int) -> Conditioning:
        """One row shown `batch` times without copying it (the unconditional prompt)."""
        return Conditioning(
            self.tokens.expand(batch, -1, -1),
            self.pooled.expand(batch, -1),
        )

    def rows(self, index: Tensor | slice) -> Conditioning:
        """A selection of rows."""
        return Conditioning(self.tokens[index], self.pooled[index])

    @staticmethod
    def cat(parts: Sequence[Conditioning]) -> Conditioning:
        """Rows of all parts, in order."""
        return Conditioning(
            torch.cat([p.tokens for p in parts]), torch.cat([p.pooled for p in parts])
        )


@runtime_checkable
class Backbone(Protocol):
    """A frozen text-to-image model. `network` carries the adapters; nothing else is trainable."""

    name: str
    device: torch.device
    network: nn.Module
    latent_shape: tuple[int, int, int]
    default_lora_targets: tuple[str, ...]

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts to conditioning, one row each, exactly as the stock pipeline encodes them."""

    def velocity(self, x_t: LatentImages, t: PerSample, condition: Conditioning) -> LatentImages:
        """The network's v = eps - x0 at time t in [0, 1], fp32, under whatever adapter is on."""

    def decode(self, latents: LatentImages) -> Images:
        """Latents to RGB images in [0, 1]; carries no gradient."""


def torch_device(compute: ComputeConfig) -> torch.device:
    """The device, chosen automatically unless named."""
    if compute.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(compute.device)


def torch_dtype(compute: ComputeConfig) -> torch.dtype:
    """The precision of the frozen base; adapters, states and losses stay in fp32."""
    if compute.dtype == "auto":
        return torch.bfloat16 if torch_device(compute).type == "cuda" else torch.float32
    return torch.bfloat16 if compute.dtype == "bf16" else torch.float32


LoadBackbone = Callable[[ModelConfig, ComputeConfig], Backbone]
