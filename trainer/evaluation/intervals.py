"""Estimates with 95 % intervals, so that no table shows a number without its uncertainty.

Pure arithmetic on arrays; an empty sample is a ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A number, its 95 % interval and the sample size behind it."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: int, n: int) -> Estimate:
    """Share of successes with the score interval of Wilson (1927).

    Raises:
        ValueError: without observations, or with more successes than observations.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"need 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p = successes / n
    scale = 1 + Z95**2 / n
    centre = (p + Z95**2 / (2 * n)) / scale
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Estimate(p, low, high, n)


def mean(values: Sequence[float], clusters: Sequence[int]) -> Estimate:
    """Mean of scores in [0, 1] with a normal interval robust to clustering by prompt.

    Images of one prompt resemble each other, so deviations are summed per prompt before they are
    squared (Liang & Zeger 1986). The interval is clipped to [0, 1].
    """
    array = _checked(values, clusters)
    half = Z95 * math.sqrt(_variance_of_mean(array, np.asarray(clusters)))
    value = float(array.mean())
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(array))


def paired_difference(
    after: Sequence[float], before: Sequence[float], clusters: Sequence[int]
) -> Estimate:
    """Mean of after - before over pairs with the same prompt and noise.

    The variance is cluster-robust by prompt, over the pairs and two pseudo-pairs, one won and one
    lost (Bonett & Price 2012): without them a handful of equal pairs would claim certainty.

    Raises:
        ValueError: when the samples do not pair up.
    """
    if len(after) != len(before):
        raise ValueError(f"pairs need equal lengths, got {len(after)} and {len(before)}")
    pairs = _checked(after, clusters) - _checked(before, clusters)
    value = float(pairs.mean())
    fresh = max(clusters) + 1
    padded = np.concatenate([pairs, [1.0, -1.0]])
    half = Z95 * math.sqrt(_variance_of_mean(padded, np.array([*clusters, fresh, fresh + 1])))
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half), len(pairs))


def mean_of(estimates: Mapping[str, Estimate]) -> Estimate:
    """Unweighted mean of independent estimates.

    The interval combines the parts' own (asymmetric) distances, the method of variance estimates
    recovery of Zou & Donner (2008).
    """
    parts = list(estimates.values())
    if not parts:
        raise ValueError("the mean of no estimates is undefined")
    k = len(parts)
    value = sum(e.value for e in parts) / k
    below = math.sqrt(sum((e.value - e.low) ** 2 for e in parts)) / k
    above = math.sqrt(sum((e.high - e.value) ** 2 for e in parts)) / k
    return Estimate(value, value - below, value + above, sum(e.n for e in parts))


def _checked(values: Sequence[float], clusters: Sequence[int]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or len(clusters) != array.size:
        raise ValueError(f"need one prompt per value, got {array.size} values, {len(clusters)}")
    if not np.isfinite(array).all():
        raise ValueError("a missing reward is null: leave it out, it is no number")
    return array


def _variance_of_mean(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> float:
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - values.mean())
    count = len(sums)
    if count < 2:
        return 0.25  # one prompt says nothing about the next: as wide as a coin flip
    return float(count / (count - 1) * (sums**2).sum() / len(values) ** 2)
