"""Stage 3 of pretraining: the many-step teacher, by flow matching with caption dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from trainer.arithmetic.flow import interpolate, shift_time
from trainer.pretraining.captions import TextEncoders
from trainer.pretraining.tokenizer import build_tokenizer, tokenize


@dataclass(frozen=True)
class Architecture:
    """Sizes of the transformer."""

    width: int = 128
    layers: int = 4
    head_dim: int = 32
    patch: int = 3


def build_transformer(
    arch: Architecture, vae: AutoencoderKL, text_width: int
) -> SD3Transformer2DModel:
    """An untrained transformer for the VAE's latents and a text width."""
    side = vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1)
    return SD3Transformer2DModel(
        sample_size=side,
        patch_size=arch.patch,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=arch.layers,
        attention_head_dim=arch.head_dim,
        num_attention_heads=arch.width // arch.head_dim,
        joint_attention_dim=text_width,
        caption_projection_dim=arch.width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=side // arch.patch,
    )


@dataclass(frozen=True)
class Captions:
    """Encoded captions: context (N, T, D) and pooled (N, D), and the empty caption as row -1."""

    context: torch.Tensor
    pooled: torch.Tensor


@torch.no_grad()
def encode_captions(
    encoders: TextEncoders, tokens: torch.Tensor, device: torch.device
) -> tuple[Captions, torch.Tensor]:
    """Each distinct caption once, and each row's index among them; bfloat16 on the CPU."""
    distinct, index = torch.unique(tokens, dim=0, return_inverse=True)
    contexts, pools = [], []
    for chunk in torch.split(torch.cat([distinct, tokenize([""])]), 1000):
        context, pooled = encoders(chunk.to(device))
        contexts.append(context.to("cpu", torch.bfloat16))
        pools.append(pooled.to("cpu", torch.bfloat16))
    return Captions(torch.cat(contexts), torch.cat(pools)), index


def flow_matching_loss(
    transformer: SD3Transformer2DModel,
    latents: torch.Tensor,
    context: torch.Tensor,
    pooled: torch.Tensor,
    shift: float,
) -> torch.Tensor:
    """Mean |v - (eps - x_0)|^2, logit-normal shifted times (Esser et al. 2024, section 3.1)."""
    t = torch.sigmoid(torch.randn(len(latents), device=latents.device))
    t = shift_time(t, shift)
    noise = torch.randn_like(latents)
    velocity = transformer(
        hidden_states=interpolate(latents, noise, t),
        encoder_hidden_states=context,
        pooled_projections=pooled,
        timestep=1000 * t,
        return_dict=False,
    )[0]
    loss: torch.Tensor = (velocity.float() - (noise - latents)).square().mean()
    return loss


def save_pipeline(
    transformer: SD3Transformer2DModel,
    encoders: TextEncoders,
    vae: AutoencoderKL,
    shift: float,
    folder: str,
) -> None:
    """Write a StableDiffusion3Pipeline folder without a T5, its weights rounded to fp16."""
    tokenizer = build_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=encoders.first,
        tokenizer=tokenizer,
        text_encoder_2=encoders.second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder)
