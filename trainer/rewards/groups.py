"""Groups (one prompt, G samples) and what their rewards say: advantages, masks, drop rules.

Pure. A missing reward is NaN here and masks its sample; it never counts as a number. A group whose
rewards do not differ, or with too few of them, says nothing and is marked so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from trainer.arithmetic.shapes import GroupFlags, GroupMask, GroupValues, PerSample
from trainer.arithmetic.trajectory import Trajectory


@dataclass(frozen=True)
class Prompt:
    """A text, the reward that scores it, and what that reward needs to know.

    target: for the reward, as on the wire (GenEval metadata, {"text": ...}); None for rewards that
    look at the prompt alone. options: the reward's options, as on the wire.
    """

    text: str
    reward: str
    tag: str = ""
    target: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """One prompt and its G samples. `index` is unique in the run; `version` made the samples."""

    index: int
    prompt: Prompt
    trajectory: Trajectory
    version: int


@dataclass(frozen=True)
class ScoredGroup:
    """A group whose rewards have come: one per sample, NaN where missing."""

    group: Group
    rewards: PerSample

    @classmethod
    def of(cls, group: Group, rewards: Sequence[float | None]) -> ScoredGroup:
        """As the server gives rewards: None where one is missing."""
        values = [math.nan if reward is None else reward for reward in rewards]
        return cls(group, torch.tensor(values, dtype=torch.float32))

    @property
    def given(self) -> list[float | None]:
        """The rewards as the server gave them: None where one is missing."""
        return [None if math.isnan(reward) else reward for reward in self.rewards.tolist()]


@dataclass(frozen=True)
class Advantages:
    """values is 0 wherever a sample or its whole group must not count.

    valid: samples with a reward. live: groups that state a preference.
    """

    values: GroupValues
    valid: GroupMask
    live: GroupFlags


def advantages(
    rewards: GroupValues,
    names: Sequence[str],
    *,
    min_valid: int = 2,
    dead_std: float = 1e-3,
    std: Literal["group", "batch", "global"] = "group",
    clip: float | None = None,
) -> Advantages:
    """A_i = (r_i - mean)/std over the valid samples of each group, with no epsilon.

    `names` gives each group's reward: `std = "batch"` pools the deviations of groups of the SAME
    reward, since advantages never mix rewards; "global" takes the standard deviation of all its
    rewards, differences between prompts included (Flow-GRPO's `global_std`). Standard deviations
    are over the population. clip: no advantage is further from 0 than this. A group is dead below
    `dead_std` (in units of the reward) or with fewer than `min_valid` rewards.
    """
    valid = ~rewards.isnan()
    count = valid.sum(1, keepdim=True).clamp_min(1)
    filled = torch.where(valid, rewards, 0.0)
    deviation = torch.where(valid, filled - filled.sum(1, keepdim=True) / count, 0.0)
    own_std = (deviation.square().sum(1, keepdim=True) / count).sqrt()
    live = (own_std >= dead_std) & (valid.sum(1, keepdim=True) >= min_valid)
    if std == "group":
        scale = own_std
    else:
        scale = _std_of_reward(filled if std == "global" else deviation, valid, names)
    values = torch.where(valid & live, deviation / torch.where(live, scale, 1.0), 0.0)
    if clip is not None:
        values = values.clamp(-clip, clip)
    return Advantages(values, valid, live.squeeze(1))


def _std_of_reward(values: Tensor, valid: Tensor, names: Sequence[str]) -> Tensor:
    """Per group: the standard deviation of the valid values over all groups of its reward."""
    out = torch.ones_like(values[:, :1])
    for name in set(names):
        rows = torch.tensor([n == name for n in names], device=values.device)
        count = valid[rows].sum().clamp_min(1)
        mean = torch.where(valid[rows], values[rows], 0.0).sum() / count
        square = torch.where(valid[rows], values[rows] - mean, 0.0).square().sum()
        out[rows] = (square / count).sqrt()
    return out
