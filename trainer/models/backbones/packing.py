"""Latents as rows of tokens of 2 x 2 latent pixels each, as FLUX.1 and Qwen-Image take them."""

from __future__ import annotations

import torch
from torch.nn import functional

from trainer.arithmetic.shapes import Latents

JOINT_ATTENTION = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)


def pack(latents: Latents) -> torch.Tensor:
    """(batch, c, h, w) to (batch, h/2 w/2, 4 c)."""
    return functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(tokens: torch.Tensor, like: Latents) -> Latents:
    """The latents, of the shape of `like`, that `pack` made the tokens of."""
    halves = (like.shape[-2] // 2, like.shape[-1] // 2)
    return functional.pixel_shuffle(torch.unflatten(tokens.transpose(1, 2), 2, halves), 2)


def mask(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(batch, longest): True where a row's tokens count; made on the host, so nothing waits."""
    counted = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return counted.to(device, non_blocking=True)
