"""Stage 2 of pretraining: the many-step teacher, by flow matching with caption dropout."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from trainer.tiny.tokenizer import MAX_TOKENS, build_tokenizer


@dataclass(frozen=True)
class Architecture:
    """Sizes of the embedded model."""

    width: int = 128
    layers: int = 4
    head_dim: int = 32
    text_width: int = 64
    text_layers: int = 4


class Denoiser(nn.Module):
    """The trainable part: two text encoders and the transformer, as the pipeline joins them."""

    def __init__(self, arch: Architecture, vae: AutoencoderKL) -> None:
        super().__init__()
        self.text_encoder = _build_text_encoder(arch)
        self.text_encoder_2 = _build_text_encoder(arch)
        side = vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1)
        self.transformer = SD3Transformer2DModel(
            sample_size=side,
            patch_size=1,
            in_channels=vae.config.latent_channels,
            out_channels=vae.config.latent_channels,
            num_layers=arch.layers,
            attention_head_dim=arch.head_dim,
            num_attention_heads=arch.width // arch.head_dim,
            joint_attention_dim=2 * arch.text_width,
            caption_projection_dim=arch.width,
            pooled_projection_dim=2 * arch.text_width,
            pos_embed_max_size=side,
        )

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Velocity at x_t (B, C, h, w) for t (B,) in [0, 1] and captions tokens (B, T)."""
        hidden, pooled = [], []
        for encoder in (self.text_encoder, self.text_encoder_2):
            output = encoder(tokens, output_hidden_states=True)
            hidden.append(output.hidden_states[-2])
            pooled.append(output.text_embeds)
        context = torch.cat(hidden, dim=-1)
        # The stock pipeline appends max_sequence_length zero tokens for the absent T5: one here.
        context = torch.cat([context, context.new_zeros(len(context), 1, context.shape[-1])], 1)
        velocity: torch.Tensor = self.transformer(
            hidden_states=x_t,
            encoder_hidden_states=context,
            pooled_projections=torch.cat(pooled, dim=-1),
            timestep=1000 * t,
            return_dict=False,
        )[0]
        return velocity


def _build_text_encoder(arch: Architecture) -> CLIPTextModelWithProjection:
    tokenizer = build_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=arch.text_width,
        intermediate_size=4 * arch.text_width,
        num_hidden_layers=arch.text_layers,
        num_attention_heads=arch.text_width // 16,
        projection_dim=arch.text_width,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config)


def flow_matching_loss(
    denoiser: Denoiser,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    empty_tokens: torch.Tensor,
    caption_dropout: float,
    shift: float,
) -> torch.Tensor:
    """Mean |v - (eps - x_0)|^2, logit-normal shifted times (Esser et al. 2024, section 3.1)."""
    batch = len(latents)
    dropped = torch.rand(batch, 1) < caption_dropout
    tokens = torch.where(dropped.to(tokens.device), empty_tokens, tokens)
    t = torch.sigmoid(torch.randn(batch, device=latents.device))
    t = shift * t / (1 + (shift - 1) * t)
    noise = torch.randn_like(latents)
    t_ = t.view(-1, 1, 1, 1)
    velocity = denoiser((1 - t_) * latents + t_ * noise, t, tokens)
    loss: torch.Tensor = (velocity.float() - (noise - latents)).square().mean()
    return loss


def save_pipeline(denoiser: Denoiser, vae: AutoencoderKL, shift: float, folder: str) -> None:
    """Write a StableDiffusion3Pipeline folder without a T5, its weights rounded to fp16."""
    from diffusers import StableDiffusion3Pipeline

    tokenizer = build_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer=denoiser.transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        vae=vae,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=denoiser.text_encoder_2,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(folder)
