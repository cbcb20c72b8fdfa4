"""How fast one API key may have images accepted: the arithmetic of the limit, and nothing else.

A bucket that holds one minute's worth and refills evenly, kept as a single number: the time at
which it is full again (the generic cell rate algorithm, ITU-T I.371). Pure; times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.schema import MAX_ITEMS

MINUTE_S: Final = 60.0
ROUNDING_S: Final = 1e-3


class RateExceeded(Exception):
    """A key asks faster than it may; nothing was accepted. ``wait_s`` until it would be."""

    def __init__(self, rate: Rate, images: int, wait_s: float) -> None:
        self.rate = rate
        self.wait_s = wait_s
        super().__init__(
            f"API key {rate.key!r} may send {rate.per_minute} images a minute; "
            f"{images} more are welcome in {wait_s:.1f} s"
        )


@dataclass(frozen=True)
class Rate:
    """The limit of one key, in images per minute."""

    key: str
    per_minute: int

    def spend(self, full_at: float, images: int, now: float) -> float:
        """When the bucket is full again after ``images`` more, if it was to be at ``full_at``.

        Raises:
            RateExceeded: the bucket does not hold that many now.
        """
        each_s = MINUTE_S / self.per_minute
        # The largest request must fit, or it would be refused for ever.
        holds_s = max(MINUTE_S, MAX_ITEMS * each_s)
        # Emptier than empty means that the clock was put back: that must lock nobody out.
        begins = now if full_at > now + holds_s + ROUNDING_S else max(now, full_at)
        after = begins + images * each_s
        if after > now + holds_s + ROUNDING_S:
            raise RateExceeded(self, images, after - now - holds_s)
        return after
