"""Who can be relied on: one-coin Dawid-Skene by expectation-maximisation. Pure arithmetic, no I/O.

Model: item i is liked with probability ``prior``; rater r says what is true with probability
``accuracy[r]``, whichever it is ("one coin": Dawid and Skene 1979 with one error rate per rater).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from reward_server.domain.agreement import Vote

TYPICAL: Final = 0.75
"""Accuracy of a rater nothing is known about: what the pseudo-votes say."""
STRENGTH: Final = 8.0
"""Pseudo-votes per rater: after so many votes, half of the estimate is the rater's own."""
STEPS: Final = 200
TOLERANCE: Final = 1e-7
_EDGE: Final = 1e-9


@dataclass(frozen=True)
class Reliability:
    """What EM ended with: p(like) by item, accuracy by rater, and the items' common prior.

    ``objective``: log posterior (up to a constant) after every step; it never falls.
    """

    liked: dict[Hashable, float]
    accuracy: dict[Hashable, float]
    prior: float
    objective: list[float]


def dawid_skene(
    votes: Iterable[Vote],
    gold: Mapping[Hashable, bool] | None = None,
    *,
    typical: float = TYPICAL,
    strength: float = STRENGTH,
) -> Reliability | None:
    """Estimate who is right how often, without being told what is right; None without a vote.

    Labels are True for like and False for dislike. The accuracies have a Beta prior worth
    ``strength`` votes with mean ``typical`` (0: maximum likelihood); beginning at the majority
    keeps the mirrored solution away, in which everybody is wrong. ``gold`` says the truth about
    some items and counts fully.

    Raises:
        ValueError: ``typical`` is not between 0 and 1, or ``strength`` negative.
    """
    if not 0 < typical < 1 or strength < 0:
        raise ValueError(f"typical={typical} must lie in (0, 1), strength={strength} be >= 0")
    items: defaultdict[Hashable, dict[Hashable, bool]] = defaultdict(dict)
    for vote in votes:
        items[vote.item][vote.rater] = bool(vote.label)
    if not items:
        return None
    known = {item: float(liked) for item, liked in (gold or {}).items() if item in items}
    liked = {i: sum(given.values()) / len(given) for i, given in items.items()} | known
    objective: list[float] = []
    for _ in range(STEPS):
        prior = _within(math.fsum(liked.values()) / len(liked))
        accuracy = _accuracy(items, liked, typical, strength)
        liked, score = _posterior(items, accuracy, prior, known)
        objective.append(score + _beta(accuracy, typical, strength))
        if len(objective) > 1 and objective[-1] - objective[-2] < TOLERANCE:
            break
    return Reliability(liked, accuracy, prior, objective)


def weight(accuracy: float) -> float:
    """What a vote of a rater with that accuracy is worth: its log-odds, never below 0.

    The weights under which the weighted majority is most often right (Nitzan and Paroush 1982).
    """
    p = _within(accuracy)
    return max(math.log(p / (1 - p)), 0.0)


_Items = Mapping[Hashable, Mapping[Hashable, bool]]


def _accuracy(
    items: _Items, liked: Mapping[Hashable, float], typical: float, strength: float
) -> dict[Hashable, float]:
    right: defaultdict[Hashable, float] = defaultdict(float)
    given: defaultdict[Hashable, int] = defaultdict(int)
    for item, by_rater in items.items():
        for rater, label in by_rater.items():
            right[rater] += liked[item] if label else 1 - liked[item]
            given[rater] += 1
    return {
        rater: _within((right[rater] + strength * typical) / (given[rater] + strength))
        for rater in given
    }


def _posterior(
    items: _Items,
    accuracy: Mapping[Hashable, float],
    prior: float,
    known: Mapping[Hashable, float],
) -> tuple[dict[Hashable, float], float]:
    """p(like) by item, and the log likelihood of all votes."""
    liked: dict[Hashable, float] = {}
    total = 0.0
    for item, by_rater in items.items():
        yes, no = math.log(prior), math.log(1 - prior)
        for rater, label in by_rater.items():
            right, wrong = math.log(accuracy[rater]), math.log(1 - accuracy[rater])
            yes += right if label else wrong
            no += wrong if label else right
        if item in known:
            liked[item] = known[item]
            total += yes if known[item] else no
            continue
        top = max(yes, no)
        both = top + math.log(math.exp(yes - top) + math.exp(no - top))
        liked[item] = math.exp(yes - both)
        total += both
    return liked, total


def _beta(accuracy: Mapping[Hashable, float], typical: float, strength: float) -> float:
    """Log density of the accuracies' prior, up to a constant."""
    return math.fsum(
        strength * (typical * math.log(p) + (1 - typical) * math.log(1 - p))
        for p in accuracy.values()
    )


def _within(p: float) -> float:
    return min(max(p, _EDGE), 1 - _EDGE)
