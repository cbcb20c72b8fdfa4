"""LoRA files in diffusers' layout: what a stock pipeline loads with `load_lora_weights`.

A folder holding `pytorch_lora_weights.safetensors`, keys `transformer.<module>.lora_A.weight`. The
scale is alpha / rank; without metadata it is 1. Refuses files with other layouts or mixed ranks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainer.errors import ModelError

FILE_NAME = "pytorch_lora_weights.safetensors"
PREFIX = "transformer."
METADATA_KEY = "lora_adapter_metadata"


@dataclass(frozen=True)
class LoraSpec:
    """Shape of one adapter; `targets` are module names or their endings."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Lora:
    """An adapter's shape and weights, keyed `<module>.lora_A.weight` / `.lora_B.weight`."""

    spec: LoraSpec
    tensors: dict[str, Tensor]


def read_lora(path: Path) -> Lora:
    """Reads a LoRA folder or safetensors file."""
    file = path / FILE_NAME if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            metadata = handle.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"there is no readable LoRA at {file}: {error}") from error
    wrong = [k for k in tensors if not (k.startswith(PREFIX) and ".lora_" in k)]
    if wrong or not tensors:
        raise ModelError(
            f"{file} is not a LoRA in diffusers' layout (first odd key: {wrong[:1]}); "
            "convert it by loading it into its pipeline and saving it with save_lora_weights"
        )
    stripped = {key.removeprefix(PREFIX): tensor for key, tensor in tensors.items()}
    return Lora(_spec(stripped, metadata, file), stripped)


def write_lora(path: Path, lora: Lora) -> Path:
    """Writes the file a stock pipeline loads; returns its path."""
    path.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"}
    if lora.spec.alpha != lora.spec.rank:
        config = {"r": lora.spec.rank, "lora_alpha": lora.spec.alpha}
        config |= {"target_modules": sorted(_modules(lora.tensors))}  # type: ignore[dict-item]
        metadata[METADATA_KEY] = json.dumps({PREFIX + k: v for k, v in config.items()})
    file = path / FILE_NAME
    tensors = {PREFIX + k: t.detach().cpu().contiguous() for k, t in lora.tensors.items()}
    save_file(tensors, file, metadata)
    return file


def _modules(tensors: dict[str, Tensor]) -> set[str]:
    return {key.split(".lora_")[0] for key in tensors}


def _spec(tensors: dict[str, Tensor], metadata: dict[str, str], file: Path) -> LoraSpec:
    ranks = {t.shape[0] for key, t in tensors.items() if ".lora_A." in key}
    if len(ranks) != 1:
        raise ModelError(f"{file} mixes LoRA ranks {sorted(ranks)}; this trainer needs one rank")
    rank = ranks.pop()
    stored = json.loads(metadata.get(METADATA_KEY, "{}"))
    alpha = float(stored.get(PREFIX + "lora_alpha", rank))
    return LoraSpec(rank, alpha, tuple(sorted(_modules(tensors))))
