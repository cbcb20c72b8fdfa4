"""What the routes work with: store, images, scorers, wake-ups and the clock, wired together once.

Blocking calls go to threads here, so that the event loop only ever translates and waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from reward_server.blobs import Blobs
from reward_server.clock import steady_clock
from reward_server.courier import Courier
from reward_server.domain.clock import SteadyClock
from reward_server.domain.jobs import Kind
from reward_server.hub import Hub, Pace
from reward_server.metrics import Metrics
from reward_server.scorers import load
from reward_server.scoring.pool import ScorerPool
from reward_server.scoring.worker import is_dead
from reward_server.settings import Settings
from reward_server.store import Store, claims, jobs, leases, purging, reliability

P = ParamSpec("P")
T = TypeVar("T")

SWEEP_S: Final = 0.2
BURY_S: Final = 5.0
"""How often scorer processes of this machine are looked after that no server here has started."""
WATCH_S: Final = 0.1
PURGE_S: Final = 60.0
DELIVER_S: Final = 0.5
LEARN_S: Final = 30.0
"""How often the reliability of annotators is estimated anew, while somebody wants it."""
FRESH_S: Final = 3600.0
"""Images put or named within this time are never deleted: a request may be on its way."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Reward:
    """A reward as the routes see it; machine rewards validate target and options."""

    name: str
    kind: Kind
    model: str
    target: type[BaseModel] | None = None
    options: type[BaseModel] | None = None
    classes: tuple[str, ...] | None = None


EXPORTS_AT_ONCE: Final = 2
EXPORTS_WAITING: Final = 6

HUMAN: Final = Reward("human", "human", "human/like-dislike")


class TooManyExports(Exception):
    """No room for one more long read."""


class Service:
    """One server's parts; ``start`` and ``stop`` bracket its life on an event loop."""

    def __init__(self, settings: Settings, clock: Callable[[], float] | None = None) -> None:
        self.settings = settings
        self.clock = clock = clock or steady_clock()
        self.rewards = {"human": HUMAN}
        for name, path in settings.scorers.items():
            scorer = load(path)
            classes = getattr(scorer, "classes", None)
            self.rewards[name] = Reward(
                name, "machine", scorer.model, scorer.target, scorer.options, classes
            )
        self.store = Store(settings.database_url, full_sync=settings.durability == "full")
        self.blobs = Blobs(settings.data / "blobs", sync=settings.durability == "full")
        self.hub = Hub()
        self.metrics = Metrics()
        self.pace = Pace()
        self.pool = ScorerPool(settings, self._scored, self._release)
        self.courier = Courier(self.read, self.write, clock, self.metrics)
        self.started_at = clock()
        self._writer = ThreadPoolExecutor(self.store.writers, "store-write")
        self._workers = ThreadPoolExecutor(8, "store-read")
        self._exporters = ThreadPoolExecutor(EXPORTS_AT_ONCE, "export")
        self._exports = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Migrate, take back what dead scorer processes held, start scorers and the rounds."""
        await asyncio.get_running_loop().run_in_executor(self._writer, self.store.migrate)
        await self._bury()
        self.pool.start()
        rounds = [(self._sweep, SWEEP_S), (self._bury, BURY_S), (self.purge, PURGE_S)]
        rounds += [(self.courier.deliver, DELIVER_S), (self.learn, LEARN_S)]
        if self.store.writers > 1 or self.settings.scorer_processes == 0:
            rounds.append((_Watch(self).look, WATCH_S))
        self._tasks = [asyncio.create_task(self._again(*one)) for one in rounds]

    async def stop(self) -> None:
        """End the rounds and the scorers; whatever was accepted stays in the store."""
        self.hub.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.courier.stop()
        await self.pool.stop()
        self._writer.shutdown()
        self._workers.shutdown()
        self._exporters.shutdown(cancel_futures=True)
        self.store.close()

    async def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``Store.write`` off the event loop; on SQLite one after the other."""
        call = partial(self.store.write, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._writer, call)

    async def read(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """``Store.read`` off the event loop."""
        call = partial(self.store.read, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._workers, call)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Any other blocking call off the event loop."""
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._workers, call)

    async def export(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """A long read off the event loop, beside the others: EXPORTS_AT_ONCE run, a few wait.

        Raises:
            TooManyExports: as many wait as may.
        """
        if self._exports >= EXPORTS_AT_ONCE + EXPORTS_WAITING:
            raise TooManyExports(f"{self._exports} exports are being made; try again in a moment")
        self._exports += 1
        try:
            call = partial(work, *args, **kwargs)
            return await asyncio.get_running_loop().run_in_executor(self._exporters, call)
        finally:
            self._exports -= 1

    def _scored(self, jobs: list[str], reward: str, items: int) -> None:
        self.pace.record(reward, items, self.clock())
        self.hub.notify(jobs)

    async def _release(self, worker: str) -> None:
        try:
            self.hub.notify(await self.write(leases.release_worker, worker, self.clock()))
        except SQLAlchemyError as error:
            # The next round buries it, or its leases run out.
            log.error("release_failed", worker=worker, error=_brief(error))
        self.pool.wake()

    async def _again(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        """One of the server's rounds: whatever goes wrong, the next one is made."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except Exception as error:
                log.error("round_failed", work=work.__qualname__, error=_brief(error))
                await asyncio.sleep(1.0)

    async def _sweep(self) -> None:
        self.pool.kill_hung(time.monotonic())
        if await self.read(leases.due, self.clock()):
            settle_s = self.settings.settle_s
            self.hub.notify(await self.write(leases.sweep, self.clock(), settle_s))
            self.pool.wake()

    async def _bury(self) -> None:
        """Take back what scorer processes of this machine held when they died."""
        for worker in await self.read(leases.workers):
            if is_dead(worker):
                await self._release(worker)

    async def learn(self) -> None:
        """Estimate who is right how often, if votes of an open job are weighed by it."""
        if await self.read(reliability.wanted):
            votes = await self.read(reliability.latest_votes)
            golds, truth = await self.read(reliability.gold_votes)
            found = await self.run(reliability.estimate, votes + golds, truth)
            await self.write(reliability.learn, found, self.clock())

    async def purge(self) -> None:
        """Forget results that were kept long enough, and images that nothing refers to any more.

        Not by a clock that has jumped, or that nobody has seen running for an hour.
        """
        if isinstance(self.clock, SteadyClock) and not self.clock.trusted:
            return
        before = self.clock() - self.settings.results_kept_s
        while old := await self.read(purging.old_jobs, before):
            await self.write(purging.purge_jobs, old, self.clock())
        await self.write(claims.forget_pages, self.clock() - FRESH_S)
        while unused := await self.read(purging.unused_blobs, before):
            for sha256 in await self.write(purging.forget_blobs, unused, before):
                await self.run(self.blobs.remove, sha256, FRESH_S)


class _Watch:
    """Sees what other processes changed: one query for everybody who waits here."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._seen: dict[str, jobs.Head] = {}

    async def look(self) -> None:
        ids = self._service.hub.waited()
        heads = await self._service.read(jobs.heads, ids) if ids else {}
        self._service.hub.notify(i for i in heads if self._seen.get(i, heads[i]) != heads[i])
        self._seen = heads


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def describe(model: type[BaseModel] | None) -> dict[str, Any] | None:
    """JSON schema of a scorer's target or options."""
    return None if model is None else model.model_json_schema()
