"""Torch files `{"decay", "ema_parameters": [tensors]}`: averages of a LoRA's parameters, no names.

Flow-GRPO's trainers and those after them write them: the parameters stand in the order in which the
network that PEFT has wrapped lists its own.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from torch import Tensor

from trainer.errors import ModelError

DIFFUSERS: Any = diffusers
ADAPTER = "start"
KEYS = {"decay", "ema_parameters"}

Order = Callable[[], dict[str, tuple[int, ...]]]
"""Gives the names and shapes of an adapter's parameters, in the network's order."""


def read_nameless(file: Path, order: Order | None) -> dict[str, Tensor]:
    """The file's tensors, named by the network's order; every count and shape is checked.

    Raises:
        ModelError: it cannot be read, holds code or something else, or fits another network.
    """
    tensors = _tensors(file)
    if order is None:
        raise ModelError(
            f"{file} holds {len(tensors)} tensors without names; say which model they belong to: "
            "--model"
        )
    wanted = order()
    if len(tensors) != len(wanted):
        raise ModelError(
            f"{file} holds {len(tensors)} tensors, and the LoRA's targets on this model have "
            f"{len(wanted)}: it belongs to another model or to other layers; set lora.targets "
            "(--targets)"
        )
    rank = tensors[0].shape[0] if tensors[0].ndim else 0
    named = {}
    for position, (tensor, (name, shape)) in enumerate(zip(tensors, wanted.items(), strict=True)):
        expected = (rank, shape[1]) if ".lora_A." in name else (shape[0], rank)
        if tuple(tensor.shape) != expected:
            raise ModelError(
                f"{file}: tensor {position} has shape {tuple(tensor.shape)}, and {name} on this "
                f"model {expected}: it belongs to another model or to other layers (lora.targets)"
            )
        named[name] = tensor
    return named


def _tensors(file: Path) -> list[Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch did not write
            stored = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} is a torch file with more than tensors in it, and what it would run is not "
            "run; take a safetensors file instead"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"there is no readable LoRA at {file}: {reason}") from error
    if not isinstance(stored, dict) or "ema_parameters" not in stored:
        raise ModelError(
            f"{file} is a torch file without 'ema_parameters'; torch files are read only of the "
            "form {'decay', 'ema_parameters': [tensors]}, all else as safetensors"
        )
    tensors = stored["ema_parameters"]
    if unknown := sorted(str(key) for key in stored.keys() - KEYS):
        raise ModelError(f"{file} holds more than 'decay' and 'ema_parameters': {unknown[:3]}")
    if not isinstance(tensors, list | tuple) or not all(isinstance(t, Tensor) for t in tensors):
        raise ModelError(f"{file}: 'ema_parameters' is no list of tensors")
    if not tensors:
        raise ModelError(f"{file}: 'ema_parameters' is empty")
    return list(tensors)


def parameter_order(folder: Path, targets: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes (at rank 1) of a LoRA's parameters on a pipeline folder's transformer.

    The stock class is built without weights, and PEFT itself puts the adapter in.

    Raises:
        ModelError: the folder holds no such transformer, or a target names none of its layers.
    """
    try:
        settings = json.loads((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        with torch.device("meta"):
            network = getattr(DIFFUSERS, settings["_class_name"]).from_config(settings)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder} holds no diffusers transformer: {error}") from error
    config = PeftLoraConfig(r=1, target_modules=list(targets), init_lora_weights=False)
    try:
        with torch.device("meta"):
            inject_adapter_in_model(config, network, ADAPTER)
    except ValueError as error:
        raise ModelError(f"lora.targets = {targets} do not fit {folder}: {error}") from error
    return {
        name.replace(f".{ADAPTER}.", "."): tuple(parameter.shape)
        for name, parameter in network.named_parameters()
        if f".{ADAPTER}." in name
    }
