"""Large answers: made in a file first, then sent.

A client that reads slowly, or not at all, holds neither a database connection nor a snapshot.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from typing import IO, Final

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Send

from reward_server.api.problems import ApiError
from reward_server.service import Service, TooManyExports

log = structlog.get_logger()

CHUNK: Final = 1 << 16
STALLED_S: Final = 60.0
"""Seconds a client may take for one chunk before the connection is given up."""


async def spooled(
    service: Service, body: Callable[[], Iterator[bytes]], media_type: str, filename: str
) -> StreamingResponse:
    """``body()`` as a download; few are made at once, and more than a few do not wait.

    Raises:
        ApiError: 503, the server makes as many exports as it can, or shuts down.
    """
    try:
        file = await service.export(_written, service, body)
    except TooManyExports as error:
        raise ApiError(503, str(error), retry_after=10) from None
    size = file.seek(0, 2)
    file.seek(0)
    headers = {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Length": str(size),
    }
    return _Download(_chunks(service, file), media_type=media_type, headers=headers)


def _written(service: Service, body: Callable[[], Iterator[bytes]]) -> IO[bytes]:
    # Closed by who sends it.
    file = tempfile.TemporaryFile(dir=service.settings.data)  # noqa: SIM115
    try:
        for chunk in body():
            if service.hub.closing:
                raise ApiError(503, "the server is shutting down; try again", retry_after=10)
            file.write(chunk)
    except BaseException:
        file.close()
        raise
    return file


async def _chunks(service: Service, file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := await service.run(file.read, CHUNK):
            yield chunk


class _Download(StreamingResponse):
    async def stream_response(self, send: Send) -> None:
        """As Starlette's, with a deadline for each chunk."""
        try:
            await super().stream_response(_hurried(send))
        except TimeoutError:
            log.warning("download_stalled", seconds=STALLED_S)


def _hurried(send: Send) -> Send:
    async def sending(message: dict[str, object]) -> None:
        await asyncio.wait_for(send(message), STALLED_S)

    return sending  # type: ignore[return-value]
