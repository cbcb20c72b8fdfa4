"""Stable Diffusion 3 and 3.5, and the embedded model in their layout (two CLIPs, maybe a T5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.models.backbones.base import Conditioning
from trainer.models.backbones.pipeline import TIMESTEPS, PipelineBackbone, absent_parts


class SD3Backbone(PipelineBackbone):
    """A frozen StableDiffusion3Pipeline. Without a T5 the text gets as many zero tokens."""

    name: str = "sd3"
    pipeline_class: ClassVar[str] = "StableDiffusion3Pipeline"
    default_lora_targets: tuple[str, ...] = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )

    @classmethod
    def usual_text_length(cls, path: Path) -> int:
        """256 tokens of the T5; the folder without one needs a single zero token."""
        return 1 if "text_encoder_3" in absent_parts(path) else 256

    @property
    def patch(self) -> int:  # type: ignore[override]
        """Latent pixels on one side of a token; the embedded model has 1."""
        patch: int = self.pipeline.transformer.config.patch_size
        return patch

    def native_resolution(self) -> int:
        """Pixels on one side."""
        side: int = self.pipeline.transformer.config.sample_size
        return side * self.scale()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width) and pooled (batch, width)."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.sequence_length,
        )
        return Conditioning({"tokens": tokens, "pooled": pooled})

    def longest(self, rows: int) -> Conditioning:
        """77 tokens of the CLIPs before those of the T5."""
        config = self.pipeline.transformer.config
        return Conditioning(
            {
                "tokens": self.zeros(rows, 77 + self.sequence_length, config.joint_attention_dim),
                "pooled": self.zeros(rows, config.pooled_projection_dim),
            }
        )

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network predicts v itself."""
        v: Latents = self.network(
            hidden_states=x_t,
            timestep=t * TIMESTEPS,
            encoder_hidden_states=condition["tokens"].to(self.dtype),
            pooled_projections=condition["pooled"].to(self.dtype),
            return_dict=False,
        )[0]
        return v
