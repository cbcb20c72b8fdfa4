"""FLUX.2 [klein]: Qwen3's inner layers as text, latents already patched and normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import ModelConfig
from trainer.models.backbones.base import Conditioning
from trainer.models.backbones.packing import JOINT_ATTENTION
from trainer.models.backbones.pipeline import PipelineBackbone


class Flux2KleinBackbone(PipelineBackbone):
    """A frozen Flux2KleinPipeline; a latent pixel is a token of 2 x 2 of the VAE's."""

    name: str = "flux2"
    pipeline_class: ClassVar[str] = "Flux2KleinPipeline"
    default_lora_targets: tuple[str, ...] = (*JOINT_ATTENTION, "attn.to_qkv_mlp_proj")
    patch: int = 1

    def __init__(
        self, pipeline: Any, device: torch.device, dtype: torch.dtype, model: ModelConfig
    ) -> None:
        super().__init__(pipeline, device, dtype, model)
        text, picture = torch.zeros(1, self.sequence_length, 1), torch.zeros(1, *self.latent_shape)
        self.text_ids = pipeline._prepare_text_ids(text)[0].to(device)
        self.image_ids = pipeline._prepare_latent_ids(picture)[0].to(device)

    def scale(self) -> int:
        """Pixels on one side of a token."""
        return 2 * super().scale()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width): padded, and the padding is attended to."""
        tokens, _ = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.sequence_length
        )
        return Conditioning({"tokens": tokens})

    def longest(self, rows: int) -> Conditioning:
        """Every prompt is padded to it."""
        width = self.pipeline.transformer.config.joint_attention_dim
        return Conditioning({"tokens": self.zeros(rows, self.sequence_length, width)})

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network predicts v of tokens."""
        v: Tensor = self.network(
            hidden_states=x_t.flatten(2).transpose(1, 2),
            timestep=t,
            guidance=None,
            encoder_hidden_states=condition["tokens"].to(self.dtype),
            txt_ids=self.text_ids,
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return v.transpose(1, 2).reshape(x_t.shape)

    def decode_latents(self, latents: Latents) -> Tensor:
        """The statistics are those of a batch normalisation that the VAE carries."""
        vae = self.pipeline.vae
        mean, variance = (
            s.view(1, -1, 1, 1).to(latents.dtype) for s in (vae.bn.running_mean, vae.bn.running_var)
        )
        patched = latents * torch.sqrt(variance + vae.config.batch_norm_eps) + mean
        rgb: Tensor = vae.decode(functional.pixel_shuffle(patched, 2), return_dict=False)[0]
        return rgb
