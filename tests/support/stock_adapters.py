"""A stock pipeline with a LoRA that PEFT has put into it, and files of it by the other side's code.

What they mean is what that pipeline makes of the same noise.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from tests.support.fakes import build_sd3_folder
from tests.support.tiny_pipelines import FAMILIES, SIDE, TEXT, written
from trainer.config import ComputeConfig, ModelConfig
from trainer.config.tree import RolloutConfig
from trainer.evaluation.policies import few_step
from trainer.models.backbones import load_backbone
from trainer.models.backbones.pipeline import PipelineBackbone
from trainer.models.lora_files import Lora, LoraSpec
from trainer.models.lora_formats.nameless import parameter_order
from trainer.models.networks import Networks

UNTYPED: Any = diffusers
STEPS, SHIFT = 2, 3.0
PROMPTS = ["two red circles", "a sign"]
ADAPTER = "default"
RANK, ALPHA = 4, 6.0  # a scale that is no power of two


@dataclass(frozen=True)
class Stock:
    """A pipeline folder of one family, and the backbone of it."""

    folder: Path
    model: ModelConfig
    backbone: PipelineBackbone
    side: int

    @property
    def targets(self) -> tuple[str, ...]:
        return self.backbone.default_lora_targets

    @property
    def noise(self) -> Tensor:
        shape = (len(PROMPTS), *self.backbone.latent_shape)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    def pipeline(self) -> Any:
        """The stock pipeline, anew."""
        absent = {"text_encoder_3": None, "tokenizer_3": None}
        sd3 = self.backbone.name == "sd3"
        found = getattr(UNTYPED, self.backbone.pipeline_class).from_pretrained(
            str(self.folder), **(absent if sd3 else {})
        )
        found.scheduler = UNTYPED.FlowMatchEulerDiscreteScheduler(shift=SHIFT)
        found.set_progress_bar_config(disable=True)
        return found

    def theirs(self, pipeline: Any) -> Tensor:
        """Pictures by the stock call."""
        images: Tensor = pipeline(
            [*PROMPTS],
            latents=self.noise,
            num_inference_steps=STEPS,
            sigmas=[1 - j / STEPS for j in range(STEPS)],
            max_sequence_length=self.backbone.sequence_length,
            height=self.side,
            width=self.side,
            output_type="pt",
            **self.backbone.stock_call(self.model),
        ).images
        return images

    def ours(self, lora: Lora) -> Tensor:
        """Pictures by the trainer, with the LoRA it has read."""
        backbone = copy.copy(self.backbone)
        backbone.network = copy.deepcopy(self.backbone.network)
        networks = Networks(backbone)
        networks.add_lora("generator", lora)
        steps = RolloutConfig(k_steps=STEPS, flow_shift=SHIFT)
        return few_step("start", "generator", networks, steps).sample(self.noise, PROMPTS)


def build_stock(name: str, folder: Path) -> Stock:
    """The tiny pipeline of a family: sd3, or one of `tiny_pipelines`."""
    if name == "sd3":
        build_sd3_folder(folder)
        side, length = 32, 1
    else:
        written(next(family for family in FAMILIES if family.name == name), folder)
        side, length = SIDE, TEXT
    model = ModelConfig(path=folder, resolution=side, max_sequence_length=length)
    backbone = load_backbone(model, ComputeConfig())
    assert isinstance(backbone, PipelineBackbone)
    return Stock(folder, model, backbone, side)


def drawn(folder: Path, targets: tuple[str, ...]) -> Lora:
    """A LoRA of random weights for a pipeline's layers."""
    torch.manual_seed(4)
    shapes = parameter_order(folder, targets)
    tensors = {
        name: 0.2 * torch.randn((RANK, shape[1]) if ".lora_A." in name else (shape[0], RANK))
        for name, shape in shapes.items()
    }
    modules = sorted({name.partition(".lora_")[0] for name in tensors})
    return Lora(LoraSpec(RANK, ALPHA, tuple(modules)), tensors)


def wrapped(pipeline: Any, config: LoraConfig) -> Any:
    """PEFT's model around the pipeline's transformer, with weights that show."""
    model = get_peft_model(pipeline.transformer, config)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                nn.init.normal_(parameter, std=0.2)
    pipeline.transformer = model.get_base_model()
    return model


def save_by_diffusers(folder: Path, pipeline: Any, model: Any) -> Path:
    """By the pipeline's own `save_lora_weights`, with the configuration in the header."""
    transformer = model.get_base_model()
    transformer.peft_config = model.peft_config
    type(pipeline).save_lora_weights(
        str(folder),
        transformer_lora_layers=get_peft_model_state_dict(transformer),
        **_collate_lora_metadata({"transformer": transformer}),
    )
    return folder


def save_by_peft(folder: Path, pipeline: Any, model: Any) -> Path:
    """By PEFT's own `save_pretrained`."""
    model.save_pretrained(str(folder))
    return folder


def save_nameless(folder: Path, pipeline: Any, model: Any) -> Path:
    """An average of the parameters as they stand in the network, without names."""
    parameters = [p.detach().clone() for n, p in model.named_parameters() if f".{ADAPTER}." in n]
    folder.mkdir()
    torch.save({"decay": 0.9, "ema_parameters": parameters}, folder / "ema.ckpt")
    return folder / "ema.ckpt"
