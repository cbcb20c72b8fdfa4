"""Delivers webhooks: takes messages from the outbox, signs and sends them, notes how it went.

Holds nothing that matters: a message is in the database until its endpoint has it, and every server
on that database may send it. An endpoint that hangs keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx
import structlog

from reward_server import __version__
from reward_server.metrics import Metrics
from reward_server.store import outbox
from reward_server.store.outbox import Message
from shared.exchange import is_loopback
from shared.webhooks import ID, SIGNATURE, TIMESTAMP, signature

log = structlog.get_logger()

ATTEMPT_S: Final = 15.0
AT_ONCE: Final = 8
"""Messages one endpoint is sent at the same time."""

Transaction = Callable[..., Awaitable[Any]]


class Courier:
    """The webhooks of one server; ``read`` and ``write`` run a store function off the loop."""

    def __init__(
        self, read: Transaction, write: Transaction, clock: Callable[[], float], metrics: Metrics
    ) -> None:
        self._read = read
        self._write = write
        self._clock = clock
        self._metrics = metrics
        self._rounds: dict[str, asyncio.Task[None]] = {}

    async def deliver(self) -> None:
        """See that every endpoint with due messages is being served; returns before they are."""
        over = [name for name, task in self._rounds.items() if task.done()]
        ended = [self._rounds.pop(name) for name in over]
        for name in await self._read(outbox.due, self._clock()):
            if name not in self._rounds:
                self._rounds[name] = asyncio.create_task(self._serve(name))
        for task in ended:
            task.result()  # a database that was away is the server's to log

    async def stop(self) -> None:
        """Stop sending; whatever was on its way is sent again by whoever comes next."""
        for task in self._rounds.values():
            task.cancel()
        await asyncio.gather(*self._rounds.values(), return_exceptions=True)

    async def _serve(self, name: str) -> None:
        while messages := await self._write(outbox.take, name, self._clock(), AT_ONCE):
            proxies = not is_loopback(messages[0].url)
            # Redirects are not followed: a message goes to the address that was registered.
            async with httpx.AsyncClient(trust_env=proxies, timeout=ATTEMPT_S) as http:
                sent = await asyncio.gather(*(self._send(http, one) for one in messages))
            if not any(sent):
                return

    async def _send(self, http: httpx.AsyncClient, message: Message) -> bool:
        code, why = await self._post(http, message)
        if 200 <= code < 300:
            await self._write(outbox.delivered, message)
            self._metrics.webhook(message.name, "delivered")
            return True
        gone = code == httpx.codes.GONE
        given_up = await self._write(outbox.failed, message, self._clock(), gone=gone)
        self._metrics.webhook(message.name, "given_up" if given_up else "failed")
        say = log.error if given_up else log.warning
        say(
            "webhook_given_up" if given_up else "webhook_failed",
            webhook=message.name,
            message=message.id,
            attempt=message.attempts,
            why=why,
        )
        return False

    async def _post(self, http: httpx.AsyncClient, message: Message) -> tuple[int, str]:
        """Status of one attempt, 0 without an answer, and a word on it. The answer stays unread."""
        body, stamp = message.body.encode(), int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"reward-server/{__version__}",
            ID: message.id,
            TIMESTAMP: str(stamp),
            SIGNATURE: signature(message.secret, message.id, stamp, body),
        }
        try:
            async with asyncio.timeout(ATTEMPT_S):
                ask = http.stream("POST", message.url, content=body, headers=headers)
                async with ask as response:
                    return response.status_code, f"HTTP {response.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return 0, f"{type(error).__name__}: {error}"
