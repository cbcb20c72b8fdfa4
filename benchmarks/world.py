"""What all parties of an endurance run share: addresses, ledger, progress, and when it is over."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import httpx

from benchmarks.ledger import Ledger
from shared.client import RewardClient

PATIENCE_S = 15.0
"""A call gives up one server after this time and tries the next one, under the same key."""


class World:
    """Thread-safe. ``items`` is how many items the whole run has; times in seconds."""

    def __init__(self, urls: Sequence[str], ledger: Ledger, items: int, deadline_s: float) -> None:
        self.urls = list(urls)
        self.ledger = ledger
        self.items = items
        self.answered: Counter[str] = Counter()
        self.tricks: Counter[str] = Counter()
        self.began = time.monotonic()
        self._until = self.began + deadline_s
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._clients = {url: RewardClient(url, budget_s=PATIENCE_S) for url in self.urls}

    @property
    def share(self) -> float:
        """Share of all items that are answered."""
        return self.answered.total() / self.items

    @property
    def out_of_time(self) -> bool:
        """Whether no more work should begin."""
        return time.monotonic() > self._until

    @property
    def over(self) -> bool:
        """Whether everybody should go home."""
        return self._finished.is_set()

    def finish(self) -> None:
        """Send everybody home."""
        self._finished.set()

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        self._finished.wait(seconds)

    def count(self, reward: str, items: int) -> None:
        """Note answered items."""
        with self._lock:
            self.answered[reward] += items

    def trick(self, kind: str) -> None:
        """Note a client that misbehaved on purpose."""
        with self._lock:
            self.tricks[kind] += 1

    def client(self, rng: random.Random) -> RewardClient:
        """A client of one of the servers, whichever."""
        return self._clients[rng.choice(self.urls)]

    def http(self) -> httpx.Client:
        """A bare connection with cookies of its own; it goes to no proxy."""
        return httpx.Client(trust_env=False, timeout=30.0)

    def close(self) -> None:
        """Close the shared clients."""
        for client in self._clients.values():
            client.close()
