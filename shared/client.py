"""Clients of the reward server: what the trainer and other teams' scripts use.

``RewardClient`` blocks, ``AsyncRewardClient`` awaits; both drive the same request logic, which does
no I/O itself. Retried are only 408, 429, 5xx and connection failures, with full jitter, honouring
Retry-After, within a total budget, and always under an idempotency key: a retry never scores twice
or shows a person the same images twice. A failed item is ``None``, never a number.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal, Self, TypeVar

import httpx

from shared.errors import (
    BadAnswer,
    JobNotFound,
    Refused,
    RequestRejected,
    RewardError,
    ServerBusy,
    ServerFailed,
    ServerUnreachable,
    Unauthorized,
    UnknownReward,
    WaitTimeout,
)
from shared.exchange import (
    BUDGET_S,
    POLL_S,
    Exchange,
    Pause,
    Steps,
    arguments,
    auth,
    get,
    is_loopback,
    post,
    wait_request,
)
from shared.request import build_request
from shared.schema import (
    DEFAULT_URL,
    Job,
    ScoreRequest,
    StoredImage,
    WaitResult,
)
from shared.schema.ops import Health, Info, RunStats

__all__ = [
    "AsyncRewardClient",
    "BadAnswer",
    "JobNotFound",
    "Refused",
    "RequestRejected",
    "RewardClient",
    "RewardError",
    "ServerBusy",
    "ServerFailed",
    "ServerUnreachable",
    "Unauthorized",
    "UnknownReward",
    "WaitTimeout",
    "build_request",
]

T = TypeVar("T")


class RewardClient:
    """Blocking client; thread-safe, keeps its connections, use as a context manager.

    Args:
        url: root of the server, e.g. ``http://127.0.0.1:8000``.
        api_key: needed beyond a loopback server without keys.
        budget_s: seconds a call may spend on retries before it raises.
        transport, clock, sleep, draw: seams for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        budget_s: float = BUDGET_S,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._exchange = Exchange(url, budget_s, clock, draw)
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self._exchange.url,
            headers=auth(api_key),
            transport=transport,
            trust_env=not is_loopback(self._exchange.url),
        )

    def submit(
        self, request: ScoreRequest, *, idempotency_key: str | None = None, wait: float = 0.0
    ) -> Job:
        """Have ``request`` accepted and return its receipt; ``wait`` seconds for the answer too.

        Without ``idempotency_key`` each call is a request of its own, except for human rewards:
        there the server knows an equal request again for 24 h, so that even a restarted caller
        never shows people the same images twice.

        Raises:
            RewardError: the subclasses say what to do; nothing was accepted unless the server
                became unreachable, and then a retry under the same key finds the same job.
        """
        return self._drive(self._exchange.submit(request, idempotency_key, wait))

    def job(self, job_id: str, *, wait: float = 0.0, rev: int | None = None) -> Job:
        """State of a job; holds up to ``wait`` seconds until it ends or differs from ``rev``."""
        return self._drive(self._exchange.job(job_id, wait, rev))

    def wait_many(
        self,
        ids: Sequence[str],
        *,
        wait: float = POLL_S,
        mode: Literal["any", "all"] = "any",
        revs: Mapping[str, int] | None = None,
    ) -> WaitResult:
        """Wait for many jobs in one request, see ``WaitRequest``."""
        return self._drive(self._exchange.wait_many(wait_request(ids, wait, mode, revs)))

    def score(
        self,
        request: ScoreRequest,
        *,
        idempotency_key: str | None = None,
        timeout_s: float = 600.0,
    ) -> Job:
        """Submit and wait to the end.

        Raises:
            WaitTimeout: ``timeout_s`` is over; the job goes on.
            RewardError: as ``submit``.
        """
        return self._drive(self._exchange.score(request, idempotency_key, timeout_s))

    def cancel(self, job_id: str) -> Job:
        """Stop a job: items without an answer become ``skipped``; a finished job stays as it is."""
        return self._drive(self._exchange.ask(post(f"/jobs/{job_id}/cancel"), Job))

    def ack(self, job_id: str) -> Job:
        """Tell the server the rewards were used: from now on no vote of it can be undone."""
        return self._drive(self._exchange.ask(post(f"/jobs/{job_id}/ack"), Job))

    def put_image(self, data: bytes) -> StoredImage:
        """Store an image file once, to be named by its hash in any number of requests."""
        return self._drive(self._exchange.put_image(data))

    def info(self) -> Info:
        """Rewards, limits and traffic of the server."""
        return self._drive(self._exchange.ask(get("/info"), Info))

    def run_stats(self, run_id: str) -> RunStats:
        """The server's own count of what a run has sent."""
        return self._drive(self._exchange.ask(get(f"/runs/{run_id}/stats"), RunStats))

    def healthz(self) -> Health:
        """Liveness of the server process."""
        return self._drive(self._exchange.ask(get("/healthz"), Health))

    def readyz(self) -> Health:
        """Readiness; retries within the budget until scorers and database are up."""
        return self._drive(self._exchange.ask(get("/readyz"), Health))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _drive(self, steps: Steps[T]) -> T:
        return drive(steps, self._http, self._sleep)


