"""Around every request: an id, a log line, the body limit while streaming, safe headers.

Plain ASGI, so that streaming and disconnects keep working.
"""

from __future__ import annotations

import secrets
import time
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reward_server.api.problems import ApiError
from reward_server.metrics import Metrics
from shared.schema import MAX_BODY_BYTES

log = structlog.get_logger()

SMALL_BODY_BYTES: Final = 2**20
"""Limit of bodies that carry no images. They are parsed before it is known who sends them."""
WITH_IMAGES: Final = ("/score", "/images/", "/golds", "/flow-factory/")
"""How the paths of bodies with images begin; these routes look at who asks first."""
QUIET: Final = ("/healthz", "/readyz", "/metrics")
"""Asked by machines every few seconds: counted, but not logged."""


class RequestLog:
    """Gives every request an id (``X-Request-ID``), logs and counts how it ended."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = f"req_{secrets.token_hex(8)}"
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.answered(scope["method"], route, status, seconds)
            quiet = scope["path"] in QUIET
            log.log(
                10 if quiet else 20,
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                ms=round(1000 * seconds, 1),
                request_id=request_id,
            )


class BodyLimit:
    """Answers 413 to bodies beyond the limit: by their declared length, or while they stream in."""

    def __init__(self, app: ASGIApp, limit: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        images = scope["path"].startswith(WITH_IMAGES)
        limit = self.limit if images else min(self.limit, SMALL_BODY_BYTES)
        size = 0

        async def counted() -> Message:
            nonlocal size
            if declared.isdecimal() and int(declared) > limit:
                raise _too_large(declared, limit, images=images)
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                scope["state"]["body_bytes"] = size
                if size > limit:
                    raise _too_large(f"more than {limit}", limit, images=images)
            return message

        await self.app(scope, counted, send)


def _too_large(size: str, limit: int, *, images: bool) -> ApiError:
    advice = "split it into several requests"
    if images:
        advice = "send fewer images per request, or store them first with PUT /images/sha256-<hex>"
    return ApiError(413, f"the body has {size} bytes, the limit here is {limit}; {advice}")
