"""LoRA files: those the trainer keeps are in diffusers' layout, and it starts from any known one.

Its own: a folder holding `pytorch_lora_weights.safetensors`, rank and alpha in the file's header,
keys `transformer.<module>.lora_A.weight`. What it reads besides: docs/checkpoints.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainer.errors import ModelError
from trainer.models.hub import lora_path
from trainer.models.lora_formats.adapter import Part, Parts, unified
from trainer.models.lora_formats.keys import parts_of
from trainer.models.lora_formats.nameless import Order, read_nameless
from trainer.models.lora_formats.stated import settings_of, with_stated_alphas
from trainer.models.lora_formats.writing import DIFFUSERS_FILE, PEFT_FILE, named, write_diffusers

TORCH_ENDINGS = (".ckpt", ".pt", ".pth", ".bin")


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

    @property
    def parts(self) -> Parts:
        """The same by module."""
        return {
            name: Part(
                self.tensors[f"{name}.lora_A.weight"],
                self.tensors[f"{name}.lora_B.weight"],
                self.spec.alpha,
            )
            for name in sorted({key.split(".lora_")[0] for key in self.tensors})
        }


def read_lora(
    path: Path,
    alpha: float | None = None,
    *,
    order: Order | None = None,
    setting: str = "--alpha",
    own: bool = False,
) -> Lora:
    """Reads a LoRA: a folder, a file, or a name on the hub (`owner/name[:file][@revision]`).

    alpha: of a file that states none. order: the parameters of the network it is for, for files
    that name none. setting: where a person says alpha. own: a file of this trainer, of which
    earlier ones stated no alpha that was equal to the rank.

    Raises:
        ModelError: it is not there, no LoRA, damaged, or does not say its scale.
    """
    file = lora_file(lora_path(path))
    if file.suffix in TORCH_ENDINGS:
        parts = parts_of(read_nameless(file, order), file)
    else:
        tensors, header = _safetensors(file)
        parts = with_stated_alphas(parts_of(tensors, file), settings_of(file, header), file)
    rank, one_alpha, parts = unified(_with_alpha(parts, alpha, file, setting, own=own))
    return Lora(LoraSpec(rank, one_alpha, tuple(sorted(parts))), named(parts))


def write_lora(path: Path, lora: Lora) -> Path:
    """Writes a folder that `read_lora` and a stock pipeline load; returns the file."""
    path.mkdir(parents=True, exist_ok=True)
    return write_diffusers(path, lora.parts)


def lora_file(path: Path) -> Path:
    """The file of weights that a path names, or that lies in the folder it names.

    Raises:
        ModelError: the folder holds none, or several.
    """
    if not path.is_dir():
        return path
    known = [path / name for name in (DIFFUSERS_FILE, PEFT_FILE) if (path / name).is_file()]
    endings = (".safetensors", *TORCH_ENDINGS)
    files = known or sorted(f for f in path.iterdir() if f.suffix in endings and f.is_file())
    if not files:
        raise ModelError(f"there is no readable LoRA at {path}: the folder holds no weights")
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:5])
        raise ModelError(f"{path} holds several files of weights ({names}); name the file")
    return files[0]


def _safetensors(file: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    try:
        with safe_open(file, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            return tensors, handle.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(f"there is no readable LoRA at {file}: {error}") from error


def _with_alpha(parts: Parts, alpha: float | None, file: Path, setting: str, *, own: bool) -> Parts:
    """Every part with an alpha: its own, or the one given for those that have none."""
    silent = [name for name, part in parts.items() if part.alpha is None]
    if alpha is not None and not silent:
        stated = sorted({f"{part.alpha:g}" for part in parts.values()})
        if stated != [f"{alpha:g}"]:
            raise ModelError(
                f"{file} states alpha {' and '.join(stated)}, and {setting} = {alpha:g} says "
                "otherwise; leave it out, or say the same"
            )
    if silent and alpha is None and not own:
        rank = parts[silent[0]].rank
        raise ModelError(
            f"{file} does not say how strong it is (no alpha, rank {rank}), and a wrong guess "
            f"would train another model; ask who made it and set {setting}. Stock loaders take "
            f"{rank} (scale 1); the TDM and TDM-R1 files of Luo-Yihong have 64"
        )
    return {
        name: part if part.alpha is not None else replace(part, alpha=_or_rank(alpha, part))
        for name, part in parts.items()
    }


def _or_rank(alpha: float | None, part: Part) -> float:
    return float(part.rank) if alpha is None else alpha
