"""The processes of an endurance run, and who kills them when."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.world import World
from tests.support.postgres_setup import Postgres
from tests.support.server_setup import Scorer, Server, eventually

KILLS: Final = ("scorer", "server", "attached scorer", "scorer", "server with scorers")
"""In turn: started by hand, without and with scorers of its own, and one of these."""


class Fleet:
    """Two servers, one with a scorer of its own, and scorers started by hand, on one database."""

    def __init__(self, folder: Path, cluster: Postgres, scorers: int) -> None:
        data, url = folder / "state", cluster.database()
        options = ("--database", url, "--settle", "0")
        self.cluster = cluster
        self.servers = [
            Server(data, *options, "--scorer-processes", "1", log=folder / "server0.log"),
            Server(data, *options, "--scorer-processes", "0", log=folder / "server1.log"),
        ]
        self.scorers = [Scorer(data, url, number) for number in range(scorers)]

    @property
    def urls(self) -> list[str]:
        """Where the servers listen, also while they are down."""
        return [server.url for server in self.servers]

    @property
    def logs(self) -> list[Path]:
        """What servers and scorers have written."""
        return [server.log for server in self.servers] + [one.log for one in self.scorers]

    @contextmanager
    def running(self) -> Iterator[None]:
        """All are started; whatever happens, none is left behind."""
        parts: list[Server | Scorer] = [*self.servers, *self.scorers]
        try:
            with ThreadPoolExecutor(len(parts)) as threads:
                list(threads.map(lambda part: part.start(), parts))
            yield
        finally:
            for part in parts:
                part.end()

    def strike(self, kind: str, number: int) -> None:
        """Do one fault, and start again what it has ended."""
        if kind == "database":
            self.cluster.stop()
            self.cluster.start()
        elif kind == "attached scorer":
            eventually(lambda: bool(self.servers[0].scorer_pids()), 120.0)
            os.kill(self.servers[0].scorer_pids()[0], signal.SIGKILL)
        elif kind == "scorer" and self.scorers:
            scorer = self.scorers[number % len(self.scorers)]
            scorer.kill()
            scorer.start()
        else:
            server = self.servers[kind == "server"]
            server.kill()
            server.start()


def schedule(kills: int, restarts: int) -> list[str]:
    """Kinds of faults in order, the database's spread evenly among the kills."""
    faults = [KILLS[i % len(KILLS)] for i in range(kills)]
    for i in reversed(range(restarts)):
        faults.insert(round((i + 0.5) * kills / restarts), "database")
    return faults


def strike_all(world: World, fleet: Fleet, faults: Sequence[str], struck: Counter[str]) -> None:
    """Do the faults while the work is under way: one after each n-th part of it."""
    for i, kind in enumerate(faults):
        while world.share < (i + 1) / (len(faults) + 1):
            if world.over:
                return
            world.pause(0.05)
        if world.over:
            return
        world.ledger.write("fault", kind=kind, share=round(world.share, 4))
        fleet.strike(kind, i)
        struck[kind] += 1
