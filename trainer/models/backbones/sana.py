"""SANA (arXiv 2410.10629): linear attention, 32-fold latents, prompts behind an instruction."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import ModelConfig
from trainer.models.backbones.base import Conditioning
from trainer.models.backbones.packing import mask
from trainer.models.backbones.pipeline import TIMESTEPS, PipelineBackbone


class SanaBackbone(PipelineBackbone):
    """A frozen SanaPipeline."""

    name: str = "sana"
    pipeline_class: ClassVar[str] = "SanaPipeline"
    default_lora_targets: tuple[str, ...] = (
        "attn1.to_q",
        "attn1.to_k",
        "attn1.to_v",
        "attn1.to_out.0",
        "attn2.to_q",
        "attn2.to_k",
        "attn2.to_v",
        "attn2.to_out.0",
    )

    @classmethod
    def stock_call(cls, model: ModelConfig) -> dict[str, float]:
        """Guidance off, and pictures of the very size that is asked for."""
        return {"guidance_scale": 1.0, "use_resolution_binning": False}

    @classmethod
    def usual_text_length(cls, path: Path) -> int:
        """Tokens of the prompt and of the instruction's end."""
        return 300

    @property
    def patch(self) -> int:  # type: ignore[override]
        """Latent pixels on one side of a token."""
        patch: int = self.pipeline.transformer.config.patch_size
        return patch

    def native_resolution(self) -> int:
        """Pixels on one side."""
        side: int = self.pipeline.transformer.config.sample_size
        return side * self.scale()

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width), each row as long as its prompt."""
        call = inspect.signature(self.pipeline.__call__).parameters
        tokens, counted, _, _ = self.pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            device=self.device,
            max_sequence_length=self.sequence_length,
            complex_human_instruction=call["complex_human_instruction"].default,
        )
        return _as_long_as_needed(tokens, counted)

    @torch.no_grad()
    def encode_unconditional(self) -> Conditioning:
        """The empty prompt, without the instruction."""
        *_, tokens, counted = self.pipeline.encode_prompt(
            [""], device=self.device, max_sequence_length=self.sequence_length
        )
        return _as_long_as_needed(tokens, counted)

    def longest(self, rows: int) -> Conditioning:
        """Prompts that fill all tokens."""
        length, width = self.sequence_length, self.pipeline.transformer.config.caption_channels
        return Conditioning({"tokens": self.zeros(rows, length, width)}, (length,) * rows)

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network predicts v itself, at times of its own scale."""
        lengths, config = condition.lengths or (), self.pipeline.transformer.config
        v: Tensor = self.network(
            x_t,
            encoder_hidden_states=condition["tokens"][:, : max(lengths)].to(self.dtype),
            encoder_attention_mask=mask(lengths, self.device).to(self.dtype),
            timestep=t * TIMESTEPS * config.timestep_scale,
            return_dict=False,
        )[0]
        return v[:, : config.in_channels]


def _as_long_as_needed(tokens: Tensor, counted: Tensor) -> Conditioning:
    lengths = counted.sum(1).cpu().tolist()
    return Conditioning({"tokens": tokens[:, : max(lengths)]}, tuple(lengths))
