"""Many votes -> one reward, and how far people agree. Pure arithmetic, no I/O.

A skip is no dislike: it moves neither the reward nor the agreement.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def mean_reward(likes: int, dislikes: int) -> float | None:
    """Mean of like = 1 and dislike = 0; None without a single vote.

    >>> mean_reward(2, 1)
    0.6666666666666666
    """
    votes = likes + dislikes
    return likes / votes if votes else None


def agreement(likes: int, dislikes: int) -> float | None:
    """Share of pairs of voters who agree on one item, in [0, 1]; None below two votes.

    The per-item term of Fleiss' kappa (Fleiss 1971, equation 2).
    """
    votes = likes + dislikes
    if votes < 2:
        return None
    agreeing = likes * (likes - 1) + dislikes * (dislikes - 1)
    return agreeing / (votes * (votes - 1))


def weighted_reward(votes: Iterable[tuple[bool, float]]) -> float | None:
    """Mean of like = 1 and dislike = 0, each vote with its weight; None without a vote.

    Votes that all weigh nothing count alike: a person nobody agrees with is still a person asked.

    >>> weighted_reward([(True, 3.0), (False, 1.0)])
    0.75
    """
    given = list(votes)
    total = math.fsum(weight for _, weight in given)
    if total <= 0:
        return mean_reward(sum(liked for liked, _ in given), sum(not liked for liked, _ in given))
    return math.fsum(weight for liked, weight in given if liked) / total
