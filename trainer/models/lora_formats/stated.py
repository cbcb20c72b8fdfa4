"""What a LoRA's configuration says of ranks and scales: PEFT's `adapter_config.json`, and the same
as diffusers writes it into the header of its file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.utils.other import get_pattern_key

from trainer.errors import ModelError
from trainer.models.lora_formats.adapter import Parts
from trainer.models.lora_formats.keys import checked_alpha

CONFIG_FILE = "adapter_config.json"
HEADER_KEY = "lora_adapter_metadata"
HEADER_PREFIX = "transformer."
# These start from a changed base, which the LoRA's own file does not hold.
OTHER_BASES = ("pissa", "olora", "corda")

Settings = Mapping[str, Any]
"""The keys of `peft.LoraConfig`."""


def settings_of(file: Path, header: Mapping[str, str]) -> Settings:
    """The settings in a file's header, else in the configuration beside it; empty if in neither.

    Raises:
        ModelError: they are there and cannot be read.
    """
    source = file
    try:
        if HEADER_KEY in header:
            stored = json.loads(header[HEADER_KEY])
            found = {k.removeprefix(HEADER_PREFIX): v for k, v in stored.items()}
        elif (file.parent / CONFIG_FILE).is_file():
            source = file.parent / CONFIG_FILE
            found = dict(json.loads(source.read_text(encoding="utf-8")).items())
        else:
            return {}
    except (ValueError, AttributeError, OSError) as error:
        raise ModelError(f"{source}: its LoRA configuration cannot be read: {error}") from error
    _require_plain(found, source)
    return found


def with_stated_alphas(parts: Parts, settings: Settings, file: Path) -> Parts:
    """Each part with the alpha that the settings give its module, if its file gave it none.

    Raises:
        ModelError: the file says something else, or has another rank than the settings.
    """
    if not settings:
        return parts
    ranks, alphas = settings.get("rank_pattern") or {}, settings.get("alpha_pattern") or {}
    given = {}
    for name, part in parts.items():
        rank = _of_module(ranks, name, settings.get("r"), file)
        if rank is not None and rank != part.rank:
            raise ModelError(
                f"{file}: {name} has rank {part.rank}, and its configuration says {rank}"
            )
        alpha = _of_module(alphas, name, settings.get("lora_alpha"), file)
        if alpha is None:
            given[name] = part
            continue
        alpha = checked_alpha(alpha, f"{file}: lora_alpha of {name}")
        if settings.get("use_rslora"):
            alpha *= math.sqrt(part.rank)  # scale alpha / sqrt(rank), arXiv 2312.03732
        if part.alpha not in (None, alpha):
            raise ModelError(
                f"{file}: {name}.alpha is {part.alpha:g}, and its configuration says {alpha:g}"
            )
        given[name] = replace(part, alpha=alpha)
    return given


def _of_module(patterns: Any, name: str, otherwise: Any, file: Path) -> Any:
    """What the first pattern that matches the module's name says."""
    try:
        return patterns.get(get_pattern_key(list(patterns), name), otherwise)
    except (AttributeError, TypeError, re.error) as error:
        raise ModelError(
            f"{file}: its configuration's patterns {patterns!r} cannot be read: {error}"
        ) from error


def _require_plain(settings: Settings, source: Path) -> None:
    """Refuses adapters of other kinds."""
    kind = settings.get("peft_type") or "LORA"
    if str(kind).rpartition(".")[2].upper() != "LORA":
        raise ModelError(f"{source} describes {kind}, and only LoRAs can be started from")
    if settings.get("use_dora"):
        raise ModelError(f"{source} describes DoRA; only plain LoRAs can be started from")
    start = str(settings.get("init_lora_weights") or "").lower()
    if start.startswith(OTHER_BASES):
        raise ModelError(
            f"{source}: this LoRA belongs to a base that {start} has changed; save it with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
