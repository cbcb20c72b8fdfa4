"""The pretraining set: rendered scenes with captions, a share of them wrong on purpose."""

from __future__ import annotations

import random
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file

from trainer.pretraining.tokenizer import tokenize
from trainer.tiny.scenes import render
from trainer.tiny.world import sample_prompt, sample_scene, sample_tag, wrong_caption

CHUNK = 1000


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 (N, 3, S, S); `tokens` int64 (N, MAX_TOKENS); aligned by row."""

    images: torch.Tensor
    tokens: torch.Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Recipe:
    """What a dataset is made of; equal recipes give equal bytes."""

    images: int
    size: int
    text_share: float
    wrong_captions: float
    seed: int


def load_or_render(recipe: Recipe, cache: Path) -> Dataset:
    """Read the dataset from `cache` when it was rendered by the same recipe, else render it."""
    path = cache / f"scenes-{zlib.crc32(repr(recipe).encode()):08x}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        images, tokens = _render_all(recipe)
        partial = path.with_suffix(".partial")
        save_file({"images": images, "tokens": tokens}, partial)
        partial.rename(path)
    tensors = load_file(path)
    return Dataset(tensors["images"], tensors["tokens"])


def _render_all(recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
    starts = range(0, recipe.images, CHUNK)
    with ProcessPoolExecutor() as pool:
        chunks = list(
            track(
                pool.map(_render_chunk, [recipe] * len(starts), starts),
                description="rendering scenes",
                total=len(starts),
            )
        )
    images = torch.from_numpy(np.concatenate([c[0] for c in chunks])[: recipe.images])
    captions = [caption for chunk in chunks for caption in chunk[1]][: recipe.images]
    return images.permute(0, 3, 1, 2).contiguous(), tokenize(captions)


def _render_chunk(recipe: Recipe, start: int) -> tuple[np.ndarray, list[str]]:
    rng = random.Random(f"{recipe.seed}/{start}")
    pictures, captions = [], []
    for _ in range(CHUNK):
        prompt = sample_prompt(sample_tag(recipe.text_share, rng), rng)
        pictures.append(render(sample_scene(prompt, rng), recipe.size))
        if rng.random() < recipe.wrong_captions:
            prompt = wrong_caption(prompt, rng)
        captions.append(prompt.caption)
    return np.stack(pictures), captions
