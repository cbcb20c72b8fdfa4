"""How far people agree: kappa, alpha, an interval for the like rate. Pure arithmetic, no I/O.

Raters, items and labels may be anything hashable. A figure that is not defined for the data at hand
is None with a reason, never a number: "nobody judged twice" is not "nobody agrees".
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Final

Z95: Final = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Vote:
    """One rater's label for one item; a skip is no vote and does not belong here."""

    item: Hashable
    rater: Hashable
    label: Hashable


@dataclass(frozen=True)
class Measure:
    """A figure with the number of items it rests on, or None and why it is not defined."""

    value: float | None
    items: int
    why: str | None = None


def raw_agreement(votes: Iterable[Vote]) -> Measure:
    """Share of pairs of raters who agree on an item, averaged over items with two votes or more.

    In [0, 1], not corrected for chance (Fleiss 1971, the mean of equation 2).
    """
    shares = [_agreeing(counts) for counts in _by_item(votes) if counts.total() > 1]
    if not shares:
        return Measure(None, 0, "no item has two votes")
    return Measure(math.fsum(shares) / len(shares), len(shares))


def krippendorff_alpha(votes: Iterable[Vote]) -> Measure:
    """Krippendorff's alpha for nominal labels; any number of raters, votes may be missing.

    1 - D_o / D_e with coincidences (Krippendorff 2011, "Computing Krippendorff's
    Alpha-Reliability", section E): items with one vote say nothing and are left out.
    """
    rated = [counts for counts in _by_item(votes) if counts.total() > 1]
    if not rated:
        return Measure(None, 0, "no item has two votes")
    totals: Counter[Hashable] = Counter()
    disagreeing = 0.0
    for counts in rated:
        totals.update(counts)
        n = counts.total()
        disagreeing += (n * n - sum(c * c for c in counts.values())) / (n - 1)
    n = totals.total()
    by_chance = n * n - sum(c * c for c in totals.values())
    if by_chance == 0:
        return Measure(None, len(rated), "every vote is the same: chance explains it all")
    return Measure(1 - (n - 1) * disagreeing / by_chance, len(rated))


def wilson(likes: int, votes: int, z: float = Z95) -> tuple[float, float] | None:
    """Interval for p(like) after ``likes`` of ``votes`` (Wilson 1927); None without a vote.

    >>> low, high = wilson(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)

    Raises:
        ValueError: more likes than votes.
    """
    if not 0 <= likes <= votes:
        raise ValueError(f"{likes} likes of {votes} votes")
    if votes == 0:
        return None
    p, scale = likes / votes, 1 + z * z / votes
    middle = (p + z * z / (2 * votes)) / scale
    half = z / scale * math.sqrt(p * (1 - p) / votes + z * z / (4 * votes * votes))
    # Exact at both ends, where rounding would leave 1e-17.
    low = 0.0 if likes == 0 else max(middle - half, 0.0)
    return low, 1.0 if likes == votes else min(middle + half, 1.0)


def with_others(votes: Iterable[Vote]) -> dict[Hashable, tuple[int, int]]:
    """Per rater: pairs with another rater's vote on the same item, and how many of them agree.

    Returns:
        ``{rater: (agreeing, pairs)}``; raters without such a pair are left out.
    """
    items: defaultdict[Hashable, list[Vote]] = defaultdict(list)
    for vote in votes:
        items[vote.item].append(vote)
    found: dict[Hashable, tuple[int, int]] = {}
    for same in items.values():
        counts = Counter(vote.label for vote in same)
        for vote in same if len(same) > 1 else ():
            agreeing, pairs = found.get(vote.rater, (0, 0))
            found[vote.rater] = (agreeing + counts[vote.label] - 1, pairs + len(same) - 1)
    return found


def _by_item(votes: Iterable[Vote]) -> Iterable[Counter[Hashable]]:
    items: defaultdict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for vote in votes:
        items[vote.item][vote.label] += 1
    return items.values()


def _agreeing(counts: Counter[Hashable]) -> float:
    n = counts.total()
    return sum(c * (c - 1) for c in counts.values()) / (n * (n - 1))
