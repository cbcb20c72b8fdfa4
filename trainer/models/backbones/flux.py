"""FLUX.1 dev (distilled from its guided self, told the scale) and schnell (told nothing)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import ModelConfig
from trainer.models.backbones.base import Conditioning
from trainer.models.backbones.guidance import Embedded
from trainer.models.backbones.packing import JOINT_ATTENTION, pack, unpack
from trainer.models.backbones.pipeline import PipelineBackbone


class FluxBackbone(PipelineBackbone):
    """A frozen FluxPipeline; the students are told `model.embedded_guidance`."""

    name: str = "flux"
    pipeline_class: ClassVar[str] = "FluxPipeline"
    default_lora_targets: tuple[str, ...] = JOINT_ATTENTION

    def __init__(
        self, pipeline: Any, device: torch.device, dtype: torch.dtype, model: ModelConfig
    ) -> None:
        super().__init__(pipeline, device, dtype, model)
        self.told = model.embedded_guidance
        if pipeline.transformer.config.guidance_embeds:
            self.guidance = Embedded()
        half = self.latent_shape[-1] // 2
        self.image_ids = pipeline._prepare_latent_image_ids(1, half, half, device, torch.float32)

    @classmethod
    def stock_call(cls, model: ModelConfig) -> dict[str, float]:
        """The scale that the student was told in training."""
        return {"guidance_scale": model.embedded_guidance}

    @classmethod
    def usual_text_length(cls, path: Path) -> int:
        """Tokens of the T5."""
        return 512

    def channels(self) -> int:
        """Of a latent; the network sees four pixels at once."""
        return super().channels() // 4

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width), pooled (batch, width), guidance (batch,)."""
        tokens, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            device=self.device,
            max_sequence_length=self.sequence_length,
        )
        told = torch.full((len(prompts),), self.told, device=self.device)
        return Conditioning({"tokens": tokens, "pooled": pooled, "guidance": told})

    def longest(self, rows: int) -> Conditioning:
        """Every prompt is padded to it."""
        config = self.pipeline.transformer.config
        return Conditioning(
            {
                "tokens": self.zeros(rows, self.sequence_length, config.joint_attention_dim),
                "pooled": self.zeros(rows, config.pooled_projection_dim),
                "guidance": torch.full((rows,), self.told, device=self.device),
            }
        )

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network predicts v of packed latents."""
        tokens = condition["tokens"].to(self.dtype)
        output = self.network(
            hidden_states=pack(x_t),
            timestep=t,
            guidance=condition["guidance"] if isinstance(self.guidance, Embedded) else None,
            pooled_projections=condition["pooled"].to(self.dtype),
            encoder_hidden_states=tokens,
            txt_ids=tokens.new_zeros(tokens.shape[1], 3),
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        return unpack(output, x_t)
