"""Z-Image (arXiv 2511.22699): one text encoder (Qwen3), rows of different length, time from noise.

Its pipeline's guidance scale g says v = v_cond + g (v_cond - v_uncond): ours is g + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch.nn.utils.rnn import pad_sequence

from trainer.arithmetic.shapes import Latents, PerSample
from trainer.config import ModelConfig
from trainer.models.backbones.base import Conditioning
from trainer.models.backbones.pipeline import PipelineBackbone


class ZImageBackbone(PipelineBackbone):
    """A frozen ZImagePipeline."""

    name: str = "zimage"
    pipeline_class: ClassVar[str] = "ZImagePipeline"
    output_layer: str = "all_final_layer.2-1.linear"
    default_lora_targets: tuple[str, ...] = (
        "attention.to_q",
        "attention.to_k",
        "attention.to_v",
        "attention.to_out.0",
    )

    @classmethod
    def stock_call(cls, model: ModelConfig) -> dict[str, float]:
        """Guidance off."""
        return {"guidance_scale": 0.0}

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """tokens (batch, length, width), each row as long as its prompt."""
        rows, _ = self.pipeline.encode_prompt(
            list(prompts),  # the pipeline writes into the list it is given
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.sequence_length,
        )
        tokens = pad_sequence(rows, batch_first=True)
        return Conditioning({"tokens": tokens}, tuple(len(row) for row in rows))

    def longest(self, rows: int) -> Conditioning:
        """Prompts that fill all tokens."""
        length, width = self.sequence_length, self.pipeline.transformer.config.cap_feat_dim
        return Conditioning({"tokens": self.zeros(rows, length, width)}, (length,) * rows)

    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """The network's time runs from noise (0) to data (1), and so its v points the other way.

        It takes lists, a picture as a video of one frame, and pads the text by itself.
        """
        tokens = condition["tokens"].to(self.dtype)
        rows = [row[:n] for row, n in zip(tokens, condition.lengths or (), strict=True)]
        output = self.network(list(x_t.unsqueeze(2).unbind(0)), 1 - t, rows, return_dict=False)[0]
        return -torch.stack(output).squeeze(2)
