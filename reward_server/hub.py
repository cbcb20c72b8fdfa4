"""Wakes requests that wait for jobs, and knows how fast rewards come in.

Lives on the event loop of one process and holds nothing that matters: whoever waits reads the
database again after a wake-up, and at the latest after ``RECHECK_S``, when another process changed
something.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

RECHECK_S: Final = 1.0
PACE_WINDOW_S: Final = 120.0


class Hub:
    """Bells by job id. ``close`` rings them all for good, so that a shutdown waits for nobody."""

    def __init__(self) -> None:
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.closing = False

    @contextmanager
    def listen(self, ids: Iterable[str]) -> Iterator[asyncio.Event]:
        """An event that is set whenever one of these jobs changes, until the block ends."""
        bell = asyncio.Event()
        ids = list(ids)
        for job_id in ids:
            self._bells[job_id].add(bell)
        try:
            yield bell
        finally:
            for job_id in ids:
                self._bells[job_id].discard(bell)
                if not self._bells[job_id]:
                    del self._bells[job_id]

    def waited(self) -> list[str]:
        """Jobs somebody waits for."""
        return list(self._bells)

    def notify(self, ids: Iterable[str]) -> None:
        """Ring the bells of these jobs."""
        for job_id in ids:
            for bell in self._bells.get(job_id, ()):
                bell.set()

    def close(self) -> None:
        """Ring every bell; whoever waits answers with what there is."""
        self.closing = True
        for bells in self._bells.values():
            for bell in bells:
                bell.set()


async def wait_for(bell: asyncio.Event, seconds: float) -> None:
    """Wait until the bell rings, but not longer than ``seconds`` or ``RECHECK_S``."""
    try:
        await asyncio.wait_for(bell.wait(), min(max(seconds, 0.0), RECHECK_S))
    except TimeoutError:
        return
    bell.clear()


class Pace:
    """Answers per second of each reward over the last two minutes, for honest ETAs."""

    def __init__(self) -> None:
        self._seen: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)

    def record(self, reward: str, answers: int, now: float) -> None:
        """Note that ``answers`` items of a reward were answered at ``now``."""
        self._seen[reward].append((now, answers))
        self._forget(reward, now)

    def eta_s(self, reward: str, waiting: int, now: float) -> float | None:
        """Seconds until ``waiting`` items are answered at the present pace; None if unknown."""
        self._forget(reward, now)
        seen = self._seen[reward]
        answers = sum(n for _, n in seen)
        if len(seen) < 2 or answers == 0:
            return None
        return waiting * max(now - seen[0][0], 1.0) / answers

    def _forget(self, reward: str, now: float) -> None:
        seen = self._seen[reward]
        while seen and seen[0][0] < now - PACE_WINDOW_S:
            seen.popleft()
