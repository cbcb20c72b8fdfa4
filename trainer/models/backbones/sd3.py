"""Any folder in Stable Diffusion 3 layout: the embedded model, SD3, SD3.5-M (two CLIPs, maybe T5).

Text is encoded by the stock pipeline's own `encode_prompt`, so an exported LoRA meets exactly the
conditioning it was trained with. Refuses folders of another layout, with their reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from trainer.arithmetic.shapes import Images, LatentImages, PerSample
from trainer.config import ComputeConfig, ModelConfig
from trainer.errors import ModelError
from trainer.models.backbones.base import Conditioning, torch_device, torch_dtype

DIFFUSERS: Any = diffusers  # neither library carries usable types
TRANSFORMERS: Any = transformers
# diffusers' timestep of an SD3 transformer is 1000 times the flow time.
TIMESTEPS = 1000.0
# Decoded in one call, so that memory does not grow with the batch; a CPU's caches want no more.
DECODED_PIXELS = 2**15
LORA_TARGETS = (
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
)


class SD3Backbone:
    """A frozen StableDiffusion3Pipeline; see `trainer.models.backbones.base.Backbone`."""

    name: str = "sd3"
    default_lora_targets: tuple[str, ...] = LORA_TARGETS

    def __init__(
        self,
        pipeline: Any,  # a StableDiffusion3Pipeline; its parts carry no types
        device: torch.device,
        dtype: torch.dtype,
        max_sequence_length: int,
        resolution: int | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.device = device
        self.dtype = dtype
        self.max_sequence_length = max_sequence_length
        self.network = pipeline.transformer
        for part in (pipeline.transformer, pipeline.vae, *self._text_encoders()):
            part.requires_grad_(False).eval()
        pipeline.transformer.to(device)
        if pipeline.transformer.dtype != dtype:
            pipeline.transformer.to(dtype)
        pipeline.vae.to(device, memory_format=torch.channels_last)
        for encoder in self._text_encoders():
            encoder.to(device)
        config = pipeline.transformer.config
        side = _latent_side(resolution, pipeline) if resolution else config.sample_size
        self.latent_shape = (config.in_channels, side, side)

    def _text_encoders(self) -> list[torch.nn.Module]:
        p = self.pipeline
        return [e for e in (p.text_encoder, p.text_encoder_2, p.text_encoder_3) if e is not None]

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, by `StableDiffusion3Pipeline.encode_prompt`."""
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=list(prompts),
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )
        return Conditioning(tokens, pooled)

    def velocity(self, x_t: LatentImages, t: PerSample, condition: Conditioning) -> LatentImages:
        """v at time t in [0, 1]; inputs and result are fp32 whatever the network computes in."""
        dtype = self.dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            output = self.network(
                hidden_states=x_t.to(dtype),
                timestep=(t * TIMESTEPS).to(self.device),
                encoder_hidden_states=condition.tokens.to(dtype),
                pooled_projections=condition.pooled.to(dtype),
                return_dict=False,
            )[0]
        velocity: LatentImages = output.float()
        return velocity

    @torch.no_grad()
    def decode(self, latents: LatentImages) -> Images:
        """RGB in [0, 1], by the pipeline's own scaling and post-processing."""
        vae = self.pipeline.vae
        scaled = latents.to(vae.dtype) / vae.config.scaling_factor + (vae.config.shift_factor or 0)
        pixels = latents[0, 0].numel() * self.pipeline.vae_scale_factor**2
        parts = scaled.split(max(1, DECODED_PIXELS // pixels))
        decoded = torch.cat([vae.decode(part, return_dict=False)[0] for part in parts])
        images: Images = (decoded.float() / 2 + 0.5).clamp(0, 1)
        return images


def _latent_side(resolution: int, pipeline: Any) -> int:
    """Side of the latents of pictures of so many pixels."""
    unit = pipeline.vae_scale_factor * pipeline.transformer.config.patch_size
    if resolution % unit:
        below = resolution // unit * unit
        raise ModelError(
            f"model.resolution = {resolution} is no multiple of {unit} px, the side of one patch "
            f"of this model; use {below or unit} or {below + unit}"
        )
    side: int = resolution // pipeline.vae_scale_factor
    return side


def load_sd3(model: ModelConfig, compute: ComputeConfig) -> SD3Backbone:
    """Loads `model.path`; every part comes from the folder, nothing from a hub."""
    path = Path(model.path)
    absent = _absent_parts(path)
    device, dtype = torch_device(compute), torch_dtype(compute)
    # A T5-XXL in fp32 takes 19 GB; on a CPU the text encoders are small and run once per prompt.
    text_dtype = dtype if device.type == "cuda" else torch.float32
    DIFFUSERS.utils.logging.disable_progress_bar()
    TRANSFORMERS.utils.logging.disable_progress_bar()
    try:
        pipeline = DIFFUSERS.StableDiffusion3Pipeline.from_pretrained(
            str(path),
            **absent,
            local_files_only=True,
            dtype={"transformer": dtype, "vae": torch.float32, "default": text_dtype},
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} does not load as a StableDiffusion3Pipeline: {error}") from error
    return SD3Backbone(pipeline, device, dtype, model.max_sequence_length, model.resolution)


def _absent_parts(path: Path) -> dict[str, None]:
    """The parts the folder's index declares empty (a model without T5): the loader wants them said.

    Refuses folders that are not in SD3 layout.
    """
    file = path / "model_index.json"
    if not file.is_file():
        raise ModelError(
            f"{path} holds no model_index.json, so it is no diffusers pipeline folder; "
            "point model.path (or --model) at one, such as trainer/tiny/weights"
        )
    index = json.loads(file.read_text())
    name = index.get("_class_name")
    if name != "StableDiffusion3Pipeline":
        raise ModelError(
            f"{path} is a {name}; model.backbone = 'sd3' needs a StableDiffusion3Pipeline"
        )
    return {part: None for part, source in index.items() if source == [None, None]}
