"""A clock for deadlines and purging that a jump of the machine's clock does not move.

The machine's time of day may be set by hand, by NTP after a long sleep, or by mistake for a few
seconds. Time here goes on as the monotonic clock does, follows small corrections, and takes over a
large one only once it has lasted an hour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

DRIFT_S: Final = 5.0
"""Difference of the two clocks that is a correction and not a jump."""
PATIENCE_S: Final = 3600.0


class SteadyClock:
    """Seconds since the epoch; call it.

    Args:
        wall: the time of day, as ``time.time``.
        monotonic: seconds that only grow.
        jumped: told once of every jump, with its seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        jumped: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._jumped = jumped
        self._ahead = wall() - monotonic()  # of the monotonic clock
        self._agreed_since = monotonic()
        self._parted: tuple[float, float] | None = None  # since when, and by how much

    def __call__(self) -> float:
        """Now."""
        monotonic = self._monotonic()
        difference = self._wall() - monotonic - self._ahead
        if abs(difference) <= DRIFT_S:
            self._ahead += difference
            self._parted = None
        elif self._parted is None or abs(difference - self._parted[1]) > DRIFT_S:
            self._parted = monotonic, difference
            self._agreed_since = monotonic
            self._jumped(difference)
        elif monotonic - self._parted[0] >= PATIENCE_S:
            self._ahead += difference
            self._parted, self._agreed_since = None, monotonic
        else:
            self._agreed_since = monotonic
        return monotonic + self._ahead

    @property
    def trusted(self) -> bool:
        """Whether the two clocks have agreed for an hour: what is gone then may be deleted."""
        self()
        agreed = self._monotonic() - self._agreed_since >= PATIENCE_S
        return self._parted is None and agreed
