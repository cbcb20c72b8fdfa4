"""LoRA files for other programs. All are written with alpha = rank, the scale folded into B: who
reads no alpha then has the same pictures as who does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import ModelError
from trainer.models.lora_formats.adapter import Part, Parts, folded, fused
from trainer.models.lora_formats.naming import NAMINGS, place_of
from trainer.models.lora_formats.stated import HEADER_KEY, HEADER_PREFIX

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE = "adapter_model.safetensors"

Write = Callable[[Path, Parts, str], Path]
"""(folder, parts, backbone) to the file that was written."""


def write_diffusers(folder: Path, parts: Parts, backbone: str = "") -> Path:
    """`pipe.load_lora_weights(folder)`; keys `transformer.<module>.lora_A.weight`."""
    rank, alpha = _shape(parts)
    config = {"r": rank, "lora_alpha": alpha, "target_modules": sorted(parts)}
    header = {HEADER_KEY: json.dumps({HEADER_PREFIX + k: v for k, v in config.items()})}
    tensors = {f"{HEADER_PREFIX}{k}": t for k, t in named(parts).items()}
    return _save(tensors, folder / DIFFUSERS_FILE, header)


def write_peft(folder: Path, parts: Parts, backbone: str = "") -> Path:
    """`PeftModel.from_pretrained(pipe.transformer, folder)`."""
    rank, alpha = _shape(parts)
    # PEFT writes fractions as well, though its type says int.
    config = PeftLoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(parts))
    config.inference_mode = True
    config.save_pretrained(str(folder))
    tensors = {f"base_model.model.{k}": t for k, t in named(parts).items()}
    return _save(tensors, folder / PEFT_FILE)


def write_comfyui(folder: Path, parts: Parts, backbone: str) -> Path:
    """ComfyUI's LoraLoader; keys `diffusion_model.<original layer>.lora_down.weight`, `.alpha`."""
    layers = _original(parts, backbone)
    tensors = _with_alphas({f"diffusion_model.{k}": part for k, part in layers.items()})
    return _save(tensors, folder / "lora_comfyui.safetensors")


def write_kohya(folder: Path, parts: Parts, backbone: str) -> Path:
    """Forge, A1111, sd-scripts and ComfyUI; `lora_unet_<layer>.lora_down.weight`, `.alpha`."""
    layers = _original(parts, backbone)
    tensors = _with_alphas({f"lora_unet_{k.replace('.', '_')}": p for k, p in layers.items()})
    header = {"ss_network_module": "networks.lora", "ss_network_dim": str(_shape(parts)[0])}
    header["ss_network_alpha"] = str(_shape(parts)[1])
    return _save(tensors, folder / "lora_kohya.safetensors", header)


FORMATS: dict[str, Write] = {
    "diffusers": write_diffusers,
    "peft": write_peft,
    "comfyui": write_comfyui,
    "kohya": write_kohya,
}


def write_as(kind: str, folder: Path, parts: Parts, backbone: str) -> Path:
    """Writes a LoRA of one rank in one of `FORMATS`, the scale folded into B; returns the file.

    Raises:
        ModelError: a module has no name in that format.
    """
    return FORMATS[kind](folder, folded(parts), backbone)


def named(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """`<module>.lora_A.weight` and `.lora_B.weight` of each."""
    return {
        f"{name}.lora_{letter}.weight": tensor
        for name, part in parts.items()
        for letter, tensor in (("A", part.down), ("B", part.up))
    }


def _shape(parts: Parts) -> tuple[int, float]:
    """Rank and alpha, which are the same in all."""
    part = next(iter(parts.values()))
    return part.rank, part.rank * part.scale


def _original(parts: Parts, backbone: str) -> Parts:
    """The layers of the original files; one that was adapted in part is filled with zeros."""
    layers: dict[str, list[Part | None]] = {}
    shares = {}
    for module, part in parts.items():
        place = place_of(module, backbone)
        if place is None:
            raise ModelError(
                f"{module} of {backbone} has no name in the original files that is known here "
                f"(known are layers of {', '.join(NAMINGS)}); export with --format diffusers or "
                "peft, or train without this layer (lora.targets)"
            )
        shares[place.name] = place.shares
        layers.setdefault(place.name, [None] * len(place.shares))[place.part] = part
    return {name: _joined(found, shares[name]) for name, found in layers.items()}


def _joined(found: list[Part | None], shares: tuple[int, ...]) -> Part:
    """One layer of those that were adapted, with nothing for the others."""
    if len(found) == 1 and found[0] is not None:
        return found[0]
    at, present = next((i, part) for i, part in enumerate(found) if part is not None)
    unit = present.up.shape[0] // shares[at]
    nothing = [
        Part(
            torch.zeros_like(present.down),
            present.up.new_zeros(unit * share, present.rank),
            present.alpha,
        )
        for share in shares
    ]
    return fused(tuple(part or none for part, none in zip(found, nothing, strict=True)))


def _with_alphas(layers: Parts) -> dict[str, Tensor]:
    tensors = {}
    for name, part in layers.items():
        tensors[f"{name}.lora_down.weight"] = part.down
        tensors[f"{name}.lora_up.weight"] = part.up
        tensors[f"{name}.alpha"] = torch.tensor(part.rank * part.scale)
    return tensors


def _save(tensors: Mapping[str, Tensor], file: Path, header: Mapping[str, str] = {}) -> Path:
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    # One entry alone where it can be: safetensors writes several in any order, and equal LoRAs
    # should be equal files.
    save_file(ready, file, header or {"format": "pt"})
    return file
