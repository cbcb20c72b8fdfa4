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

    part: which of the layers that the original has fused in one, of `of`.
    """

    diffusers: str
    original: str
    part: int = 0
    of: int = 1


@dataclass(frozen=True)
class Place:
    """Where a module lies in the original: its name there, and which part of it it is."""

    name: str
    part: int = 0
    of: int = 1


def _fused(diffusers: tuple[str, ...], original: str) -> tuple[Layer, ...]:
    """Query, key and value, which are one layer in the original, in that order."""
    return tuple(Layer(name, original, i, len(diffusers)) for i, name in enumerate(diffusers))


def _attention(attention: str, original: str) -> tuple[Layer, ...]:
    qkv = tuple(f"{attention}.to_{letter}" for letter in "qkv")
    return (*_fused(qkv, f"{original}.qkv"), Layer(f"{attention}.to_out.0", f"{original}.proj"))


# Source of the original names: the published files of Stable Diffusion 3 and 3.5. Modulations of
# the last block and of the output have their halves the other way round there: they are left out.
SD3 = (
    *_attention("transformer_blocks.{}.attn", "joint_blocks.{}.x_block.attn"),
    *_attention("transformer_blocks.{}.attn2", "joint_blocks.{}.x_block.attn2"),
    *_fused(
        tuple(f"transformer_blocks.{{}}.attn.add_{letter}_proj" for letter in "qkv"),
        "joint_blocks.{}.context_block.attn.qkv",
    ),
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
    qkv = tuple(f"{block}.attention.to_{letter}" for letter in "qkv")
    same = ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "adaLN_modulation.0")
    return (
        *_fused(qkv, f"{block}.attention.qkv"),
        Layer(f"{block}.attention.to_out.0", f"{block}.attention.out"),
        *(Layer(f"{block}.{name}", f"{block}.{name}") for name in same),
    )


ZIMAGE = (
    *_zimage_block("layers.{}"),
    *_zimage_block("noise_refiner.{}"),
    *_zimage_block("context_refiner.{}"),
)

NAMINGS: dict[str, tuple[Layer, ...]] = {"sd3": SD3, "zimage": ZIMAGE}


def modules_at(name: str) -> tuple[str, ...]:
    """diffusers' modules that an original name stands for; empty for an unknown one.

    Takes the names of diffusers as well, and dots written as underscores in both.
    """
    for pattern, modules in _by_original():
        if match := pattern.fullmatch(name):
            return tuple(module.format(*match.groups()) for module in modules)
    return ()


def place_of(module: str) -> Place | None:
    """Where diffusers' module lies in the original; None for one that no table has."""
    for pattern, layer in _by_diffusers():
        if match := pattern.fullmatch(module):
            return Place(layer.original.format(*match.groups()), layer.part, layer.of)
    return None


def _pattern(template: str) -> re.Pattern[str]:
    pieces = [re.escape(piece).replace(r"\.", "[._]") for piece in template.split("{}")]
    return re.compile(r"(\d+)".join(pieces))


@cache
def _by_original() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """Original names first: where both say the same, they name the same."""
    originals: dict[str, list[str]] = {}
    layers = [layer for naming in NAMINGS.values() for layer in naming]
    for layer in layers:
        originals.setdefault(layer.original, []).append(layer.diffusers)
    plain = {layer.diffusers: [layer.diffusers] for layer in layers}
    return tuple(
        (_pattern(name), tuple(modules)) for name, modules in {**originals, **plain}.items()
    )


@cache
def _by_diffusers() -> tuple[tuple[re.Pattern[str], Layer], ...]:
    return tuple(
        (_pattern(layer.diffusers), layer) for naming in NAMINGS.values() for layer in naming
    )
