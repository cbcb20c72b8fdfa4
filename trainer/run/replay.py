"""Scored groups that phi meets again, since what people say is too dear to be read once.

Between two batches of new scores, iterations train phi on stored groups and let the generator go
on. phi's loss (Eq. 9) holds for stored groups however old. Beyond `groups.memory`
the oldest leave first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import torch

from trainer.arithmetic.randomness import uniform
from trainer.config import GroupsConfig
from trainer.rewards.groups import ScoredGroup
from trainer.tdm_r1.state import Metrics

CPU = torch.device("cpu")
OF_PHI = ("surrogate/", "loss/surrogate")
OF_REWARDS = ("reward/", "groups/")


class Replay:
    """The newest scored groups of a run, on the CPU."""

    def __init__(self, config: GroupsConfig) -> None:
        self._every = config.replays + 1
        self._groups: deque[ScoredGroup] = deque(maxlen=config.memory if config.replays else 0)

    @property
    def groups(self) -> list[ScoredGroup]:
        """Everything it holds, oldest first."""
        return list(self._groups)

    def add(self, scored: Iterable[ScoredGroup]) -> None:
        """Takes in groups whose scores have come."""
        for one in scored:
            group = replace(one.group, trajectory=one.group.trajectory.to(CPU))
            self._groups.append(ScoredGroup(group, one.rewards.cpu()))

    def draw(self, count: int, seed: int, iteration: int) -> list[ScoredGroup]:
        """`count` different groups for an iteration that is a replay; none if it is not.

        Every `replays` + 1 iterations one is for new scores, and so are all until enough have come.
        The choice is keyed by seed and iteration, so that there is nothing to save.
        """
        if iteration % self._every == 0 or len(self._groups) < count:
            return []

        def ticket(one: ScoredGroup) -> float:
            return uniform(seed, iteration, one.group.index, "replay")

        return sorted(self._groups, key=ticket)[:count]


def as_replay(metrics: Metrics) -> Metrics:
    """An iteration's metrics without those that would pass for news of fresh groups.

    Rewards were recorded when they came; what phi makes of known groups has names of its own.
    """
    own = {k: v for k, v in metrics.items() if not k.startswith(OF_REWARDS)}
    return {f"replay/{k}" if k.startswith(OF_PHI) else k: v for k, v in own.items()}
