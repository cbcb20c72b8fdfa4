"""Many votes -> one reward, and how far people agree. Pure arithmetic, no I/O.

A skip is no dislike: it moves neither the reward nor the agreement.
"""

from __future__ import annotations


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