def drive(steps: Steps[T], http: httpx.Client, sleep: Callable[[float], object]) -> T:
    """Run an exchange over a connection; its errors are those of the method that it is."""
    answer: httpx.Response | httpx.TransportError | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as stop:
            result: T = stop.value
            return result
        answer = None
        if isinstance(step, Pause):
            sleep(step.seconds)
            continue
        try:
            answer = http.request(step.method, step.path, **arguments(step))
        except httpx.TransportError as error:
            answer = error


class AsyncRewardClient:
    """Awaiting twin of ``RewardClient``: same methods, same arguments, same exceptions."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        budget_s: float = BUDGET_S,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._exchange = Exchange(url, budget_s, clock, draw)
        self._sleep = sleep
        self._http = httpx.AsyncClient(
            base_url=self._exchange.url,
            headers=auth(api_key),
            transport=transport,
            trust_env=not is_loopback(self._exchange.url),
        )

    async def submit(
        self, request: ScoreRequest, *, idempotency_key: str | None = None, wait: float = 0.0
    ) -> Job:
        """See ``RewardClient.submit``."""
        return await self._drive(self._exchange.submit(request, idempotency_key, wait))

    async def job(self, job_id: str, *, wait: float = 0.0, rev: int | None = None) -> Job:
        """See ``RewardClient.job``."""
        return await self._drive(self._exchange.job(job_id, wait, rev))

    async def wait_many(
        self,
        ids: Sequence[str],
        *,
        wait: float = POLL_S,
        mode: Literal["any", "all"] = "any",
        revs: Mapping[str, int] | None = None,
    ) -> WaitResult:
        """See ``RewardClient.wait_many``."""
        return await self._drive(self._exchange.wait_many(wait_request(ids, wait, mode, revs)))

    async def score(
        self,
        request: ScoreRequest,
        *,
        idempotency_key: str | None = None,
        timeout_s: float = 600.0,
    ) -> Job:
        """See ``RewardClient.score``."""
        return await self._drive(self._exchange.score(request, idempotency_key, timeout_s))

    async def cancel(self, job_id: str) -> Job:
        """See ``RewardClient.cancel``."""
        return await self._drive(self._exchange.ask(post(f"/jobs/{job_id}/cancel"), Job))

    async def ack(self, job_id: str) -> Job:
        """See ``RewardClient.ack``."""
        return await self._drive(self._exchange.ask(post(f"/jobs/{job_id}/ack"), Job))

    async def put_image(self, data: bytes) -> StoredImage:
        """See ``RewardClient.put_image``."""
        return await self._drive(self._exchange.put_image(data))

    async def info(self) -> Info:
        """See ``RewardClient.info``."""
        return await self._drive(self._exchange.ask(get("/info"), Info))

    async def run_stats(self, run_id: str) -> RunStats:
        """See ``RewardClient.run_stats``."""
        return await self._drive(self._exchange.ask(get(f"/runs/{run_id}/stats"), RunStats))

    async def healthz(self) -> Health:
        """See ``RewardClient.healthz``."""
        return await self._drive(self._exchange.ask(get("/healthz"), Health))

    async def readyz(self) -> Health:
        """See ``RewardClient.readyz``."""
        return await self._drive(self._exchange.ask(get("/readyz"), Health))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _drive(self, steps: Steps[T]) -> T:
        answer: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = None
            if isinstance(step, Pause):
                await self._sleep(step.seconds)
                continue
            try:
                answer = await self._http.request(step.method, step.path, **arguments(step))
            except httpx.TransportError as error:
                answer = error
