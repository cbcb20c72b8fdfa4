"""Qwen-Image (arXiv 2508.02324): rows of different length, a video's VAE, guidance of one norm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import ModelConfig
from trainer.models.backbones.base import Conditioning, Guidance
from trainer.models.backbones.guidance import ClassifierFree, extrapolated
from trainer.models.backbones.packing import JOINT_ATTENTION, mask, pack, unpack
from trainer.models.backbones.pipeline import PipelineBackbone


def same_norm(conditional: Latents, unconditional: Latents, scale: float) -> Latents:
    """Classifier-free guidance with the conditional prediction's norm, token by token."""
    pushed = pack(extrapolated(conditional, unconditional, scale))
    norm = pack(conditional).norm(dim=-1, keepdim=True)
    return unpack(pushed * (norm / pushed.norm(dim=-1, keepdim=True)), conditional)


class QwenImageBackbone(PipelineBackbone):
    """A frozen QwenImagePipeline."""

    name: str = "qwen_image"
    pipeline_class: ClassVar[str] = "QwenImagePipeline"
    default_lora_targets: tuple[str, ...] = JOINT_ATTENTION
    guidance: Guidance = ClassifierFree(same_norm)

    @classmethod
    def stock_call(cls, model: ModelConfig) -> dict[str, float]:
        """Guidance off."""
        return {"true_cfg_scale": 1.0}

    @classmethod
    def usual_text_length(cls, path: Path) -> int:
        """Tokens at most; shorter prompts are not padded."""
        return 512

    def channels(self) -> int:
        """Of a latent; the network sees four pixels at once."""
        return super().channels() // 4

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width), each row as long as its prompt."""
        tokens, counted = self.pipeline.encode_prompt(
            list(prompts), device=self.device, max_sequence_length=self.sequence_length
        )
        every = [tokens.shape[1]] * len(tokens)  # where all count, the pipeline gives no mask
        lengths = every if counted is None else counted.sum(1).cpu().tolist()
        return Conditioning({"tokens": tokens}, tuple(lengths))

    def longest(self, rows: int) -> Conditioning:
        """Prompts that fill all tokens."""
        length, width = self.sequence_length, self.pipeline.transformer.config.joint_attention_dim
        return Conditioning({"tokens": self.zeros(rows, length, width)}, (length,) * rows)

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network predicts v of packed latents."""
        lengths = condition.lengths or ()
        tokens = condition["tokens"][:, : max(lengths)].to(self.dtype)
        even = min(lengths) == max(lengths)
        output = self.network(
            hidden_states=pack(x_t),
            timestep=t,
            encoder_hidden_states_mask=None if even else mask(lengths, self.device),
            encoder_hidden_states=tokens,
            img_shapes=[[(1, x_t.shape[-2] // 2, x_t.shape[-1] // 2)]] * len(x_t),
            return_dict=False,
        )[0]
        return unpack(output, x_t)

    def decode_latents(self, latents: Latents) -> Tensor:
        """A picture is a video of one frame; the statistics are per channel."""
        config = self.pipeline.vae.config
        mean, std = (
            torch.tensor(values, device=self.device, dtype=latents.dtype).view(1, -1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        frames = (latents * std + mean).unsqueeze(2)
        rgb: Tensor = self.pipeline.vae.decode(frames, return_dict=False)[0][:, :, 0]
        return rgb
