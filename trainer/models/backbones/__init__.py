"""Backbones by name: what the trainer needs of a text-to-image model, and who provides it."""

from __future__ import annotations

import torch

from trainer.config import ComputeConfig, ModelConfig
from trainer.models.backbones.base import Backbone, Conditioning, LoadBackbone
from trainer.models.backbones.sd3 import load_sd3

BACKBONES: dict[str, LoadBackbone] = {"sd3": load_sd3}


def load_backbone(model: ModelConfig, compute: ComputeConfig) -> Backbone:
    """Loads the frozen base named by `model.backbone` from the folder `model.path`.

    Where `compute.threads` is set, this process computes with so many from then on.
    """
    if compute.threads is not None:
        torch.set_num_threads(compute.threads)
    return BACKBONES[model.backbone](model, compute)


__all__ = ["BACKBONES", "Backbone", "Conditioning", "LoadBackbone", "load_backbone"]
