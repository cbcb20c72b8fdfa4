"""The clock of one process."""

from __future__ import annotations

import time

import structlog

from reward_server.domain.clock import SteadyClock

log = structlog.get_logger()


def steady_clock() -> SteadyClock:
    """The machine's time without its jumps, for this process."""

    def jumped(seconds: float) -> None:
        log.warning("clock_jumped", seconds=round(seconds), note="not followed for an hour")

    return SteadyClock(time.time, _since_boot, jumped)


def _since_boot() -> float:
    """Seconds that count while the machine sleeps as well, where it can tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)
