"""Random numbers keyed by what they are for, so results do not depend on process count or order.

A key is (seed, iteration, group, sample, role, ...). The same key gives the same numbers on every
machine and device: they are drawn on the CPU. There is no state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

Key = int | str


def _digest(key: tuple[Key, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")


def uniform(*key: Key) -> float:
    """One number in [0, 1)."""
    return (_digest(key) >> 11) / (1 << 53)


def integer(low: int, high: int, *key: Key) -> int:
    """One integer in low..high, both included."""
    return low + int(uniform(*key) * (high - low + 1))


def weighted(weights: Sequence[float], *key: Key) -> int:
    """One index of `weights`, with a probability proportional to its weight."""
    left = uniform(*key) * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def permutation(n: int, *key: Key) -> list[int]:
    """0..n-1 in an order of equal probability."""
    return sorted(range(n), key=lambda i: _digest((*key, i)))


def normal(shape: Sequence[int], *key: Key) -> Tensor:
    """Standard normal numbers of the given shape, fp32, on the CPU."""
    generator = torch.Generator().manual_seed(_digest(key) >> 1)
    return torch.randn(tuple(shape), generator=generator)


def normals(shape: Sequence[int], keys: Sequence[tuple[Key, ...]]) -> Tensor:
    """One independent normal tensor per key, stacked to (len(keys), *shape)."""
    generator = torch.Generator()
    out = torch.empty(len(keys), *shape)
    for row, key in zip(out, keys, strict=True):
        generator.manual_seed(_digest(key) >> 1)
        torch.randn(tuple(shape), generator=generator, out=row)
    return out
