"""What the layers of a network are called in diffusers and in the model's original files.

kohya, ComfyUI, Forge and A1111 use the original names; kohya writes their dots as underscores.
To add a network: a table below, and its name in `NAMINGS`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Layer:
    """A layer of every block: `{}` is the block's number.

    shares: rows of the layers that the original has fused in one, in units of the narrowest. part:
    which of them it is.
    """

    diffusers: str
    original: str
    part: int = 0
    shares: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Place:
    """Where a module lies in the original: its name there, and which part of it it is."""

    name: str
    part: int = 0
    shares: tuple[int, ...] = (1,)


def _fused(
    diffusers: tuple[str, ...], original: str, shares: tuple[int, ...] = (1, 1, 1)
) -> tuple[Layer, ...]:
    """Query, key and value, which are one layer in the original, in that order."""
    return tuple(Layer(name, original, i, shares) for i, name in enumerate(diffusers))


def _qkv(attention: str) -> tuple[str, ...]:
    return tuple(f"{attention}.to_{letter}" for letter in "qkv")


def _added_qkv(attention: str) -> tuple[str, ...]:
    return tuple(f"{attention}.add_{letter}_proj" for letter in "qkv")


def _attention(attention: str, original: str) -> tuple[Layer, ...]:
    fused = _fused(_qkv(attention), f"{original}.qkv")
    return (*fused, Layer(f"{attention}.to_out.0", f"{original}.proj"))


def _same(*names: str) -> tuple[Layer, ...]:
    """Layers that the original calls the same."""
    return tuple(Layer(name, name) for name in names)


# Source of the original names: the published files of Stable Diffusion 3 and 3.5. Modulations of
# the last block and of the output have their halves the other way round there: they are left out.
SD3 = (
    *_attention("transformer_blocks.{}.attn", "joint_blocks.{}.x_block.attn"),
    *_attention("transformer_blocks.{}.attn2", "joint_blocks.{}.x_block.attn2"),
    *_fused(_added_qkv("transformer_blocks.{}.attn"), "joint_blocks.{}.context_block.attn.qkv"),
    Layer("transformer_blocks.{}.attn.to_add_out", "joint_blocks.{}.context_block.attn.proj"),
    Layer("transformer_blocks.{}.ff.net.0.proj", "joint_blocks.{}.x_block.mlp.fc1"),
    Layer("transformer_blocks.{}.ff.net.2", "joint_blocks.{}.x_block.mlp.fc2"),
    Layer("transformer_blocks.{}.ff_context.net.0.proj", "joint_blocks.{}.context_block.mlp.fc1"),
    Layer("transformer_blocks.{}.ff_context.net.2", "joint_blocks.{}.context_block.mlp.fc2"),
    Layer("transformer_blocks.{}.norm1.linear", "joint_blocks.{}.x_block.adaLN_modulation.1"),
    Layer("context_embedder", "context_embedder"),
    Layer("proj_out", "final_layer.linear"),
    Layer("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    Layer("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    Layer("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    Layer("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
)


def _zimage_block(block: str) -> tuple[Layer, ...]:
    same = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0")
    return (
        *_fused(_qkv(f"{block}.attention"), f"{block}.attention.qkv"),
        Layer(f"{block}.attention.to_out.0", f"{block}.attention.out"),
        *_same(*(f"{block}.{name}" for name in same)),
    )


ZIMAGE = (
    *_zimage_block("layers.{}"),
    *_zimage_block("noise_refiner.{}"),
    *_zimage_block("context_refiner.{}"),
)

# Source: the published files of FLUX.1.
FLUX = (
    *_attention("transformer_blocks.{}.attn", "double_blocks.{}.img_attn"),
    *_fused(_added_qkv("transformer_blocks.{}.attn"), "double_blocks.{}.txt_attn.qkv"),
    Layer("transformer_blocks.{}.attn.to_add_out", "double_blocks.{}.txt_attn.proj"),
    Layer("transformer_blocks.{}.ff.net.0.proj", "double_blocks.{}.img_mlp.0"),
    Layer("transformer_blocks.{}.ff.net.2", "double_blocks.{}.img_mlp.2"),
    Layer("transformer_blocks.{}.ff_context.net.0.proj", "double_blocks.{}.txt_mlp.0"),
    Layer("transformer_blocks.{}.ff_context.net.2", "double_blocks.{}.txt_mlp.2"),
    Layer("transformer_blocks.{}.norm1.linear", "double_blocks.{}.img_mod.lin"),
    Layer("transformer_blocks.{}.norm1_context.linear", "double_blocks.{}.txt_mod.lin"),
    *_fused(
        (*_qkv("single_transformer_blocks.{}.attn"), "single_transformer_blocks.{}.proj_mlp"),
        "single_blocks.{}.linear1",
        (1, 1, 1, 4),
    ),
    Layer("single_transformer_blocks.{}.proj_out", "single_blocks.{}.linear2"),
    Layer("single_transformer_blocks.{}.norm.linear", "single_blocks.{}.modulation.lin"),
)

# Qwen-Image's own files have the names that diffusers has.
QWEN_IMAGE = _same(
    *_qkv("transformer_blocks.{}.attn"),
    *_added_qkv("transformer_blocks.{}.attn"),
    "transformer_blocks.{}.attn.to_out.0",
    "transformer_blocks.{}.attn.to_add_out",
    *(
        f"transformer_blocks.{{}}.{side}_{name}"
        for side in ("img", "txt")
        for name in ("mlp.net.0.proj", "mlp.net.2", "mod.1")
    ),
)

# By the name of the backbone.
NAMINGS: dict[str, tuple[Layer, ...]] = {
    "sd3": SD3,
    "zimage": ZIMAGE,
    "flux": FLUX,
    "qwen_image": QWEN_IMAGE,
}


def modules_at(name: str) -> dict[str, int]:
    """diffusers' modules that an original name stands for, with their shares of its rows.

    Takes the names of diffusers as well, and dots written as underscores in both; empty for an
    unknown name.
    """
    for pattern, layers in _by_original():
        if match := pattern.fullmatch(name):
            return {m.format(*match.groups()): share for m, share in layers.items()}
    return {}


def place_of(module: str, backbone: str) -> Place | None:
    """Where a backbone's module lies in the original; None for one that its table does not have."""
    for layer in NAMINGS.get(backbone, ()):
        if match := _pattern(layer.diffusers).fullmatch(module):
            return Place(layer.original.format(*match.groups()), layer.part, layer.shares)
    return None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = [re.escape(piece).replace(r"\.", "[._]") for piece in template.split("{}")]
    return re.compile(r"(\d+)".join(pieces))


@cache
def _by_original() -> tuple[tuple[re.Pattern[str], dict[str, int]], ...]:
    """Original names first: where both say the same, they name the same."""
    originals: dict[str, dict[str, int]] = {}
    layers = [layer for naming in NAMINGS.values() for layer in naming]
    for layer in layers:
        originals.setdefault(layer.original, {})[layer.diffusers] = layer.shares[layer.part]
    plain = {layer.diffusers: {layer.diffusers: 1} for layer in layers}
    return tuple((_pattern(name), found) for name, found in {**originals, **plain}.items())
