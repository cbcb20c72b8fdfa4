"""From the keys of a LoRA file to the modules they change, whoever wrote it.

Understood are diffusers, PEFT, kohya and ComfyUI, and what else uses their keys.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.errors import ModelError
from trainer.models.lora_formats.adapter import Part, Parts, split
from trainer.models.lora_formats.naming import NAMINGS, modules_at

DOWN, UP, ALPHA = "down", "up", "alpha"
ENDINGS = (
    (re.compile(r"[._](?:lora_down|lora\.down)\.weight$"), DOWN),
    (re.compile(r"[._](?:lora_up|lora\.up)\.weight$"), UP),
    (re.compile(r"\.lora_A(?:\.\w+)?\.weight$"), DOWN),
    (re.compile(r"\.lora_B(?:\.\w+)?\.weight$"), UP),
    (re.compile(r"\.alpha$"), ALPHA),
)
PREFIX = re.compile(
    r"^(?:base_model\.model\.)?(?:transformer\.|(?:model\.)?diffusion_model\."
    r"|lora_unet_|lora_transformer_|lycoris_)?"
)
TEXT_ENCODER = re.compile(
    r"^(?:base_model\.model\.)?(?:text_encoders?(?:_\d)?[._]|lora_te|te\d_|clip_[lg]\.|t5xxl\.)"
)
OTHER_KINDS = (
    (re.compile(r"lora_magnitude_vector|dora_scale"), "DoRA, which also rescales whole weights"),
    (re.compile(r"hada_w|lokr_w|oft_|\.diff(?:_b)?$|lora_mid|ia3"), "LoHa, LoKr or the like"),
    (re.compile(r"lora_[AB](?:\.\w+)?\.bias$|lora_bias"), "a LoRA with biases"),
)


def parts_of(tensors: Mapping[str, Tensor], file: object) -> Parts:
    """The modules that a file changes, in fp32, named as in diffusers; fused layers are split.

    Raises:
        ModelError: a key that is none of a LoRA of the transformer, half a pair, wrong shapes.
    """
    found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, role = _read_key(key, file)
        if role in found[name]:
            raise ModelError(f"{file} holds {name} twice (second: {key}): several adapters in one?")
        found[name][role] = _checked(tensor, key, file)
    parts: Parts = {}
    for name, given in found.items():
        for module, part in _modules(name, _part(name, given, file), file).items():
            if module in parts:
                raise ModelError(f"{file} holds {module} twice, under two names")
            parts[module] = part
    if not parts:
        raise ModelError(f"{file} holds no LoRA: it is empty")
    return parts


def _read_key(key: str, file: object) -> tuple[str, str]:
    """The module's name without what programs put before it, and which tensor it is."""
    if TEXT_ENCODER.match(key):
        raise ModelError(
            f"{file} also changes a text encoder ({key}), and only the transformer is trained here;"
            " write it again without, for example with save_lora_weights(transformer_lora_layers=)"
        )
    for pattern, kind in OTHER_KINDS:
        if pattern.search(key):
            raise ModelError(
                f"{file} is {kind} ({key}); only plain LoRAs of linear layers can be started from"
            )
    for pattern, role in ENDINGS:
        if match := pattern.search(key):
            return PREFIX.sub("", key[: match.start()]), role
    raise ModelError(
        f"{file} is no LoRA in a known layout: {key!r} is no key of diffusers, PEFT, kohya or "
        "ComfyUI; load it where it comes from and save it with save_lora_weights"
    )


def _checked(tensor: Tensor, key: str, file: object) -> Tensor:
    if not tensor.is_floating_point():
        raise ModelError(f"{file}: {key} holds {tensor.dtype}, not floating-point numbers")
    tensor = tensor.detach().to(torch.float32)
    if not tensor.isfinite().all():
        raise ModelError(f"{file}: {key} holds values that are no finite numbers")
    return tensor


def _part(name: str, given: Mapping[str, Tensor], file: object) -> Part:
    """The pair of one module, of shapes that fit each other."""
    for role, other in ((DOWN, UP), (UP, DOWN)):
        if role not in given:
            raise ModelError(f"{file}: {name} has no {role} matrix (only {other}, or an alpha)")
    down, up = given[DOWN], given[UP]
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or 0 in down.shape:
        raise ModelError(
            f"{file}: {name} has shapes {tuple(down.shape)} and {tuple(up.shape)}, not (rank, in) "
            "and (out, rank) of a linear layer"
        )
    if ALPHA not in given:
        return Part(down, up)
    if given[ALPHA].numel() != 1:
        raise ModelError(f"{file}: {name}.alpha has shape {tuple(given[ALPHA].shape)}, not one")
    return Part(down, up, checked_alpha(given[ALPHA].item(), f"{file}: {name}.alpha"))


def checked_alpha(alpha: object, where: str) -> float:
    """alpha as a positive number.

    Raises:
        ModelError: it is none.
    """
    number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
    if not number or not math.isfinite(float(alpha)) or float(alpha) <= 0:  # type: ignore[arg-type]
        raise ModelError(f"{where} = {alpha!r} is no positive number")
    return float(alpha)  # type: ignore[arg-type]


def _modules(name: str, part: Part, file: object) -> Parts:
    """diffusers' modules with their shares of the pair."""
    modules = modules_at(name)
    if len(modules) > 1:
        shares = split(part, tuple(modules.values()), f"{file}: {name}")
        return {m: share for m, share in zip(modules, shares, strict=True) if share is not None}
    if modules:
        return dict.fromkeys(modules, part)
    if "." not in name and "_" in name:
        raise ModelError(
            f"{file}: {name} is no layer of a network whose original names are known "
            f"({', '.join(NAMINGS)})"
        )
    return {name: part}
