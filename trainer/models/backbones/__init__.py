"""Backbones by name: what the trainer needs of a text-to-image model, and who provides it.

To add one: write a class with what is its own in a file of this folder, and add its line below.
"""

from __future__ import annotations

import torch

from trainer.config import ComputeConfig, ModelConfig
from trainer.errors import ModelError
from trainer.models.backbones.base import Backbone, Conditioning, Guidance
from trainer.models.backbones.flux import FluxBackbone
from trainer.models.backbones.flux2 import Flux2KleinBackbone
from trainer.models.backbones.pipeline import (
    PipelineBackbone,
    load_pipeline,
    pipeline_class,
    text_length,
)
from trainer.models.backbones.qwen_image import QwenImageBackbone
from trainer.models.backbones.sana import SanaBackbone
from trainer.models.backbones.sd3 import SD3Backbone
from trainer.models.backbones.zimage import ZImageBackbone

BACKBONES: dict[str, type[PipelineBackbone]] = {
    "sd3": SD3Backbone,
    "zimage": ZImageBackbone,
    "flux": FluxBackbone,
    "flux2": Flux2KleinBackbone,
    "qwen_image": QwenImageBackbone,
    "sana": SanaBackbone,
}


def backbone_class(model: ModelConfig) -> type[PipelineBackbone]:
    """The backbone of the folder `model.path`: by the pipeline that its own index names.

    Raises:
        ModelError: no backbone is for that pipeline, or `model.backbone` is for another.
    """
    found = pipeline_class(model.path)
    known = {backbone.pipeline_class: backbone for backbone in BACKBONES.values()}
    if model.backbone is not None and model.backbone not in BACKBONES:
        raise ModelError(
            f"model.backbone = {model.backbone!r} is not known; there are {', '.join(BACKBONES)}, "
            "and without this key the folder says which"
        )
    wanted = BACKBONES[model.backbone] if model.backbone else known.get(found)
    if wanted is None:
        raise ModelError(
            f"{model.path} is a {found}, and there is no backbone for it; "
            f"there are backbones for {', '.join(known)}"
        )
    if wanted.pipeline_class != found:
        raise ModelError(
            f"{model.path} is a {found}; model.backbone = {model.backbone!r} needs a "
            f"{wanted.pipeline_class}"
        )
    return wanted


def load_backbone(model: ModelConfig, compute: ComputeConfig) -> Backbone:
    """Loads the frozen base from the folder `model.path`.

    Where `compute.threads` is set, this process computes with so many from then on.
    """
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    return load_pipeline(backbone_class(model), model, compute)


__all__ = [
    "BACKBONES",
    "Backbone",
    "Conditioning",
    "Guidance",
    "backbone_class",
    "load_backbone",
    "text_length",
]
