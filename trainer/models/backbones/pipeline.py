"""What backbones of stock diffusers pipelines have in common; each adds what is its own.

Text is encoded by the stock pipeline's own `encode_prompt` and latents are decoded by its own VAE,
so an exported LoRA meets exactly the conditioning it was trained with.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from trainer.arithmetic.shapes import Images, Latents, PerSample
from trainer.config import ComputeConfig, ModelConfig
from trainer.errors import ModelError
from trainer.models.backbones.base import Conditioning, Guidance, torch_device, torch_dtype
from trainer.models.backbones.guidance import ClassifierFree
from trainer.models.hub import model_folder

DIFFUSERS: Any = diffusers  # neither library carries usable types
TRANSFORMERS: Any = transformers
# diffusers' timestep is 1000 times the flow time.
TIMESTEPS = 1000.0
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
# Decoded in one call, so that memory does not grow with the batch: a CPU's caches want no more,
# a GPU is kept busy by eight pictures of 512 px.
DECODED_PIXELS_CPU, DECODED_PIXELS = 2**15, 2**21


class PipelineBackbone(ABC):
    """A frozen pipeline; see `trainer.models.backbones.base.Backbone`.

    name: what `model.backbone` calls it. pipeline_class: the stock class. patch: latent pixels on
    one side of the network's tokens. output_layer: the network's last product.
    """

    name: str
    pipeline_class: ClassVar[str]
    default_lora_targets: tuple[str, ...]
    guidance: Guidance = ClassifierFree()
    patch: int = 2
    output_layer: str = "proj_out"

    def __init__(
        self, pipeline: Any, device: torch.device, dtype: torch.dtype, model: ModelConfig
    ) -> None:
        self.pipeline = pipeline
        self.device = device
        self.dtype = dtype
        self.sequence_length = text_length(type(self), model)
        self.network: nn.Module = pipeline.transformer
        if dtype != torch.float32:
            in_full_precision(self.network.get_submodule(self.output_layer))
        for part in (pipeline.transformer, pipeline.vae, *self.text_encoders()):
            part.requires_grad_(False).eval()
        pipeline.transformer.to(device)
        if pipeline.transformer.dtype != dtype:
            pipeline.transformer.to(dtype)
        channels_last = self.vae_weights_are_2d()
        pipeline.vae.to(device, **({"memory_format": torch.channels_last} if channels_last else {}))
        for encoder in self.text_encoders():
            encoder.to(device)
        side = self._side(model.resolution or self.native_resolution())
        self.latent_shape: tuple[int, ...] = (self.channels(), side, side)

    @classmethod
    def stock_call(cls, model: ModelConfig) -> dict[str, float]:
        """Arguments with which the stock call samples as the student does: without guidance."""
        return {"guidance_scale": 1.0}

    @classmethod
    def usual_text_length(cls, path: Path) -> int:
        """Tokens that the stock call pads or cuts prompts to, unless it is told otherwise."""
        return 512

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """One row per prompt, by the pipeline's `encode_prompt`."""

    @abstractmethod
    def longest(self, rows: int) -> Conditioning:
        """Conditioning of prompts of the greatest length, of zeros."""

    @abstractmethod
    def predict(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """v by the network, inside autocast; x_t comes in the network's own precision."""

    def encode_unconditional(self) -> Conditioning:
        """The empty prompt, which the stock pipelines guide away from."""
        return self.encode([""])

    def free_text_encoders(self) -> None:
        """Gives their memory back; nothing can be encoded any more."""
        for name in TEXT_ENCODERS:
            if getattr(self.pipeline, name, None) is not None:
                setattr(self.pipeline, name, None)

    def velocity(self, x_t: Latents, t: PerSample, condition: Conditioning) -> Latents:
        """v at time t in [0, 1]; inputs and result are fp32 whatever the network computes in."""
        dtype = self.dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            v = self.predict(x_t.to(dtype), t.to(self.device), condition)
        return v.float()

    @torch.no_grad()
    def decode(self, latents: Latents) -> Images:
        """RGB in [0, 1], by the pipeline's own scaling and post-processing."""
        pixels = latents[0, 0].numel() * self.scale() ** 2
        limit = DECODED_PIXELS_CPU if self.device.type == "cpu" else DECODED_PIXELS
        parts = torch.split(latents.to(self.pipeline.vae.dtype), max(1, limit // pixels))
        decoded = torch.cat([self.decode_latents(part) for part in parts])
        images: Images = (decoded.float() / 2 + 0.5).clamp(0, 1)
        return images

    def zeros(self, *shape: int) -> Tensor:
        """As the text encoders' output."""
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def decode_latents(self, latents: Latents) -> Tensor:
        """RGB in [-1, 1]."""
        vae = self.pipeline.vae
        shift = getattr(vae.config, "shift_factor", None) or 0
        scaled = latents / vae.config.scaling_factor + shift
        rgb: Tensor = vae.decode(scaled, return_dict=False)[0]
        return rgb

    def channels(self) -> int:
        """Channels of a latent."""
        channels: int = self.pipeline.transformer.config.in_channels
        return channels

    def native_resolution(self) -> int:
        """Pixels on one side of the pictures the model was made for."""
        return 1024

    def scale(self) -> int:
        """Pixels on one side of a latent pixel."""
        scale: int = self.pipeline.vae_scale_factor
        return scale

    def vae_weights_are_2d(self) -> bool:
        """Whether the VAE's convolutions are of pictures, which run faster channels last."""
        return not any(p.ndim > 4 for p in self.pipeline.vae.parameters())

    def _side(self, resolution: int) -> int:
        """Side of the latents of pictures of so many pixels."""
        unit = self.scale() * self.patch
        if resolution % unit:
            below = resolution // unit * unit
            raise ModelError(
                f"model.resolution = {resolution} is no multiple of {unit} px, the side of one "
                f"patch of this model; use {below or unit} or {below + unit}"
            )
        return resolution // self.scale()

    def text_encoders(self) -> list[nn.Module]:
        """The pipeline's own."""
        return [e for n in TEXT_ENCODERS if (e := getattr(self.pipeline, n, None)) is not None]


def in_full_precision(layer: nn.Module) -> None:
    """Multiplies in fp32 from now on, by the weights as they are.

    What the reward says is a difference of two predictions that hardly differ: rounded to eight
    bits at the very end, most of it would be rounding.
    """

    def forward(x: Tensor) -> Tensor:
        bias = None if linear.bias is None else linear.bias.float()
        # The meta device, on which plans are made, knows no autocast.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            return functional.linear(x.float(), linear.weight.float(), bias)

    linear: Any = layer
    linear.forward = forward


def text_length(backbone: type[PipelineBackbone], model: ModelConfig) -> int:
    """Tokens that prompts are padded or cut to: `model.max_sequence_length`, or what is usual."""
    if model.max_sequence_length is not None:
        return model.max_sequence_length
    return backbone.usual_text_length(model.path)


def load_pipeline(
    backbone: type[PipelineBackbone], model: ModelConfig, compute: ComputeConfig
) -> PipelineBackbone:
    """Loads `model.path`; every part comes as safetensors, torch's pickles are not opened."""
    path = model_folder(model.path)
    device, dtype = torch_device(compute), torch_dtype(compute)
    # A T5-XXL in fp32 takes 19 GB; on a CPU the text encoders are small and run once per prompt.
    other = torch.float32 if device.type == "cpu" else dtype
    DIFFUSERS.utils.logging.disable_progress_bar()
    TRANSFORMERS.utils.logging.disable_progress_bar()
    try:
        pipeline = getattr(DIFFUSERS, backbone.pipeline_class).from_pretrained(
            str(path),
            **absent_parts(path),
            local_files_only=True,
            use_safetensors=True,
            dtype={"transformer": dtype, "default": other},
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} does not load as a {backbone.pipeline_class}: {error}") from error
    return backbone(pipeline, device, dtype, model)


def pipeline_class(path: Path) -> str:
    """The stock class that a folder's index names."""
    return str(_index(path).get("_class_name"))


def absent_parts(path: Path) -> dict[str, None]:
    """The parts the folder's index declares empty (a model without T5): the loader wants them said.

    Raises:
        ModelError: the folder is in no pipeline's layout.
    """
    return {part: None for part, source in _index(path).items() if source == [None, None]}


def _index(path: Path) -> dict[str, Any]:
    file = model_folder(path) / "model_index.json"
    if not file.is_file():
        raise ModelError(
            f"{path} holds no model_index.json, so it is no diffusers pipeline folder; "
            "point model.path (or --model) at one, such as trainer/tiny/weights"
        )
    index: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return index
